"""Whitening of targets and closed-form ridge regression (R-CNN Appendix C; rcnn_train_bbox_regressor.m)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsyrk

Matrix = NDArray[np.float64]
WHITENING_EPSILON = 0.001


@dataclass(frozen=True)
class Whitening:
    """Y ↦ (Y - `mean`) `matrix`, and its `inverse`: float64 [4], [4, 4] and [4, 4]."""

    mean: Matrix
    matrix: Matrix
    inverse: Matrix


def whiten(targets: Matrix) -> Whitening:
    """The ZCA whitening of `targets` [n, 4], n > 0: V diag((d + 0.001)^-1/2) Vᵀ."""
    mean = targets.mean(axis=0)
    centred = targets - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(targets))
    spread = np.sqrt(np.maximum(variances, 0) + WHITENING_EPSILON)
    return Whitening(mean, (axes / spread) @ axes.T, (axes * spread) @ axes.T)


@dataclass(frozen=True)
class Ridge:
    """`coefficients` B, float64 [D + 1, 4], bias last; `residual` float64 [4, 4], (A B - Y)ᵀ(A B - Y) in training."""

    coefficients: Matrix
    residual: Matrix


def fit_ridge(blocks: Iterable[tuple[Matrix, Matrix]], dimension: int, regularisation: float) -> Ridge:
    """The B that minimises |A B - Y|² + λ|B|², bias included, where A has a last column of ones.

    `blocks` yields (features float64 [m, D], targets float64 [m, 4]) and is consumed one block at a time: memory is
    one matrix [D + 1, D + 1] and one block, however many examples there are.
    """
    gram = np.zeros((dimension + 1, dimension + 1), order="F")
    moments, squares = np.zeros((dimension + 1, 4)), np.zeros((4, 4))
    for features, targets in blocks:
        rows = np.hstack([features, np.ones((len(features), 1))])
        gram = dsyrk(1.0, rows.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
        moments += rows.T @ targets
        squares += targets.T @ targets
    np.einsum("ii->i", gram)[:] += regularisation
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    coefficients = np.asarray(cho_solve(factor, moments))
    residual = squares - moments.T @ coefficients - regularisation * (coefficients.T @ coefficients)
    return Ridge(coefficients, residual)
