"""The duality gap of a trained SVM: how far its objective may be from the minimum.

liblinear does not return the dual variables, so a feasible dual point is built from the SVM: by complementary slackness
an example beyond the margin has a dual variable of 0, one that violates it has its upper bound, and the few near the
margin are fitted so that all of them together give the SVM's weights. By weak duality any feasible point bounds the
minimum from below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from stages.train_svm import Settings

NEAR_MARGIN = (0.003, 0.03, 0.1)
"""Examples whose margin is this close to 1 have their dual variables fitted. The first width gives the best bound for a
nearly converged SVM, the last for a coarse one; the best of the bounds is used."""
ENOUGH = 1e-3
"""A relative gap this small is good enough: wider margins are not tried."""
MOST_FITTED = 500


def relative_gap(
    examples: csr_matrix, positives: int, weights: NDArray[np.float64], bias: float, settings: Settings
) -> float:
    """The largest fraction by which the objective can still fall, from 0 to 1.

    `examples` [n, D] are scaled features, the first `positives` of them positives; `weights` [D] and `bias` are the
    SVM.
    """
    signs = np.where(np.arange(examples.shape[0]) < positives, 1.0, -1.0)
    costs = np.where(signs > 0, settings.C * settings.positive_weight, settings.C)
    margins = signs * (examples @ weights + bias)
    losses = np.maximum(0, 1 - margins)
    solution = np.append(weights, bias / settings.bias_multiplier)
    if settings.loss == "squared_hinge":
        primal = 0.5 * solution @ solution + costs @ losses**2
        variables = 2 * costs * losses
        penalty = (variables**2 / (4 * costs)).sum()
        bound = dual(examples, signs * variables, settings.bias_multiplier, penalty)
    else:
        primal, bound = 0.5 * solution @ solution + costs @ losses, 0.0
        for near in NEAR_MARGIN:
            variables = fitted_variables(examples, signs, costs, margins, solution, settings.bias_multiplier, near)
            bound = max(bound, dual(examples, signs * variables, settings.bias_multiplier))
            if primal - bound < ENOUGH * primal:
                break
    return float(np.clip((primal - bound) / primal, 0, 1))


def dual(examples: csr_matrix, signed: NDArray[np.float64], bias_multiplier: float, penalty: float = 0.0) -> float:
    """The dual objective at the best multiple, at most 1, of `signed` [n], dual variables times labels; `penalty` is
    the squared hinge's extra term."""
    combined = combination(examples, signed, bias_multiplier)
    linear, quadratic = np.abs(signed).sum(), combined @ combined + 2 * penalty
    share = min(1.0, linear / quadratic) if quadratic > 0 else 1.0
    return float(share * linear - 0.5 * share**2 * quadratic)


def fitted_variables(
    examples: csr_matrix,
    signs: NDArray[np.float64],
    costs: NDArray[np.float64],
    margins: NDArray[np.float64],
    solution: NDArray[np.float64],
    bias_multiplier: float,
    near_margin: float,
) -> NDArray[np.float64]:
    """Dual variables float64 [n] of the hinge loss, each between 0 and its cost, for an SVM with these `margins` [n].

    `solution` [D + 1] holds its weights and its bias as regularised; examples within `near_margin` of the margin are
    fitted."""
    from scipy.optimize import lsq_linear

    distances = np.abs(margins - 1)
    near = np.argsort(distances, kind="stable")[:MOST_FITTED]
    near = near[distances[near] < near_margin]
    variables = np.where(margins < 1, costs, 0.0)
    variables[near] = 0
    if len(near):
        rest = solution - combination(examples, signs * variables, bias_multiplier)
        columns = np.vstack([examples[near].toarray().T, np.full((1, len(near)), bias_multiplier)]) * signs[near]
        base, small = np.linalg.qr(columns)
        bounds = np.zeros(len(near)), costs[near]
        fit = lsq_linear(small, base.T @ rest, bounds, method="trf", lsq_solver="exact")
        variables[near] = np.clip(fit.x, *bounds)
    return variables


def combination(examples: csr_matrix, variables: NDArray[np.float64], bias_multiplier: float) -> NDArray[np.float64]:
    """The weights and regularised bias [D + 1] that signed dual `variables` [n] give."""
    return np.append(examples.T @ variables, bias_multiplier * variables.sum())
