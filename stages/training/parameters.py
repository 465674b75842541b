"""Which of a network's weights are trained, at which learning rate, and which layers are in training mode."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from stages.contract.errors import BadSetting
from stages.networks.cards import lies_in

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def freeze(module: nn.Module, layers: Collection[str], option: str) -> None:
    """Freezes the weights of `layers`, names of submodules. Raises BadSetting, naming `option`, for unknown names."""
    names = {name for name, part in module.named_modules() if name and any(True for _ in part.parameters())}
    for layer in layers:
        if layer not in names:
            raise BadSetting(f"{option}: the network has no weights in '{layer}'; it has {', '.join(sorted(names))}")
        module.get_submodule(layer).requires_grad_(False)


def parameter_groups(
    module: nn.Module, new: Collection[str], *, new_rate: float, bias_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Optimiser groups for the weights and biases of the old layers and of those named `new`, without frozen ones.

    A group's `rate` multiplies the learning rate: `new_rate` for new layers, times `bias_rate` for biases, which are
    not decayed (R-CNN's release, train.prototxt: blobs_lr, weight_decay).
    """
    groups: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            is_new = lies_in(name, new)
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
    """Sets the dropout rate of every dropout layer to `share`."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = share


def training_mode(module: nn.Module) -> None:
    """Turns dropout on; batch normalisation keeps its pre-trained statistics, which small batches would spoil."""
    module.train()
    for part in module.modules():
        if isinstance(part, NORMALISATIONS):
            part.eval()
