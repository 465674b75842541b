"""Replacing the classification layer of a network to be fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stages.contract.errors import BadSetting
from stages.networks import NetworkCard
from stages.networks.architectures import Classifier, classifier_name, empty_module
from stages.training.parameters import freeze


def replace_classifier(module: nn.Module, name: str, classes: int, std: float, bias: float = 0.0) -> None:
    """Replaces the layer `name` by one with `classes` outputs, weights from N(0, `std`) and all biases `bias`.

    R-CNN section 2.3. Random numbers come from PyTorch's global generator.
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


def freeze_parts(module: nn.Module, classifier: str, frozen: Sequence[str], option: str) -> None:
    """Freezes the weights of the submodules `frozen`. Raises BadSetting, naming `option`, if the module has no such
    submodule or one contains the new layer, `classifier`."""
    for part in frozen:
        if f"{classifier}.".startswith(f"{part}."):
            raise BadSetting(
                f"{option}: '{part}' contains the new classification layer, which must be trained; leave it out"
            )
    freeze(module, frozen, option)


def check_frozen(card: NetworkCard, frozen: Sequence[str]) -> None:
    """As `freeze_parts`, on a network without memory for its weights."""
    module = empty_module(card, classes=1)
    freeze_parts(module, classifier_name(card, module), frozen, "frozen")
