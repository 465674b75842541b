"""Greedy non-maximum suppression by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.boxes import iou_matrix
from stages.detections.suppression import greedy_nms

NEAR = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 50, 10, 60]], np.float32)
FALLING = np.array([4, 3, 2, 1], np.float32)


def test_suppression_by_hand() -> None:
    """The second overlaps the first by 90 / 110; an overlap of just the limit suppresses nothing."""
    assert greedy_nms(NEAR, FALLING, 0.1).tolist() == [0, 2, 3]
    assert greedy_nms(NEAR, FALLING, 0.9).tolist() == [0, 1, 2, 3]
    assert greedy_nms(NEAR, FALLING[[1, 0, 2, 3]], 0.1).tolist() == [1, 2, 3]
    assert greedy_nms(NEAR[[1, 0]], np.array([1, 1], np.float32), 0.1).tolist() == [0]  # of equals the first
    half = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    assert greedy_nms(half, FALLING[:2], 0.5).tolist() == [0, 1]
    assert greedy_nms(NEAR[:0], FALLING[:0], 0.1).tolist() == []


def test_an_overlap_of_exactly_a_tenth_suppresses_nothing_at_a_tenth() -> None:
    boxes = np.array([[0, 0, 5, 1], [4, 0, 10, 1]], np.float32)
    assert iou_matrix(boxes[:1], boxes[1:])[0, 0] == 0.1
    assert float(np.float32(0.1)) > 0.1
    assert greedy_nms(boxes, FALLING[:2], 0.1).tolist() == [0, 1]
    assert greedy_nms(boxes, FALLING[:2], 0.09).tolist() == [0]


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_first_survivors_are_those_of_all_boxes(seed, at_most):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (150, 2))
    boxes = np.hstack([corners, corners + random.uniform(5, 40, (150, 2))]).astype(np.float32)
    scores = random.integers(0, 30, 150).astype(np.float32)  # with ties
    kept = greedy_nms(boxes, scores, 0.5)
    first = kept[np.argsort(-scores[kept], kind="stable")][:at_most]
    assert greedy_nms(boxes, scores, 0.5, at_most).tolist() == sorted(first.tolist())
