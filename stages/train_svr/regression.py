"""One linear support vector regression, by liblinear."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from stages.train_svr import SQUARED, Settings


@dataclass(frozen=True)
class Regression:
    """`weights` float64 [D] on scaled features, and `bias`; `converged`: liblinear reached its tolerance."""

    weights: NDArray[np.float64]
    bias: float
    converged: bool = True


def fit_svr(examples: csr_matrix, targets: NDArray[np.float32], settings: Settings) -> Regression:
    """The regression of `targets` float32 [m], m > 0, from the scaled `examples` [m, D].

    It minimises ½|w|² + ½(b / bias multiplier)² + C·Σ loss(|w·x + b - target| - epsilon): the primal problem for
    squares, the dual one for absolute errors. Deterministic as long as no other thread of the process runs liblinear,
    whose random numbers are global.
    """
    from sklearn.svm import LinearSVR

    model = LinearSVR(
        epsilon=settings.epsilon,
        loss=settings.loss,
        dual=settings.loss != SQUARED,
        C=settings.C,
        intercept_scaling=settings.bias_multiplier,
        tol=settings.tolerance,
        max_iter=settings.max_iterations,
        random_state=settings.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(examples, targets.astype(np.float64))
    return Regression(
        np.array(model.coef_.ravel(), np.float64),
        float(np.ravel(model.intercept_)[0]),
        int(np.max(model.n_iter_)) < settings.max_iterations,
    )


def svr_objective(
    examples: csr_matrix, targets: NDArray[np.float32], regression: Regression, settings: Settings
) -> float:
    """What `fit_svr` minimises, at `regression`."""
    errors = np.abs(examples @ regression.weights + regression.bias - targets)
    lost = np.maximum(0, errors - settings.epsilon) ** (2 if settings.loss == SQUARED else 1)
    regulariser = regression.weights @ regression.weights + (regression.bias / settings.bias_multiplier) ** 2
    return float(0.5 * regulariser + settings.C * lost.sum())
