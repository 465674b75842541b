"""Average precision after the PASCAL VOC devkit (VOCevaldet.m; R-CNN's x10VOCevaldet.m and xVOCap.m).

One class at a time. Letters: n detections, m objects (annotated boxes), of all images together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.detections import ClassDetections
from stages.matching.detections import match_devkit
from stages.matching.objects import ClassObjects

RECALL_LEVELS: NDArray[np.float64] = np.arange(0.0, 1.1, 0.1)
"""The eleven recalls of VOC 2007.

They are numpy's sums, as in py-faster-rcnn's voc_eval.py and in detectron2, so that results can be compared bit for
bit: 0.30000000000000004, 0.6000000000000001 and 0.7000000000000001 are not reached by a recall of exactly 3/10, 6/10
or 7/10. MATLAB's `0:0.1:1` has the same 0.3; on the other two the devkit may differ by one level of one class.
"""


@dataclass(frozen=True)
class Curve:
    """One class's precision-recall curve: a point for each detection that counts, from the best score down.

    `scores` float32, `recall` and `precision` float64, all [points]; `positives` objects to find, `detections` n.
    """

    scores: NDArray[np.float32]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    positives: int
    detections: int

    @property
    def ap_11(self) -> float:
        """11-point average precision, nan for a class that has nothing to find."""
        return average_precision_11_point(self.recall, self.precision) if self.positives else float("nan")

    @property
    def ap_area(self) -> float:
        """Area under the curve, nan for a class that has nothing to find."""
        return average_precision_area(self.recall, self.precision) if self.positives else float("nan")


def precision_recall_curve(detections: ClassDetections, objects: ClassObjects, iou: float = 0.5) -> Curve:
    """The curve of one class's detections against its objects."""
    matches = match_devkit(detections, objects, iou)
    counted = matches.order[~matches.ignored[matches.order]]
    recall, precision = precision_recall(matches.found[counted], objects.positives)
    return Curve(detections.scores[counted], recall, precision, objects.positives, len(detections))


def precision_recall(found: NDArray[np.bool_], positives: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision, float64 [n] each, after each of n detections from the best score down.

    `found` bool [n]: whether it is a true positive (ignored ones left out); recall is nan without `positives`.
    """
    true = np.cumsum(found, dtype=np.float64)
    precision = true / np.arange(1, len(found) + 1)
    recall = true / positives if positives else np.full(len(found), np.nan)
    return recall, precision


def average_precision_11_point(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """VOC 2007: the mean over RECALL_LEVELS of the best precision at that recall or more (0 if none is).

    `recall` and `precision` are float64 [n]."""
    best = [precision[recall >= level].max(initial=0.0) for level in RECALL_LEVELS]
    return float(np.mean(best))


def average_precision_area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """VOC 2010 and later: the area under precision made monotone (the best at that recall or more).

    `recall` and `precision` are float64 [n]."""
    return float(np.sum(np.diff(recall, prepend=0.0) * interpolated(precision)))


def interpolated(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each of n points, in order of rising recall, the best `precision` of it and of all after it: float64 [n]."""
    return np.asarray(np.maximum.accumulate(precision[::-1])[::-1], np.float64)


def interpolated_steps(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and interpolated precision, float64 [k] each, at the right ends of the k steps of the curve that AP
    integrates: `precision[i]` holds for recalls above `recall[i - 1]` (0 for the first) up to `recall[i]`.

    Recall rises and precision falls from each step to the next; the area under them is `ap_area`. A class of which
    nothing was found has no steps.
    """
    reached, first = np.unique(curve.recall, return_index=True)
    precision = interpolated(curve.precision)[first]
    found = reached > 0
    recall, precision = reached[found], precision[found]
    ends = np.diff(precision, append=-1.0) < 0
    return recall[ends], precision[ends]


def calibrated_precision(curve: Curve, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The precision that a class's detections have at `scores` [n], never falling as the score rises: float64 [n].

    It is the best precision down to any score that is not higher, all detections of that score counted: what reaches
    `lowest_score_at(p)` has p or more, all else less. A score below all of the curve's has the precision of the whole
    curve; nan without a curve.
    """
    if not len(curve.scores):
        return np.full(len(scores), np.nan)
    best = interpolated(precision_with_ties(curve))
    first = np.searchsorted(-curve.scores, -np.asarray(scores), side="left")
    return np.asarray(best[np.minimum(first, len(best) - 1)], np.float64)


def lowest_score_at(precision: float, curve: Curve) -> float | None:
    """The lowest score down to which the class's detections are still right with at least this `precision`, None if
    they never are."""
    good = np.flatnonzero(precision_with_ties(curve) >= precision)
    return float(curve.scores[good[-1]]) if len(good) else None


def precision_with_ties(curve: Curve) -> NDArray[np.float64]:
    """The precision down to each of the curve's n scores with all detections of that score, float64 [n]: a threshold
    cannot part equal scores, although the devkit's curve has a point for each."""
    return curve.precision[np.searchsorted(-curve.scores, -curve.scores, side="right") - 1]
