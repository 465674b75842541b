"""Which weights of a network learn, and how fast; which of its layers behave as in training."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from stages.contract.errors import BadSetting

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def freeze(module: nn.Module, layers: Collection[str], option: str) -> None:
    """Fixes the weights of `layers`, names of submodules. Raises BadSetting, naming `option`, for other names."""
    names = {name for name, part in module.named_modules() if name and any(True for _ in part.parameters())}
    for layer in layers:
        if layer not in names:
            raise BadSetting(f"{option}: the network has no weights in '{layer}'; it has {', '.join(sorted(names))}")
        module.get_submodule(layer).requires_grad_(False)


def parameter_groups(
    module: nn.Module, new: Collection[str], *, new_rate: float, bias_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimiser: weights and biases of the old layers and of those named `new`; frozen ones are left out.

    `rate` is what the learning rate is multiplied by: `new_rate` for new layers, times `bias_rate` for biases, which do
    not decay (R-CNN's release, train.prototxt: blobs_lr, weight_decay).
    """
    groups: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            is_new = any(name.startswith(f"{layer}.") for layer in new)
            groups.setdefault((is_new, name.endswith("bias")), []).append(weight)
    return [
        {
            "params": weights,
            "rate": (new_rate if is_new else 1.0) * (bias_rate if bias else 1.0),
            "weight_decay": 0.0 if bias else weight_decay,
        }
        for (is_new, bias), weights in groups.items()
    ]


def set_dropout(module: nn.Module, share: float) -> None:
    """Every dropout layer drops `share`."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = share


def training_mode(module: nn.Module) -> None:
    """Dropout on; batch normalisation keeps the statistics of the pre-training, which small batches would spoil."""
    module.train()
    for part in module.modules():
        if isinstance(part, NORMALISATIONS):
            part.eval()
