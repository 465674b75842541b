"""Pasting regions by score: by hand on a row of pixels, and what holds for any regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.features.linear_models import NEVER_DETECTED
from stages.segment.pasting import calibrated_threshold, paste

EVERYTHING: dict[str, Any] = {"threshold": -np.inf, "most": 100, "most_taken": 1.0}


def row_of(first: int, end: int, pixels: int = 10) -> np.ndarray:
    """A mask [1, pixels] of the pixels first..end - 1."""
    return ((np.arange(pixels) >= first) & (np.arange(pixels) < end))[None]


def pasted(scores, regions, **given):
    masks = [row_of(*region) for region in regions]
    labels, segments = paste(np.array(scores, np.float32), masks.__getitem__, (10, 1), **{**EVERYTHING, **given})
    return labels[0].tolist(), segments


def test_a_region_is_of_its_best_class_and_the_better_one_stays_on_top():
    """Region 1 (class 0, 0.9) over region 0 (class 1, 0.5); region 2 (class 1, 0.3) fills what is left."""
    labels, segments = pasted([[0.1, 0.5], [0.9, 0.2], [0.0, 0.3]], [(0, 6), (4, 8), (7, 10)])
    assert labels == [2, 2, 2, 2, 1, 1, 1, 1, 2, 2]
    assert segments.rows.tolist() == [1, 0, 2]
    assert segments.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(segments.scores, np.array([0.9, 0.5, 0.3], np.float32))
    assert segments.pixels.tolist() == [4, 4, 2]


def test_threshold_and_count_end_the_pasting():
    """A score that reaches the threshold is pasted."""
    scores, regions = [[0.9], [0.5], [0.25]], [(0, 2), (2, 4), (4, 6)]
    assert pasted(scores, regions, threshold=0.5)[0] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert pasted(scores, regions, threshold=0.51)[0] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert pasted(scores, regions, most=1)[0] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert pasted(scores, regions, most=0)[0] == [0] * 10


def test_a_region_of_which_more_than_a_share_is_taken_is_left_out_and_takes_nothing():
    """Of region 1 half is taken, of region 2 two thirds."""
    scores, regions = [[0.9], [0.5], [0.4]], [(0, 4), (2, 6), (2, 5)]
    assert pasted(scores, regions, most_taken=0.5)[1].rows.tolist() == [0, 1]
    labels, segments = pasted(scores, regions, most_taken=0.49)
    assert segments.rows.tolist() == [0]
    assert labels == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert pasted(scores, [(0, 4), (0, 6), (0, 4)])[1].rows.tolist() == [0, 1]  # nothing of the last is left


def test_nothing_is_pasted_of_classes_without_examples():
    labels, segments = pasted([[NEVER_DETECTED, NEVER_DETECTED], [0.2, NEVER_DETECTED]], [(0, 6), (4, 8)])
    assert (labels, segments.rows.tolist()) == ([0, 0, 0, 0, 1, 1, 1, 1, 0, 0], [1])


def test_nothing_to_paste():
    labels, segments = paste(np.zeros((0, 3), np.float32), [].__getitem__, (4, 2), **EVERYTHING)
    assert labels.shape == (2, 4)
    assert labels.dtype == np.uint8
    assert not labels.any()
    assert len(segments) == 0


regions_and_scores = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 10), st.integers(-5, 5), st.integers(-5, 5)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(regions_and_scores, st.floats(0, 1), st.integers(-5, 5))
def test_a_higher_threshold_leaves_out_the_last_segments_alone(regions, most_taken, threshold):
    """So a threshold can be chosen from the segments pasted without one; and no pixel is counted twice."""
    scores = np.array([region[2:] for region in regions], np.float32).reshape(-1, 2)
    spans = [(first, min(10, first + length)) for first, length, *_ in regions]
    labels, every = pasted(scores, spans, most_taken=most_taken)
    _, some = pasted(scores, spans, most_taken=most_taken, threshold=threshold)
    kept = every.scores >= threshold
    assert some.rows.tolist() == every.rows[kept].tolist()
    assert not kept[len(some) :].any()
    assert every.pixels.sum() == np.count_nonzero(labels)
    assert (every.pixels > 0).all()


def test_the_threshold_at_which_there_are_as_many_segments_as_objects():
    """The third best of five scores for three objects; too few segments give none."""
    scores = [np.array([0.9, 0.1], np.float32), np.array([], np.float32), np.array([0.8, 0.5, 0.2], np.float32)]
    assert calibrated_threshold(scores, 3) == 0.5
    assert calibrated_threshold(scores, 5) == pytest.approx(0.1)
    assert calibrated_threshold(scores, 6) is None
    assert calibrated_threshold(scores, 0) is None
    assert calibrated_threshold([], 1) is None
