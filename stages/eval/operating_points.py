"""Precision, recall and F1 of one class's detections at each threshold of the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.eval.average_precision import Curve


@dataclass(frozen=True)
class OperatingPoints:
    """What a detector achieves if the detections with a score of at least each of p thresholds are kept.

    `scores` float32 [p] are the distinct scores of the detections that count, highest first; `precision`, `recall` and
    `f1` float64 [p]. Recall and F1 are nan where there are no objects to find.
    """

    scores: NDArray[np.float32]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def operating_points(curve: Curve) -> OperatingPoints:
    """The operating points of a class: one for each distinct score, since a threshold cannot separate equal ones.

    The same as scikit-learn's precision_recall_curve, if it is told of the objects without a detection.
    """
    last = np.flatnonzero(np.diff(curve.scores, append=-np.inf) != 0)
    precision, recall = curve.precision[last], curve.recall[last]
    return OperatingPoints(curve.scores[last], precision, recall, f1_score(precision, recall))


def f1_score(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1, the harmonic mean of `precision` and `recall` [p]: float64 [p], 0 where both are 0, nan where one is nan."""
    total = precision + recall
    return np.asarray(np.divide(2 * precision * recall, total, out=total.copy(), where=total != 0))


def best_f1(curve: Curve) -> tuple[float, float] | None:
    """The threshold with the highest F1, and that F1; the highest such threshold, if tied.

    None if there is nothing to find, or no true positive at any threshold.
    """
    points = operating_points(curve)
    best = points.f1.max(initial=0.0, where=~np.isnan(points.f1))
    if best <= 0:
        return None
    return float(points.scores[points.f1 == best][0]), float(best)
