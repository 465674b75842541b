"""The network to be trained on: a new classifier in the place of the old one."""

from __future__ import annotations

from torch import nn

from stages.contract.errors import BadSetting
from stages.finetune import Settings
from stages.networks import NetworkCard

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


def check_classifier_learns(classifier: str, settings: Settings) -> None:
    """Raises BadSetting if the new layer, `classifier`, is one of those to be frozen, or within one."""
    for frozen in settings.frozen:
        if f"{classifier}.".startswith(f"{frozen}."):
            raise BadSetting(
                f"finetune.frozen: '{frozen}' has the new layer of class scores, which must learn; leave it out"
            )
