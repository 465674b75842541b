"""OverFeat's greedy merge of boxes (arXiv 1312.6229, section 4.3).

Instead of keeping the best-scored box of a group and dropping the rest, the two boxes of a class that match best are
replaced by their average, again and again; the scores of all boxes that went into one are added. The paper says how
well two boxes match in a clause ("the sum of the distance between centers of the two bounding boxes and the
intersection area of the boxes"), to be minimised, which would merge boxes that lie apart before boxes that are equal:
`printed_match` is that, `normalised_match` ours.

Notation: m candidates, s boxes after merging, p pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes

Corners = NDArray[np.float64]
"""The corners (x1, y1, x2, y2) of boxes, a row each: float64 [4, boxes]. Rows keep what is computed contiguous."""
Match = Callable[[Corners, Corners], NDArray[np.float32]]
"""The match scores of p pairs of boxes, [4, p] each: float32 [p]; the less, the better the match."""

PAIRS = 1 << 18
"""Pairs of boxes that are compared at once."""


def normalised_match(first: Corners, second: Corners) -> NDArray[np.float32]:
    """The distance of the centres in units of the boxes' size, plus 1 - IoU: float32 [p] from boxes [4, p] each.

    The size is the fourth root of the product of the two areas: the side of a square, if both boxes are one. The score
    is 0 for equal boxes, whatever their size, and more than 1 for boxes that do not overlap. A box without area matches
    nothing but an equal one.
    """
    own, other, intersection = areas(first), areas(second), intersections(first, second)
    product = own * other
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = distances(first, second) / np.sqrt(np.sqrt(product)) + 1 - intersection / (own + other - intersection)
    flat = np.flatnonzero(product == 0)
    scores[flat] = np.where((first[:, flat] == second[:, flat]).all(axis=0), 0, np.inf)
    return scores.astype(np.float32)


def printed_match(first: Corners, second: Corners) -> NDArray[np.float32]:
    """The distance of the centres plus the area of the intersection, in pixels, as the paper has it: float32 [p] from
    boxes [4, p] each. Equal boxes score their whole area."""
    return (distances(first, second) + intersections(first, second)).astype(np.float32)


def areas(corners: Corners) -> NDArray[np.float64]:
    """Areas in square pixels, float64 [p], of boxes [4, p]; inverted boxes have area 0."""
    x1, y1, x2, y2 = corners
    return np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)


def intersections(first: Corners, second: Corners) -> NDArray[np.float64]:
    """The areas that p pairs of boxes, [4, p] each, have in common: float64 [p]."""
    widths = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    heights = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    return np.maximum(widths, 0) * np.maximum(heights, 0)


def distances(first: Corners, second: Corners) -> NDArray[np.float64]:
    """The distances in pixels between the centres of p pairs of boxes, [4, p] each: float64 [p]."""
    across = first[0] + first[2] - second[0] - second[2]
    down = first[1] + first[3] - second[1] - second[3]
    return np.sqrt(across * across + down * down) / 2


MATCHES: Mapping[str, Match] = {"normalised": normalised_match, "printed": printed_match}
"""By the setting `match_score`."""


@dataclass(frozen=True)
class MergedBoxes:
    """`boxes` float32 [s, 4] with `scores` float32 [s], the sums of their candidates' scores; `first` int64 [s], the
    first candidate of each, ascending; `groups` int64 [m], the box that each candidate went into."""

    boxes: Boxes
    scores: NDArray[np.float32]
    first: NDArray[np.int64]
    groups: NDArray[np.int64]


def merge_boxes(
    boxes: Boxes,
    scores: NDArray[np.float32],
    labels: NDArray[np.int32],
    threshold: float,
    match: Match = normalised_match,
    weighted: bool = True,
) -> MergedBoxes:
    """Boxes float32 [m, 4] of the classes `labels` int32 [m], ascending, with `scores` float32 [m], merged greedily.

    In each class: of all pairs, that with the least match score is replaced by its average, which then takes the place
    of the first of the two; until the least score exceeds `threshold`. Of equal scores the first pair in the order of
    the boxes is taken. `weighted`: a box counts as often in the average as there are candidates in it, so that the
    result is the mean of all of them; otherwise both boxes of a pair count the same.

    Of each box only its nearest among those after it is kept, so that the work grows with the square of a class's
    boxes, not the cube, and the memory with their number. All classes take a step at once.
    """
    state = Merging(np.ascontiguousarray(boxes.T, np.float64), labels, match)
    weights, sums = np.ones(len(boxes)), scores.astype(np.float64)
    limit = np.float32(threshold)
    groups = np.arange(len(boxes))
    rows = np.arange(len(boxes))
    while len(rows):
        starts = np.flatnonzero(np.diff(labels[rows], prepend=-1))
        sizes = np.diff(starts, append=len(rows))
        least, places = least_of_runs(state.nearest[rows], starts)
        close = least <= limit
        first, rows = rows[places[close]], rows[np.repeat(close, sizes)]
        second = state.partner[first]
        both = weights[first] * state.corners[:, first] + weights[second] * state.corners[:, second]
        average = both / (weights[first] + weights[second])
        weights[first] += weights[second] if weighted else 0
        sums[first] += sums[second]
        groups[second] = first
        rows = rows[groups[rows] == rows]
        state.replace(rows, first, second, np.repeat(np.arange(len(first)), sizes[close] - 1), average)
    while (groups[groups] != groups).any():
        groups = groups[groups]
    kept = np.flatnonzero(groups == np.arange(len(groups)))
    return MergedBoxes(
        np.ascontiguousarray(state.corners[:, kept].T, np.float32),
        sums[kept].astype(np.float32),
        kept,
        np.searchsorted(kept, groups),
    )


class Merging:
    """m boxes while they are merged: their `corners`, and of each the least match score with a box of
    its class after it that has not been merged into another (`nearest` float32 [m], inf if there is none) and the first
    such box (`partner` int64 [m], -1)."""

    def __init__(self, corners: Corners, labels: NDArray[np.int32], match: Match) -> None:
        self.corners = corners
        self.match = match
        self.gone = np.zeros(len(labels), bool)
        self.ends = np.searchsorted(labels, labels, side="right")
        self.nearest = np.full(len(labels), np.inf, np.float32)
        self.partner = np.full(len(labels), -1, np.int64)
        self.seek(np.arange(len(labels)))

    def replace(
        self,
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        pairs: NDArray[np.int64],
        average: Corners,
    ) -> None:
        """Puts `average` [4, p] in the place of the boxes `first` [p] and takes the boxes `second` [p] out. `rows` [r]
        are the boxes that are left in the pairs' classes, `pairs` [r] the pair in the class of each."""
        self.corners[:, first] = average
        self.gone[second] = True
        self.nearest[second], self.partner[second] = np.inf, -1
        merged, nearest, partner = first[pairs], self.nearest[rows], self.partner[rows]
        lost = (partner == merged) | (partner == second[pairs]) | (rows == merged)
        scores = self.match(self.corners[:, rows], self.corners[:, merged])
        nearer = (rows < merged) & ((scores < nearest) | ((scores == nearest) & (merged < partner)))
        self.nearest[rows[nearer]], self.partner[rows[nearer]] = scores[nearer], merged[nearer]
        self.seek(rows[lost])

    def seek(self, rows: NDArray[np.int64]) -> None:
        """Finds the nearest of each of the boxes `rows` anew."""
        self.nearest[rows], self.partner[rows] = np.inf, -1
        left = np.flatnonzero(~self.gone)
        after = np.searchsorted(left, rows, side="right")
        counts = np.searchsorted(left, self.ends[rows]) - after
        rows, after, counts = rows[counts > 0], after[counts > 0], counts[counts > 0]
        for block in blocks_of_pairs(counts):
            runs = counts[block]
            starts = np.cumsum(runs) - runs
            own = np.repeat(rows[block], runs)
            other = left[np.repeat(after[block] - starts, runs) + np.arange(len(own))]
            self.nearest[rows[block]], places = least_of_runs(
                self.match(self.corners[:, own], self.corners[:, other]), starts
            )
            self.partner[rows[block]] = other[places]


def blocks_of_pairs(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of n boxes that are in `counts` [n] pairs each, of about PAIRS pairs."""
    numbers = np.cumsum(counts) // PAIRS
    for low, high in pairwise(np.flatnonzero(np.diff(numbers, prepend=-1, append=-1)).tolist()):
        yield slice(low, high)


def least_of_runs(
    values: NDArray[np.float32], starts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(the least of each run of `values` [n], float32 [k]; its first place, int64 [k]). A run goes from one of `starts`
    [k], ascending and not empty, to the next."""
    least = np.minimum.reduceat(values, starts)
    places = np.flatnonzero(values == np.repeat(least, np.diff(starts, append=len(values))))
    return least, places[np.searchsorted(places, starts)]
