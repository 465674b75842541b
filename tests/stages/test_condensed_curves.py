"""Condensed precision-recall curves: fewer points, the same thresholds and precisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.eval.condensed import STEPS, condensed
from stages.eval.operating_points import best_f1
from stages.matching.average_precision import Curve, calibrated_precision, lowest_score_at, precision_recall


def curve_of(correct, scores, positives):
    recall, precision = precision_recall(np.array(correct, bool), positives)
    return Curve(np.array(scores, np.float32), recall, precision, positives, len(correct))


def test_a_curve_by_hand():
    """Precisions 1, 1/2, 2/3, 1/2 at four scores: the second is reached again later, so it tells nothing; F1 is 2/3,
    1/2, 4/5, 2/3 of two objects."""
    short = condensed(curve_of([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6], 2))
    np.testing.assert_allclose(short.precision, [1, 2 / 3, 1 / 2])
    assert short.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert (short.positives, short.detections) == (2, 4)


def test_an_empty_curve():
    empty = curve_of([], [], 3)
    assert len(condensed(empty).scores) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), min_size=1, max_size=80), st.integers(0, 5))
def test_short_curves_keep_every_threshold_and_precision(detections, missed):
    correct = [found for found, _ in detections]
    scores = sorted((score / 8 for _, score in detections), reverse=True)
    whole = curve_of(correct, scores, sum(correct) + missed)
    short = condensed(whole)
    asked = np.arange(-1, 5, 1 / 16, dtype=np.float32)
    np.testing.assert_array_equal(calibrated_precision(short, asked), calibrated_precision(whole, asked))
    for precision in (*np.unique(whole.precision), 0, 0.5, 1, 0.333):
        assert lowest_score_at(precision, short) == lowest_score_at(precision, whole)
    assert best_f1(short) == best_f1(whole)


def test_a_long_curve_loses_less_than_a_thousandth():
    random = np.random.default_rng(5)
    scores = np.sort(random.normal(size=50_000))[::-1]
    whole = curve_of(random.random(50_000) < np.exp(scores - 2), scores, 40_000)
    short = condensed(whole)
    assert len(short.scores) <= STEPS + 2
    for thousandth in range(STEPS + 1):
        assert lowest_score_at(thousandth / STEPS, short) == lowest_score_at(thousandth / STEPS, whole)
    lost = calibrated_precision(whole, whole.scores) - calibrated_precision(short, whole.scores)
    assert lost.min() >= 0
    assert 0 < lost.max() < 1 / STEPS
    assert best_f1(short) == best_f1(whole)
