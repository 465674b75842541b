"""OverFeat's greedy merge: by hand, and against the paper's steps one pair at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.detections import Detections, merging
from stages.detections.merging import MATCHES, Match, MergedBoxes, merge_boxes, normalised_match, printed_match
from stages.detections.suppression import GreedyMerge


def match(score: Match, first: Sequence[float], second: Sequence[float]) -> float:
    """The match score of two boxes."""
    return float(score(np.array(first, np.float64)[:, None], np.array(second, np.float64)[:, None])[0])


def merged(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], threshold: float, weighted: bool = True
) -> MergedBoxes:
    """Boxes of one class merged."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(corners), np.int32)
    return merge_boxes(corners, np.array(scores, np.float32), labels, threshold, weighted=weighted)


def test_match_scores_by_hand() -> None:
    """Two boxes of 10 x 10, 5 apart: an overlap of 50 of 150; the normalised score has no unit."""
    first, second = (0, 0, 10, 10), (5, 0, 15, 10)
    assert match(normalised_match, first, second) == pytest.approx(5 / 10 + 1 - 1 / 3)
    assert match(normalised_match, (0, 0, 100, 100), (50, 0, 150, 100)) == pytest.approx(5 / 10 + 1 - 1 / 3)
    assert match(printed_match, first, second) == 5 + 50
    # A box of 20 x 20 around one of 5 x 5, centres (10, 10) and (7.5, 7.5): its size is (400 x 25) ** (1 / 4) = 10.
    inside = np.hypot(2.5, 2.5) / 10 + 1 - 25 / 400
    assert match(normalised_match, (0, 0, 20, 20), (5, 5, 10, 10)) == pytest.approx(inside)
    assert match(normalised_match, (0, 0, 10, 10), (0, 30, 10, 40)) == 3 + 1


def test_equal_boxes_match_perfectly_but_for_the_printed_score() -> None:
    """By the printed score two equal boxes match worse than two that lie far apart."""
    box = (3.3, 4.7, 60.1, 29.9)
    assert match(normalised_match, box, box) == 0
    assert match(printed_match, box, box) == pytest.approx(56.8 * 25.2)
    assert match(printed_match, box, (203.3, 4.7, 260.1, 29.9)) == pytest.approx(200)


def test_a_box_without_area_matches_only_its_equal() -> None:
    line = (5, 0, 5, 10)
    assert match(normalised_match, line, line) == 0
    assert match(normalised_match, line, (0, 0, 10, 10)) == np.inf
    assert match(normalised_match, (5, 0, 5, 10), (5, 0, 5, 9)) == np.inf
    assert match(normalised_match, (8, 0, 2, 10), (0, 0, 10, 10)) == np.inf  # inverted


def test_three_boxes_by_hand() -> None:
    """The first two lie 1 apart (a score of 0.1 + 1 - 9 / 11), the third 2 from the second; the mean of the first two
    is 2.5 from it, a score of 0.25 + 1 - 7.5 / 12.5 = 0.65."""
    boxes = [(0, 0, 10, 10), (1, 0, 11, 10), (3, 0, 13, 10)]
    every = merged(boxes, (0.5, 0.25, 0.125), 0.66)
    np.testing.assert_allclose(every.boxes, [(4 / 3, 0, 34 / 3, 10)], rtol=1e-6)
    assert every.scores.tolist() == [0.875]
    assert every.groups.tolist() == [0, 0, 0]
    two = merged(boxes, (0.5, 0.25, 0.125), 0.64)
    np.testing.assert_array_equal(two.boxes, np.array([(0.5, 0, 10.5, 10), boxes[2]], np.float32))
    assert two.scores.tolist() == [0.75, 0.125]
    assert (two.first.tolist(), two.groups.tolist()) == ([0, 2], [0, 0, 1])
    plain = merged(boxes, (0.5, 0.25, 0.125), 0.66, weighted=False)
    np.testing.assert_array_equal(plain.boxes, np.array([(1.75, 0, 11.75, 10)], np.float32))


def test_boxes_far_apart_and_of_other_classes_stay_as_they_are() -> None:
    boxes = np.array([(0.1, 0.2, 10.3, 10.4), (30, 0, 40, 10), (0.1, 0.2, 10.3, 10.4)], np.float32)
    scores, labels = np.array([0.3, 0.2, 0.9], np.float32), np.array([0, 0, 2], np.int32)
    result = merge_boxes(boxes, scores, labels, 1.0)
    assert result.boxes.tobytes() == boxes.tobytes()
    assert result.scores.tobytes() == scores.tobytes()
    again = merge_boxes(result.boxes, result.scores, labels, 1.0)
    assert again.boxes.tobytes() == boxes.tobytes()


