"""Dividing images among sets of given sizes so that each class is divided in the same proportions, and images that
belong together stay together.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: "On the stratification of multi-label data", ECML PKDD 2011,
Algorithm 1) of groups of images: the class that the fewest remaining groups show is distributed first, each time to the
set that lacks most of it.

Symbols: n images, K classes, G groups, S sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stages.datasets.balance import Counts


def connected_groups(count: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """The number of each of `count` images' group, int64 [n]: images of a pair are in one group, and so are those that
    pairs lead to. Groups are numbered from 0, in the order of their first images."""
    ends = np.array(list(pairs), np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def divided(counts: Counts, groups: NDArray[np.int64], fractions: Sequence[float], seed: int) -> NDArray[np.int64]:
    """The set of each image, int64 [n], of sets that get these `fractions` [S] of the images and of each class.

    `counts` [n, K] are the objects of each class in each image, `groups` [n] the group of each image; a group is never
    divided. What counts is how many images show a class, as one image may have many of its objects. A set with a
    fraction of 0 stays empty. Depends on its arguments alone.
    """
    random = np.random.default_rng([seed, len(counts)])
    shares = np.array(fractions, np.float64) / np.sum(fractions)
    sizes = np.bincount(groups)
    shown = np.zeros((len(sizes), counts.shape[1]), np.int64)
    np.add.at(shown, groups, (counts > 0).astype(np.int64))
    lacking = shares[:, None] * shown.sum(axis=0)
    room = shares * len(counts)
    order = random.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]  # large groups first: small ones then even out
    waiting = {int(group): None for group in order}
    chosen = np.zeros(len(sizes), np.int64)
    while waiting:
        left = np.array(list(waiting), np.int64)
        label = rarest_class(shown[left])
        for group in left if label is None else left[shown[left, label] > 0]:
            chosen[group] = neediest(None if label is None else lacking[:, label], room, shares, random)
            lacking[chosen[group]] -= shown[group]
            room[chosen[group]] -= sizes[group]
            del waiting[int(group)]
    return chosen[groups]


def rarest_class(shown: NDArray[np.int64]) -> int | None:
    """The class that the fewest groups show, of those that any does, given `shown` [G, K]; None if none is shown."""
    groups = (shown > 0).sum(axis=0)
    labels = np.flatnonzero(groups)
    return int(labels[np.argmin(groups[labels])]) if len(labels) else None


def neediest(
    lacking: NDArray[np.float64] | None,
    room: NDArray[np.float64],
    shares: NDArray[np.float64],
    random: np.random.Generator,
) -> int:
    """The set that lacks most of a class (None: of no class in particular), then the one with most room for images,
    then one at random. All float64 [S]; sets without a share are left out."""
    best = np.flatnonzero(shares > 0)
    for need in (lacking, room):
        if need is not None:
            best = best[np.isclose(need[best], need[best].max())]
    return int(random.choice(best))
