"""Faster R-CNN's arrays: anchors, their labels and targets, the examples drawn, and the proposals made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.anchors import RATIOS, SCALES, cell_anchors, inside, map_anchors
from stages.boxes import decode_deltas, has_area
from stages.contract.errors import StageError
from stages.detections.region_proposals import Fate, Step, anchor_steps, region_proposals
from stages.matching.anchors import NEGATIVE, POSITIVE, UNUSED, anchor_deltas, anchor_labels
from stages.matching.windows import window_labels
from stages.propose import Settings
from stages.propose.dense import dense_windows, find
from stages.training.losses import smooth_l1
from stages.training.sampling import draw_examples

RELEASE = [
    [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
    [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
    [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
]  # fmt: skip
"""What lib/rpn/generate_anchors.py returns: inclusive corners."""


def test_the_nine_anchors_of_the_release():
    np.testing.assert_array_equal(cell_anchors() - [0, 0, 1, 1], RELEASE)


def test_anchors_of_other_strides_scales_and_ratios():
    """A square of 8 pixels at the ratio 2 is round(sqrt(32)) = 6 wide and 12 high, centred on 4."""
    np.testing.assert_array_equal(cell_anchors(8, [1, 2], [2.0]), [[1, -2, 7, 10], [-2, -8, 10, 16]])


def test_anchors_of_a_map_go_row_by_row():
    anchors = map_anchors(cell_anchors(), 3, 2).reshape(2, 3, 9, 4)
    np.testing.assert_array_equal(anchors[0, 0], cell_anchors())
    np.testing.assert_array_equal(anchors[1, 2], cell_anchors() + [32, 16, 32, 16])


def test_anchors_inside_an_image():
    """The last pixel of an image of 100 x 80 is (99, 79): half-open corners of 100 and 80 are inside."""
    anchors = np.array([[0, 0, 100, 80], [-1, 0, 50, 50], [0, 0, 101, 80], [0, 1, 100, 81]], np.float32)
    assert inside(anchors, 100, 80).tolist() == [True, False, False, False]
    assert inside(anchors, 100, 80, border=1).tolist() == [True, True, True, True]


def test_the_number_of_anchors_inside():
    """Of a map of 62 x 37 cells, for 1000 x 600 pixels ("roughly 20,000" in section 3.3). A box that starts at x in the
    first cell and is w wide has its copies at x + 16 i inside for -x / 16 <= i <= (1000 - w - x) / 16."""
    anchors = map_anchors(cell_anchors(), 62, 37)
    assert len(anchors) == 20_646
    expected = 0
    for x1, y1, x2, y2 in cell_anchors().tolist():
        columns = sum(x1 + 16 * cell >= 0 and x2 + 16 * cell <= 1000 for cell in range(62))
        expected += columns * sum(y1 + 16 * cell >= 0 and y2 + 16 * cell <= 600 for cell in range(37))
    assert inside(anchors, 1000, 600).sum() == expected


def test_labels_by_hand():
    """The object is 10 x 10. IoUs: 1, 0.75 (both positive), 0.5 (unused), 0.25, 0 (negative); exactly 0.3 is not
    negative."""
    objects = np.array([[0, 0, 10, 10]], np.float32)
    anchors = np.array([[0, 0, 10, 10], [0, 0, 10, 7.5], [0, 0, 5, 10], [0, 0, 5, 5], [20, 20, 30, 30], [0, 0, 3, 10]])
    labels = anchor_labels(anchors.astype(np.float32), objects)
    assert labels.tolist() == [POSITIVE, POSITIVE, UNUSED, NEGATIVE, NEGATIVE, UNUSED]


def test_the_best_anchors_of_an_object_are_positive_however_little_they_overlap():
    """Two tie at 0.25 and both count, unless that is turned off."""
    objects = np.array([[0, 0, 10, 10]], np.float32)
    anchors = np.array([[0, 0, 5, 5], [5, 5, 10, 10], [0, 0, 4, 5]], np.float32)
    assert anchor_labels(anchors, objects).tolist() == [POSITIVE, POSITIVE, NEGATIVE]
    assert anchor_labels(anchors, objects, best_of_object=False).tolist() == [NEGATIVE] * 3


def test_an_object_that_no_anchor_touches():
    """In the release every anchor that does not touch it is then its best."""
    objects = np.array([[0, 0, 10, 10], [90, 90, 99, 99]], np.float32)
    anchors = np.array([[0, 0, 10, 10], [0, 0, 5, 6], [40, 40, 50, 50], [0, 0, 2, 2]], np.float32)
    assert anchor_labels(anchors, objects).tolist() == [POSITIVE] * 4
    expected = [POSITIVE, UNUSED, NEGATIVE, NEGATIVE]
    assert anchor_labels(anchors, objects, untouched_objects=False).tolist() == expected


def test_labels_without_objects_or_anchors():
    some, none = np.array([[0, 0, 10, 10]], np.float32), np.zeros((0, 4), np.float32)
    assert anchor_labels(some, none).tolist() == [NEGATIVE]
    assert anchor_labels(none, some).shape == anchor_labels(none, none).shape == (0,)
    assert anchor_deltas(some, none).tolist() == [[0, 0, 0, 0]]


def released_labels(anchors: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The release's rule written out on inclusive corners, where widths are x2 - x1 + 1."""
    overlaps = np.zeros((len(anchors), len(objects)))
    for row, a in enumerate(anchors):
        for column, b in enumerate(objects):
            width = min(a[2], b[2]) - max(a[0], b[0]) + 1
            height = min(a[3], b[3]) - max(a[1], b[1]) + 1
            if width > 0 and height > 0:
                areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
                overlaps[row, column] = width * height / (sum(areas) - width * height)
    labels = np.full(len(anchors), -1)
    labels[overlaps.max(axis=1) < 0.3] = 0
    labels[np.where(overlaps == overlaps.max(axis=0))[0]] = 1
    labels[overlaps.max(axis=1) >= 0.7] = 1
    return labels


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6))
def test_labels_are_the_releases(seed, count):
    """On anchors and objects of whole pixels."""
    random = np.random.default_rng(seed)
    anchors = map_anchors(cell_anchors(16, [2, 4]), 12, 9)
    anchors = anchors[inside(anchors, 12 * 16, 9 * 16)]
    corners = random.integers(0, 120, (count, 2))
    objects = np.hstack([corners, corners + random.integers(8, 100, (count, 2))]).astype(np.float32)
    expected = released_labels(anchors - [0, 0, 1, 1], objects - [0, 0, 1, 1])
    np.testing.assert_array_equal(anchor_labels(anchors, objects), expected)


