"""Learning rates that fall tenfold at certain steps; steps are counted from 1."""

from __future__ import annotations

from collections.abc import Sequence


def tenth_every(rate: float, period: int, step: int) -> float:
    """The rate of `step` where it falls to a tenth after each `period` steps (Caffe's "step" policy, gamma 0.1)."""
    return rate * 0.1 ** ((step - 1) // period)


def tenth_after(rate: float, last_steps: Sequence[float], step: int) -> float:
    """The rate of `step` where it falls to a tenth after each of `last_steps` (Caffe's "multistep" policy)."""
    return rate * 0.1 ** sum(step > last for last in last_steps)
