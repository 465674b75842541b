"""False positives by type, and what fixing each type would give (Hoiem et al.; R-CNN's figure 5).

One class at a time. Letters: n detections of the class, m objects. `verdicts` int8 [n] say of each detection whether it
is TRUE, FALSE or IGNORED, a difficult object's. The rules are those of the authors' release (analyzeFalsePositives.m),
which are not quite the devkit's: see `stages.matching.detections`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.boxes import reaches
from stages.matching.error_types import BACKGROUND, FALSE, IGNORED, LOCALISATION, OTHER, TRUE, TYPES, Verdicts, types_of

COUNTS = (25, 50, 100, 200, 400, 800, 1600, 3200)
"""Figure 5's numbers of top-ranked false positives."""


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
    """The verdicts without the detections whose `types` [n] are `removed` (analyzeFalsePositives.m)."""
    return np.where(np.isin(types, removed), IGNORED, verdicts).astype(np.int8)


def corrected(poor: Verdicts, overlaps: NDArray[np.float64], poor_iou: float) -> Verdicts:
    """The verdicts if poor localisations were good ones (analyzeFalsePositives.m, fixloc).

    `poor` are the verdicts of `match_hoiem` at `poor_iou`: the best-scored detection near an object finds it; what is
    then a duplicate, still near an object of its class (`overlaps` float64 [n, 3]), is taken away.
    """
    return np.where((poor == FALSE) & reaches(overlaps[:, 0], poor_iou), IGNORED, poor).astype(np.int8)


def effects(
    verdicts: Verdicts, poor: Verdicts, overlaps: NDArray[np.float64], positives: int, poor_iou: float
) -> dict[str, float]:
    """The class's AP after each remedy; arrays are [n], by rank.

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

    `types` are the detections' types, int8 [n], of each class of a group, by rank. All classes are looked at down to
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