def test_deltas_lead_to_the_object_of_the_largest_overlap():
    objects = np.array([[0, 0, 20, 20], [30, 30, 60, 50]], np.float32)
    anchors = np.array([[2, 2, 18, 18], [25, 25, 60, 60], [14, 14, 46, 46]], np.float32)
    deltas = anchor_deltas(anchors, objects)
    np.testing.assert_allclose(deltas[0], [0, 0, np.log(20 / 16), np.log(20 / 16)], atol=1e-12)
    np.testing.assert_allclose(decode_deltas(anchors, deltas, short=0), objects[[0, 1, 1]], atol=1e-4)


def test_regions_of_fast_r_cnn_by_hand():
    """Foreground from 0.5 on, background in [0.1, 0.5) or [0, 0.5); IoUs 1, 0.5, 0.1, 0.04 and 0."""
    objects, labels = np.array([[0, 0, 10, 10]], np.float32), np.array([2], np.int32)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 5, 10], [0, 0, 1, 10], [0, 0, 2, 2], [50, 50, 60, 60]], np.float32)
    assert window_labels(boxes, objects, labels, 3, 0.5, 0.5, background_least=0.1).tolist() == [2, 2, 3, -1, -1]
    assert window_labels(boxes, objects, labels, 3, 0.5, 0.5).tolist() == [2, 2, 3, 3, 3]


@given(
    seed=st.integers(0, 2**32 - 1),
    positives=st.integers(0, 40),
    negatives=st.integers(0, 100),
    count=st.integers(0, 80),
)
def test_examples_are_drawn_without_replacement(seed, positives, negatives, count):
    """Positives first, as many as may be; negatives fill up; nothing is drawn twice, and nothing that is neither."""
    kinds = np.random.default_rng(seed).permutation([1] * positives + [0] * negatives + [-1] * 20)
    most = count // 4
    rows = draw_examples(kinds == 1, kinds == 0, count, most, np.random.default_rng(seed))
    drawn = min(positives, most)
    assert len(set(rows.tolist())) == len(rows) == drawn + min(negatives, count - drawn)
    assert (kinds[rows[:drawn]] == 1).all()
    assert (kinds[rows[drawn:]] == 0).all()
    again = draw_examples(kinds == 1, kinds == 0, count, most, np.random.default_rng(seed))
    np.testing.assert_array_equal(rows, again)


