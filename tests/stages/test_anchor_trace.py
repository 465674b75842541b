"""The anchors of an image: which belong to an object, and how large their proposals are, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stages.detections.region_proposals import anchor_steps
from stages.propose.anchor_trace import AnchorTrace, proposal_sizes
from stages.propose.pictures import SIZE_CELL, size_sheet, size_words
from stages.training.anchor_settings import AnchorTraining

ANCHORS = [
    [0, 0, 20, 20], [0, 0, 40, 20],  # cell 1: a square anchor and a wide one
    [20, 0, 40, 20], [20, 0, 60, 20],
    [70, 0, 90, 20], [70, 0, 110, 20],  # the last one reaches over the edge
]  # fmt: skip
MOVED = {3: [0, 0, np.log(0.75), np.log(2)]}
"""The wide anchor of cell 2 becomes 30 wide and 40 high, around (40, 10): clipped to 25, 0, 55, 30."""


def trace_of(scale: float = 0.5) -> AnchorTrace:
    """Six anchors, two of each cell, in an input of 100 x 80 pixels; the image is twice as large."""
    anchors = np.array(ANCHORS, np.float32)
    deltas = np.zeros((6, 4))
    for row, values in MOVED.items():
        deltas[row] = values
    scores = np.array([0.1, 0.6, 0.5, 0.9, 0.3, 0.2], np.float32)
    steps = anchor_steps(anchors, deltas, scores, 100, 80, at_most=4)
    return AnchorTrace(anchors, 2, scores, steps, scale, (200, 160), (100, 80))


def test_proposals_in_pixels_of_the_image() -> None:
    trace = trace_of()
    assert trace.steps.proposed.tolist() == [3, 1, 2, 4]
    np.testing.assert_allclose(trace.proposals, [[50, 0, 110, 60], [0, 0, 80, 40], [40, 0, 80, 40], [140, 0, 180, 40]])
    assert trace.shapes.tolist() == [1, 1, 0, 0]


def test_the_anchors_of_an_object() -> None:
    """An object at 46..106, 0..40 of the image is 23..53, 0..20 of the input: IoU 600 / 800 with the wide anchor of
    cell 2, which is positive, and 17 / 33 with the square one. The wide one is moved to 28 x 20 pixels of it."""
    around = trace_of().around(np.array([46, 0, 106, 40]), AnchorTraining())
    assert around.positive.tolist() == [3]
    assert around.best == 3
    assert around.overlaps[[2, 3]] == pytest.approx([17 / 33, 0.75])
    assert around.after[3] == pytest.approx(28 * 20 / (30 * 20 + 30 * 30 - 28 * 20))
    assert around.best_after == 3
    moved_away = trace_of().around(
        np.array([40, 0, 100, 40]), AnchorTraining()
    )  # 0.75 becomes 0.5; the square has 2 / 3
    assert (moved_away.best, moved_away.best_after) == (3, 2)
    strict = trace_of().around(np.array([46, 0, 106, 40]), AnchorTraining(positive_overlap=0.8))
    assert strict.positive.tolist() == [3]  # as the best of the object
    none = trace_of().around(np.array([46, 0, 106, 40]), AnchorTraining(positive_overlap=0.8, best_of_object=False))
    assert none.positive.tolist() == []


def test_anchors_over_the_edge_are_not_trained_on() -> None:
    """The object is the last anchor cut at the edge; the best one inside is the square anchor of its cell."""
    box = np.array([140, 0, 200, 40])
    around = trace_of().around(box, AnchorTraining())
    assert around.best == 5
    assert around.positive.tolist() == [4]
    assert trace_of().around(box, AnchorTraining(border=10.0)).positive.tolist() == [5]


def test_an_object_that_no_anchor_touches() -> None:
    around = trace_of().around(np.array([0, 100, 40, 160]), AnchorTraining())
    assert around.positive.tolist() == []
    assert around.overlaps.max() == around.after.max() == 0


def test_average_sizes() -> None:
    """Of the two square proposals 20 x 20; of the wide ones 40 x 20 and 30 x 30."""
    sizes = proposal_sizes([trace_of(), trace_of(1.0)])
    assert sizes.counts.tolist() == [4, 4]
    np.testing.assert_allclose(sizes.means, [[20, 20], [35, 25]], rtol=1e-6)
    assert size_words(sizes) == ["20 x 20: 20 x 20 (4)", "40 x 20: 35 x 25 (4)"]
    sheet = size_sheet(sizes, 2)
    assert sheet.shape[1] == 2 * SIZE_CELL + 36
    with pytest.raises(ValueError, match="no images"):
        proposal_sizes([])


def test_an_anchor_without_proposals_has_no_size() -> None:
    trace = trace_of()
    steps = anchor_steps(trace.anchors, np.zeros((6, 4)), trace.scores, 100, 80, at_most=2)
    sizes = proposal_sizes([AnchorTrace(trace.anchors, 2, trace.scores, steps, 0.5, (200, 160), (100, 80))])
    assert size_words(sizes) == ["20 x 20: none", "40 x 20: 40 x 20 (2)"]
    assert size_sheet(sizes, 2).shape[2] == 3
