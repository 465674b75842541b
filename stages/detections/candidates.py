"""From an image's scored proposals to the candidates for detections.

Symbols: n proposals, K classes, m candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes
from stages.detections.order import by_class, falling

BLOCK_CLASSES = 1024


@dataclass(frozen=True)
class Scored:
    """One image's proposals, `boxes` float32 [n, 4], as scored and regressed by a detector of K `classes`.

    `score(classes)` returns scores float32 [n, k] for a slice of the classes; `trained` bool [K] marks classes that had
    training examples. `regress(boxes, rows, label)` regresses `boxes` float32 [m, 4], of the proposals `rows` int64
    [m], for the class `label`: float32 [m, 4]; None leaves proposals where they are. These are functions because no
    caller needs everything: R-CNN regresses only candidates, and scores of 100,000 classes take a gigabyte.
    `image_size` is (width, height) in pixels. `levels` int32 [n]: the scale at which each proposal, a window of a
    densely read network, was found; None for other proposals.
    """

    boxes: Boxes
    classes: tuple[str, ...]
    trained: NDArray[np.bool_]
    score: Callable[[slice], NDArray[np.float32]]
    regress: Callable[[Boxes, NDArray[np.int64], int], Boxes] | None
    image_size: tuple[int, int]
    levels: NDArray[np.int32] | None = None

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The scores of all classes at once, float32 [n, K]."""
        blocks = [self.score(block) for block in blocks_of(len(self.classes))]
        return np.hstack([np.zeros((len(self.boxes), 0), np.float32), *blocks])

    def boxes_of(self, rows: NDArray[np.int64], labels: NDArray[np.int32]) -> Boxes:
        """The proposals `rows` [m], regressed for the classes `labels` [m] and clipped to the image: float32 [m, 4]."""
        moved = self.boxes[rows]
        if self.regress is not None:
            for label, members in by_class(labels):
                moved[members] = self.regress(moved[members], rows[members], label)
        return clip_boxes(moved, *self.image_size)


@dataclass(frozen=True)
class Candidates:
    """The candidates of an image, by class and, within a class, by descending score.

    `rows` int64 [m] (the proposals), `labels` int32 [m] (the classes), `scores` float32 [m].
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]

    def where(self, keep: NDArray[np.bool_]) -> Candidates:
        """The candidates selected by `keep`, bool [m]."""
        return Candidates(self.rows[keep], self.labels[keep], self.scores[keep])


def blocks_of(classes: int) -> list[slice]:
    """Slices of at most 1,024 classes, which are scored and ranked at once to bound memory."""
    return [slice(first, min(first + BLOCK_CLASSES, classes)) for first in range(0, classes, BLOCK_CLASSES)]


def best_candidates(scored: Scored, at_most: int) -> Candidates:
    """The `at_most` highest-scoring proposals of every class; none for classes without training examples."""
    best = [best_rows(scored.score(block), at_most, block.start) for block in blocks_of(len(scored.classes))]
    every = Candidates(
        np.concatenate([block.rows for block in best]),
        np.concatenate([block.labels for block in best]),
        np.concatenate([block.scores for block in best]),
    )
    return every.where(scored.trained[every.labels])


def candidates_above(scored: Scored, least: float) -> Candidates:
    """All proposals that score more than `least` for a class, ordered as by `best_candidates`."""
    every = best_candidates(scored, max(1, len(scored.boxes)))
    return every.where(every.scores > np.float32(least))


def with_best_classes(scored: Scored, at_most: int) -> Scored:
    """The windows with a score of -inf for all but the `at_most` classes that score highest anywhere at the window's
    scale, the first ones if tied (OverFeat, arXiv 1312.6229, section 4.3, step a). Needs `levels`."""
    assert scored.levels is not None
    chosen = best_classes(scored, at_most)
    places = np.searchsorted(np.unique(scored.levels), scored.levels)

    def score(classes: slice) -> NDArray[np.float32]:
        return np.where(chosen[places, classes], scored.score(classes), np.float32(-np.inf))

    return replace(scored, score=score)


def best_classes(scored: Scored, at_most: int) -> NDArray[np.bool_]:
    """The `at_most` classes that score highest anywhere at each scale, the first ones if tied: bool [scales, K]; scales
    in the order of their `levels`."""
    assert scored.levels is not None
    scales = np.unique(scored.levels)
    chosen = np.zeros((len(scales), len(scored.classes)), bool)
    best = np.zeros(chosen.shape, np.float32)
    for block in blocks_of(len(scored.classes)):
        scores = scored.score(block)
        for place, level in enumerate(scales):
            best[place, block] = scores[scored.levels == level].max(axis=0)
    np.put_along_axis(chosen, np.argsort(-best, axis=1, kind="stable")[:, :at_most], True, axis=1)
    return chosen


def best_rows(scores: NDArray[np.float32], at_most: int, first: int = 0) -> Candidates:
    """The `at_most` highest scores in every column of `scores` float32 [n, K], the first ones if tied. The columns are
    the classes from `first` on."""
    count, classes = scores.shape
    ranked = (falling(np.ascontiguousarray(scores.T)) << 32) + np.arange(count)
    if at_most < count:
        ranked.partition(at_most - 1)
    ranked = np.sort(ranked[:, :at_most])
    rows = ranked & 0xFFFFFFFF
    labels = np.repeat(np.arange(first, first + classes, dtype=np.int32), rows.shape[1])
    return Candidates(rows.ravel(), labels, scores[rows.ravel(), labels - first])
