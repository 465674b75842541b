"""From one image's proposals to its candidates: what a detector says of them, and which of them compete.

Letters: n proposals, K classes, m candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes
from stages.detections.order import by_class, falling

BLOCK_CLASSES = 1024


@dataclass(frozen=True)
class Scored:
    """One image's n `boxes` float32 [n, 4] as a detector of K `classes` scores and moves them.

    `score(classes)` gives the scores float32 [n, k] of a slice of the classes; `trained` bool [K], which classes had
    something to learn from. `regress(boxes, rows, label)` gives `boxes` float32 [m, 4] of the proposals `rows` int64
    [m] as the class `label` moves them, float32 [m, 4], so that all in all there are boxes [n, K, 4]; None: a proposal
    stays where it is. Both are functions because nobody wants all of it: R-CNN moves only what competes, and scores
    of 100,000 classes take a gigabyte. `image_size` is (width, height).
    """

    boxes: Boxes
    classes: tuple[str, ...]
    trained: NDArray[np.bool_]
    score: Callable[[slice], NDArray[np.float32]]
    regress: Callable[[Boxes, NDArray[np.int64], int], Boxes] | None
    image_size: tuple[int, int]

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The scores of all classes, float32 [n, K], held in memory."""
        blocks = [self.score(block) for block in blocks_of(len(self.classes))]
        return np.hstack([np.zeros((len(self.boxes), 0), np.float32), *blocks])

    def boxes_of(self, rows: NDArray[np.int64], labels: NDArray[np.int32]) -> Boxes:
        """Where each of the proposals `rows` [m] lies as the class `labels` [m]: moved and clipped, float32 [m, 4]."""
        moved = self.boxes[rows]
        if self.regress is not None:
            for label, members in by_class(labels):
                moved[members] = self.regress(moved[members], rows[members], label)
        return clip_boxes(moved, *self.image_size)


@dataclass(frozen=True)
class Candidates:
    """The proposals that compete in each class, by class and within a class from the best score down.

    `rows` int64 [m] (which proposal), `labels` int32 [m], `scores` float32 [m].
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]

    def where(self, keep: NDArray[np.bool_]) -> Candidates:
        """Those that `keep` bool [m] selects."""
        return Candidates(self.rows[keep], self.labels[keep], self.scores[keep])


def blocks_of(classes: int) -> list[slice]:
    """Slices of at most 1,024 of so many classes: what is scored and ranked at once, in bounded memory."""
    return [slice(first, min(first + BLOCK_CLASSES, classes)) for first in range(0, classes, BLOCK_CLASSES)]


def best_candidates(scored: Scored, at_most: int) -> Candidates:
    """The `at_most` best-scored proposals of every class; none of a class that had nothing to learn from."""
    best = [best_rows(scored.score(block), at_most, block.start) for block in blocks_of(len(scored.classes))]
    every = Candidates(
        np.concatenate([block.rows for block in best]),
        np.concatenate([block.labels for block in best]),
        np.concatenate([block.scores for block in best]),
    )
    return every.where(scored.trained[every.labels])


def candidates_above(scored: Scored, least: float) -> Candidates:
    """All proposals whose score in a class is more than `least`, class by class as in `best_candidates`."""
    every = best_candidates(scored, max(1, len(scored.boxes)))
    return every.where(every.scores > np.float32(least))


def best_rows(scores: NDArray[np.float32], at_most: int, first: int = 0) -> Candidates:
    """The `at_most` best of every column of `scores` float32 [n, K]; of equals, the first ones. The columns are the
    classes from `first` on."""
    count, classes = scores.shape
    ranked = (falling(np.ascontiguousarray(scores.T)) << 32) + np.arange(count)
    if at_most < count:
        ranked.partition(at_most - 1)
    ranked = np.sort(ranked[:, :at_most])
    rows = ranked & 0xFFFFFFFF
    labels = np.repeat(np.arange(first, first + classes, dtype=np.int32), rows.shape[1])
    return Candidates(rows.ravel(), labels, scores[rows.ravel(), labels - first])
