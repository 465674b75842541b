"""Precision, recall and F1 at each threshold: by hand, and as scikit-learn's precision_recall_curve has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score as f1_of_sklearn
from sklearn.metrics import precision_recall_curve as curve_of_sklearn

from stages.eval.operating_points import best_f1, operating_points, points_at, rising, threshold_rows
from stages.matching.average_precision import Curve, lowest_score_at, precision_recall


def curve_of(ranked: Sequence[tuple[float, bool]], missed: int = 0) -> Curve:
    ranked = sorted(ranked, key=lambda one: -one[0])
    found = np.array([right for _, right in ranked], bool)
    positives = int(found.sum()) + missed
    recall, precision = precision_recall(found, positives)
    scores = np.array([score for score, _ in ranked], np.float32)
    return Curve(scores, recall, precision, positives, len(ranked))


def test_by_hand_with_a_tie() -> None:
    """Right; then, with one score, right and wrong; then wrong: one object of three is never found."""
    points = operating_points(curve_of([(0.9, True), (0.5, True), (0.5, False), (0.25, False)], missed=1))
    np.testing.assert_array_equal(points.scores, np.array([0.9, 0.5, 0.25], np.float32))
    np.testing.assert_allclose(points.precision, [1, 2 / 3, 1 / 2])
    np.testing.assert_allclose(points.recall, [1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(points.f1, [1 / 2, 2 / 3, 4 / 7])


def test_the_best_f1_by_hand() -> None:
    assert best_f1(curve_of([(0.9, True), (0.5, True), (0.5, False), (0.25, False)], missed=1)) == (
        0.5,
        pytest.approx(2 / 3),
    )
    # One of one: F1 of 2/3; one of two more: 2 right of 4, of 2 objects: again 2/3. The higher threshold wins.
    tied = curve_of([(4, True), (3, False), (2, False), (1, True)])
    assert best_f1(tied) == (4.0, pytest.approx(2 / 3))


def test_there_is_no_best_f1_without_true_positives() -> None:
    assert best_f1(curve_of([])) is None
    assert best_f1(curve_of([], missed=3)) is None
    assert best_f1(curve_of([(0.5, False)], missed=3)) is None
    nothing_to_find = curve_of([(0.5, False)])
    assert best_f1(nothing_to_find) is None
    assert np.isnan(operating_points(nothing_to_find).f1).all()


def test_the_table_of_thresholds_by_hand() -> None:
    """Where only the precision falls there is no row."""
    curve = curve_of([(0.5, True), (0.25, False), (0.125, True), (0.0, False)])
    assert threshold_rows({"cat": curve, "dog": curve_of([(1, False)], missed=1)}) == [
        ["class", "threshold", "precision", "recall", "f1", "best_f1"],
        ["cat", 0.5, 1.0, 0.5, pytest.approx(2 / 3), 0],
        ["cat", 0.125, pytest.approx(2 / 3), 1.0, 0.8, 1],
    ]


def test_what_a_threshold_achieves() -> None:
    points = operating_points(curve_of([(0.5, True), (0.25, False), (0.25, True), (0.0, False)]))
    assert points_at(points, np.array([1.0, 0.5, 0.3, 0.25, -1.0])).tolist() == [-1, 0, 0, 1, 2]


rankings = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=30)


@given(rankings.filter(lambda ranked: any(right for _, right in ranked)), st.integers(0, 4))
def test_agrees_with_scikit_learn(ranked: list[tuple[int, bool]], missed: int) -> None:
    """To scikit-learn, a missed object is a positive below every detection."""
    points = operating_points(curve_of(ranked, missed))
    truth = np.array([right for _, right in ranked] + [True] * missed)
    scores = np.array([score for score, _ in ranked] + [0] * missed)
    precision, recall, thresholds = curve_of_sklearn(truth, scores)
    real = thresholds > 0
    np.testing.assert_array_equal(points.scores, thresholds[real][::-1])
    np.testing.assert_allclose(points.precision, precision[:-1][real][::-1], atol=1e-12)
    np.testing.assert_allclose(points.recall, recall[:-1][real][::-1], atol=1e-12)
    f1 = [f1_of_sklearn(truth, scores >= threshold) for threshold in thresholds[real][::-1]]
    np.testing.assert_allclose(points.f1, f1, atol=1e-12)


@given(rankings, st.integers(0, 4))
def test_the_best_f1_is_that_of_a_point_and_none_is_better(ranked: list[tuple[int, bool]], missed: int) -> None:
    curve = curve_of(ranked, missed)
    points = operating_points(curve)
    assert (np.diff(points.scores) < 0).all()
    best = best_f1(curve)
    if best is None:
        assert not any(right for _, right in ranked)
        return
    threshold, f1 = best
    assert f1 == points.f1[points.scores == threshold][0] == np.nanmax(points.f1)
    # Its precision is one that a cut by precision would choose at that threshold or below.
    cut = lowest_score_at(float(points.precision[points.scores == threshold][0]), curve)
    assert cut is not None
    assert cut <= threshold


@given(rankings, st.integers(0, 4))
def test_no_threshold_is_better_than_one_at_which_recall_rises(ranked: list[tuple[int, bool]], missed: int) -> None:
    """Each threshold has one among them with the same recall and no lower precision."""
    points = operating_points(curve_of(ranked, missed))
    worth = rising(points)
    for place in np.flatnonzero(points.recall > 0):
        before = worth[worth <= place][-1]
        assert points.recall[before] == points.recall[place]
        assert points.precision[before] >= points.precision[place]
