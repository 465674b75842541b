"""Exact nearest neighbours among descriptors of length 1, in blocks, so that one of the two sets may be of any size.

Descriptors are compared by direction: raw ones are short where there is little texture, so that two photographs of
plain skies lie as close together as two copies of one photograph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.25
"""Distance of normalised descriptors below which two images are taken for near-duplicates; see docs/duplicates.md."""
NO_TEXTURE = 1e-3
"""Lengths below this are rounding: the image is of a single colour, and its descriptor has no direction."""
PLAIN = 0.5
"""Lengths below this are those of images with little texture, such as plain skies: their pairs need a look."""
QUERIES, ROWS = 1024, 16384
"""The sizes of a block."""
MARGIN = 1e-5
"""More than float32 rounds a product of two descriptors of length 1."""
AT_ONCE = 16384
"""Pairs whose exact distances are computed at once."""

Descriptors = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """Of each query its nearest rows, nearest first: `rows` int64 [n, count], `distances` float64 [n, count].

    Equal distances are in the order of rows. Where there are fewer rows than `count`, -1 and infinity.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def lengths(descriptors: Descriptors) -> NDArray[np.float64]:
    """The Euclidean length of each descriptor [n, D]: float64 [n]."""
    return np.sqrt(np.einsum("nd,nd->n", descriptors, descriptors, dtype=np.float64))


def normalised(descriptors: Descriptors) -> Descriptors:
    """The descriptors [n, D] divided by their lengths; zeros where the length is below NO_TEXTURE."""
    length = lengths(descriptors)
    has_texture = length >= NO_TEXTURE
    return np.asarray(descriptors * (has_texture / np.where(has_texture, length, 1))[:, None], np.float32)


def distances_between(a: Descriptors, b: Descriptors) -> NDArray[np.float64]:
    """The Euclidean distance of each row of `a` [n, D] from that of `b` [n, D]: float64 [n]."""
    return lengths(a - b)


def nearest(
    queries: Descriptors, parts: Iterable[Descriptors], count: int, *, among_themselves: bool = False
) -> Neighbours:
    """The `count` nearest rows of each of the `queries` [n, D], all normalised; `parts` are the rows, [m, D] at a time.

    Rows and queries that are zero have no neighbours. `among_themselves`: the rows are the queries, and none is its own
    neighbour.
    """
    found = Neighbours(np.full((len(queries), count), -1, np.int64), np.full((len(queries), count), np.inf))
    start = 0
    for block in blocks_of(parts, ROWS):
        for first in range(0, len(queries), QUERIES):
            chosen = slice(first, first + QUERIES)
            own = first - start if among_themselves else None
            improve(found, chosen, queries[chosen], block, start, own)
        start += len(block)
    return found


def improve(
    found: Neighbours, chosen: slice, queries: Descriptors, block: Descriptors, start: int, own: int | None
) -> None:
    """Replaces neighbours of the queries in the slice `chosen` by nearer rows of a block, whose first is row `start`.

    `own`: query q is row q + own of the block.
    """
    count = found.rows.shape[1]
    products = queries @ block.T
    products[:, ~block.any(axis=1)] = -np.inf
    products[~queries.any(axis=1)] = -np.inf
    if own is not None:
        places = np.arange(len(queries))
        inside = (places + own >= 0) & (places + own < len(block))
        products[places[inside], places[inside] + own] = -np.inf
    limits = 1 - found.distances[chosen, -1] ** 2 / 2 - MARGIN
    candidates = products > limits[:, None]
    crowded = candidates.sum(axis=1) > 4 * count
    if crowded.any():
        limits[crowded] = np.partition(products[crowded], -count, axis=1)[:, -count] - MARGIN
        candidates[crowded] = products[crowded] >= limits[crowded, None]
    query, row = np.nonzero(candidates & (products > -np.inf))
    if not len(query):
        return
    distances = np.concatenate(
        [
            distances_between(queries[query[first : first + AT_ONCE]], block[row[first : first + AT_ONCE]])
            for first in range(0, len(query), AT_ONCE)
        ]
    )
    merge(found, chosen.start + query, start + row, distances)


def merge(found: Neighbours, query: NDArray[np.int64], row: NDArray[np.int64], distances: NDArray[np.float64]) -> None:
    """Takes further pairs of a query and a row into account, given with their distances, each [k]."""
    count = found.rows.shape[1]
    changed = np.unique(query)
    queries = np.concatenate([np.repeat(changed, count), query])
    rows = np.concatenate([found.rows[changed].ravel(), row])
    every = np.concatenate([found.distances[changed].ravel(), distances])
    order = np.lexsort((rows, every, queries))
    firsts = np.searchsorted(queries[order], changed)
    kept = order[firsts[:, None] + np.arange(count)]
    found.rows[changed], found.distances[changed] = rows[kept], every[kept]


def blocks_of(parts: Iterable[Descriptors], rows: int) -> Iterator[Descriptors]:
    """The same rows in blocks of about `rows`, at least if there are as many."""
    waiting: list[Descriptors] = []
    for part in parts:
        waiting += [part[first : first + rows] for first in range(0, len(part), rows)]
        if sum(map(len, waiting)) >= rows:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
