"""Stage `detect`: scoring every proposal for every class, regressing the best boxes and suppressing overlapping ones.

R-CNN section 2.2 and Appendix C. The order of operations is that of the authors' rcnn_test.m and imdb_eval_voc.m: take
the 100 best proposals per class and image, apply box regression to them once, clip them to the image, then greedy
non-maximum suppression at IoU 0.3; scores stay unchanged. OverFeat's merge (arXiv 1312.6229, section 4.3) may take the
place of suppression. `stages.detections.cap` explains the two caps: R-CNN's of 40 per class and image, averaged over
the test set, and Faster R-CNN's of 100 per image. Scores are the SVMs' or the fine-tuned network's own (Appendix B);
boxes are refined by ridge regression or by the network itself: the deltas of Fast R-CNN (arXiv 1504.08083, section
2.3), the edges of OverFeat (section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import check_layer
from stages.networks import DELTAS, EDGES, SOFTMAX, PlannedNetwork


@dataclass(frozen=True)
class Score:
    """What detection scores are called, the lowest score drawn when there is no evaluation to choose it, and whether
    scores are meant as probabilities that the detection is right."""

    name: str
    least: float
    probability: bool = False


SCORES = {"svm": Score("SVM margin", 0.0), "softmax": Score("softmax probability", 0.5, probability=True)}
"""Of a proposal, by the setting `score`."""

SUM = Score("summed softmax probability", 1.0)
"""Of a box merged from several."""

NMS, MERGE = "nms", "merge"
SUMMED, BEST = "sum", "best"

RIDGE, OF_NETWORK = "ridge", "network"


@dataclass(frozen=True)
class Settings:
    """How proposals become detections."""

    cap: str = setting(
        "set",
        "What limits the number of detections. set: a limit per class over the whole dataset; image: a limit per image "
        "over all classes.",
        choices=("set", "image"),
        later=True,
        source="rcnn_test.m; image: py-faster-rcnn, lib/fast_rcnn/test.py",
    )
    max_per_image: int = setting(
        100,
        "Maximum number of candidates per class and image before suppression, the highest-scoring ones.",
        at_least=1,
        only_with=("cap", "set"),
        source="rcnn_test.m",
    )
    average_per_image: int = setting(
        40,
        "Each class keeps at most this many candidates per image, averaged over the whole dataset.",
        at_least=1,
        only_with=("cap", "set"),
        source="rcnn_test.m",
    )
    max_per_class: int = setting(
        0,
        "Each class keeps at most this many over the whole dataset; 0: average_per_image decides.",
        at_least=0,
        later=True,
        source="release, branch for ILSVRC: 30,000",
    )
    suppress_first: bool = setting(
        False,
        "Whether the max_per_image best of a class in an image are chosen after suppression, rather than before it.",
        later=True,
        source="release, branch for ILSVRC",
    )
    least_candidate_score: float = setting(
        -1.5,
        "With suppress_first, only proposals that score above this for a class are its candidates.",
        only_with=("suppress_first", True),
        later=True,
        source="release, branch for ILSVRC",
    )
    least_score: float = setting(
        0.05,
        "Only proposals that score above this for a class are its candidates.",
        only_with=("cap", "image"),
        later=True,
        source="py-faster-rcnn, lib/fast_rcnn/test.py",
    )
    all_classes_at_most: int = setting(
        100,
        "Maximum number of detections per image after suppression, the highest-scoring ones of all classes.",
        at_least=1,
        only_with=("cap", "image"),
        later=True,
        source="py-faster-rcnn, lib/fast_rcnn/test.py",
    )
    suppression: str = setting(
        NMS,
        "What becomes of overlapping candidates of a class. nms: greedy non-maximum suppression, highest score first; "
        "merge: the two that match best are replaced by their average, again and again.",
        choices=(NMS, MERGE),
        later=True,
        source="R-CNN section 2.2; merge: OverFeat section 4.3",
    )
    nms_iou: float = setting(
        0.3,
        "A candidate whose IoU with a higher-scoring one of its class is greater than this is suppressed.",
        at_least=0,
        at_most=1,
        only_with=("suppression", "nms"),
        source="R-CNN section 2.2 and imdb_eval_voc.m",
    )
    class_agnostic: bool = setting(
        False,
        "Whether a candidate is suppressed by a higher-scoring one of any class, rather than of its own: at most one "
        "class is then detected in a place. For suppression = 'nms'; the cap counts what is left.",
        later=True,
        source="not in the papers; torchvision.ops.nms, where py-faster-rcnn suppresses class by class",
    )
    merge_threshold: float = setting(
        0.5,
        "Boxes are merged until no two of a class have a match score of this or less; the paper gives no value.",
        at_least=0,
        at_most=1e9,
        only_with=("suppression", MERGE),
        later=True,
        source="OverFeat section 4.3, step f",
    )
    match_score: str = setting(
        "normalised",
        "How badly two boxes match. normalised: the distance of their centres in units of their size, plus 1 - IoU; "
        "printed: that distance plus the area of their intersection, both in pixels, as the paper has it.",
        choices=("normalised", "printed"),
        only_with=("suppression", MERGE),
        later=True,
        source="OverFeat section 4.3",
    )
    merge_weights: str = setting(
        "windows",
        "How two boxes are averaged. windows: each counts as often as there are candidates in it; plain: both count "
        "the same.",
        choices=("windows", "plain"),
        only_with=("suppression", MERGE),
        later=True,
        source="OverFeat section 4.3",
    )
    merge_scores: str = setting(
        SUMMED,
        "The score of merged boxes. sum: all their scores added, which needs score = 'softmax'; best: the highest of "
        "them.",
        choices=(SUMMED, BEST),
        only_with=("suppression", MERGE),
        later=True,
        source="OverFeat section 4.3",
    )
    classes_per_scale: int = setting(
        0,
        "At each scale, only the windows of this many classes compete, those that score highest anywhere in the image "
        "at that scale; needs features extracted with method = 'dense'. 0: of all classes; the paper gives no value.",
        at_least=0,
        only_with=("suppression", MERGE),
        later=True,
        source="OverFeat section 4.3, step a",
    )
    bbox_regression: bool = setting(
        True,
        "Whether boxes are refined by the box regressors, if the recipe has any, or by the network.",
        source="R-CNN section 3.5 and Appendix C",
    )
    regression: str = setting(
        RIDGE,
        "What refines boxes. ridge: the box regressors; network: what the network predicts and is among the features, "
        "the deltas of each class if it was trained as Fast R-CNN, the edges if it was trained as OverFeat.",
        choices=(RIDGE, OF_NETWORK),
        later=True,
        source="R-CNN Appendix C; network: Fast R-CNN section 2.3, OverFeat section 4.2",
    )
    score: str = setting(
        "svm",
        "What scores the proposals: the SVMs, or the fine-tuned network's own softmax (3.3 points lower in the paper).",
        choices=tuple(SCORES),
        later=True,
        source="R-CNN section 2.2; Appendix B",
    )
    classes: tuple[str, ...] = setting(
        (),
        "The classes to detect, in this order; the others are dropped before any limit on the number of detections, "
        "and the softmax is over these and the background. NAME, or OWN:NAME to call the detector's class OWN by "
        "another name; VOC's and COCO's names for the same class are known. Empty: all of the detector's.",
        distinct=True,
        later=True,
        source="Faster R-CNN section 4.2",
    )

    def __post_init__(self) -> None:
        for entry in self.classes:
            if not entry or entry[0] == ":" or entry[-1] == ":":
                raise BadSetting(
                    f"classes = '{entry}' must be the name of a class, or two names, such as 'airplane:aeroplane'"
                )
        if self.cap != "set" and (self.max_per_class or self.suppress_first):
            raise BadSetting(
                "max_per_class and suppress_first are for a cap over the whole set; set cap = 'set', or leave them out"
            )
        if self.suppression == MERGE and self.suppress_first:
            raise BadSetting(
                "suppress_first = true is for suppression = 'nms'; boxes that are merged are counted afterwards anyway"
            )
        if self.suppression == MERGE and self.class_agnostic:
            raise BadSetting(
                "class_agnostic = true is for suppression = 'nms'; boxes of different classes are not merged: leave it "
                "out, or set suppression = 'nms'"
            )
        if self.regression == OF_NETWORK and not self.bbox_regression:
            raise BadSetting(
                "regression = 'network' refines boxes, which bbox_regression = false turns off; leave one of them out"
            )
        if self.suppression == MERGE and self.merge_scores == SUMMED and self.score == "svm":
            raise BadSetting(
                "suppression = 'merge' adds the scores of the boxes that it merges, and SVM margins, most of them "
                "negative, cannot be added; set merge_scores = 'best', or score = 'softmax'"
            )


def score_of(settings: Settings) -> Score:
    """What the scores of the detections are."""
    summed = settings.suppression == MERGE and settings.merge_scores == SUMMED
    return SUM if summed else SCORES[settings.score]


NO_PROBABILITIES = (
    "score = 'softmax' needs the features of a network that was trained with a background class; "
    "add a [finetune] table to the recipe, or set score = 'svm'"
)

NO_DELTAS = (
    "regression = 'network' needs the features of a network that predicts box deltas or edges; "
    "name its table as the network of extract, or set regression = 'ridge'"
)

NO_SCALES = (
    "classes_per_scale needs features that say at which scale each window was found; "
    "set method = 'dense' for extract, or leave classes_per_scale out"
)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting if the features lack a layer that the scorer or the box regression needs, or scales that are
    asked for, if the softmax has no background class, or if the network predicts no deltas."""
    if settings.classes_per_scale and sources["features"].method != "dense":
        raise BadSetting(NO_SCALES)
    if settings.score == "softmax":
        if not network.trained:
            raise BadSetting(NO_PROBABILITIES)
        check_layer("score = 'softmax': its layer", SOFTMAX, network, sources["features"])
    else:
        check_layer("the SVMs' layer", sources["svm"].layer, network, sources["features"])
    if settings.regression == OF_NETWORK:
        layer = next((name for name in (DELTAS, EDGES) if name in network.card.layers), None)
        if layer is None:
            raise BadSetting(NO_DELTAS)
        check_layer("regression = 'network': its layer", layer, network, sources["features"])
    elif settings.bbox_regression and "regressor" in sources:
        check_layer("the box regressors' layer", sources["regressor"].layer, network, sources["features"])


STAGE = Stage(
    name="detect",
    summary="Score every proposal or window, apply box regression, and suppress or merge overlapping boxes.",
    schema_version=1,
    settings=Settings,
    makes="detections",
    inputs=(
        Input("features", kinds=("features",), default=("extract",), once=True),
        Input("svm", kinds=("svm",), default=("train-svm",), only_if=("score", "svm")),
        Input("regressor", kinds=("regressor",), default=("train-bbox",), optional=True, only_if=("regression", RIDGE)),
    ),
    module="stages.detect.stage",
    follows_split=True,
    part_size=16,
    by_item=True,
    check=check,
)
