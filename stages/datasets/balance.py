"""Halves of a dataset with as equal counts of every class as can be found: val1 and val2 (R-CNN section 4.1).

The authors paired images with similar counts, tossed a coin for each pair, and moved images while both the largest and
the mean relative imbalance fell; the best of many trials has 11 % at most and a median of 4 %. A move that helps has to
touch the worst class there, so the search soon stops. Here the sum of the fourth powers of all imbalances has to fall:
it weighs the worst classes most, and any class lets the search go on.

Symbols: n images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from stages.contract.execution import Progress, silent
from stages.datasets.voc import Dataset

Counts = NDArray[np.int64]
"""The number of objects of each class in each image: int64 [n, K]."""
TRIALS = 8
MOST_PASSES = 50
LEAST_GAIN = 1e-12


def class_counts(
    dataset: Dataset, progress: Callable[[str, int, str], AbstractContextManager[Progress]] = silent
) -> Counts:
    """The number of objects of each class in each image of the dataset: int64 [n, K]. Raises BadAnnotation."""
    counts = np.zeros((len(dataset), len(dataset.classes)), np.int64)
    with progress("split", len(dataset), "images") as bar:
        for row, image_id in zip(counts, dataset.image_ids, strict=True):
            np.add.at(row, dataset.record(image_id).labels, 1)
            bar.advance(1)
    return counts


def balanced_halves(counts: Counts, seed: int, trials: int = TRIALS) -> NDArray[np.bool_]:
    """Which images are in the second half: bool [n]; the best of so many trials, by the largest relative imbalance of a
    class and then by the median. The numbers of images are balanced as those of a class are.

    Depends on its arguments alone. The halves are named so that the first image is in the first.
    """
    size = np.ones((len(counts), 1), np.int64)
    of_images = occurrences(np.hstack([counts, size]))
    totals = [float(total) for total in np.append(counts.sum(axis=0), len(counts))]
    best, best_rank = np.zeros(len(counts), bool), (np.inf, np.inf, np.inf)
    for trial in range(trials):
        generator = np.random.default_rng([seed, trial])
        second = searched(tossed_pairs(counts, generator), of_images, totals, generator)
        apart = relative_imbalances(counts, second)
        apart = apart[~np.isnan(apart)]
        sizes = abs(len(second) - 2 * int(second.sum())) / max(1, len(second))
        rank = (float(apart.max(initial=0)), float(np.median(apart)) if len(apart) else 0.0, sizes)
        if rank < best_rank:
            best, best_rank = second, rank
    return ~best if len(best) and best[0] else best


def relative_imbalances(counts: Counts, second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """|a - b| / (a + b) of each class, with a and b its objects in the two halves: float64 [K]; nan without objects."""
    total = counts.sum(axis=0)
    apart = np.abs(total - 2 * counts[second].sum(axis=0))
    return np.divide(apart, total, out=np.full(len(total), np.nan), where=total > 0)


def tossed_pairs(counts: Counts, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Halves in which of two similar images one is in each, as a coin decides: bool [n].

    Similar are images that follow each other when sorted by the rarest class in each, then by their counts of the
    classes, rarer ones first, and at random where these are equal.
    """
    rarest_first = np.argsort(counts.sum(axis=0), kind="stable")
    keys = [generator.permutation(len(counts)), *counts[:, rarest_first[::-1]].T]
    order = np.lexsort(keys)
    second = np.zeros(len(counts), bool)
    heads = generator.random((len(counts) + 1) // 2) < 0.5
    second[order[::2]] = heads
    second[order[1::2]] = ~heads[: len(counts) // 2]
    return second


def occurrences(counts: Counts) -> list[list[tuple[int, float]]]:
    """The (class, number of objects) of the classes in each image."""
    images: list[list[tuple[int, float]]] = [[] for _ in range(len(counts))]
    rows, columns = np.nonzero(counts)
    for row, column, count in zip(rows.tolist(), columns.tolist(), counts[rows, columns].tolist(), strict=True):
        images[row].append((column, float(count)))
    return images


def searched(
    second: NDArray[np.bool_],
    of_images: Sequence[Sequence[tuple[int, float]]],
    totals: Sequence[float],
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """The halves bool [n] after moving single images across, in passes over all of them in random order, while that
    lowers the sum over classes of the fourth power of the relative imbalance."""
    sides = [-1.0 if in_second else 1.0 for in_second in second.tolist()]
    apart = [0.0] * len(totals)  # objects of the first half less those of the second
    for side, classes in zip(sides, of_images, strict=True):
        for label, count in classes:
            apart[label] += side * count
    weights = [1 / total**4 if total else 0.0 for total in totals]
    for _ in range(MOST_PASSES):
        moved = False
        for image in generator.permutation(len(sides)).tolist():
            twice = 2 * sides[image]
            gain = 0.0
            for label, count in of_images[image]:
                before = apart[label] * apart[label]
                after = apart[label] - twice * count
                gain += weights[label] * (before * before - after * after * after * after)
            if gain > LEAST_GAIN:
                for label, count in of_images[image]:
                    apart[label] -= twice * count
                sides[image] = -sides[image]
                moved = True
        if not moved:
            break
    return np.array(sides) < 0
