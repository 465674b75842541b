"""Checking, from settings alone, what the features will hold: a layer, and objects to train on."""

from __future__ import annotations

from typing import Any

from stages.contract.errors import BadSetting
from stages.networks import PlannedNetwork

ROLES = ("features", "more")
"""The inputs of a stage that concatenates the features in them (`JoinedFeatures`); the second is optional."""


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


def check_objects(features: Any) -> None:
    """Raises BadSetting if the extract settings `features` leave out the ground-truth boxes to train on, as those for
    dense windows do."""
    if features.method == "dense":
        raise BadSetting(
            "its features are those of dense windows, without the ground-truth boxes to train on; give it the features "
            "of proposals, from a table of extract with another method"
        )
    if features.objects == "none":
        raise BadSetting(
            "its features have no objects to train on (objects = 'none' in their table of extract); leave objects out "
            "there"
        )


def check_object_masks(features: Any) -> None:
    """Raises BadSetting if the extract settings `features` put objects first that have boxes and no masks."""
    if features.objects == "boxes":
        raise BadSetting(
            "its features begin with the annotated boxes, which have no masks; set objects = 'masks' in its table of "
            "extract, or 'none'"
        )


def check_kept_masks(proposals: Any, needed_by: str) -> None:
    """Raises BadSetting if the propose settings `proposals` keep no masks, which something (`needed_by`) needs."""
    if not proposals.keeps_masks:
        raise BadSetting(
            f"{needed_by} needs proposals with masks; set masks = true in their table (selective search), or method = "
            "'min-cut', or 'file' with a folder of masks"
        )
