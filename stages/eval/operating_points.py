"""Precision, recall and F1 of one class's detections at each threshold of the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.matching.average_precision import Curve


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


def points_at(points: OperatingPoints, thresholds: NDArray[np.floating]) -> NDArray[np.int64]:
    """The place in `points` of what each of `thresholds` [t] achieves: int64 [t], -1 for one above all scores."""
    return np.asarray(np.searchsorted(-points.scores, -np.asarray(thresholds), side="right") - 1, np.int64)


def rising(points: OperatingPoints) -> NDArray[np.int64]:
    """The places at which recall is higher than just before, int64 [k]: from one to the next, precision only falls, so
    there is no reason to choose a threshold in between."""
    return np.flatnonzero(np.diff(points.recall, prepend=0.0) > 0)


def threshold_rows(curves: Mapping[str, Curve]) -> list[list[Any]]:
    """A heading and, for each class, its thresholds worth choosing (`rising`), highest first; that of its best F1 is
    marked in the last column."""
    rows: list[list[Any]] = [["class", "threshold", "precision", "recall", "f1", "best_f1"]]
    for name, curve in curves.items():
        points, best = operating_points(curve), best_f1(curve)
        columns = (points.scores, points.precision, points.recall, points.f1)
        for place in rising(points):
            numbers = [float(column[place]) for column in columns]
            rows.append([name, *numbers, int(best is not None and numbers[0] == best[0])])
    return rows
