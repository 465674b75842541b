"""Orderings of detections: by class, by descending score, by precision."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def falling(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """32-bit integers in the reverse order of `scores` [n], equal for equal scores: int64 [n].

    The bits of a float, read as an integer, are ordered like the float, except for the sign. Packed into one integer
    with a class or a row, they sort fast.
    """
    bits = (np.float32(0) - scores).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def scores_of(falling: NDArray[np.int64]) -> NDArray[np.float32]:
    """The inverse of `falling`: float32 [n] from int64 [n]."""
    bits = falling.astype(np.int32)
    return np.float32(0) - (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def by_class(labels: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each class in `labels` [n]: the class and its rows, ascending int64."""
    order = np.argsort(labels, kind="stable")
    for low, high in pairwise(np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1)).tolist()):
        yield int(labels[order[low]]), order[low:high]


def best_first(scores: NDArray[np.floating], precision: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows int64 [n] by descending `precision` [n] (nan last), ties by descending `scores` [n].

    Unlike scores, precisions of different classes are comparable.
    """
    return np.lexsort((-scores, -np.nan_to_num(precision, nan=-1.0)))
