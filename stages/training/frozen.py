"""Whether the layers that a recipe freezes are the network's, whether its maps fit, and which trainings leave its trunk
as it is: before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import takewhile
from typing import Any

from stages.contract.errors import BadSetting
from stages.networks import NetworkCard, PlannedNetwork, PlannedTraining
from stages.networks.architectures import empty_module
from stages.training.parameters import freeze
from stages.training.settings import WholeImageTraining
from stages.training.validation_settings import check_validated
from stages.training.whole_images import check_maps_settings


def check_training(
    settings: WholeImageTraining, card: NetworkCard, new: Collection[str], sources: Mapping[str, Any]
) -> None:
    """Raises BadSetting for layers in `frozen` that the network to be trained, `card`, does not have, or that are `new`
    in it; for maps among the `sources`, settings by role, that do not fit; and for settings of a validation without a
    validation set."""
    check_validated(settings, sources)
    check_frozen(settings, card, new)
    if "maps" in sources:
        check_maps_settings(settings, sources["maps"])


def check_frozen(settings: WholeImageTraining, card: NetworkCard, new: Collection[str]) -> None:
    """Raises BadSetting for layers in `frozen` that the network `card` does not have, and for those among the `new`
    ones, which would keep their random weights."""
    module = empty_module(card, classes=2).requires_grad_(True)
    freeze(module, settings.frozen_parts(card), "frozen")
    for layer in new:
        if not all(weight.requires_grad for weight in module.get_submodule(layer).parameters()):
            raise BadSetting(
                f"frozen = {list(settings.frozen)} includes '{layer}', which is new in this training and would keep "
                "its random weights; leave it out"
            )


def trunk_differs(first: PlannedNetwork, second: PlannedNetwork) -> bool:
    """Whether two networks of a recipe are sure to have different trunks: those of different architectures, or where
    one of the trainings that are not common to both trains the trunk.

    False also where their weights decide, which are not known yet.
    """
    if first.card.name != second.card.name:
        return True
    pairs = zip(first.trainings, second.trainings, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return any(map(trains_trunk, (*first.trainings[common:], *second.trainings[common:])))


def trains_trunk(training: PlannedTraining) -> bool:
    """Whether a training changes weights of the network's trunk."""
    settings, card = training.settings, training.card
    if isinstance(settings, WholeImageTraining):
        if settings.trunk_is_frozen:
            return False
        frozen = settings.frozen_parts(card)
    else:
        frozen = getattr(settings, "frozen", ())
    module = empty_module(card, classes=2).requires_grad_(True)
    freeze(module, frozen, "frozen")
    return any(weight.requires_grad and card.trunk.owns(name) for name, weight in module.named_parameters())
