"""Greedy non-maximum suppression by hand."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms, nms

from stages.boxes import iou_matrix
from stages.detections import Detections
from stages.detections.suppression import GreedyNms, greedy_nms

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


def test_across_classes_by_hand() -> None:
    """Of the second class, the first lies on a box of the first class that scores higher, the other on nothing."""
    found = Detections(NEAR[[0, 1, 1, 2]], np.array([3, 1, 2, 1], np.float32), np.array([0, 0, 1, 1], np.int32))
    agnostic, of_each = GreedyNms(0.3, class_agnostic=True), GreedyNms(0.3)
    assert of_each.survivors(found).tolist() == [0, 2, 3]
    assert agnostic.survivors(found).tolist() == [0, 3]
    assert agnostic.outcome(found).groups.tolist() == [0, 0, 0, 1]
    assert agnostic.removers(found, np.array([0, 3])).tolist() == [-1, 0, 0, -1]
    better = Detections(found.boxes, np.array([1, 0, 2, 1], np.float32), found.labels)
    assert agnostic.survivors(better).tolist() == [2, 3]
    assert agnostic.removers(better, np.array([2, 3])).tolist() == [2, 2, -1, -1]
    equal = Detections(found.boxes, np.array([2, 1, 2, 1], np.float32), found.labels)
    assert agnostic.survivors(equal).tolist() == [0, 3]  # of equals the first class


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.45, 0.7]))
def test_across_classes_it_is_torchvision_s_nms_and_of_each_its_batched_nms(seed, iou):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (80, 2))
    labels = np.sort(random.integers(0, 4, 80)).astype(np.int32)
    scores = random.permutation(80).astype(np.float32)
    order = np.lexsort((-scores, labels))
    boxes = np.hstack([corners, corners + random.uniform(5, 40, (80, 2))]).astype(np.float32)[order]
    found = Detections(boxes, scores[order], labels[order])
    arrays = (torch.from_numpy(found.boxes), torch.from_numpy(found.scores))
    survivors = GreedyNms(iou, class_agnostic=True).survivors(found)
    assert survivors.tolist() == sorted(nms(*arrays, iou).tolist())
    own = batched_nms(*arrays, torch.from_numpy(found.labels), iou)
    assert GreedyNms(iou).survivors(found).tolist() == sorted(own.tolist())
    by = GreedyNms(iou, class_agnostic=True).removers(found, survivors)
    assert np.flatnonzero(by < 0).tolist() == survivors.tolist()
    for gone in np.flatnonzero(by >= 0):
        assert found.scores[by[gone]] > found.scores[gone]
        assert iou_matrix(found.boxes[[gone]], found.boxes[[by[gone]]])[0, 0] > iou
