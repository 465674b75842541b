"""Exact nearest neighbours in blocks: against scikit-learn, and in the cases that have none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from stages.gist import neighbours
from stages.gist.neighbours import lengths, nearest, normalised


def described(count: int, seed: int, width: int = 12) -> np.ndarray:
    """Normalised descriptors, at least 0 as GIST's are."""
    return normalised(np.random.default_rng(seed).random((count, width), np.float32))


@given(st.integers(0, 100), st.integers(1, 40), st.integers(6, 90), st.integers(1, 5), st.integers(1, 30))
def test_neighbours_are_those_of_scikit_learn(seed: int, queries: int, rows: int, count: int, size: int) -> None:
    a, b = described(rows, seed), described(queries, seed + 1000)
    parts = [a[first : first + size] for first in range(0, rows, size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERIES", 7)
        patch.setattr(neighbours, "ROWS", 16)
        found = nearest(b, parts, count)
    expected = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(a.astype(float))
    distances, indices = expected.kneighbors(b.astype(float))
    np.testing.assert_allclose(found.distances, distances, atol=1e-7)
    np.testing.assert_array_equal(found.rows, indices)


def test_among_themselves_none_is_its_own_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "QUERIES", 4)
    monkeypatch.setattr(neighbours, "ROWS", 6)
    a = described(23, 1)
    found = nearest(a, [a], 2, among_themselves=True)
    distances, indices = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(a.astype(float)).kneighbors()
    np.testing.assert_allclose(found.distances, distances[:, :2], atol=1e-7)
    np.testing.assert_array_equal(found.rows, indices[:, :2])


def test_equal_rows_are_in_order_and_at_distance_zero() -> None:
    a = np.repeat(described(2, 3), 300, axis=0)
    found = nearest(a[[599, 0]], [a[:250], a[250:]], 3)
    np.testing.assert_array_equal(found.rows, [[300, 301, 302], [0, 1, 2]])
    np.testing.assert_array_equal(found.distances, 0)


def test_images_of_one_colour_have_no_neighbours() -> None:
    a = described(4, 5)
    a[2] = 0
    queries = np.concatenate([a[:1], np.zeros((1, 12), np.float32)])
    found = nearest(queries, [a], 4)
    assert 2 not in found.rows[0, :3]
    np.testing.assert_array_equal(found.rows[:, 3], -1)
    np.testing.assert_array_equal(found.rows[1], -1)
    assert np.isinf(found.distances[1]).all()


def test_without_rows_there_are_no_neighbours() -> None:
    found = nearest(described(2, 0), [], 3)
    assert (found.rows == -1).all()


def test_normalised_descriptors_by_hand() -> None:
    values = np.array([[3, 4], [0, 0.0005], [0, 0]], np.float32)
    np.testing.assert_allclose(lengths(values), [5, 0.0005, 0])
    np.testing.assert_allclose(normalised(values), np.array([[0.6, 0.8], [0, 0], [0, 0]]))
