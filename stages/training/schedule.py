"""Step-wise learning rate schedules; steps are counted from 1."""

from __future__ import annotations

from collections.abc import Sequence


def tenth_every(rate: float, period: int, step: int) -> float:
    """The learning rate at `step`, divided by 10 after every `period` steps (Caffe's "step" policy, gamma 0.1)."""
    return rate * 0.1 ** ((step - 1) // period)


def tenth_after(rate: float, last_steps: Sequence[float], step: int) -> float:
    """The learning rate at `step`, divided by 10 after each of `last_steps` (Caffe's "multistep" policy)."""
    return rate * 0.1 ** sum(step > last for last in last_steps)
