"""Every step of detect kept: the same detections, what suppressed what, and why an object was missed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes, iou_matrix
from stages.detect import Settings
from stages.detect.misses import Reason, why_missed
from stages.detect.scoring import Head, class_probabilities
from stages.detect.trace import Trace, detect_image
from stages.detections import Detections
from stages.detections.suppression import GreedyNms
from stages.features.linear_models import NEVER_DETECTED, BoxRegressors, LinearSvms

CLASSES = ("cat", "dog")
LEAST = np.array([0, 0], np.float32)
OBJECT = np.array([0, 0, 10, 10], np.float32)


def traced(
    boxes: Sequence[tuple[float, ...]],
    scores: Sequence[tuple[float, ...]],
    shifts: tuple[float, ...] | None = None,
    biases: tuple[float, ...] = (0, 0),
    **changed: Any,
) -> Trace:
    """An image whose proposals have these scores for cat and dog; cats move right by shifts[i] of 9 pixels."""
    features = {"fc7": np.array(scores, np.float32).reshape(-1, 2)}
    svms = LinearSvms(CLASSES, "fc7", np.eye(2, dtype=np.float32), np.array(biases, np.float32), 1.0)
    regressors = None
    if shifts is not None:
        features["pool5"] = np.array(shifts, np.float32)[:, None]
        maps = np.zeros((2, 2, 4), np.float32)
        maps[0, 0, 0] = 1
        regressors = BoxRegressors(CLASSES, "pool5", maps, 1.0)
    scored = Head(svms, regressors).scored(np.array(boxes, np.float32).reshape(-1, 4), features, (100, 100))
    return detect_image(scored, Settings(**changed))


def removers(found: Detections, iou: float) -> NDArray[np.int64]:
    nms = GreedyNms(iou)
    return nms.removers(found, nms.survivors(found))


def test_what_suppressed_what_by_hand() -> None:
    # Of the second class the third box goes for the first that is kept, not for the one that was removed itself.
    boxes = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10], [0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32
    )
    found = Detections(boxes, np.array([3, 2, 1, 9, 8, 7], np.float32), np.array([0, 0, 0, 1, 1, 1], np.int32))
    nothing = found.where(np.zeros(0, np.int64))
    assert removers(found, 0.3).tolist() == [-1, 0, -1, -1, 3, -1]
    assert removers(found, 0.1).tolist() == [-1, 0, -1, -1, 3, 3]
    assert removers(nothing, 0.3).tolist() == []


side = st.integers(1, 9)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), st.integers(0, 9), st.integers(0, 9), side, side)


@given(st.lists(st.tuples(box, st.integers(0, 9), st.integers(0, 2)), max_size=20), st.sampled_from([0.0, 0.3, 0.31]))
def test_a_remover_is_kept_better_of_the_class_and_near(
    rows: list[tuple[tuple[int, ...], int, int]], iou: float
) -> None:
    rows = sorted(rows, key=lambda row: (row[2], -row[1]))
    found = Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )
    by = removers(found, iou)
    np.testing.assert_array_equal(np.flatnonzero(by < 0), GreedyNms(iou).survivors(found))
    for gone in np.flatnonzero(by >= 0):
        assert by[by[gone]] == -1
        assert found.labels[by[gone]] == found.labels[gone]
        assert found.scores[by[gone]] >= found.scores[gone]
        assert iou_matrix(found.boxes[[gone]], found.boxes[[by[gone]]])[0, 0] > iou


def plain_detections(
    boxes: Boxes, features: NDArray[np.float16], svms: LinearSvms, regressors: BoxRegressors | None, at_most: int
) -> Detections:
    """The rule, one class and one box at a time, in an image of 50 x 60 pixels."""
    kept: list[tuple[Boxes, np.float32, int]] = []
    every = svms.score(features)
    for label in range(len(svms.classes)):
        best = np.argsort(-every[:, label], kind="stable")[:at_most]
        moved = boxes[best] if regressors is None else regressors.predict(boxes[best], features[best], label)
        own: list[Boxes] = []
        for row, box in zip(best, clip_boxes(moved, 50, 60), strict=True):
            if all(np.float32(iou_matrix(box[None], other[None])[0, 0]) <= np.float32(0.3) for other in own):
                own.append(box)
                kept.append((box, every[row, label], label))
    return Detections(
        np.array([box for box, _, _ in kept], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in kept], np.float32),
        np.array([label for _, _, label in kept], np.int32),
    )


@given(st.integers(0, 12), st.integers(0, 2**16), st.integers(1, 6), st.booleans())
def test_the_trace_ends_in_the_detections(count: int, seed: int, at_most: int, regress: bool) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 30, (count, 2))
    boxes = np.hstack([corners, corners + random.integers(1, 40, (count, 2))]).astype(np.float32)
    features = {"fc7": random.integers(-2, 3, (count, 3)).astype(np.float16)}
    svms = LinearSvms(
        ("a", "b", "c", "d"), "fc7", random.normal(size=(4, 3)).astype(np.float32), np.zeros(4, np.float32), 1
    )
    maps = 0.1 * random.normal(size=(4, 4, 4)).astype(np.float32)
    regressors = BoxRegressors(svms.classes, "fc7", maps, 1.0) if regress else None
    chosen = Settings(max_per_image=at_most)
    trace = detect_image(Head(svms, regressors).scored(boxes, features, (50, 60)), chosen)
    expected = plain_detections(boxes, features["fc7"], svms, regressors, at_most)
    for name in ("boxes", "scores", "labels"):
        assert getattr(trace.detections, name).tobytes() == getattr(expected, name).tobytes()
    cut = np.array([0, 0.5, -1, np.inf], np.float32)
    np.testing.assert_array_equal(trace.outcome.detections.where(trace.kept(cut)).scores, expected.above(cut).scores)
    for candidate, (row, label) in enumerate(zip(trace.candidates.rows, trace.candidates.labels, strict=True)):
        assert trace.scored.scores[row, label] == trace.candidates.scores[candidate]
        assert trace.candidate(row, label) == candidate
        np.testing.assert_array_equal(trace.after_regression(row, label), trace.moved.boxes[candidate])
    for label in range(4):
        ranks = sorted((trace.rank(row, label), row) for row in range(count))
        assert [rank for rank, _ in ranks] == list(range(1, count + 1))
        own = trace.candidates.rows[trace.candidates.labels == label].tolist()
        assert [row for _, row in ranks][: len(own)] == own


def test_the_softmax_is_traced_without_the_background() -> None:
    scorer = class_probabilities((*CLASSES, "background"))
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    features = {"softmax": np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], np.float32)}
    chosen = Settings(score="softmax")
    trace = detect_image(Head(scorer).scored(boxes, features, (40, 40)), chosen)
    np.testing.assert_array_equal(trace.scored.scores, features["softmax"][:, :2])
    np.testing.assert_array_equal(trace.detections.scores, np.array([0.6, 0.1, 0.3, 0.2], np.float32))
    found = why_missed(trace, OBJECT, 0, np.array([0.5, 0.2], np.float32), 0.5)
    assert (found.reason, found.other) == (Reason.WRONG_CLASS, 1)


def test_a_proposal_that_does_not_compete_is_regressed_too() -> None:
    trace = traced([(0, 0, 10, 10), (20, 0, 30, 10)], [(5, 0), (1, 0)], shifts=(0, 1), max_per_image=1)
    assert trace.candidate(1, 0) is None
    np.testing.assert_allclose(trace.after_regression(1, 0), [29, 0, 39, 10], atol=1e-4)


# Why an object was missed


def reason(trace: Trace, label: int | None = 0, least: NDArray[np.float32] = LEAST) -> Reason:
    return why_missed(trace, OBJECT, label, least, 0.5).reason


def test_no_proposal() -> None:
    far = traced([(20, 0, 30, 10), (0, 0, 10, 4.9)], [(5, 0), (5, 0)])
    found = why_missed(far, OBJECT, 0, LEAST, 0.5)
    assert (found.reason, found.covering, found.proposal) == (Reason.NO_PROPOSAL, 0, 1)
    assert found.candidate == 1
    none = why_missed(traced([], []), OBJECT, 0, LEAST, 0.5)
    assert (none.reason, none.proposal, none.candidate) == (Reason.NO_PROPOSAL, None, None)


def test_a_low_score() -> None:
    low = traced([(0, 0, 10, 9), (0, 0, 10, 6)], [(-2, -3), (-1, -2)])
    found = why_missed(low, OBJECT, 0, LEAST, 0.5)
    assert (found.reason, found.covering, found.proposal) == (Reason.LOW_SCORE, 2, 1)  # the better-scored decides
    assert found.other is None


def test_a_low_score_that_keeps_a_proposal_from_competing() -> None:
    found = why_missed(
        traced([(0, 0, 10, 9), (50, 0, 60, 9)], [(1, 0), (2, 0)], max_per_image=1), OBJECT, 0, LEAST, 0.5
    )
    assert (found.reason, found.proposal, found.candidate) == (Reason.LOW_SCORE, 0, None)


def test_another_class() -> None:
    taken_for_a_dog = traced([(0, 0, 10, 9)], [(-1, 0.5)])
    found = why_missed(taken_for_a_dog, OBJECT, 0, LEAST, 0.5)
    assert (found.reason, found.other) == (Reason.WRONG_CLASS, 1)
    # A dog that does not count either.
    assert reason(taken_for_a_dog, least=np.array([0, 0.6], np.float32)) == Reason.LOW_SCORE
    assert reason(traced([(0, 0, 10, 9)], [(0.2, 0.1)]), least=np.array([0.3, 0], np.float32)) == Reason.LOW_SCORE


def test_a_box_that_regression_moved_away() -> None:
    assert reason(traced([(0, 0, 10, 9)], [(1, 0)], shifts=(1,))) == Reason.LOCALISATION
    assert reason(traced([(0, 0, 10, 9)], [(-1, -2)], shifts=(1,))) == Reason.LOW_SCORE  # it would not have counted
    moved_onto_it = traced([(9, 0, 19, 10)], [(-1, -2)], shifts=(-1,))
    assert reason(moved_onto_it) == Reason.LOW_SCORE
    assert why_missed(moved_onto_it, OBJECT, 0, LEAST, 0.5).covering == 0


def test_a_suppressed_box() -> None:
    found = why_missed(traced([(0, 0, 10, 9), (4, 0, 16, 9)], [(1, 0), (2, 0)]), OBJECT, 0, LEAST, 0.5)
    assert (found.reason, found.candidate, found.by) == (Reason.SUPPRESSED, 1, 0)
    low = traced([(0, 0, 10, 9), (4, 0, 16, 9)], [(-1, -1), (2, 0)])
    assert reason(low) == Reason.LOW_SCORE  # without the other it would not have counted either


def test_a_detection_held_for_another_object() -> None:
    found = why_missed(traced([(0, 0, 10, 9)], [(1, 0)]), OBJECT, 0, LEAST, 0.5)
    assert (found.reason, found.candidate) == (Reason.TAKEN, 0)


@pytest.mark.parametrize("label", [None, 1])
def test_a_class_that_the_detector_does_not_know(label: int | None) -> None:
    trace = traced([(0, 0, 10, 10)], [(1, 1)], biases=(0, NEVER_DETECTED))
    assert reason(trace, label) == Reason.UNKNOWN


def test_a_class_that_learnt_nothing_is_no_other_class() -> None:
    trace = traced([(0, 0, 10, 10)], [(-1, 1)], biases=(0, NEVER_DETECTED))
    assert reason(trace, least=np.array([0, -np.inf], np.float32)) == Reason.LOW_SCORE