def test_no_boxes() -> None:
    result = merged([], [], 0.5)
    assert (result.boxes.shape, len(result.scores), len(result.groups)) == ((0, 4), 0, 0)


Groups = list[tuple[NDArray[np.float64], float, float, list[int]]]


def plainly_merged(boxes: NDArray[np.float64], threshold: float, score: Match, weighted: bool) -> Groups:
    """The paper's steps on one class: (box, weight, sum of the boxes' numbers, the boxes' numbers) of each result."""
    groups: Groups = [(box, 1.0, float(row), [row]) for row, box in enumerate(boxes)]
    while len(groups) > 1:
        pairs = [(i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))]
        scores = [score(groups[i][0][:, None], groups[j][0][:, None])[0] for i, j in pairs]
        if min(scores) > np.float32(threshold):
            break
        i, j = pairs[int(np.argmin(scores))]
        (box, weight, total, rows), (other, of_other, more, others) = groups[i], groups.pop(j)
        average = (weight * box + of_other * other) / (weight + of_other)
        groups[i] = (average, weight + of_other if weighted else weight, total + more, rows + others)
    return groups


side = st.integers(0, 9)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), side, side, side, side)


@given(
    st.lists(st.tuples(box, st.integers(0, 2)), max_size=14),
    st.sampled_from(["normalised", "printed"]),
    st.sampled_from([0.0, 0.3, 0.7, 1.5, 9.0]),
    st.booleans(),
    st.integers(1, 60),
)
def test_the_pairs_and_their_order_are_the_papers(
    rows: list[tuple[tuple[int, ...], int]], name: str, threshold: float, weighted: bool, pairs: int
) -> None:
    """Whole numbers make ties frequent; how many pairs are compared at once changes nothing."""
    rows = sorted(rows, key=lambda row: row[1])
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    labels = np.array([row[1] for row in rows], np.int32)
    numbers = np.concatenate([np.arange(np.sum(labels == label)) for label in range(3)]).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "PAIRS", pairs)
        result = merge_boxes(boxes, numbers, labels, threshold, MATCHES[name], weighted)
    expected = []
    for label in range(3):
        of_class = np.flatnonzero(labels == label)
        groups = plainly_merged(boxes[of_class].astype(np.float64), threshold, MATCHES[name], weighted)
        for mean, _, total, members in groups:
            expected.append((mean.astype(np.float32), total, sorted(of_class[members].tolist())))
    assert [np.flatnonzero(result.groups == place).tolist() for place in range(len(result.boxes))] == [
        members for _, _, members in expected
    ]
    for place, (corners, total, members) in enumerate(expected):
        np.testing.assert_array_equal(result.boxes[place], corners)
        assert (result.scores[place], result.first[place]) == (total, members[0])


@given(st.lists(st.tuples(box, st.integers(1, 9), st.integers(0, 2)), max_size=14), st.sampled_from([0.5, 1.5]))
def test_what_is_merged_into_what(rows: list[tuple[tuple[int, ...], int, int]], threshold: float) -> None:
    """Results by class and descending score; all scores go into them; with weights a box is the mean of its own."""
    rows = sorted(rows, key=lambda row: (row[2], -row[1]))
    candidates = Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )
    outcome = GreedyMerge(threshold).outcome(candidates)
    results = outcome.detections
    assert sorted(zip(results.labels, -results.scores, strict=True)) == list(
        zip(results.labels, -results.scores, strict=True)
    )
    np.testing.assert_array_equal(outcome.scores, results.scores[outcome.groups])
    for place in range(len(results)):
        own = np.flatnonzero(outcome.groups == place)
        assert outcome.leaders[place] == own[candidates.scores[own].argmax()]
        assert (candidates.labels[own] == results.labels[place]).all()
        assert results.scores[place] == candidates.scores[own].sum()
        np.testing.assert_allclose(results.boxes[place], candidates.boxes[own].mean(axis=0), rtol=1e-5, atol=1e-5)


def test_without_sums_the_best_score_stays() -> None:
    """So that several boxes with a negative margin do not score less than each of them."""
    boxes = np.array([(0, 0, 10, 10), (30, 0, 40, 10), (30, 0, 40, 10)], np.float32)
    candidates = Detections(boxes, np.array([-0.5, -0.6, -0.7], np.float32), np.zeros(3, np.int32))
    outcome = GreedyMerge(0.5, adds=False).outcome(candidates)
    np.testing.assert_array_equal(outcome.detections.scores, np.array([-0.5, -0.6], np.float32))
    assert (outcome.leaders.tolist(), outcome.groups.tolist()) == ([0, 1], [0, 1, 1])
    summed = GreedyMerge(0.5).outcome(candidates)
    assert summed.detections.scores.tolist() == np.array([-0.5, -1.3], np.float32).tolist()
