"""Training one SVM with scikit-learn's liblinear, and its objective (R-CNN's release, rcnn_train.m)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from stages.features.sparse import sparse_rows
from stages.train_svm import Settings
from stages.train_svm.duality import relative_gap


@dataclass(frozen=True)
class Objective:
    """The terms of the objective: the weighted losses of positives and negatives, and the regulariser."""

    positives: float
    negatives: float
    regulariser: float

    @property
    def total(self) -> float:
        return self.positives + self.negatives + self.regulariser


@dataclass(frozen=True)
class Solution:
    """A trained SVM: `weights` float64 [D] on scaled features, `bias`, and its `negative_scores` float64 [m].

    `gap` is the relative duality gap (duality.py) if liblinear stopped before converging, else 0.
    """

    weights: NDArray[np.float64]
    bias: float
    negative_scores: NDArray[np.float64]
    objective: Objective
    iterations: int
    converged: bool
    gap: float = 0.0


def fit_svm(rows: NDArray[np.floating], positives: int, scale: float, settings: Settings) -> Solution:
    """The SVM that separates the first `positives` of the stored features `rows` [n, D] from the rest.

    Deterministic as long as no other thread of the process runs liblinear, whose random numbers are global: run
    concurrent fits in separate processes.
    """
    return minimise(sparse_rows(rows, scale), positives, settings)


def fit_svms(
    given: list[NDArray[np.floating]],
    members: Sequence[tuple[NDArray[np.integer], int]],
    scale: float,
    settings: Settings,
) -> list[Solution]:
    """`fit_svm` for several classes that share the stored features [n, D], the one element of `given`.

    `members` holds, per class, the rows that are its examples, and how many of them (the first ones) are positives. A
    single member must use all rows, in order. `given` is emptied so that the features are not held twice.
    """
    examples = sparse_rows(given.pop(), scale)
    return [
        minimise(examples if len(members) == 1 else examples[rows], positives, settings) for rows, positives in members
    ]


def minimise(examples: csr_matrix, positives: int, settings: Settings) -> Solution:
    """The SVM that separates the first `positives` of the scaled `examples` [n, D] from the rest."""
    labels = np.where(np.arange(examples.shape[0]) < positives, 1, -1)
    model = make_solver(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(examples, labels)
    weights, bias = np.array(model.coef_[0], np.float64), float(model.intercept_[0])
    scores = examples @ weights + bias
    objective = svm_objective(scores[:positives], scores[positives:], weights, bias, settings)
    iterations = int(model.n_iter_)
    converged = iterations < settings.max_iterations
    gap = 0.0 if converged else relative_gap(examples, positives, weights, bias, settings)
    return Solution(weights, bias, scores[positives:], objective, iterations, converged, gap)


def make_solver(settings: Settings) -> Any:
    """liblinear's dual coordinate descent with a regularised bias, the release's `-s 3 -B 10 -w1 2`."""
    from sklearn.svm import LinearSVC

    return LinearSVC(
        loss=settings.loss,
        dual=True,
        C=settings.C,
        class_weight={1: settings.positive_weight, -1: 1.0},
        intercept_scaling=settings.bias_multiplier,
        tol=settings.tolerance,
        max_iter=settings.max_iterations,
        random_state=settings.seed,
    )


def svm_objective(
    positive_scores: NDArray[np.float64],
    negative_scores: NDArray[np.float64],
    weights: NDArray[np.float64],
    bias: float,
    settings: Settings,
) -> Objective:
    """C·w₊·Σ loss(positives) + C·Σ loss(negatives) + ½|w|² + ½(b / bias multiplier)² (rcnn_train.m, lines 155-162).

    Scores are float64 [p] and [m], `weights` float64 [D]."""
    power = 1 if settings.loss == "hinge" else 2
    lost_positives = (np.maximum(0, 1 - positive_scores) ** power).sum()
    lost_negatives = (np.maximum(0, 1 + negative_scores) ** power).sum()
    return Objective(
        positives=float(settings.C * settings.positive_weight * lost_positives),
        negatives=float(settings.C * lost_negatives),
        regulariser=float(0.5 * (weights @ weights) + 0.5 * (bias / settings.bias_multiplier) ** 2),
    )
