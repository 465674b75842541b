"""False positives by type, and what fixing each type would give (Hoiem et al.; R-CNN's figure 5).

One class at a time. Letters: n detections of the class, m objects. `verdicts` int8 [n] say of each detection whether it
is TRUE, FALSE or IGNORED, a difficult object's. The rules are those of the authors' release (matchDetectionsWithGround-
Truth.m, analyzeFalsePositives.m), which are not quite the devkit's: see `match`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.boxes import iou_matrix
from stages.detections import ClassDetections
from stages.diagnose.objects import Objects

TRUE, IGNORED, FALSE = 1, 0, -1
FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER, BACKGROUND = range(6)
TYPES = {"Loc": LOCALISATION, "Sim": SIMILAR, "Oth": OTHER, "BG": BACKGROUND}
"""The types of false positives by the names of figure 5."""
TYPE_NAMES = ("found", "difficult", *TYPES)
"""What the numbers of detections' types stand for, in their order."""
COUNTS = (25, 50, 100, 200, 400, 800, 1600, 3200)
"""Figure 5's numbers of top-ranked false positives."""

Verdicts = NDArray[np.int8]


@dataclass(frozen=True)
class Matches:
    """`verdicts` int8 [n], and `objects` int64 [n]: which object a TRUE or IGNORED detection is, -1 for a FALSE one."""

    verdicts: Verdicts
    objects: NDArray[np.int64]


def by_rank(detections: ClassDetections) -> NDArray[np.int64]:
    """Rows int64 [n] from the best score down; equal scores in the order of images, then of rows."""
    return np.argsort(-detections.scores, kind="stable")


def match(detections: ClassDetections, objects: Objects, iou: float) -> Matches:
    """Which detection is which of the class's `objects`.

    From the best score down, a detection takes, of its image's objects that are not taken and that it overlaps by at
    least `iou`, the one that it overlaps most (of equals the first). It is TRUE if it took a plain object, IGNORED if a
    difficult one, FALSE if none. The devkit differs in two points: there a detection competes for the object that it
    overlaps most even if that is taken, and every detection of a difficult object is ignored, not the first alone.
    """
    verdicts = np.full(len(detections), FALSE, np.int8)
    taken_by = np.full(len(detections), -1, np.int64)
    for rows, own in shared_images(detections.images, objects.images):
        overlaps = iou_matrix(detections.boxes[rows], objects.boxes[own])
        candidates = np.flatnonzero(overlaps.max(axis=1) >= iou)
        for row in candidates[np.argsort(-detections.scores[rows][candidates], kind="stable")]:
            best = int(overlaps[row].argmax())
            if overlaps[row, best] >= iou:
                taken_by[rows.start + row] = own.start + best
                overlaps[:, best] = -1.0
    took = taken_by >= 0
    verdicts[took] = np.where(objects.difficult[taken_by[took]], IGNORED, TRUE)
    return Matches(verdicts, taken_by)


