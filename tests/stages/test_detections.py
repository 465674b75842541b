"""Detections of a test set: slices, the cap, and that the cap commutes with suppression."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.detections import Detections, detections_as_json, detections_from_arrays, read_detections
from stages.detections.cap import BestScores, class_thresholds, image_threshold
from stages.detections.order import falling, scores_of
from stages.detections.suppression import GreedyNms


def found(*rows: tuple[float, int]) -> Detections:
    """Detections with these (score, label), boxes one beside the other."""
    boxes = np.array([(10 * i, 0, 10 * i + 5, 5) for i in range(len(rows))], np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows], np.int32)
    )


def test_slices_by_image_and_class_agree() -> None:
    pictures = {"a": found((0.9, 0), (0.1, 1)), "b": found(), "c": found((0.5, 1), (0.4, 1))}
    every = detections_from_arrays(["cat", "dog"], pictures.items(), {"a": (30, 20)})
    assert len(every) == 4
    assert every.offsets.tolist() == [0, 2, 2, 4]
    assert every.image_sizes.tolist() == [[30, 20], [0, 0], [0, 0]]
    dogs = every.of_class("dog")
    assert dogs.images.tolist() == [0, 2, 2]
    assert dogs.scores.tolist() == np.array([0.1, 0.5, 0.4], np.float32).tolist()
    assert len(every.of_image("b")) == 0
    np.testing.assert_array_equal(every.of_image("c").boxes, pictures["c"].boxes)
    with pytest.raises(KeyError):
        every.of_image("d")
    with pytest.raises(KeyError):
        every.of_class("cow")


def test_a_set_without_detections() -> None:
    every = detections_from_arrays(["cat"], [("a", found())])
    assert len(every) == len(every.of_class("cat")) == 0
    assert every.every.boxes.shape == (0, 4)


def test_the_cap_keeps_what_equals_the_threshold() -> None:
    scores = np.array([5, 4, 3, 3, 2, 1], np.float32)
    assert class_thresholds([(scores, np.zeros(6, np.int32))], 2, keep=3).tolist() == [3, -np.inf]
    assert class_thresholds([(scores, np.zeros(6, np.int32))], 1, keep=6).tolist() == [-np.inf]
    assert found((3, 0), (2.9, 0), (2.9, 1)).above(np.array([3, -np.inf], np.float32)).scores.tolist() == [
        3,
        np.float32(2.9),
    ]


def test_the_cap_of_an_image_keeps_what_equals_the_threshold() -> None:
    scores = np.array([1, 5, 3, 4, 3, 2], np.float32)
    assert [image_threshold(scores, at_most) for at_most in (1, 3, 4, 5, 6, 7)] == [5, 3, 3, 2, -np.inf, -np.inf]
    assert image_threshold(scores[:0], 100) == -np.inf


@given(
    st.lists(st.lists(st.tuples(st.integers(-15, 15), st.integers(0, 2)), max_size=9), max_size=12), st.integers(1, 9)
)
def test_streamed_thresholds_are_those_of_all_scores(batches: list[list[tuple[int, int]]], keep: int) -> None:
    best = BestScores(3, keep)
    for batch in batches:
        best.add(np.array([score for score, _ in batch], np.float32), np.array([label for _, label in batch], np.int32))
        best.trim()
    for label, threshold in enumerate(best.thresholds()):
        every = sorted((score for batch in batches for score, mine in batch if mine == label), reverse=True)
        assert threshold == (every[keep - 1] if len(every) > keep else -np.inf)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=9))
def test_falling_numbers_are_in_the_opposite_order_of_scores(values: list[float]) -> None:
    scores = np.array(values, np.float32)
    np.testing.assert_array_equal(scores_of(falling(scores)), scores)
    np.testing.assert_array_equal(np.argsort(falling(scores), kind="stable"), np.argsort(-scores, kind="stable"))


boxes = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 9), st.integers(1, 9))


@settings(deadline=None)
@given(st.lists(st.tuples(boxes, st.integers(0, 6), st.integers(0, 1)), max_size=25), st.integers(0, 7))
def test_the_cap_commutes_with_suppression(rows: list[tuple[tuple[int, ...], int, int]], cut: int) -> None:
    rows = sorted(rows, key=lambda row: (row[2], -row[1]))
    corners = np.array([(x, y, x + w, y + h) for (x, y, w, h), _, _ in rows], np.float32).reshape(-1, 4)
    candidates = Detections(
        corners, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int32)
    )
    thresholds = np.array([cut, cut / 2], np.float32)
    suppressed_then_cut = candidates.where(GreedyNms(0.3).survivors(candidates)).above(thresholds)
    remaining = candidates.above(thresholds)
    cut_then_suppressed = remaining.where(GreedyNms(0.3).survivors(remaining))
    np.testing.assert_array_equal(suppressed_then_cut.boxes, cut_then_suppressed.boxes)
    np.testing.assert_array_equal(suppressed_then_cut.scores, cut_then_suppressed.scores)


def test_read_detections_applies_the_recorded_thresholds() -> None:
    one = found((0.9, 0), (0.2, 0), (0.3, 1))
    record = {"boxes": one.boxes, "score": one.scores, "label": one.labels, "image_size": np.array([40, 30], np.int32)}
    reader = SimpleNamespace(
        manifest={"summary": {"classes": ["cat", "dog"], "thresholds": [0.5, None]}},
        records=lambda columns: iter([("a", record)]),
    )
    every = read_detections(reader)
    assert every.classes == ("cat", "dog")
    assert every.every.scores.tolist() == np.array([0.9, 0.3], np.float32).tolist()
    assert every.image_sizes.tolist() == [[40, 30]]


def test_json_is_from_the_best_precision_down_and_then_by_score() -> None:
    three = found((0.25, 1), (0.75, 0), (0.5, 1))
    value = detections_as_json(three, ["cat", "dog"], np.array([0.9, np.nan, 0.9]), np.array([True, False, True]))
    assert value == [
        {"class": "dog", "score": 0.5, "precision": 0.9, "box": [20.0, 0.0, 25.0, 5.0], "drawn": True},
        {"class": "dog", "score": 0.25, "precision": 0.9, "box": [0.0, 0.0, 5.0, 5.0], "drawn": True},
        {"class": "cat", "score": 0.75, "precision": None, "box": [10.0, 0.0, 15.0, 5.0], "drawn": False},
    ]
