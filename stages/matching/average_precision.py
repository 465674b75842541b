"""Average precision following the PASCAL VOC devkit (VOCevaldet.m; R-CNN's x10VOCevaldet.m and xVOCap.m).

One class at a time. Symbols: n detections and m objects (annotated boxes), over all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.detections import ClassDetections
from stages.matching.detections import match_devkit
from stages.matching.objects import ClassObjects

RECALL_LEVELS: NDArray[np.float64] = np.arange(0.0, 1.1, 0.1)
"""The eleven recall levels of VOC 2007.

They are NumPy's, as in py-faster-rcnn's voc_eval.py and in detectron2, so that results are bit-for-bit comparable: a
recall of exactly 3/10, 6/10 or 7/10 does not reach 0.30000000000000004, 0.6000000000000001 or 0.7000000000000001.
MATLAB's `0:0.1:1` has the same 0.3; at the other two the devkit may differ by one level in one class.
"""


@dataclass(frozen=True)
class Curve:
    """One class's precision-recall curve: one point per detection that counts, by descending score.

    `scores` float32, `recall` and `precision` float64, all [points]; `positives` is the number of objects to find,
    `detections` the number of all detections.
    """

    scores: NDArray[np.float32]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    positives: int
    detections: int

    @property
    def ap_11(self) -> float:
        """11-point average precision; nan if there is nothing to find."""
        return average_precision_11_point(self.recall, self.precision) if self.positives else float("nan")

    @property
    def ap_area(self) -> float:
        """Area under the curve; nan if there is nothing to find."""
        return average_precision_area(self.recall, self.precision) if self.positives else float("nan")


def precision_recall_curve(detections: ClassDetections, objects: ClassObjects, iou: float = 0.5) -> Curve:
    """The precision-recall curve of one class, matched at `iou` by the devkit's rules."""
    matches = match_devkit(detections, objects, iou)
    counted = matches.order[~matches.ignored[matches.order]]
    recall, precision = precision_recall(matches.found[counted], objects.positives)
    return Curve(detections.scores[counted], recall, precision, objects.positives, len(detections))


def precision_recall(correct: NDArray[np.bool_], positives: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision, float64 [n] each, after each of n detections by descending score.

    `correct` bool [n] marks true positives, ignored detections left out; recall is nan if there are no `positives`.
    """
    true = np.cumsum(correct, dtype=np.float64)
    precision = true / np.arange(1, len(correct) + 1)
    recall = true / positives if positives else np.full(len(correct), np.nan)
    return recall, precision


def average_precision_11_point(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """VOC 2007: the mean, over RECALL_LEVELS, of the best precision at that recall or higher (0 if never reached).

    `recall` and `precision` are float64 [n]."""
    best = [precision[recall >= level].max(initial=0.0) for level in RECALL_LEVELS]
    return float(np.mean(best))


def average_precision_area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """VOC 2010 and later: the area under the interpolated precision-recall curve.

    `recall` and `precision` are float64 [n]."""
    return float(np.sum(np.diff(recall, prepend=0.0) * interpolated(precision)))


def interpolated(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolated precision float64 [n]: the best `precision` at each of n points, by rising recall, or any later."""
    return np.asarray(np.maximum.accumulate(precision[::-1])[::-1], np.float64)


def interpolated_steps(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and interpolated precision, float64 [k] each, at the right ends of the k steps of the curve that AP
    integrates: `precision[i]` holds for recalls above `recall[i - 1]` (0 for the first) up to `recall[i]`.

    Recall rises and precision falls from step to step; the area under them is `ap_area`. A class without true positives
    has no steps.
    """
    recall, first = np.unique(curve.recall, return_index=True)
    precision = interpolated(curve.precision)[first]
    recall, precision = recall[recall > 0], precision[recall > 0]
    ends = np.diff(precision, append=-1.0) < 0
    return recall[ends], precision[ends]


def calibrated_precision(curve: Curve, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The precision of a class's detections at `scores` [n], monotone in the score: float64 [n].

    It is the best precision down to that score or any lower one, ties included: a score has precision p or more if and
    only if it is at least `lowest_score_at(p)`. Scores below the whole curve get the precision of its last point; nan
    if the curve is empty.
    """
    if not len(curve.scores):
        return np.full(len(scores), np.nan)
    best = interpolated(precision_with_ties(curve))
    first = np.searchsorted(-curve.scores, -np.asarray(scores), side="left")
    return np.asarray(best[np.minimum(first, len(best) - 1)], np.float64)


def lowest_score_at(precision: float, curve: Curve) -> float | None:
    """The lowest score down to which the class's detections have at least this `precision`; None if they never do."""
    good = np.flatnonzero(precision_with_ties(curve) >= precision)
    return float(curve.scores[good[-1]]) if len(good) else None


def precision_with_ties(curve: Curve) -> NDArray[np.float64]:
    """The precision down to each of the curve's n scores, ties included: float64 [n].

    A threshold cannot separate equal scores, although the devkit's curve has one point for each."""
    return curve.precision[np.searchsorted(-curve.scores, -curve.scores, side="right") - 1]
