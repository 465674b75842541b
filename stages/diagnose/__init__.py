"""diagnose: what the false positives are and which objects are missed, after Hoiem, Chodpathumwan and Dai, "Diagnosing
Error in Object Detectors" (ECCV 2012), as in R-CNN's figures 5 and 6.
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
    """What counts as found, as nearly found, and as alike."""

    iou: float = setting(
        0.5, "The least IoU with an object at which a detection has found it.", above=0, at_most=1, source="VOC devkit"
    )
    poor_iou: float = setting(
        0.1,
        "A false detection that overlaps an object of its class by at least this IoU counts as poorly localised.",
        above=0,
        at_most=1,
        source="Hoiem et al.",
    )
    similar: tuple[tuple[str, ...], ...] = setting(
        SIMILAR, "Sets of classes that are easily confused; a class may be in several.", source="Hoiem et al."
    )
    objects_per_image: float | None = setting(
        None,
        "Normalised AP is computed as if every class had this many objects per image; none: the classes' mean.",
        above=0,
        source="ours; Hoiem et al. take 0.15, about VOC 2007's mean",
    )


STAGE = Stage(
    name="diagnose",
    summary="What the false positives are, and which objects are missed.",
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
