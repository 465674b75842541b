"""What becomes of overlapping boxes, of one class or of all: suppressed (R-CNN section 2.2) or, of one class, merged
(OverFeat section 4.3).

Notation: m candidates, s detections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, exceeds
from stages.detections.merging import MATCHES, Match, merge_boxes, normalised_match
from stages.detections.order import by_class
from stages.detections.sets import NO_ROWS, Detections

FIRST_SHARE = 4
"""How many times the number of boxes wanted are looked at first."""


class Outcome(Protocol):
    """What suppression makes of an image's m candidates."""

    @property
    def detections(self) -> Detections:
        """The s detections, by class and, within a class, by descending score."""

    @property
    def leaders(self) -> NDArray[np.int64]:
        """The highest-scored candidate of each detection: int64 [s]."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """The detection that each candidate became, went into or was suppressed by: int64 [m]."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """The score that decides whether a candidate is detected: float32 [m]. Its own, or that of the box it went
        into."""


class Suppression(Protocol):
    """A suppression method with its settings."""

    def outcome(self, candidates: Detections) -> Outcome:
        """What becomes of `candidates`, m boxes by class and, within a class, by descending score."""


def greedy_nms(boxes: Boxes, scores: NDArray[np.float32], iou: float, at_most: int = 0) -> NDArray[np.int64]:
    """The rows of `boxes` float32 [n, 4], with `scores` float32 [n], that greedy non-maximum suppression keeps: int64
    [k], ascending; only the `at_most` highest-scored of them, unless 0.

    By descending score (the first row first, if tied), a box is dropped if its IoU with a kept box exceeds `iou`.
    R-CNN's nms.m; the IoU is computed in float32, and compared as by `stages.boxes.exceeds`.
    """
    import torch
    from torchvision.ops import nms

    limit = float(np.float32(iou))  # torchvision compares with a double: an IoU of exactly 0.3 would exceed 0.3
    if not at_most:
        kept = nms(torch.from_numpy(np.ascontiguousarray(boxes)), torch.from_numpy(scores), limit)
        return np.sort(kept.numpy())
    # Whether a box is kept depends on those that score higher alone, so that few enough of the best are looked at.
    best = np.argsort(-scores, kind="stable")
    size = FIRST_SHARE * at_most
    while True:
        rows = best[:size]
        kept = nms(torch.from_numpy(boxes[rows]), torch.from_numpy(scores[rows]), limit)[:at_most]
        if len(kept) == at_most or size >= len(best):
            return np.sort(rows[kept.numpy()])
        size *= 2


@dataclass(frozen=True)
class GreedyNms:
    """`greedy_nms` at threshold `iou`: of each class separately or, if `class_agnostic`, of all classes at once."""

    iou: float
    class_agnostic: bool = False

    def outcome(self, candidates: Detections) -> Survivors:
        """What is kept of the candidates."""
        return Survivors(self, candidates, self.survivors(candidates))

    def rivals(self, candidates: Detections) -> Iterator[NDArray[np.int64]]:
        """The rows of the candidates that compete with one another, by descending score: int64 [r], the candidates of
        each class in turn, or all of them. Of equal scores, the first class comes first."""
        if self.class_agnostic:
            yield np.argsort(-candidates.scores, kind="stable")
            return
        for _, rows in by_class(candidates.labels):
            yield rows

    def survivors(self, candidates: Detections) -> NDArray[np.int64]:
        """The rows of the candidates that are kept: int64 [k], ascending."""
        kept = [NO_ROWS]
        for rows in self.rivals(candidates):
            kept.append(rows[greedy_nms(candidates.boxes[rows], candidates.scores[rows], self.iou)])
        return np.sort(np.concatenate(kept))

    def removers(self, candidates: Detections, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """The candidate that suppressed each one, int64 [m]; -1 for the rows `kept`, the survivors.

        This is the highest-scoring kept rival that scores higher and whose IoU with it exceeds the threshold.
        """
        import torch
        from torchvision.ops import box_iou

        by = np.full(len(candidates), -1, np.int64)
        for rows in self.rivals(candidates):
            is_kept = np.isin(rows, kept)
            stay, go = np.flatnonzero(is_kept), np.flatnonzero(~is_kept)  # ranks among the rivals
            if not len(go):
                continue
            boxes = torch.from_numpy(candidates.boxes[rows])
            overlaps = box_iou(boxes[go], boxes[stay]).numpy()
            overlaps[stay[None, :] > go[:, None]] = -1.0
            over = exceeds(overlaps, self.iou)
            # Should the two functions round differently, the box that overlaps it most is taken.
            by[rows[go]] = rows[stay[np.where(over.any(axis=1), over.argmax(axis=1), overlaps.argmax(axis=1))]]
        return by


@dataclass(frozen=True)
class Survivors:
    """The candidates that greedy suppression keeps, `leaders` int64 [s], as they are."""

    suppression: GreedyNms
    candidates: Detections
    leaders: NDArray[np.int64]

    @cached_property
    def detections(self) -> Detections:
        """The candidates that are kept."""
        return self.candidates.where(self.leaders)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The detection that each candidate is or was suppressed by: int64 [m]."""
        by = self.suppression.removers(self.candidates, self.leaders)
        return np.searchsorted(self.leaders, np.where(by < 0, np.arange(len(by)), by))

    @property
    def scores(self) -> NDArray[np.float32]:
        """The candidates' own scores: float32 [m]."""
        return self.candidates.scores


@dataclass(frozen=True)
class GreedyMerge:
    """`merge_boxes` of each class separately, up to `threshold` of a match score; `weighted` by the boxes merged. A
    merged box has the sum of their scores or, unless it `adds`, the highest."""

    threshold: float
    match: Match = normalised_match
    weighted: bool = True
    adds: bool = True

    def outcome(self, candidates: Detections) -> Merged:
        """What the candidates are merged into."""
        boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
        merged = merge_boxes(boxes, scores, labels, self.threshold, self.match, self.weighted)
        labels, scores = labels[merged.first], merged.scores if self.adds else scores[merged.first]
        order = np.lexsort((-scores, labels))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        detections = Detections(merged.boxes[order], scores[order], labels[order])
        return Merged(detections, merged.first[order], places[merged.groups])


@dataclass(frozen=True)
class Merged:
    """What m candidates are merged into: see `Outcome`."""

    detections: Detections
    leaders: NDArray[np.int64]
    groups: NDArray[np.int64]

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores of the boxes that the candidates went into: float32 [m]."""
        return self.detections.scores[self.groups]


METHODS: Mapping[str, Callable[[Any], Suppression]] = {
    "nms": lambda settings: GreedyNms(settings.nms_iou, settings.class_agnostic),
    "merge": lambda settings: GreedyMerge(
        settings.merge_threshold,
        MATCHES[settings.match_score],
        weighted=settings.merge_weights == "windows",
        adds=settings.merge_scores == "sum",
    ),
}
"""Suppression methods by the value of the setting `suppression`, each built from its own settings."""
