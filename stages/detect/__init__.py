"""detect: scores every proposal for every class, moves the best, and suppresses what overlaps.

R-CNN section 2.2 and Appendix C; the order of operations is that of the authors' rcnn_test.m and imdb_eval_voc.m: per
class the 100 best proposals of an image, box regression applied once to those, clipping to the image, greedy
non-maximum suppression at IoU 0.3, scores unchanged. The cap of 40 a class and image over the whole test set is
explained in `stages.detections`. Scores are those of the SVMs, or the fine-tuned network's own (Appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import setting


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

    max_per_image: int = setting(
        100,
        "The most candidates of a class in an image, the best-scored, before suppression.",
        at_least=1,
        source="rcnn_test.m",
    )
    average_per_image: int = setting(
        40,
        "Over the whole dataset a class keeps at most this many candidates times the number of images.",
        at_least=1,
        source="rcnn_test.m",
    )
    nms_iou: float = setting(
        0.3,
        "Suppression: a detection that overlaps a better one of its class by more than this IoU is dropped.",
        at_least=0,
        at_most=1,
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


STAGE = Stage(
    name="detect",
    summary="Score, regress and suppress the proposals of every image.",
    schema_version=1,
    settings=Settings,
    makes="detections",
    inputs=(
        Input("features", kind="features", default=("extract",), once=True),
        Input("svm", kind="svm", default=("train-svm",), only_if=("score", "svm")),
        Input("regressor", kind="regressor", default=("train-bbox",), optional=True),
    ),
    module="stages.detect.stage",
    follows_split=True,
    part_size=16,
    by_item=True,
)