def shared_images(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """For each image in both: its rows in `first` [n] and in `second` [m], which are image indices, ascending."""
    both = np.intersect1d(first, second)
    starts, ends = np.searchsorted(first, both), np.searchsorted(first, both, side="right")
    lows, highs = np.searchsorted(second, both), np.searchsorted(second, both, side="right")
    places = zip(starts.tolist(), ends.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [(slice(start, end), slice(low, high)) for start, end, low, high in places]


def largest_overlaps(
    detections: ClassDetections, objects: Objects, label: int, similar: Sequence[int]
) -> NDArray[np.float64]:
    """The largest IoU with an object of the class `label`, of a class of `similar`, of any other class: [n, 3], 0
    where there is none. Difficult objects count."""
    group = np.where(objects.labels == label, 0, np.where(np.isin(objects.labels, similar), 1, 2))
    largest = np.zeros((len(detections), 3))
    for rows, own in shared_images(detections.images, objects.images):
        overlaps = iou_matrix(detections.boxes[rows], objects.boxes[own])
        for column in np.unique(group[own]):
            largest[rows, column] = overlaps[:, group[own] == column].max(axis=1)
    return largest


def types_of(verdicts: Verdicts, overlaps: NDArray[np.float64], poor_iou: float) -> NDArray[np.int8]:
    """What each detection is: FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER or BACKGROUND, int8 [n].

    A false positive is a poor localisation if it overlaps an object of its class by at least `poor_iou` (duplicates
    are among them), else confused with a similar class if it overlaps one of those, else with another class, else
    with the background. `overlaps` float64 [n, 3] are those of `largest_overlaps`.
    """
    near = overlaps >= poor_iou
    choices = [verdicts == TRUE, verdicts == IGNORED, near[:, 0], near[:, 1], near[:, 2]]
    return np.select(choices, [FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER], BACKGROUND).astype(np.int8)


def precision_at_objects(verdicts: Verdicts, positives: int, normal: float | None = None) -> NDArray[np.float64]:
    """The precision at which each object of a class is found, 0 for those that are missed: float64 [positives].

    `verdicts` int8 [n] are in the order of rank. The mean is the average precision: the area under the curve whose
    precision is the best at that recall or more. With `normal`, N, it is normalised (averagePrecisionNormalized.m): of
    `positives` objects N_j, recall R and F false positives, R N / (R N + F) in place of R N_j / (R N_j + F).
    """
    weight = 1.0 if normal is None or not positives else normal / positives
    true = weight * np.cumsum(verdicts == TRUE)
    every = true + np.cumsum(verdicts == FALSE)
    precision = np.divide(true, every, out=np.zeros(len(every)), where=every > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    found = best[verdicts == TRUE]
    return np.concatenate([found, np.zeros(positives - len(found))])


def average_precision(verdicts: Verdicts, positives: int) -> float:
    """The mean of `precision_at_objects`, nan without `positives`."""
    return float(precision_at_objects(verdicts, positives).mean()) if positives else float("nan")


def without(verdicts: Verdicts, types: NDArray[np.int8], *removed: int) -> Verdicts:
    """The verdicts after all detections of the types `removed` are taken away (analyzeFalsePositives.m, ignore...)."""
    return np.where(np.isin(types, removed), IGNORED, verdicts).astype(np.int8)


def corrected(poor: Verdicts, overlaps: NDArray[np.float64], poor_iou: float) -> Verdicts:
    """The verdicts if poor localisations were good ones (analyzeFalsePositives.m, fixloc).

    `poor` are the verdicts of `match` at `poor_iou`: the best-scored detection near an object finds it; what is then
    a duplicate, still near an object of its class (`overlaps` float64 [n, 3]), is taken away.
    """
    return np.where((poor == FALSE) & (overlaps[:, 0] >= poor_iou), IGNORED, poor).astype(np.int8)


def effects(
    verdicts: Verdicts, poor: Verdicts, overlaps: NDArray[np.float64], positives: int, poor_iou: float
) -> dict[str, float]:
    """The class's AP after each remedy; all arrays are in the order of rank.

    `Loc corrected`, and without each type; `Oth and BG removed` is the authors' bar B, which does not part the two.
    """
    types = types_of(verdicts, overlaps, poor_iou)
    remedies = {
        "Loc corrected": corrected(poor, overlaps, poor_iou),
        **{f"{name} removed": without(verdicts, types, code) for name, code in TYPES.items()},
        "Oth and BG removed": without(verdicts, types, OTHER, BACKGROUND),
    }
    return {name: average_precision(after, positives) for name, after in remedies.items()}


def trend(types: Sequence[NDArray[np.int8]], counts: Sequence[int] = COUNTS) -> dict[int, dict[str, int]]:
    """How many of the top-ranked false positives are of each type, for each of `counts` that there are (figure 5).

    `types` are the detections' types of each class of a group, in the order of rank. All classes are looked at down to
    one rank, the first at which the group has `count` false positives (or a few more).
    """
    ranks = max((len(one) for one in types), default=0)
    seen = {name: np.zeros(ranks, np.int64) for name in TYPES}
    for one in types:
        for name, code in TYPES.items():
            seen[name][: len(one)] += one == code
    running = {name: np.cumsum(one) for name, one in seen.items()}
    total = np.sum(list(running.values()), axis=0)
    found = {count: int(np.searchsorted(total, count)) for count in counts}
    return {
        count: {name: int(one[rank]) for name, one in running.items()} for count, rank in found.items() if rank < ranks
    }


def top_false_positives(types: NDArray[np.int8], count: int) -> dict[str, int]:
    """How many of the `count` top-ranked false positives are of each type; `types` int8 [n] in the order of rank."""
    top = types[types >= LOCALISATION][:count]
    return {name: int(np.sum(top == code)) for name, code in TYPES.items()}


def similar_labels(classes: Sequence[str], sets: Sequence[Sequence[str]]) -> Mapping[str, list[int]]:
    """For each class the labels (0-based) of those that share one of `sets` with it."""
    alike = {name: {other for one in sets if name in one for other in one} - {name} for name in classes}
    return {name: [label for label, other in enumerate(classes) if other in alike[name]] for name in classes}
