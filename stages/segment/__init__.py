"""Stage `segment`: scores the regions of an image and pastes the best ones (R-CNN section 5, in the manner of O2P).

Regions are taken from the best score down to a threshold. It may be chosen on another split, as the one at which as
many segments are pasted there as there are objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import check_kept_masks
from stages.networks import PlannedNetwork


@dataclass(frozen=True)
class Settings:
    """How regions become a label for every pixel."""

    threshold: float | None = setting(
        None,
        "The lowest score of a segment, as predicted overlap; none: that of the calibration, or without one all "
        "regions are pasted.",
        source="ours; O2P chooses it on training data",
    )
    max_segments: int = setting(
        0,
        "How many segments an image has at most, the best ones; 0: as many as reach the threshold.",
        at_least=0,
        source="ours",
    )
    most_taken: float = setting(
        0.1,
        "A region is left out if more than this share of it is taken by better ones, and else pasted under them; 1: "
        "every region is pasted of which anything is left.",
        at_least=0,
        at_most=1,
        source="ours",
    )
    held_out: bool = setting(
        False,
        "Whether the images are those of train-svr, each to be scored by regressions that have not seen it.",
        source="ours",
    )


def check(settings: Settings, network: PlannedNetwork | None, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a threshold where there is a calibration, for a calibration that has a threshold, for
    images that are to be held out where there are no folds, and if the proposals have no masks."""
    check_kept_masks(sources["proposals"], "pasting")
    if settings.held_out and not sources["svr"].folds:
        raise BadSetting(
            "held_out = true, but its regressions have no folds, so all of them have seen the images; set "
            "train-svr.folds, or leave held_out out"
        )
    calibration = sources.get("calibration")
    if calibration is None:
        return
    if settings.threshold is not None:
        raise BadSetting(
            f"threshold = {settings.threshold:g}, but its inputs name a calibration, which chooses the threshold; "
            "leave out one of the two"
        )
    for name in ("max_segments", "most_taken"):
        if getattr(calibration, name) != getattr(settings, name):
            raise BadSetting(
                f"{name} = {getattr(settings, name):g}, but its calibration has {getattr(calibration, name):g}; use "
                "the same in both tables"
            )
    if calibration.threshold is not None:
        raise BadSetting(
            f"its calibration has threshold = {calibration.threshold:g} itself; leave that out, so that all regions "
            "are pasted there"
        )


STAGE = Stage(
    name="segment",
    summary="Label every pixel: score the regions and paste the best.",
    schema_version=1,
    settings=Settings,
    makes="segmentation",
    inputs=(
        Input("proposals", kinds=("proposals",), default=("propose",)),
        Input("features", kinds=("features",), default=("extract",), once=True),
        Input("more", kinds=("features",), optional=True, once=True),
        Input("svr", kinds=("svr",), default=("train-svr",)),
        Input("calibration", kinds=("segmentation",), optional=True, all_items=True),
    ),
    module="stages.segment.stage",
    follows_split=True,
    part_size=16,
    by_item=True,
    check=check,
    example="recipes/shapes-segmentation.toml",
)
