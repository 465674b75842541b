"""Pairs of images that show the same photograph: by the file's content, by flickr's numbers, and by GIST (R-CNN
Appendix F)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.gist.neighbours import (
    NO_TEXTURE,
    PLAIN,
    Descriptors,
    Neighbours,
    distances_between,
    lengths,
    nearest,
    normalised,
)

COUNT = 5
"""Near-duplicates listed for each image at most."""


@dataclass(frozen=True)
class Described:
    """A set of n images: `ids` [n], `digests` [n] of what determines their pixels, `flickr_ids` [n] where stated, and
    the columns `parts` of raw descriptors, float32 [m, D] each, in the order of the images."""

    ids: Sequence[str]
    digests: Sequence[str]
    flickr_ids: Sequence[str | None]
    parts: Iterable[Descriptors]


@dataclass(frozen=True)
class Pair:
    """Image number `a` of A and number `b` of B, and how they are known to be one photograph.

    `distance` is that of the normalised descriptors, nan if one has no texture. `flickr_id` is the number they share.
    `plain`: both have so little texture that different photographs may look alike.
    """

    a: int
    b: int
    distance: float
    same_file: bool
    flickr_id: str | None
    plain: bool

    @property
    def exact(self) -> bool:
        """Whether it needs no look to know."""
        return self.same_file or self.flickr_id is not None


@dataclass(frozen=True)
class Duplicates:
    """What was found of B's images in A, or of A's among themselves.

    `pairs`, in the order of their distances, are those that are exact or nearer than `threshold`; `closest_others` the
    nearest of the rest. `neighbours` are those of every image of B. `without_texture_a` bool [images of A] and
    `without_texture_b` are those that cannot be compared.
    """

    threshold: float
    pairs: tuple[Pair, ...]
    closest_others: tuple[Pair, ...]
    neighbours: Neighbours
    without_texture_a: NDArray[np.bool_]
    without_texture_b: NDArray[np.bool_]

    def is_near(self, pair: Pair) -> bool:
        """Whether GIST takes the two for near-duplicates."""
        return pair.distance < self.threshold

    def images(self, pairs: Iterable[Pair]) -> int:
        """The number of images of B in these pairs."""
        return len({pair.b for pair in pairs})


def find_duplicates(a: Described, b: Described | None, threshold: float, others: int = 0) -> Duplicates:
    """The duplicates in A of B's images (None: of A's own), and the `others` closest pairs that are none."""
    queries = np.concatenate([*(a if b is None else b).parts])
    length_of_a: list[NDArray[np.float64]] = []

    def rows() -> Iterator[Descriptors]:
        for part in a.parts:
            length_of_a.append(lengths(part))
            yield normalised(part)

    unit = normalised(queries)
    neighbours = nearest(unit, rows(), COUNT, among_themselves=b is None)
    of_a, of_b = np.concatenate(length_of_a), lengths(queries)
    exact = exact_pairs(a, b)
    distances = near_pairs(neighbours, neighbours.distances < threshold, b is None)
    distances |= exact_distances(a, unit, [pair for pair in exact if pair not in distances])
    further = near_pairs(neighbours, closest(neighbours.distances, threshold, 2 * others + len(exact)), b is None)

    def made(row: int, query: int, distance: float) -> Pair:
        same_file, flickr_id = exact.get((row, query), (False, None))
        return Pair(row, query, distance, same_file, flickr_id, bool(max(of_a[row], of_b[query]) < PLAIN))

    found = sorted((made(*pair, distance) for pair, distance in distances.items()), key=in_order)
    rest = sorted((made(*pair, far) for pair, far in further.items() if pair not in distances), key=in_order)
    return Duplicates(threshold, tuple(found), tuple(rest[:others]), neighbours, of_a < NO_TEXTURE, of_b < NO_TEXTURE)


def in_order(pair: Pair) -> tuple[float, int, int]:
    """Pairs by their distance, those without one last."""
    return math.inf if math.isnan(pair.distance) else pair.distance, pair.b, pair.a


def near_pairs(
    neighbours: Neighbours, chosen: NDArray[np.bool_], among_themselves: bool
) -> dict[tuple[int, int], float]:
    """The distances of the `chosen` neighbours, bool [n, count], by (number in A, number in B); `among_themselves` the
    first of a pair is the earlier one."""
    queries, places = np.nonzero(chosen)
    rows = neighbours.rows[queries, places].tolist()
    pairs = zip(rows, queries.tolist(), neighbours.distances[queries, places].tolist(), strict=True)
    if among_themselves:
        return {(min(row, query), max(row, query)): distance for row, query, distance in pairs}
    return {(row, query): distance for row, query, distance in pairs}


def closest(distances: NDArray[np.float64], threshold: float, count: int) -> NDArray[np.bool_]:
    """The `count` smallest of the finite `distances` that are not below the threshold: bool, of the same shape."""
    chosen = np.zeros(distances.size, np.bool_)
    places = np.flatnonzero((distances >= threshold) & np.isfinite(distances))
    chosen[places[np.argsort(distances.ravel()[places], kind="stable")[:count]]] = True
    return chosen.reshape(distances.shape)


def exact_pairs(a: Described, b: Described | None) -> dict[tuple[int, int], tuple[bool, str | None]]:
    """(number in A, number in B) of images with the same content or the same number on flickr: whether the content is
    the same, and the number that they share, if any. Among A itself, the first of a pair is the earlier one."""
    pairs: dict[tuple[int, int], tuple[bool, str | None]] = {}
    for pair in equal(a.digests, None if b is None else b.digests):
        pairs[pair] = (True, None)
    for pair in equal(a.flickr_ids, None if b is None else b.flickr_ids):
        pairs[pair] = (pair in pairs, a.flickr_ids[pair[0]])
    return pairs


def equal(a: Sequence[str | None], b: Sequence[str | None] | None) -> Iterator[tuple[int, int]]:
    """The positions of equal texts in A and B (None: of A itself, the earlier one first)."""
    places: Mapping[str, list[int]] = defaultdict(list)
    for place, text in enumerate(a):
        if text is not None:
            places[text].append(place)
    for place, text in enumerate(a if b is None else b):
        for other in places.get(text, ()) if text is not None else ():
            if b is not None or other < place:
                yield other, place


def exact_distances(
    a: Described, queries: Descriptors, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """The distances of images that are known to be the same but are no neighbours; nan if one has no texture."""
    distances: dict[tuple[int, int], float] = {}
    start = 0
    for part in a.parts if pairs else ():
        inside = [pair for pair in pairs if start <= pair[0] < start + len(part)]
        first = normalised(part[[row - start for row, _ in inside]])
        second = queries[[query for _, query in inside]]
        found = distances_between(first, second)
        found[~first.any(axis=1) | ~second.any(axis=1)] = math.nan
        distances.update(zip(inside, found.tolist(), strict=True))
        start += len(part)
    return distances
