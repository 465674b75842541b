"""Stage `diagnose`: false positives by type and the sensitivity to object characteristics, after Hoiem, Chodpathumwan
and Dai, "Diagnosing Error in Object Detectors" (ECCV 2012), as in R-CNN's figures 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import setting

SIMILAR = (
    ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    ("bird", "cat", "cow", "dog", "horse", "person", "sheep"),
    ("chair", "diningtable", "sofa"),
    ("aeroplane", "bird"),
)
"""Hoiem et al. (detectionAnalysisScript.m): all vehicles; all animals including person; furniture; what flies."""


@dataclass(frozen=True)
class Settings:
    """How detections are matched, when a false positive is poorly localised, and which classes are similar."""

    iou: float = setting(
        0.5, "The minimum IoU at which a detection matches an object.", above=0, at_most=1, source="VOC devkit"
    )
    poor_iou: float = setting(
        0.1,
        "A false positive with at least this IoU with an object of its class counts as poorly localised.",
        above=0,
        at_most=1,
        source="Hoiem et al.",
    )
    similar: tuple[tuple[str, ...], ...] = setting(
        SIMILAR,
        "Sets of easily confused classes; a class may be in several.",
        distinct=True,
        source="Hoiem et al.",
    )
    objects_per_image: float | None = setting(
        None,
        "Normalised AP assumes this many objects per image for every class; none: the mean over the classes.",
        above=0,
        source="ours; Hoiem et al. take 0.15, about VOC 2007's mean",
    )


STAGE = Stage(
    name="diagnose",
    summary="Analyse false positives by type, and which objects are missed.",
    schema_version=1,
    settings=Settings,
    makes="diagnosis",
    inputs=(
        Input("images", kinds=("dataset",)),
        Input("detections", kinds=("detections",), default=("detect",)),
    ),
    module="stages.diagnose.stage",
    split="test",
    part_size=64,
)
