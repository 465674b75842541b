"""Whether the layers that a recipe freezes are the network's, before anything runs."""

from __future__ import annotations

from stages.contract.errors import BadSetting
from stages.networks import NetworkCard
from stages.networks.architectures import empty_module
from stages.training.parameters import freeze
from stages.training.settings import WholeImageTraining


def check_frozen(settings: WholeImageTraining, card: NetworkCard) -> None:
    """Raises BadSetting for layers in `frozen` that the network `card` does not have, and if all of its weights are."""
    module = empty_module(card, classes=2).requires_grad_(True)
    freeze(module, settings.frozen_parts(card), "frozen")
    if not any(weight.requires_grad for weight in module.parameters()):
        raise BadSetting("frozen names all layers, so that nothing is trained; leave some out")