def test_examples_are_drawn_evenly():
    """Each of ten negatives in about half of 400 draws of five."""
    nothing, every = np.zeros(10, bool), np.ones(10, bool)
    counts = np.zeros(10)
    for seed in range(400):
        counts[draw_examples(nothing, every, 5, 2, np.random.default_rng([3, seed]))] += 1
    assert counts.min() > 160
    assert counts.max() < 240


def test_proposals_by_hand():
    """In an image of 100 x 80: moved, clipped, the small one dropped, the overlapping one suppressed, best first."""
    anchors = np.array(
        [[0, 0, 40, 40], [0, 0, 40, 44], [60, 40, 100, 80], [10, 10, 20, 50], [80, 60, 120, 100]], np.float32
    )
    deltas = np.zeros((5, 4))
    deltas[2] = [0.1, 0, np.log(1.5), 0]  # centre 84, 60 wide: 54 to 114, clipped to 100
    scores = np.array([0.5, 0.6, 0.7, 0.9, 0.1], np.float32)
    boxes, kept = region_proposals(anchors, deltas, scores, 100, 80)
    np.testing.assert_allclose(boxes, [[54, 40, 100, 80], [0, 0, 40, 44], [80, 60, 100, 80]], atol=1e-4)
    assert kept.tolist() == pytest.approx([0.7, 0.6, 0.1])
    everything, _ = region_proposals(anchors, deltas, scores, 100, 80, iou=None, least_side=0)
    assert len(everything) == 5
    assert everything[0].tolist() == [10, 10, 20, 50]


def test_what_becomes_of_each_anchor():
    """The third is too small, the fourth not among the best three, the first suppressed by the second, which the last
    does not overlap enough; two are proposed."""
    anchors = np.array(
        [[0, 0, 40, 40], [0, 0, 40, 44], [10, 10, 20, 50], [60, 0, 100, 40], [60, 40, 100, 80]], np.float32
    )
    scores = np.array([0.5, 0.6, 0.9, 0.1, 0.7], np.float32)
    arguments = (anchors, np.zeros((5, 4)), scores, 100, 80)
    steps = anchor_steps(*arguments, before_suppression=3)
    assert steps.large.tolist() == [4, 1, 0, 3]
    assert steps.best.tolist() == [4, 1, 0]
    assert steps.apart.tolist() == steps.proposed.tolist() == [4, 1]
    assert steps.suppressed_by(0) == 1
    fates = [(Step.SUPPRESSED, 3, 1), (Step.PROPOSED, 2, None), (Step.TOO_SMALL, None, None)]
    fates += [(Step.NOT_AMONG_BEST, 4, None), (Step.PROPOSED, 1, None)]
    assert [steps.fate(anchor) for anchor in range(5)] == [Fate(*fate) for fate in fates]
    assert anchor_steps(*arguments, at_most=1).fate(1) == Fate(Step.BELOW_LIMIT, 2)
    np.testing.assert_array_equal(steps.moved, anchors)
    boxes, kept = region_proposals(*arguments, before_suppression=3)
    np.testing.assert_array_equal(boxes, anchors[[4, 1]])
    assert kept.tolist() == scores[[4, 1]].tolist()
    assert anchor_steps(*arguments, at_most=1).proposed.tolist() == [4]


def test_small_boxes_are_dropped_before_the_best_are_taken():
    """The release's order: of the two best large enough, none is lost to a better one that is too small."""
    anchors = np.array([[0, 0, 10, 10], [0, 0, 30, 30], [40, 40, 80, 80]], np.float32)
    boxes, _ = region_proposals(
        anchors, np.zeros((3, 4)), np.array([3, 2, 1], np.float32), 100, 100, before_suppression=2
    )
    np.testing.assert_array_equal(boxes, anchors[1:])
    exactly = region_proposals(anchors, np.zeros((3, 4)), np.array([3, 2, 1], np.float32), 100, 100, least_side=10)
    assert len(exactly[0]) == 3


