"""Boxes and objects: overlaps by hand, and that every rule agrees on an IoU of exactly its limit."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st

from stages.boxes import as_boxes, iou_matrix
from stages.detections import ClassDetections
from stages.detections.suppression import greedy_nms
from stages.matching.detections import match_devkit, match_hoiem
from stages.matching.error_types import BACKGROUND, LOCALISATION, TRUE, largest_overlaps, types_of
from stages.matching.objects import Objects
from stages.matching.overlaps import class_overlaps, nearest_objects
from stages.matching.proposals import proposal_recall
from stages.matching.windows import (
    negative_rows,
    positive_rows,
    present_overlaps,
    regression_pairs,
    shown_labels,
    window_labels,
)


def test_overlap_with_a_class_is_the_largest_with_its_objects():
    objects = as_boxes([[0, 0, 10, 10], [0, 0, 5, 10], [50, 50, 60, 60]])
    found = class_overlaps(as_boxes([[0, 0, 10, 10]]), objects, np.array([1, 1, 2], np.int32), 3)
    np.testing.assert_allclose(found, [[0, 1, 0]])


def test_the_nearest_object_by_hand() -> None:
    objects = as_boxes([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5]])
    index, overlap = nearest_objects(as_boxes([[0, 0, 10, 6], [0, 0, 10, 4], [20, 0, 30, 10]]), objects)
    assert index.tolist() == [1, 1, 0]  # of equals the first
    np.testing.assert_allclose(overlap, [5 / 6, 4 / 5, 0])
    index, overlap = nearest_objects(objects, objects[:0])
    assert (index.tolist(), overlap.tolist()) == ([-1] * 3, [0] * 3)


def test_what_a_region_shows() -> None:
    objects = np.array([[0, 0, 10, 10], [0, 0, 10, 8]], np.float32)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8.5], [0, 0, 10, 4.9], [0, 0, 10, 5]], np.float32)
    assert shown_labels(boxes, objects[:1], np.array([2], np.int32), 0.5).tolist() == [2, 2, -1, 2]
    assert shown_labels(boxes, objects, np.array([2, 7], np.int32), 0.5)[:2].tolist() == [2, 7]
    assert shown_labels(boxes, objects[:0], np.zeros(0, np.int32), 0.5).tolist() == [-1] * 4


def test_regression_pairs_by_hand() -> None:
    boxes = as_boxes([[0, 0, 10, 10], [0, 0, 10, 7], [20, 0, 30, 10], [0, 0, 10, 6], [0, 0, 1, 9], [21, 0, 30, 10]])
    is_object = np.array([True, False, True, False, False, False])
    rows, targets = regression_pairs(boxes, is_object, 0.6)
    assert (rows.tolist(), targets.tolist()) == ([0, 1, 2, 5], [0, 0, 2, 2])
    rows, targets = regression_pairs(boxes, is_object, 0.6, unused=np.arange(6) == 2)
    assert (rows.tolist(), targets.tolist()) == ([0, 1], [0, 0])
    assert [len(found) for found in regression_pairs(boxes, np.zeros(6, bool), 0.6)] == [0, 0]


def rules_that_reach(limit: float, first: Any, second: Any) -> dict[str, bool]:
    """By each rule, whether the IoU of an object and a region is at least the limit."""
    both = as_boxes([first, second])
    thing, region = both[:1], both[1:]
    label, none = np.zeros(1, np.int32), np.zeros(1, bool)
    objects = Objects(np.zeros(1, np.int64), thing, label, none, none, none, np.array([""]), none)
    found = ClassDetections(np.zeros(1, np.int64), region, np.ones(1, np.float32))
    is_object = np.array([True, False])
    here = present_overlaps(both, is_object, np.array([0, -1], np.int32))
    record: Any = SimpleNamespace(image_id="a", boxes=thing, labels=label, difficult=none)
    false = np.full(1, -1, np.int8)
    kind = types_of(false, largest_overlaps(found, objects, 0, ()), limit)[0]
    assert kind in (LOCALISATION, BACKGROUND)
    return {
        "devkit": bool(match_devkit(found, objects.by_class(1)[0][1], limit).found[0]),
        "Hoiem": match_hoiem(found, objects, limit).verdicts[0] == TRUE,
        "types": kind == LOCALISATION,
        "windows": window_labels(region, thing, label, 1, limit, limit)[0] == 0,
        "positives": bool(positive_rows(here, limit)[1, 0]),
        "negatives": not negative_rows(here.overlaps, here.own_object, limit)[1, 0],
        "recall": proposal_recall({"a": region}, [record], limit).recall == 1,
        "units": shown_labels(region, thing, label, limit)[0] == 0,
    }


def rules_that_exceed(limit: float, first: Any, second: Any) -> dict[str, bool]:
    """By each rule, whether the IoU of an object and a region is more than the limit."""
    both = as_boxes([first, second])
    return {
        "suppression": len(greedy_nms(both, np.array([2, 1], np.float32), limit)) == 1,
        "regression": 1 in regression_pairs(both, np.array([True, False]), limit)[0],
    }


side = st.integers(2, 40)
corner = st.integers(0, 40)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, side, side)


@given(box, box)
@example((0, 0, 10, 2), (8, 0, 20, 2))  # an IoU of 1/10: in float32 more than the double 0.1
@example((0, 0, 10, 10), (0, 0, 10, 3))  # 3/10: the same
@example((0, 0, 10, 10), (0, 0, 10, 7))  # 7/10: in float32 less than the double 0.7
def test_an_iou_of_exactly_the_limit_reaches_it_and_does_not_exceed_it(first: Any, second: Any) -> None:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    assume(width > 0 and height > 0 and first != second)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    limit = float(Fraction(width * height, sum(areas) - width * height))
    assert iou_matrix(as_boxes([first]), as_boxes([second]))[0, 0] == limit
    for a_little, reaches, exceeds in ((0, True, False), (1e-6, False, False), (-1e-6, True, True)):
        assert set(rules_that_reach(limit + a_little, first, second).values()) == {reaches}
        assert set(rules_that_exceed(limit + a_little, first, second).values()) == {exceeds}
