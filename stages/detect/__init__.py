"""detect: scores every proposal for every class, moves the best, and suppresses what overlaps.

R-CNN section 2.2 and Appendix C; the order of operations is that of the authors' rcnn_test.m and imdb_eval_voc.m: per
class the 100 best proposals of an image, box regression applied once to those, clipping to the image, greedy
non-maximum suppression at IoU 0.3, scores unchanged. The caps, R-CNN's of 40 per class and image over the whole test
set and Faster R-CNN's of 100 per image, are explained in `stages.detections.cap`. Scores are those of the SVMs, or the
fine-tuned network's own (Appendix B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import check_layer
from stages.networks import SOFTMAX, PlannedNetwork


@dataclass(frozen=True)
class Score:
    """What the scores of detections are called, and the least that is drawn where no evaluation says more."""

    name: str
    least: float


SCORES = {"svm": Score("SVM margin", 0.0), "softmax": Score("softmax probability", 0.5)}
"""By the setting `score`."""


@dataclass(frozen=True)
class Settings:
    """How proposals become detections."""

    cap: str = setting(
        "set",
        "How many detections are kept: of each class a number over the whole dataset, or of all classes a number in "
        "each image.",
        choices=("set", "image"),
        later=True,
        source="rcnn_test.m; image: py-faster-rcnn, lib/fast_rcnn/test.py",
    )
    max_per_image: int = setting(
        100,
        "The most candidates of a class in an image, the best-scored, before suppression.",
        at_least=1,
        only_with=("cap", "set"),
        source="rcnn_test.m",
    )
    average_per_image: int = setting(
        40,
        "Over the whole dataset a class keeps at most this many candidates times the number of images.",
        at_least=1,
        only_with=("cap", "set"),
        source="rcnn_test.m",
    )
    least_score: float = setting(
        0.05,
        "Only proposals that score more than this in a class are its candidates.",
        only_with=("cap", "image"),
        later=True,
        source="py-faster-rcnn, lib/fast_rcnn/test.py",
    )
    all_classes_at_most: int = setting(
        100,
        "After suppression an image keeps this many detections, the best-scored of all classes.",
        at_least=1,
        only_with=("cap", "image"),
        later=True,
        source="py-faster-rcnn, lib/fast_rcnn/test.py",
    )
    suppression: str = setting(
        "nms",
        "What becomes of overlapping candidates: nms keeps the best-scored (greedy non-maximum suppression).",
        choices=("nms",),
        later=True,
        source="R-CNN section 2.2",
    )
    nms_iou: float = setting(
        0.3,
        "Suppression: a detection that overlaps a better one of its class by more than this IoU is dropped.",
        at_least=0,
        at_most=1,
        only_with=("suppression", "nms"),
        source="R-CNN section 2.2 and imdb_eval_voc.m",
    )
    bbox_regression: bool = setting(
        True,
        "Whether boxes are moved by the regressors, where the recipe has some.",
        source="R-CNN section 3.5 and Appendix C",
    )
    score: str = setting(
        "svm",
        "What scores a region: the SVMs, or the fine-tuned network's own softmax (3.3 points worse in the paper).",
        choices=tuple(SCORES),
        later=True,
        source="R-CNN section 2.2; Appendix B",
    )


NO_PROBABILITIES = (
    "score = 'softmax' needs the features of a network that was trained with a class for the background; "
    "add a table [finetune] to the recipe, or set score = 'svm'"
)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting where the features lack a layer that scores or moves proposals, or the softmax has no class for
    the background."""
    if settings.score == "softmax":
        if not network.trained:
            raise BadSetting(NO_PROBABILITIES)
        check_layer("score = 'softmax': its layer", SOFTMAX, network, sources["features"])
    else:
        check_layer("the SVMs' layer", sources["svm"].layer, network, sources["features"])
    if settings.bbox_regression and "regressor" in sources:
        check_layer("the box regressors' layer", sources["regressor"].layer, network, sources["features"])


STAGE = Stage(
    name="detect",
    summary="Score, regress and suppress the proposals of every image.",
    schema_version=1,
    settings=Settings,
    makes="detections",
    inputs=(
        Input("features", kinds=("features",), default=("extract",), once=True),
        Input("svm", kinds=("svm",), default=("train-svm",), only_if=("score", "svm")),
        Input("regressor", kinds=("regressor",), default=("train-bbox",), optional=True),
    ),
    module="stages.detect.stage",
    follows_split=True,
    part_size=16,
    by_item=True,
    check=check,
)
