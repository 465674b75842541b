"""diagnose: what the false positives are and which objects are missed, after Hoiem, Chodpathumwan and Dai, "Diagnosing
Error in Object Detectors" (ECCV 2012), as in R-CNN's figures 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.settings import setting
from stages.stage import Input, Stage

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

    iou: float = setting(0.5, above=0, at_most=1, source="VOC devkit: found at an IoU of at least 0.5")
    poor_iou: float = setting(
        0.1, above=0, at_most=1, source="Hoiem et al.: an IoU of 0.1 to 0.5 is a poor localisation"
    )
    similar: tuple[tuple[str, ...], ...] = setting(
        SIMILAR, source="Hoiem et al.: sets of similar classes; a class may be in several"
    )
    objects_per_image: float | None = setting(
        None,
        above=0,
        source="normalised AP as if every class had so many objects an image (Hoiem et al. 0.15, about the mean of VOC "
        "2007's classes); none: the mean of the classes",
    )


STAGE = Stage(
    name="diagnose",
    summary="What the false positives are, and which objects are missed.",
    schema_version=1,
    settings=Settings,
    makes="diagnosis",
    inputs=(
        Input("images", kind="dataset"),
        Input("detections", kind="detections", default=("detect",)),
    ),
    module="stages.diagnose.stage",
    split="test",
    part_size=64,
)
