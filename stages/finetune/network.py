"""The network to be trained on: a new classifier in the place of the old one, and how fast each weight learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stages.contract.errors import BadSetting
from stages.finetune import Settings
from stages.networks import NetworkCard

Classifier = nn.Linear | nn.Conv2d
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def classifier_name(card: NetworkCard, module: nn.Module) -> str:
    """Which part of the module computes the class scores: its last linear layer or convolution. Raises BadSetting."""
    layers = [name for name, part in module.named_modules() if isinstance(part, Classifier)]
    if card.scores_layer is None or not layers:
        names = ", ".join(card.feature_layers())
        raise BadSetting(
            f"finetune: {card.name} has no layer of class scores to be replaced (its layers are {names}); "
            "name a classification network as network.name"
        )
    return layers[-1]


def replace_classifier(module: nn.Module, name: str, classes: int, std: float, bias: float = 0.0) -> None:
    """Puts a layer of `classes` outputs, weights drawn from N(0, `std`) and all biases `bias`, in the place of `name`.

    R-CNN section 2.3. The numbers come from PyTorch's own generator.
    """
    old = module.get_submodule(name)
    new: Classifier
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, classes)
    else:
        assert isinstance(old, nn.Conv2d)
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size, old.stride, old.padding)  # type: ignore[arg-type]
    nn.init.normal_(new.weight, 0.0, std)
    assert new.bias is not None
    nn.init.constant_(new.bias, bias)
    module.set_submodule(name, new)


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


def parameter_groups(module: nn.Module, classifier: str, settings: Settings) -> list[dict[str, Any]]:
    """Groups for SGD: weights and biases of the old layers and of the new one.

    `rate` is what the learning rate is multiplied by; biases do not decay (release, train.prototxt: blobs_lr,
    weight_decay).
    """
    groups: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, weight in module.named_parameters():
        groups.setdefault((name.startswith(f"{classifier}."), name.endswith("bias")), []).append(weight)
    return [
        {
            "params": weights,
            "rate": (settings.new_layer_rate if new else 1.0) * (settings.bias_rate if bias else 1.0),
            "weight_decay": 0.0 if bias else settings.weight_decay,
        }
        for (new, bias), weights in groups.items()
    ]


def learning_rate(settings: Settings, iteration: int) -> float:
    """The rate of an iteration, counted from 1: a tenth after each `step` of them."""
    return settings.learning_rate * 0.1 ** ((iteration - 1) // settings.step)