def test_caps_and_ties():
    """Equal scores stay in the order of the anchors; caps of 0 keep all."""
    anchors = map_anchors(np.array([[0, 0, 16, 16]], np.float32), 8, 8, 16)
    scores = np.zeros(64, np.float32)
    boxes, _ = region_proposals(anchors, np.zeros((64, 4)), scores, 128, 128, at_most=5)
    np.testing.assert_array_equal(boxes, anchors[:5])
    few, _ = region_proposals(anchors, np.zeros((64, 4)), scores, 128, 128, before_suppression=7)
    np.testing.assert_array_equal(few, anchors[:7])
    every, _ = region_proposals(anchors, np.zeros((64, 4)), scores, 128, 128, before_suppression=0, at_most=0)
    assert len(every) == 64


def test_deltas_without_measure():
    """An enormous side is clipped to the image; a number that is none is refused."""
    anchors = np.array([[10, 10, 30, 30]], np.float32)
    boxes, _ = region_proposals(anchors, np.array([[0, 0, 800.0, 800.0]]), np.ones(1, np.float32), 100, 80)
    assert boxes.tolist() == [[0, 0, 100, 80]]
    with pytest.raises(ValueError, match="must be finite"):
        region_proposals(anchors, np.zeros((1, 4)), np.array([np.nan], np.float32), 100, 80)
    none, scores = region_proposals(anchors[:0], np.zeros((0, 4)), np.zeros(0, np.float32), 100, 80)
    assert (none.shape, scores.shape) == ((0, 4), (0,))


def test_smooth_l1_by_hand():
    """Sigma 1: a parabola up to 1, then a line of slope 1. Sigma 3: up to 1/9, and the same slope beyond."""
    differences = torch.tensor([0.0, 0.5, -1.0, 2.0])
    np.testing.assert_allclose(smooth_l1(differences), [0, 0.125, 0.5, 1.5])
    np.testing.assert_allclose(smooth_l1(torch.tensor([0.1, -0.5]), 3), [0.5 * 0.09, 0.5 - 1 / 18], rtol=1e-6)
    at = torch.tensor([2.0, 0.01, -3.0], requires_grad=True)
    smooth_l1(at, 3).sum().backward()
    assert at.grad is not None
    np.testing.assert_allclose(at.grad, [1, 0.09, -1], rtol=1e-5)


def test_dense_windows_by_hand():
    """An image of 40 x 20 at twice its size: 80 x 40 pixels, 5 x 3 cells of 16, one square of 32 pixels at each, which
    is 16 in the image; those beyond the edge are clipped."""
    boxes = dense_windows(40, 20, 16, [2.0], [1.0], 40, 1000)
    assert boxes.shape == (15, 4)
    np.testing.assert_array_equal(boxes[0], [0, 0, 12, 12])  # centred at 8 of 80, so at 4 of 40: -4 to 12
    np.testing.assert_array_equal(boxes[6], [4, 4, 20, 20])  # second row and column
    np.testing.assert_array_equal(boxes[-1], [28, 12, 40, 20])


@pytest.mark.parametrize("side", [147, 281, 294])
def test_dense_windows_have_a_cell_for_every_stride_begun_in_the_rounded_image(side):
    """A scaled side is 640 pixels, so 40 cells, though 640 / 147 x 147 is a little more in floating point."""
    assert len(dense_windows(side, side, 16, [8.0], [1.0], 640, 2000)) == 40 * 40
    assert len(dense_windows(1000, 1, 16, [8.0], [1.0], 1, 100)) == 7 * 1  # 100 x 0.1 pixels: at least one row


def test_dense_windows_are_the_papers():
    """Some 20,000 in an image that is 1000 x 600 when scaled, with the settings' defaults; all inside, with area."""
    boxes = find(Settings(method="dense"), (500, 300), None, {}).boxes
    assert len(boxes) == 63 * 38 * 9
    assert has_area(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes <= [500, 300, 500, 300]).all()
    assert (Settings().anchor_scales, Settings().anchor_ratios) == (SCALES, RATIOS)


def test_too_many_dense_windows_are_refused():
    with pytest.raises(StageError, match="anchor_stride = 1 makes 5,400,000 anchors in an image of 1000 x 600 pixels"):
        find(Settings(method="dense", anchor_stride=1), (1000, 600), None, {})
