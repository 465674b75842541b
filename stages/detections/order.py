"""The orders that detections come in: by class, from the best score down, by precision."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def falling(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """int64 [n]: whole numbers of 32 bits in the order opposite to that of `scores` [n], equal for equal scores.

    A float's bits, read as a number, are in its order, but for the sign. With a class or a row beside them in one
    number they sort fast.
    """
    bits = (np.float32(0) - scores).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def scores_of(falling: NDArray[np.int64]) -> NDArray[np.float32]:
    """The inverse of `falling`: float32 [n] of int64 [n]."""
    bits = falling.astype(np.int32)
    return np.float32(0) - (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def by_class(labels: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each class that occurs in `labels` [n]: the class and its rows, ascending."""
    order = np.argsort(labels, kind="stable")
    for low, high in pairwise(np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1)).tolist()):
        yield int(labels[order[low]]), order[low:high]


def best_first(scores: NDArray[np.floating], precision: NDArray[np.floating]) -> NDArray[np.int64]:
    """The rows of detections, int64 [n], by `precision` [n] from the best down (nan last), equal ones by `scores` [n].

    Scores of different classes have no common scale, their precisions have.
    """
    return np.lexsort((-scores, -np.nan_to_num(precision, nan=-1.0)))
