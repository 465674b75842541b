"""The network to be trained on: a new classifier in the place of the old one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stages.contract.errors import BadSetting
from stages.networks import NetworkCard
from stages.networks.architectures import empty_module
from stages.training.parameters import freeze

Classifier = nn.Linear | nn.Conv2d


def classifier_name(card: NetworkCard, module: nn.Module) -> str:
    """Which part of the module computes the class scores: its last linear layer or convolution. Raises BadSetting."""
    card.check_classifier()
    return [name for name, part in module.named_modules() if isinstance(part, Classifier)][-1]


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


def freeze_parts(module: nn.Module, classifier: str, frozen: Sequence[str], option: str) -> None:
    """Fixes the weights of the parts `frozen`. Raises BadSetting, naming `option`, if the module has no such part or
    one holds the new layer, `classifier`."""
    for part in frozen:
        if f"{classifier}.".startswith(f"{part}."):
            raise BadSetting(f"{option}: '{part}' has the new layer of class scores, which must learn; leave it out")
    freeze(module, frozen, option)


def check_frozen(card: NetworkCard, frozen: Sequence[str]) -> None:
    """As `freeze_parts`, on a network without memory for its weights."""
    module = empty_module(card, classes=1)
    freeze_parts(module, classifier_name(card, module), frozen, "frozen")
