"""Learning rate schedules: pure functions of the step; steps are counted from 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from stages.training.settings import ONE_CYCLE


def tenth_every(rate: float, period: int, step: int) -> float:
    """The learning rate at `step`, divided by 10 after every `period` steps (Caffe's "step" policy, gamma 0.1)."""
    return rate * 0.1 ** ((step - 1) // period)


def tenth_after(rate: float, last_steps: Sequence[float], step: int) -> float:
    """The learning rate at `step`, divided by 10 after each of `last_steps` (Caffe's "multistep" policy)."""
    return falling_after(rate, 0.1, last_steps, step)


def falling_after(rate: float, factor: float, last_steps: Sequence[float], step: int) -> float:
    """The learning rate at `step`, multiplied by `factor` after each of `last_steps`."""
    return rate * factor ** sum(step > last for last in last_steps)


def one_cycle(rate: float, steps: int, warm_up: int, step: int) -> float:
    """The learning rate at `step` of `steps`: it rises linearly to `rate` at the step `warm_up`, then falls along half
    a cosine that would reach 0 one step after the last.

    Smith and Topin, arXiv 1708.07120, with the cosine of Loshchilov and Hutter, arXiv 1608.03983, for the descent.
    """
    if step <= warm_up:
        return rate * step / warm_up
    return rate * (1 + math.cos(math.pi * (step - warm_up) / (steps + 1 - warm_up))) / 2


def schedule_of(method: str, rate: float, steps: int, period: int, warm_up: int) -> Callable[[int], float]:
    """The learning rate as a function of the step, of a training of `steps`: `one_cycle`, or `tenth_every` of `period`
    with a warm-up."""
    if method == ONE_CYCLE:
        return partial(one_cycle, rate, steps, warm_up)
    return warmed_up(partial(tenth_every, rate, period), warm_up)


def warmed_up(schedule: Callable[[int], float], warm_up: int) -> Callable[[int], float]:
    """`schedule` with its first `warm_up` steps scaled by 1/`warm_up`, 2/`warm_up`, ..., 1; 0 leaves it as it is."""

    def rate(step: int) -> float:
        return schedule(step) * (min(1.0, step / warm_up) if warm_up else 1.0)

    return rate
