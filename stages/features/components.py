"""Features seen in two dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_components(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal components of `features` [n, D], n and D at least 2, as scikit-learn's PCA has them.

    Returns (coordinates float64 [n, 2], the share of the variance along each, float64 [2], 0 if there is none).
    """
    from sklearn.decomposition import PCA

    values = np.asarray(features, np.float64)
    if not np.ptp(values, axis=0).any():
        return np.zeros((len(values), 2)), np.zeros(2)
    components = PCA(n_components=2, svd_solver="full")
    coordinates = components.fit_transform(values)
    return np.asarray(coordinates, np.float64), np.asarray(components.explained_variance_ratio_, np.float64)
