"""Dividing images among sets: proportions of classes, and groups that stay together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.datasets.splitting import connected_groups, divided, rarest_class


def test_groups_are_what_pairs_connect() -> None:
    assert connected_groups(6, [(4, 1), (1, 5), (3, 3)]).tolist() == [0, 1, 2, 3, 1, 1]
    assert connected_groups(3, []).tolist() == [0, 1, 2]
    assert connected_groups(0, []).tolist() == []
    assert connected_groups(4, [(0, 1), (2, 3), (3, 0)]).tolist() == [0, 0, 0, 0]


def test_each_class_is_divided_in_the_same_proportions() -> None:
    counts = np.zeros((50, 2), np.int64)
    counts[:10, 0] = 3  # a fifth of the images, together at the beginning
    counts[10:, 1] = 1
    parts = divided(counts, np.arange(50), (0.6, 0.2, 0.2), seed=3)
    assert np.bincount(parts).tolist() == [30, 10, 10]
    assert np.bincount(parts[:10]).tolist() == [6, 2, 2]


def test_groups_stay_together() -> None:
    groups = np.repeat(np.arange(10), 4)
    parts = divided(np.zeros((40, 1), np.int64), groups, (0.5, 0.0, 0.5), seed=0)
    assert all(len(set(parts[groups == group])) == 1 for group in range(10))
    assert np.bincount(parts).tolist() == [20, 0, 20]


def test_the_seed_decides() -> None:
    counts = np.eye(3, dtype=np.int64)[np.arange(60) % 3]
    first, second = (divided(counts, np.arange(60), (0.6, 0.2, 0.2), seed) for seed in (0, 1))
    np.testing.assert_array_equal(first, divided(counts, np.arange(60), (0.6, 0.2, 0.2), 0))
    assert (first != second).any()


def test_the_rarest_class_comes_first() -> None:
    assert rarest_class(np.array([[1, 0, 9], [1, 0, 0], [2, 0, 0]])) == 2
    assert rarest_class(np.zeros((2, 3), np.int64)) is None
    assert rarest_class(np.zeros((2, 0), np.int64)) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.lists(st.integers(0, 3), min_size=3, max_size=3)), min_size=1, max_size=40
    ),
    st.integers(0, 5),
)
def test_no_group_is_divided_and_no_image_lost(images: list[tuple[int, list[int]]], seed: int) -> None:
    groups = np.unique([group for group, _ in images], return_inverse=True)[1].astype(np.int64)
    counts = np.array([numbers for _, numbers in images], np.int64)
    parts = divided(counts, groups, (2, 1, 1), seed)
    assert parts.shape == (len(images),)
    assert set(parts.tolist()) <= {0, 1, 2}
    for group in range(groups.max() + 1):
        assert len(set(parts[groups == group].tolist())) == 1
