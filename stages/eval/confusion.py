"""The confusion matrix of a detector: for which class each object is taken, and what is missed or invented.

Precision and recall are measured one class at a time; here a detection may match an object of any class. The rule is
ours, in the spirit of the ConfusionMatrix of ultralytics (its YOLO), which takes the detections that score above 0.25,
pairs them with the objects from the highest IoU down, above 0.45, and has predictions in its rows. Here each class has
its own threshold, since the margins of SVMs have no common scale; detections choose from the best down, as they do in
the devkit; and difficult objects excuse what is detected on them. detectron2 has no confusion matrix.

Symbols: n detections, m objects, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.detections import ClassDetections, DetectionSet
from stages.eval.operating_points import best_f1
from stages.matching.average_precision import Curve
from stages.matching.detections import match_any_class
from stages.matching.objects import Objects

MOST_CLASSES = 2000
"""The most classes for which there is a matrix: that of 10,000 would take 800 MB, and nobody would read it."""
BACKGROUND, MISSED = "background", "missed"
"""The names of the last row and the last column."""


@dataclass(frozen=True)
class Confusion:
    """Counts of objects and detections: `counts` int64 [K + 1, K + 1].

    A row is the true class, a column the predicted one. The last row holds the detections of no object (false
    positives), the last column the objects without a detection (missed); where both meet there is nothing to count.
    `thresholds` float64 [K] are the scores from which detections count, inf for a class of which none does.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    thresholds: NDArray[np.float64]

    @property
    def shares(self) -> NDArray[np.float64]:
        """The counts divided by the sum of their row: float64 [K + 1, K + 1], 0 in rows without any."""
        sums = self.counts.sum(axis=1, keepdims=True)
        return np.divide(self.counts, sums, out=np.zeros(self.counts.shape), where=sums > 0)

    def rows(self) -> list[list[Any]]:
        """The counts as a table: a heading with the predicted classes and "missed", a row for each true class and
        "background"; in the last column the score from which a class's detections count (empty: none does)."""
        thresholds = [*(float(one) if np.isfinite(one) else None for one in self.thresholds), None]
        heading = ["true class", *self.classes, MISSED, "threshold"]
        names = [*self.classes, BACKGROUND]
        rows = zip(names, self.counts.tolist(), thresholds, strict=True)
        return [heading, *([name, *counts, threshold] for name, counts, threshold in rows)]

    def frequent(self, most: int) -> list[tuple[str, str, int, int]]:
        """The confusions of one class with another: (true class, predicted class, objects confused, objects of the true
        class), at most `most` of them, the most frequent first and, among equals, in the order of the classes."""
        between = self.counts[:-1, :-1].copy()
        np.fill_diagonal(between, 0)
        order = np.argsort(-between, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), len(self.classes)) for place in order]
        return [
            (self.classes[true], self.classes[predicted], int(between[true, predicted]), int(self.counts[true].sum()))
            for true, predicted in pairs
            if between[true, predicted]
        ]


def confusion_matrix(
    detections: ClassDetections, labels: NDArray[np.integer], objects: Objects, classes: int, iou: float
) -> NDArray[np.int64]:
    """The counts of `Confusion` for K `classes`: int64 [K + 1, K + 1].

    `detections` are those of all classes that count, with `labels` [n]; their scores decide which one comes first. A
    detection that matches nothing is a false positive, unless it overlaps a difficult object by `iou`.
    """
    matches = match_any_class(detections, objects, iou)
    taken = matches.objects >= 0
    counted = taken | ~matches.excused
    predicted = labels[counted]
    true = np.append(objects.labels, classes)[matches.objects[counted]]
    missed = ~objects.difficult
    missed[matches.objects[taken]] = False
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, (true, predicted), 1)
    counts[:-1, -1] += np.bincount(objects.labels[missed], minlength=classes)
    return counts


def confusion_thresholds(
    curves: Mapping[str, Curve], classes: Sequence[str], fixed: float | None = None
) -> NDArray[np.float64]:
    """The score from which a detection of each of K `classes` counts: float64 [K].

    It is the `fixed` one or, without it, that of the class's best F1; inf for a class without true positives.
    """
    if fixed is not None:
        return np.full(len(classes), fixed)
    best = [best_f1(curves[name]) if name in curves else None for name in classes]
    return np.array([np.inf if point is None else point[0] for point in best])


def comparable_ranks(scores: NDArray[np.floating], precision: NDArray[np.float64]) -> NDArray[np.float32]:
    """Numbers that order detections of several classes: float32 [n], the larger the better.

    They are ordered by the `precision` [n] that their class has at their score, since the margins of SVMs of different
    classes cannot be compared; then by `scores` [n], then as they come.
    """
    order = np.lexsort((-scores, -precision))
    ranks = np.empty(len(order), np.float32)
    ranks[order] = -np.arange(len(order))
    return ranks


def measure_confusion(
    detections: DetectionSet,
    precision: NDArray[np.float64],
    curves: Mapping[str, Curve],
    objects: Objects,
    classes: Sequence[str],
    iou: float,
    fixed: float | None = None,
) -> Confusion:
    """The confusion of the `detections` of a set of images with its `objects`, whose labels are places in `classes`.

    `precision` float64 [n] is that of each detection's class at its score; `curves` are those of the classes.
    Detections count from `confusion_thresholds` on; those of classes that are not among `classes` do not.
    """
    thresholds = confusion_thresholds(curves, classes, fixed)
    every, places = detections.every, {name: place for place, name in enumerate(classes)}
    labels = np.array([places.get(name, -1) for name in detections.classes], np.int64)[every.labels]
    kept = np.flatnonzero(every.scores >= np.append(thresholds, np.inf)[labels])
    images = np.searchsorted(detections.offsets, kept, side="right") - 1
    ranks = comparable_ranks(every.scores[kept], precision[kept])
    ranked = ClassDetections(images.astype(np.int64), every.boxes[kept], ranks)
    counts = confusion_matrix(ranked, labels[kept], objects, len(classes), iou)
    return Confusion(tuple(classes), counts, thresholds)
