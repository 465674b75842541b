"""The confusion matrix of detections: worked out by hand, a plain loop, and properties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.boxes import iou_matrix
from stages.detections import ClassDetections, Detections, detections_from_arrays
from stages.eval.confusion import Confusion, comparable_ranks, confusion_matrix, confusion_thresholds, measure_confusion
from stages.matching.average_precision import Curve, precision_recall
from stages.matching.detections import match_any_class
from stages.matching.objects import Objects

Box = tuple[int, int, int, int]
Row = tuple[int, Box, int, float]
Thing = tuple[int, Box, int, bool]

SQUARE = (0, 0, 10, 10)
MOST = (0, 0, 10, 8)
HALF = (0, 0, 10, 5)  # IoU with SQUARE exactly 1/2
LITTLE = (0, 0, 10, 4)
AWAY = (50, 50, 60, 60)
CAT, DOG, COW = range(3)


def detections_of(rows: Sequence[Row]) -> tuple[ClassDetections, np.ndarray]:
    """Detections from (image, box, class, score) in the order of the images, and their classes."""
    rows = sorted(rows, key=lambda row: row[0])
    detections = ClassDetections(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[3] for row in rows], np.float32),
    )
    return detections, np.array([row[2] for row in rows], np.int64)


def objects_of(things: Sequence[Thing]) -> Objects:
    """Objects from (image, box, class, difficult) in the order of the images."""
    things = sorted(things, key=lambda thing: thing[0])
    none = np.zeros(len(things), bool)
    return Objects(
        images=np.array([thing[0] for thing in things], np.int64),
        boxes=np.array([thing[1] for thing in things], np.float32).reshape(-1, 4),
        labels=np.array([thing[2] for thing in things], np.int32),
        difficult=np.array([thing[3] for thing in things], bool),
        truncated=none,
        occluded=none,
        poses=np.full(len(things), ""),
        crowds=none,
    )


def matrix(rows: Sequence[Row], things: Sequence[Thing], iou: float = 0.5) -> list[list[int]]:
    return confusion_matrix(*detections_of(rows), objects_of(things), 3, iou).tolist()


def test_by_hand() -> None:
    """Two cats, of which one is taken for a dog; a dog that is missed; a cow in the void; a second cat on the first."""
    things = [(0, SQUARE, CAT, False), (0, AWAY, CAT, False), (1, SQUARE, DOG, False)]
    rows = [
        (0, SQUARE, CAT, 0.9),
        (0, HALF, CAT, 0.8),  # the cat is taken
        (0, AWAY, DOG, 0.7),
        (1, LITTLE, DOG, 0.9),  # too little of it
        (1, AWAY, COW, 0.6),
    ]
    assert matrix(rows, things) == [
        [1, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [1, 1, 1, 0],
    ]


def test_the_better_detection_comes_first_whatever_its_class() -> None:
    things = [(0, SQUARE, CAT, False)]
    assert matrix([(0, MOST, DOG, 0.9), (0, SQUARE, CAT, 0.8)], things)[CAT] == [0, 1, 0, 0]
    assert matrix([(0, MOST, DOG, 0.7), (0, SQUARE, CAT, 0.8)], things)[CAT] == [1, 0, 0, 0]


def test_a_detection_takes_the_free_object_that_it_overlaps_most() -> None:
    things = [(0, SQUARE, CAT, False), (0, MOST, DOG, False)]
    assert matrix([(0, MOST, DOG, 0.9), (0, MOST, DOG, 0.8)], things) == [
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_an_iou_of_exactly_the_limit_is_enough() -> None:
    assert matrix([(0, HALF, CAT, 0.9)], [(0, SQUARE, CAT, False)])[CAT] == [1, 0, 0, 0]
    assert matrix([(0, HALF, CAT, 0.9)], [(0, SQUARE, CAT, False)], 0.51)[CAT] == [0, 0, 0, 1]


def test_difficult_objects_are_neither_counted_nor_punished() -> None:
    """Any number of detections of any class may lie on one, but an ordinary object is taken first."""
    things = [(0, SQUARE, CAT, True)]
    assert matrix([(0, SQUARE, CAT, 0.9), (0, MOST, DOG, 0.8), (0, AWAY, CAT, 0.7)], things) == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    both = [(0, SQUARE, CAT, True), (0, MOST, CAT, False)]
    assert matrix([(0, SQUARE, CAT, 0.9)], both)[CAT] == [1, 0, 0, 0]


def test_other_images_and_nothing_at_all() -> None:
    assert matrix([(1, SQUARE, CAT, 0.9)], [(0, SQUARE, CAT, False)]) == [
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]
    assert matrix([], []) == np.zeros((4, 4), int).tolist()


def test_shares_and_frequent_confusions_by_hand() -> None:
    counts = np.array([[6, 1, 1, 0], [4, 5, 0, 1], [0, 0, 0, 0], [1, 0, 3, 0]])
    confusion = Confusion(("cat", "dog", "cow"), counts, np.zeros(3))
    shares = np.array([[0.75, 0.125, 0.125, 0], [0.4, 0.5, 0, 0.1], [0, 0, 0, 0], [0.25, 0, 0.75, 0]])
    np.testing.assert_allclose(confusion.shares, shares)
    assert confusion.frequent(2) == [("dog", "cat", 4, 10), ("cat", "dog", 1, 8)]
    assert len(confusion.frequent(10)) == 3


def test_the_table_by_hand() -> None:
    confusion = Confusion(("cat", "dog"), np.arange(9).reshape(3, 3), np.array([0.5, np.inf]))
    assert confusion.rows() == [
        ["true class", "cat", "dog", "missed", "threshold"],
        ["cat", 0, 1, 2, 0.5],
        ["dog", 3, 4, 5, None],
        ["background", 6, 7, 8, None],
    ]


def curve_of(scores: Sequence[float], found: Sequence[bool]) -> Curve:
    recall, precision = precision_recall(np.array(found, bool), max(1, sum(found)))
    return Curve(np.array(scores, np.float32), recall, precision, max(1, sum(found)), len(found))


def test_thresholds_are_those_of_the_best_f1_or_one_for_all() -> None:
    curves = {"cat": curve_of([3, 2, 1], [True, True, False]), "dog": curve_of([1], [False])}
    assert confusion_thresholds(curves, ["cat", "dog", "cow"]).tolist() == [2, np.inf, np.inf]
    assert confusion_thresholds(curves, ["cat", "dog"], 0.25).tolist() == [0.25, 0.25]


def test_ranks_are_by_precision_then_by_score() -> None:
    ranks = comparable_ranks(np.array([9.0, 1.0, 2.0, 2.0]), np.array([0.5, 1.0, 1.0, 1.0]))
    assert np.argsort(-ranks).tolist() == [2, 3, 1, 0]


def test_of_a_set_of_detections_by_hand() -> None:
    """The detector has a class that the data lack, and names its classes in another order; below its threshold, a
    detection does not count."""
    boxes = np.array([SQUARE, SQUARE, AWAY, AWAY], np.float32)
    detections = detections_from_arrays(
        ["horse", "dog", "cat"],
        [("a", Detections(boxes, np.array([9, 3, 2, 1], np.float32), np.array([0, 1, 2, 1], np.int32)))],
    )
    objects = objects_of([(0, SQUARE, CAT, False), (0, AWAY, DOG, False)])
    curves = {"cat": curve_of([2], [True]), "dog": curve_of([3, 1], [True, False])}
    precision = np.array([np.nan, 1, 1, 0.5])
    measured = measure_confusion(detections, precision, curves, objects, ["cat", "dog"], 0.5)
    assert measured.counts.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert measured.thresholds.tolist() == [2, 3]
    everything = measure_confusion(detections, precision, curves, objects, ["cat", "dog"], 0.5, fixed=0.0)
    assert everything.counts.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


# Properties, and an independent implementation

boxes_strategy = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from((2, 4, 6)),
    st.sampled_from((2, 4, 8)),
)
rows_strategy = st.lists(
    st.tuples(st.integers(0, 2), boxes_strategy, st.integers(0, 2), st.integers(0, 8).map(lambda n: n / 8)), max_size=20
)
things_strategy = st.lists(st.tuples(st.integers(0, 2), boxes_strategy, st.integers(0, 2), st.booleans()), max_size=10)


def plain(rows: Sequence[Row], things: Sequence[Thing]) -> list[list[int]]:
    """One detection after another, in a dictionary of what is taken."""
    things = sorted(things, key=lambda thing: thing[0])
    counts = [[0] * 4 for _ in range(4)]
    taken: set[int] = set()
    for image, box, label, _ in sorted(sorted(rows, key=lambda row: row[0]), key=lambda row: -row[3]):
        overlaps = [
            float(iou_matrix(np.array([box], np.float32), np.array([thing[1]], np.float32))[0, 0])
            if thing[0] == image
            else -1.0
            for thing in things
        ]
        free = [n for n, thing in enumerate(things) if not thing[3] and n not in taken and overlaps[n] >= 0.5]
        if free:
            best = max(free, key=lambda n: (overlaps[n], -n))
            taken.add(best)
            counts[things[best][2]][label] += 1
        elif not any(thing[3] and overlaps[n] >= 0.5 for n, thing in enumerate(things)):
            counts[3][label] += 1
    for number, (_, _, label, difficult) in enumerate(things):
        if not difficult and number not in taken:
            counts[label][3] += 1
    return counts


@settings(max_examples=200, deadline=None)
@given(rows_strategy, things_strategy)
def test_agrees_with_the_plain_loop(rows: list[Row], things: list[Thing]) -> None:
    assert matrix(rows, things) == plain(rows, things)


@settings(deadline=None)
@given(rows_strategy, things_strategy)
def test_rows_are_objects_and_columns_detections(rows: list[Row], things: list[Thing]) -> None:
    detections, labels = detections_of(rows)
    objects = objects_of(things)
    matches = match_any_class(detections, objects, 0.5)
    counts = confusion_matrix(detections, labels, objects, 3, 0.5)
    plain_objects = objects.labels[~objects.difficult]
    assert counts[:3].sum(axis=1).tolist() == np.bincount(plain_objects, minlength=3).tolist()
    assert counts[:, :3].sum(axis=0).tolist() == np.bincount(labels[~matches.excused], minlength=3).tolist()
    assert counts[3, 3] == 0
    # One to one, and of the diagonal: a true positive is a detection that takes an object of its own class.
    took = matches.objects >= 0
    assert len(set(matches.objects[took].tolist())) == took.sum()
    right = objects.labels[matches.objects[took]] == labels[took]
    assert counts[:3, :3].trace() == right.sum()


@settings(deadline=None)
@given(rows_strategy, things_strategy)
def test_perfect_detections_are_on_the_diagonal(rows: list[Row], things: list[Thing]) -> None:
    """Each object detected where it is; objects in the same place may be swapped, so they are left out."""
    distinct = list({(image, box): (image, box, label, False) for image, box, label, _ in things}.values())
    perfect = [(image, box, label, 0.5) for image, box, label, _ in distinct]
    counts = np.array(matrix(perfect, distinct, iou=1.0))
    assert counts.sum() == counts.trace() == len(distinct)
