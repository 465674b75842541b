"""eval: average precision of each class and their mean, after the PASCAL VOC devkit.

Both measures are always computed: the 11-point one of VOC 2007, which the papers report on it, and the area under the
precision-recall curve of VOC 2010 and later. COCO's measures and bootstrap intervals are added where asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.settings import setting
from stages.stage import Input, Stage


@dataclass(frozen=True)
class Settings:
    """What counts as found, which measure is the headline, and what is measured besides."""

    iou: float = setting(0.5, above=0, at_most=1, source="VOC devkit: found at an IoU of at least 0.5")
    metric: str = setting("voc07", choices=("voc07", "area"), source="R-CNN section 3: the 2007 test set, 11 points")
    use_difficult: bool = setting(False, source="VOC devkit: difficult objects count neither as missed nor as found")
    coco: bool = setting(False, later=True, source="COCO's twelve measures too, by pycocotools")
    bootstrap: int = setting(0, at_least=0, later=True, source="Resamples of the images for intervals, as 1000")
    bootstrap_seed: int = setting(0, at_least=0, later=True, source="Of those resamples")


STAGE = Stage(
    name="eval",
    summary="Average precision of each class, and mAP.",
    schema_version=1,
    settings=Settings,
    makes="evaluation",
    inputs=(
        Input("images", kind="dataset"),
        Input("detections", kind="detections", default=("detect",)),
    ),
    module="stages.eval.stage",
    split="test",
    part_size=64,
)
