"""Which detections and images a report shows. Shapes: n detections, I images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONTEXT = 0.4
LEAST_SIDE = 48.0

Rows = NDArray[np.int64]


def best_of_each(groups: Rows, values: NDArray[np.floating], most: int) -> Rows:
    """The rows with the `most` largest `values` [n] in each of `groups` [n]: int64, group by group, largest first.

    Equal values are in the order of their rows.
    """
    order = np.lexsort((-values, groups))
    ordered = groups[order]
    ranks = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[ranks < most]


def in_turn(groups: Rows) -> Rows:
    """The rows of `groups` [n] in rotation: the first of each group, then the second of each, and so on: int64 [n]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    ranks = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[np.lexsort((ordered, ranks))]


def shares_right(found: Rows, objects: Rows, false: Rows) -> NDArray[np.float64]:
    """found / (objects + false) for each image: float64 [I], NaN if it has neither objects nor detections.

    `found`, `objects` and `false`, int64 [I], count the objects found, all objects and the false detections. This is
    the Jaccard index of objects and detections.
    """
    every = objects + false
    return np.divide(found, every, out=np.full(len(every), np.nan), where=every > 0)


def best_and_worst(shares: NDArray[np.float64], weights: Rows, count: int) -> tuple[Rows, Rows]:
    """The `count` images with the largest and the `count` with the smallest `shares` [I], without overlap or NaN.

    Ties are broken by larger `weights` [I], then by order. An image with share 0 is never among the best, one with
    share 1 never among the worst. int64.
    """
    known = np.flatnonzero(~np.isnan(shares))
    falling = known[np.lexsort((known, -weights[known], -shares[known]))]
    rising = known[np.lexsort((known, -weights[known], shares[known]))]
    best = falling[shares[falling] > 0][:count]
    worst = rising[(shares[rising] < 1) & ~np.isin(rising, best)][:count]
    return best, worst


def crop_window(boxes: NDArray[np.floating], size: tuple[int, int]) -> tuple[float, float, float]:
    """The square (x, y, side) around `boxes` [k, 4] with some context, in pixels of an image of `size` (width, height).

    It lies inside the image where possible; along a side of the image that is shorter than the square, it is centred.
    It is not larger than the image's longer side unless the boxes are.
    """
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    longest = float((high - low).max())
    side = max(longest, min(max(LEAST_SIDE, longest * (1 + 2 * CONTEXT)), max(size)))
    middle = (low + high) / 2
    starts = [
        float(np.clip(centre - side / 2, 0, length - side)) if side <= length else (length - side) / 2
        for centre, length in zip(middle, size, strict=True)
    ]
    return starts[0], starts[1], side


def fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """`size` scaled down so that no side is longer than `longest`."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def thinned(recall: NDArray[np.float64], points: int = 100) -> Rows:
    """The indices, ascending, of the points of a curve that are enough to draw it: all if there are at most `points`,
    else those at which each of `points` equal steps of `recall` (ascending) is first reached."""
    if len(recall) <= points:
        return np.arange(len(recall))
    levels = np.linspace(0, recall[-1], points + 1)
    return np.unique(np.searchsorted(recall, levels, side="left"))


def letters(count: int) -> Sequence[str]:
    """ "A", "B", ... "Z", "AA", "AB", ...: short names of `count` runs."""
    names = []
    for number in range(count):
        name, remaining = "", number + 1
        while remaining:
            remaining, digit = divmod(remaining - 1, 26)
            name = chr(65 + digit) + name
        names.append(name)
    return names
