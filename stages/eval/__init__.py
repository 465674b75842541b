"""eval: average precision of each class and their mean, after the PASCAL VOC devkit.

Both measures are always computed: the 11-point one of VOC 2007, which the papers report on it, and the area under the
precision-recall curve of VOC 2010 and later. COCO's measures and bootstrap intervals are added where asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import setting


@dataclass(frozen=True)
class Settings:
    """What counts as found, which measure is the headline, and what is measured besides."""

    iou: float = setting(
        0.5, "The least IoU with an object at which a detection has found it.", above=0, at_most=1, source="VOC devkit"
    )
    metric: str = setting(
        "voc07",
        "The headline: AP at VOC 2007's 11 points of recall, or the area under the precision-recall curve (VOC 2010 "
        "and later). Both are always computed.",
        choices=("voc07", "area"),
        source="R-CNN section 3",
    )
    use_difficult: bool = setting(
        False,
        "Whether objects marked difficult count as others do; else they count neither as missed nor as found.",
        source="VOC devkit",
    )
    coco: bool = setting(
        False, "Whether COCO's twelve measures are computed too, by pycocotools.", later=True, source="COCO"
    )
    bootstrap: int = setting(
        0,
        "Resamples of the images that confidence intervals are computed from, 1000 for example; 0: no intervals.",
        at_least=0,
        later=True,
        source="ours",
    )
    bootstrap_seed: int = setting(0, "Seed of the resamples.", at_least=0, later=True, source="ours")


STAGE = Stage(
    name="eval",
    summary="Average precision of each class, and mAP.",
    schema_version=1,
    settings=Settings,
    makes="evaluation",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("detections", kinds=("detections",), default=("detect",)),
    ),
    module="stages.eval.stage",
    split="test",
    part_size=64,
)
