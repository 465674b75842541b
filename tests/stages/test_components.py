"""Principal components of features: by hand, and by NumPy's singular value decomposition."""

from __future__ import annotations

import numpy as np

from stages.features.components import principal_components


def test_a_line_by_hand() -> None:
    """Points on the line (3, 4) t: all variance along it, at distances 5 t from the mean."""
    features = np.array([[3.0, 4.0], [6.0, 8.0], [9.0, 12.0]])
    coordinates, variance = principal_components(features)
    np.testing.assert_allclose(np.abs(coordinates[:, 0]), [5, 0, 5], atol=1e-12)
    np.testing.assert_allclose(variance, [1, 0], atol=1e-12)


def test_agrees_with_a_singular_value_decomposition() -> None:
    features = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float16)
    coordinates, variance = principal_components(features)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(centred @ directions[:2].T), atol=1e-9)
    np.testing.assert_allclose(variance, lengths[:2] ** 2 / np.sum(lengths**2))


def test_features_that_do_not_differ_have_no_variance() -> None:
    coordinates, variance = principal_components(np.ones((4, 3)))
    assert not coordinates.any()
    assert not variance.any()
