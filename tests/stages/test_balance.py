"""Halves with equal counts of every class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.datasets.balance import balanced_halves, occurrences, relative_imbalances, searched, tossed_pairs


def test_imbalances_by_hand() -> None:
    """3 and 1 of the first class, 2 and 2 of the second, none of the third."""
    counts = np.array([[3, 1, 0], [1, 2, 0], [0, 1, 0]])
    found = relative_imbalances(counts, np.array([False, True, False]))
    np.testing.assert_allclose(found[:2], [0.5, 0.0])
    assert np.isnan(found[2])


def test_what_can_be_equal_is_equal() -> None:
    counts = np.array([[4, 0], [2, 0], [2, 0], [0, 1], [0, 1], [0, 0]])
    second = balanced_halves(counts, 0)
    np.testing.assert_array_equal(relative_imbalances(counts, second), [0, 0])
    assert int(second.sum()) == 3
    assert not second[0]


@pytest.mark.parametrize("images", [0, 1, 2])
def test_very_few_images(images: int) -> None:
    second = balanced_halves(np.ones((images, 2), np.int64), 0)
    assert second.tolist() == [False, True][:images]


def test_no_objects_at_all_gives_halves() -> None:
    second = balanced_halves(np.zeros((10, 3), np.int64), 4)
    assert int(second.sum()) == 5


@given(
    arrays(np.int64, st.tuples(st.integers(1, 25), st.integers(1, 4)), elements=st.integers(0, 5)), st.integers(0, 9)
)
def test_the_search_never_raises_the_sum_of_fourth_powers(counts: np.ndarray, seed: int) -> None:
    totals = counts.sum(axis=0).astype(float).tolist()
    start = tossed_pairs(counts, np.random.default_rng(seed))
    after = searched(start, occurrences(counts), totals, np.random.default_rng(seed))
    before, now = (np.nansum(relative_imbalances(counts, second) ** 4) for second in (start, after))
    assert now <= before + 1e-12
    for image in range(len(counts)):  # no single move is left that lowers it
        moved = after.copy()
        moved[image] = ~moved[image]
        assert np.nansum(relative_imbalances(counts, moved) ** 4) >= now - 1e-9


def test_pairs_are_divided() -> None:
    """Two images of each kind: one of each is in each half."""
    counts = np.repeat(np.array([[1, 0, 0], [0, 2, 0], [0, 2, 1], [5, 1, 0]]), 2, axis=0)
    second = tossed_pairs(counts, np.random.default_rng(0))
    assert (second[::2] != second[1::2]).all()


def test_the_split_is_a_function_of_counts_and_seed() -> None:
    counts = long_tail(600, 20)
    np.testing.assert_array_equal(balanced_halves(counts, 1), balanced_halves(counts, 1))
    assert (balanced_halves(counts, 1) != balanced_halves(counts, 2)).any()


def test_a_long_tail_is_balanced_as_well_as_the_papers_split() -> None:
    counts = long_tail(2000, 60)
    for seed in range(3):
        apart = relative_imbalances(counts, balanced_halves(counts, seed, trials=2))
        assert apart.max() <= 0.11
        assert np.median(apart) <= 0.04


def long_tail(images: int, classes: int) -> np.ndarray:
    """int64 [images, classes]: 31 objects of the rarest class, 1,000 of the commonest, some of them together."""
    generator = np.random.default_rng(0)
    counts = np.zeros((images, classes), np.int64)
    for label, total in enumerate(np.geomspace(31, 1000, classes).astype(int)):
        where = generator.integers(images, size=total)
        np.add.at(counts[:, label], np.where(generator.random(total) < 0.3, np.roll(where, 1), where), 1)
    return counts
