"""Calibration of scores: by hand, and as scikit-learn's calibration_curve and isotonic regression have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from stages.eval.calibration import (
    cross_fitted,
    half_of_images,
    measure_calibration,
    obtained_precisions,
    reliability,
)


def test_the_diagram_by_hand() -> None:
    """Bins (0, 1/2] and (1/2, 1]: 0.2 and 0.5, of which one is right; 0.9, which is wrong."""
    measured = reliability(np.array([0.2, 0.5, 0.9]), np.array([True, False, False]), bins=2)
    assert measured.detections.tolist() == [2, 1]
    np.testing.assert_allclose(measured.probability, [0.35, 0.9])
    np.testing.assert_allclose(measured.precision, [0.5, 0.0])
    assert measured.error == pytest.approx((2 * 0.15 + 0.9) / 3)


def test_intervals_are_wilsons() -> None:
    """5 of 10: (0.2366, 0.7634); 0 of 10: (0, 0.2775), as in the tables."""
    measured = reliability(np.array([0.2] * 10 + [0.9] * 10), np.array([True] * 5 + [False] * 15), bins=2)
    low, high = measured.interval()
    np.testing.assert_allclose(low, [0.2366, 0], atol=1e-4)
    np.testing.assert_allclose(high, [0.7634, 0.2775], atol=1e-4)


def test_the_error_of_likely_detections_by_hand() -> None:
    measured = reliability(np.array([0.1, 0.1, 0.9]), np.array([False, False, False]))
    assert measured.error == pytest.approx((0.1 + 0.1 + 0.9) / 3)
    assert measured.error_from(0.3) == pytest.approx(0.9)
    assert np.isnan(reliability(np.array([0.1]), np.array([False])).error_from(0.3))


def test_empty_bins_and_no_detections() -> None:
    measured = reliability(np.array([0.95]), np.array([True]))
    assert np.isnan(measured.precision[:9]).all()
    assert measured.error == pytest.approx(0.05)
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).error)


@given(st.lists(st.tuples(st.integers(0, 1000).map(lambda n: n / 1000), st.booleans()), min_size=1, max_size=60))
def test_agrees_with_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    probabilities, correct = (np.array(column) for column in zip(*pairs, strict=True))
    measured = reliability(probabilities, correct)
    precision, probability = calibration_curve(correct, probabilities, n_bins=10)
    some = measured.detections > 0
    np.testing.assert_allclose(measured.precision[some], precision)
    np.testing.assert_allclose(measured.probability[some], probability)
    weights = measured.detections[some] / len(pairs)
    assert measured.error == pytest.approx(float(weights @ np.abs(precision - probability)))
    assert 0 <= measured.error <= 1


def test_halves_are_random_and_the_same_every_time() -> None:
    half = half_of_images(101)
    assert half.sum() == 50
    np.testing.assert_array_equal(half, half_of_images(101))
    assert 0 < half[:50].sum() < 50


def test_cross_fitting_by_hand() -> None:
    """Each half by the other's detections: pooled where the order is violated, clipped beyond the ends."""
    scores = np.array([3.0, 2.0, 1.0, 4.0, 2.0, 0.0])
    correct = np.array([True, False, False, True, True, False])
    first = np.array([True, True, True, False, False, False])
    fitted = cross_fitted(scores, correct, np.zeros(6, int), first)
    # Of the second half: 0 at 0, 1 at 2 and at 4, linear in between. Of the first: 0 at 1 and 2, 1 at 3.
    np.testing.assert_allclose(fitted, [1, 1, 0.5, 1, 0, 0])
    pooled = cross_fitted(
        np.array([1.0, 2.0, 1.5]), np.array([True, False, True]), np.zeros(3, int), np.array([True, True, False])
    )
    np.testing.assert_allclose(pooled, [1, 1, 0.5])


def test_a_class_that_one_half_lacks_has_no_probability() -> None:
    fitted = cross_fitted(np.ones(3), np.ones(3, bool), np.array([0, 0, 1]), np.array([True, False, True]))
    np.testing.assert_array_equal(np.isnan(fitted), [False, False, True])
    measured = measure_calibration(
        np.ones(3), np.ones(3, bool), np.array([0, 0, 1]), np.array([True, False, True]), 3, probabilities=False
    )
    assert measured.raw is None
    assert measured.unfitted == 1
    assert measured.fitted.detections.sum() == 2
    heading, *rows = measured.rows()
    assert len(rows) == 10 + 5
    assert rows[9] == ["cross-fitted", 0.9, 1.0, 2, 1.0, 1.0, None]
    assert rows[10] == ["thresholds for a precision", None, None, 2, 0.5, 1.0, pytest.approx(2 / 3)]
    assert len(heading) == len(rows[0])


def test_obtained_precision_by_hand() -> None:
    """Half A: right at 3, wrong at 2. Half B: wrong at 3, right at 2.5 and at 1. For 90 %: A's cut is 3, which keeps a
    wrong one of B; B has none, so A contributes nothing. For 50 %: A's cut is 2, B's 1."""
    scores = np.array([3.0, 2.0, 3.0, 2.5, 1.0])
    correct = np.array([True, False, False, True, True])
    first = np.array([True, True, False, False, False])
    strict, easy = obtained_precisions(scores, correct, np.zeros(5, int), first, 4, asked=(0.9, 0.5))
    assert (strict.precision, strict.recall, strict.kept) == (0.0, 0.0, 1)
    assert (easy.precision, easy.recall, easy.kept) == (0.5, 0.5, 4)
    (nothing,) = obtained_precisions(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), np.zeros(0, bool), 0, (0.5,))
    assert np.isnan(nothing.precision)
    assert np.isnan(nothing.recall)


def test_well_calibrated_scores_have_a_small_error_and_margins_are_calibrated_by_fitting() -> None:
    random = np.random.default_rng(0)
    probabilities = random.uniform(size=20_000)
    correct = random.uniform(size=20_000) < probabilities
    first = random.uniform(size=20_000) < 0.5
    assert reliability(probabilities, correct).error < 0.02
    assert reliability(np.sqrt(probabilities), correct).error > 0.15
    margins = 8 * probabilities - 5
    assert reliability(cross_fitted(margins, correct, np.zeros(20_000, int), first), correct).error < 0.03
    for one in obtained_precisions(margins, correct, np.zeros(20_000, int), first, int(correct.sum())):
        assert one.precision == pytest.approx(max(one.asked, 0.5), abs=0.03)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.booleans(), st.integers(0, 2), st.booleans()), min_size=1, max_size=40)
)
def test_fitted_probabilities_rise_with_the_score_within_a_half(rows: list[tuple[int, bool, int, bool]]) -> None:
    scores, correct, labels, first = (np.array(column) for column in zip(*rows, strict=True))
    fitted = cross_fitted(scores, correct, labels, first)
    assert np.nanmin(fitted, initial=1) >= 0
    assert np.nanmax(fitted, initial=0) <= 1
    for label in set(labels.tolist()):
        for half in (True, False):
            own = np.flatnonzero((labels == label) & (first == half) & ~np.isnan(fitted))
            assert (np.diff(fitted[own[np.argsort(scores[own], kind="stable")]]) >= -1e-12).all()
