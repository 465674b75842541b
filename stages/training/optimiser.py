"""Optimisers for the parameter groups of `stages.training.parameters`.

The training loop sets each group's learning rate before each step; the rate given here is a placeholder until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from stages.training.settings import ADAMW, SGD

OPTIMISERS = (SGD, ADAMW)


def make_optimiser(
    method: str, groups: Iterable[dict[str, Any]], *, learning_rate: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """The optimiser named `method`, one of OPTIMISERS, for `groups` with their own `weight_decay`.

    "sgd": stochastic gradient descent with `momentum`, as in Caffe, where the decay is part of the gradient. "adamw":
    Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), which takes a weight's
    share `rate * weight_decay` off at each step; betas 0.9 and 0.999, epsilon 1e-8, and no `momentum`.
    """
    if method == SGD:
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)
    if method == ADAMW:
        return torch.optim.AdamW(groups, lr=learning_rate)
    raise ValueError(f"method = {method!r} must be one of {', '.join(OPTIMISERS)}")
