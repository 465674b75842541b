"""Stage `eval`: average precision per class and its mean, following the PASCAL VOC devkit.

Both measures are always computed: the 11-point AP of VOC 2007, which the papers report, and the area under the
precision-recall curve of VOC 2010 and later. COCO metrics, ILSVRC's localisation error and bootstrap intervals are
computed on request.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import setting


@dataclass(frozen=True)
class Settings:
    """How detections are matched, which measure is the headline, and what else is measured."""

    iou: float = setting(
        0.5, "The minimum IoU at which a detection matches an object.", above=0, at_most=1, source="VOC devkit"
    )
    metric: str = setting(
        "voc07",
        "The headline measure: VOC 2007's 11-point AP, or the area under the precision-recall curve (VOC 2010 on). "
        "Both are always computed.",
        choices=("voc07", "area"),
        source="R-CNN section 3",
    )
    use_difficult: bool = setting(
        False,
        "Whether objects marked difficult count like any other; if not, they count neither as missed nor as found.",
        source="VOC devkit",
    )
    coco: bool = setting(
        False, "Whether to compute COCO's twelve metrics too, with pycocotools.", later=True, source="COCO"
    )
    localisation: bool = setting(
        False,
        "Whether to compute ILSVRC's localisation error too: five guesses of a class and a box for each image.",
        later=True,
        source="OverFeat section 2",
    )
    bootstrap: int = setting(
        0,
        "Bootstrap resamples of the images for confidence intervals, such as 1000; 0: no intervals.",
        at_least=0,
        later=True,
        source="ours",
    )
    bootstrap_seed: int = setting(0, "Seed for the resamples.", at_least=0, later=True, source="ours")
    confusion_threshold: float | None = setting(
        None,
        "The score from which detections are in the confusion matrix, the same for all classes; none: for each class "
        "that of its best F1.",
        identity=False,
        source="ours; 0.25 in ultralytics",
    )


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
