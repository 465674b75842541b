"""False positives by type, and the gain from fixing each type (Hoiem et al.; R-CNN's figure 5).

One class at a time. Symbols: n detections of the class, m objects. `verdicts` int8 [n] are TRUE, FALSE or IGNORED (of a
difficult object). The rules are those of the authors' release (analyzeFalsePositives.m), which differ slightly from the
devkit's: see `stages.matching.detections`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.boxes import reaches
from stages.matching.error_types import BACKGROUND, FALSE, IGNORED, LOCALISATION, OTHER, TRUE, TYPES, Verdicts, types_of

COUNTS = (25, 50, 100, 200, 400, 800, 1600, 3200)
"""The numbers of top-ranked false positives on the x-axis of figure 5."""


def precision_at_objects(verdicts: Verdicts, positives: int, normal: float | None = None) -> NDArray[np.float64]:
    """The interpolated precision at which each object of a class is found, 0 if missed: float64 [positives].

    `verdicts` int8 [n] are in rank order. The mean is the average precision, the area under the interpolated curve.
    With `normal`, N, precision is normalised (averagePrecisionNormalized.m): for N_j = `positives`, recall R and F
    false positives, it is R N / (R N + F) instead of R N_j / (R N_j + F).
    """
    weight = 1.0 if normal is None or not positives else normal / positives
    true = weight * np.cumsum(verdicts == TRUE)
    every = true + np.cumsum(verdicts == FALSE)
    precision = np.divide(true, every, out=np.zeros(len(every)), where=every > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at_found = best[verdicts == TRUE]
    return np.concatenate([at_found, np.zeros(positives - len(at_found))])


def average_precision(verdicts: Verdicts, positives: int) -> float:
    """The mean of `precision_at_objects`, for `verdicts` int8 [n] in rank order; nan if there are no `positives`."""
    return float(precision_at_objects(verdicts, positives).mean()) if positives else float("nan")


def without(verdicts: Verdicts, types: NDArray[np.int8], *removed: int) -> Verdicts:
    """The verdicts int8 [n], ignoring detections whose `types` [n] are `removed` (analyzeFalsePositives.m)."""
    return np.where(np.isin(types, removed), IGNORED, verdicts).astype(np.int8)


def corrected(poor: Verdicts, overlaps: NDArray[np.float64], poor_iou: float) -> Verdicts:
    """The verdicts int8 [n] if poor localisations were corrected (analyzeFalsePositives.m, fixloc).

    `poor` int8 [n] are the verdicts of `match_hoiem` at `poor_iou`: the best-scoring detection near an object finds it.
    The remaining duplicates, still near an object of their class (`overlaps` float64 [n, 3]), are ignored.
    """
    return np.where((poor == FALSE) & reaches(overlaps[:, 0], poor_iou), IGNORED, poor).astype(np.int8)


def effects(
    verdicts: Verdicts, poor: Verdicts, overlaps: NDArray[np.float64], positives: int, poor_iou: float
) -> dict[str, float]:
    """The class's AP after each remedy; `verdicts` and `poor` int8 [n] and `overlaps` float64 [n, 3] are in rank order.

    The remedies are correcting poor localisations, and removing each type; `Oth and BG removed` is the authors' bar B,
    which does not separate the two.
    """
    types = types_of(verdicts, overlaps, poor_iou)
    remedies = {
        "Loc corrected": corrected(poor, overlaps, poor_iou),
        **{f"{name} removed": without(verdicts, types, code) for name, code in TYPES.items()},
        "Oth and BG removed": without(verdicts, types, OTHER, BACKGROUND),
    }
    return {name: average_precision(after, positives) for name, after in remedies.items()}


def trend(types: Sequence[NDArray[np.int8]], counts: Sequence[int] = COUNTS) -> dict[int, dict[str, int]]:
    """How many of the top-ranked false positives are of each type, for each number in `counts` reached (figure 5).

    `types` are the types of the detections, int8 [n] by rank, of each class in a group. All classes are cut at the same
    rank, the first at which the group has `count` false positives (or a few more).
    """
    ranks = max((len(of_class) for of_class in types), default=0)
    at_rank = {name: np.zeros(ranks, np.int64) for name in TYPES}
    for of_class in types:
        for name, code in TYPES.items():
            at_rank[name][: len(of_class)] += of_class == code
    running = {name: np.cumsum(numbers) for name, numbers in at_rank.items()}
    total = np.sum(list(running.values()), axis=0)
    cuts = {count: int(np.searchsorted(total, count)) for count in counts}
    return {
        count: {name: int(numbers[rank]) for name, numbers in running.items()}
        for count, rank in cuts.items()
        if rank < ranks
    }


def top_false_positives(types: NDArray[np.int8], count: int) -> dict[str, int]:
    """How many of the `count` top-ranked false positives are of each type; `types` int8 [n] in rank order."""
    top = types[types >= LOCALISATION][:count]
    return {name: int(np.sum(top == code)) for name, code in TYPES.items()}
