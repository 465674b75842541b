"""Checking, from settings alone, that a layer will be among the features."""

from __future__ import annotations

from typing import Any

from stages.contract.errors import BadSetting
from stages.networks import PlannedNetwork


def check_layer(place: str, layer: str, network: PlannedNetwork, features: Any) -> None:
    """Raises BadSetting, its message starting with `place`, if the network has no such `layer` or the extract settings
    `features` do not keep it."""
    try:
        network.card.check_layers([layer])
    except BadSetting as error:
        raise BadSetting(f"{place} '{layer}': {error}") from None
    if layer not in features.layers:
        kept = ", ".join(features.layers)
        raise BadSetting(
            f"{place} '{layer}' is not among the extracted layers ({kept}); add it there or choose another"
        )
