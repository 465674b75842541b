"""Average precision: hand-worked cases, a plain loop after the devkit's rules, pycocotools, and properties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.detections import ClassDetections
from stages.matching.average_precision import (
    RECALL_LEVELS,
    Curve,
    average_precision_11_point,
    average_precision_area,
    calibrated_precision,
    interpolated_steps,
    lowest_score_at,
    precision_recall,
    precision_recall_curve,
)
from stages.matching.detections import match_devkit
from stages.matching.objects import ClassObjects

Row = tuple[int, tuple[int, int, int, int], float]
Thing = tuple[int, tuple[int, int, int, int], bool]


def detections_of(rows: Sequence[Row]) -> ClassDetections:
    """Detections from (image, box, score), put in the order of the images."""
    rows = sorted(rows, key=lambda row: row[0])
    return ClassDetections(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32),
    )


def objects_of(things: Sequence[Thing]) -> ClassObjects:
    """Objects from (image, box, difficult), put in the order of the images."""
    things = sorted(things, key=lambda thing: thing[0])
    return ClassObjects(
        np.array([thing[0] for thing in things], np.int64),
        np.array([thing[1] for thing in things], np.float32).reshape(-1, 4),
        np.array([thing[2] for thing in things], bool),
    )


def verdicts(rows: Sequence[Row], things: Sequence[Thing], iou: float = 0.5) -> str:
    """From the best score down: T true, F false, - ignored."""
    matches = match_devkit(detections_of(rows), objects_of(things), iou)
    letters = np.where(matches.ignored, "-", np.where(matches.found, "T", "F"))
    return "".join(letters[matches.order])


SQUARE = (0, 0, 10, 10)
HALF = (0, 0, 10, 5)  # IoU with SQUARE exactly 1/2
BELOW = (0, 0, 10, 4)
AWAY = (50, 50, 60, 60)


# Hand-worked matching


def test_iou_of_exactly_one_half_is_enough() -> None:
    assert verdicts([(0, HALF, 0.9)], [(0, SQUARE, False)]) == "T"
    assert verdicts([(0, BELOW, 0.9)], [(0, SQUARE, False)]) == "F"


def test_a_stricter_threshold() -> None:
    assert verdicts([(0, HALF, 0.9)], [(0, SQUARE, False)], iou=0.51) == "F"


def test_a_second_detection_of_an_object_is_false() -> None:
    rows = [(0, HALF, 0.9), (0, SQUARE, 0.8), (0, AWAY, 0.7)]
    assert verdicts(rows, [(0, SQUARE, False)]) == "TFF"


def test_the_same_box_in_another_image_is_false() -> None:
    assert verdicts([(1, SQUARE, 0.9), (0, SQUARE, 0.8)], [(0, SQUARE, False)]) == "FT"


def test_a_found_object_is_not_replaced_by_the_next_best() -> None:
    # Both detections overlap the first object most; the second object (IoU 0.9 x 10 / 11, > 1/2) does not help.
    things = [(0, (0, 0, 10, 10), False), (0, (1, 0, 11, 10), False)]
    assert verdicts([(0, (0, 0, 10, 10), 0.9), (0, (0, 0, 10, 10), 0.8)], things) == "TF"
    assert verdicts([(0, (0, 0, 10, 10), 0.9), (0, (1, 0, 11, 10), 0.8)], things) == "TT"


def test_difficult_objects_ignore_every_detection_of_them() -> None:
    things = [(0, SQUARE, True), (0, AWAY, False)]
    rows = [(0, SQUARE, 0.9), (0, SQUARE, 0.8), (0, AWAY, 0.7), (0, BELOW, 0.6)]
    assert verdicts(rows, things) == "--TF"


def test_equal_scores_come_in_the_order_of_images_then_rows() -> None:
    rows = [(1, SQUARE, 0.5), (0, AWAY, 0.5), (0, SQUARE, 0.5), (0, HALF, 0.5)]
    assert verdicts(rows, [(0, SQUARE, False), (1, SQUARE, False)]) == "FTFT"


def test_equal_overlaps_take_the_first_object() -> None:
    things = [(0, (0, 0, 10, 10), True), (0, (0, 0, 10, 10), False)]
    assert verdicts([(0, SQUARE, 0.9)], things) == "-"
    assert verdicts([(0, SQUARE, 0.9)], things[::-1]) == "T"


def test_no_detections_and_no_objects() -> None:
    assert verdicts([], [(0, SQUARE, False)]) == ""
    assert verdicts([(0, SQUARE, 0.9)], []) == "F"


# Hand-worked precision


def test_precision_and_recall_by_hand() -> None:
    recall, precision = precision_recall(np.array([True, False, True, False]), 4)
    assert recall.tolist() == [0.25, 0.25, 0.5, 0.5]
    assert precision.tolist() == [1, 0.5, 2 / 3, 0.5]
    # Levels 0, .1, .2 have precision 1; .3, .4, .5 have 2/3; the other five none.
    assert average_precision_11_point(recall, precision) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert average_precision_area(recall, precision) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


def test_the_envelope_lifts_a_dip() -> None:
    recall, precision = precision_recall(np.array([False, True, True]), 2)
    assert average_precision_area(recall, precision) == pytest.approx(2 / 3)
    assert average_precision_11_point(recall, precision) == pytest.approx(2 / 3)


def test_the_eleven_levels_are_numpys_sums() -> None:
    assert len(RECALL_LEVELS) == 11
    assert RECALL_LEVELS.tolist() == [0.1 * i for i in range(11)]
    recall, precision = precision_recall(np.ones(3, bool), 10)
    assert average_precision_11_point(recall, precision) == pytest.approx(3 / 11)  # 0.3 misses its own level
    recall, precision = precision_recall(np.ones(5, bool), 10)
    assert average_precision_11_point(recall, precision) == pytest.approx(6 / 11)


def test_ignored_detections_leave_no_point() -> None:
    curve = precision_recall_curve(
        detections_of([(0, SQUARE, 0.9), (0, AWAY, 0.8)]), objects_of([(0, SQUARE, True), (0, AWAY, False)])
    )
    assert curve.recall.tolist() == curve.precision.tolist() == [1.0]
    assert curve.scores.tolist() == [np.float32(0.8)]
    assert (curve.positives, curve.detections) == (1, 2)
    assert curve.ap_11 == pytest.approx(1)
    assert curve.ap_area == 1


def test_a_class_with_nothing_to_find_has_no_precision() -> None:
    curve = precision_recall_curve(detections_of([(0, SQUARE, 0.9)]), objects_of([(0, SQUARE, True)]))
    assert math.isnan(curve.ap_11)
    assert math.isnan(curve.ap_area)
    assert len(curve.scores) == 0


def test_a_class_without_detections_has_precision_zero() -> None:
    curve = precision_recall_curve(detections_of([]), objects_of([(3, SQUARE, False)]))
    assert curve.ap_11 == curve.ap_area == 0
    assert lowest_score_at(0.5, curve) is None


def test_the_lowest_score_at_a_precision() -> None:
    recall, precision = precision_recall(np.array([False, True, False, False]), 1)
    curve = Curve(np.array([4, 3, 2, 1], np.float32), recall, precision, 1, 4)
    assert lowest_score_at(0.5, curve) == 3
    assert lowest_score_at(0.3, curve) == 2
    assert lowest_score_at(0.6, curve) is None


# An independent implementation: the rules one after another, in exact fractions


def exact_iou(first: tuple[int, ...], second: tuple[int, ...]) -> Fraction:
    """IoU by counting pixels."""
    columns = len(set(range(first[0], first[2])) & set(range(second[0], second[2])))
    rows = len(set(range(first[1], first[3])) & set(range(second[1], second[3])))
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return Fraction(columns * rows, sum(sizes) - columns * rows)


def judge(rows: Sequence[Row], things: Sequence[Thing]) -> tuple[list[str], int]:
    """Verdicts from the best score down, one detection at a time, and the number of objects to find."""
    taken: set[int] = set()
    letters = []
    for image, box, _ in sorted(sorted(rows, key=lambda row: row[0]), key=lambda row: -row[2]):
        best, best_iou = None, Fraction(-1)
        for number, (where, other, _) in enumerate(things):
            if where == image and exact_iou(box, other) > best_iou:
                best, best_iou = number, exact_iou(box, other)
        if best is None or best_iou < Fraction(1, 2):
            letters.append("F")
        elif things[best][2]:
            letters.append("-")
        elif best in taken:
            letters.append("F")
        else:
            taken.add(best)
            letters.append("T")
    return letters, sum(not difficult for _, _, difficult in things)


def plain_aps(letters: Sequence[str], positives: int) -> tuple[float, float]:
    """(11-point, area) from the verdicts, by loops over detections and levels."""
    true = false = 0
    points = []
    for letter in letters:
        true, false = true + (letter == "T"), false + (letter == "F")
        if true + false:
            points.append((true / positives, true / (true + false)))
    eleven = sum(max([p for r, p in points if r >= 0.1 * i], default=0.0) / 11 for i in range(11))
    area, reached = 0.0, 0.0
    for number, (recall, _) in enumerate(points):
        area += (recall - reached) * max(p for _, p in points[number:])
        reached = recall
    return eleven, area


box_strategy = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from((2, 4, 6)),
    st.sampled_from((2, 4, 8)),
)
rows_strategy = st.lists(
    st.tuples(st.integers(0, 3), box_strategy, st.integers(0, 8).map(lambda n: n / 8)), max_size=30
)
things_strategy = st.lists(st.tuples(st.integers(0, 3), box_strategy, st.booleans()), max_size=10)


@settings(max_examples=300, deadline=None)
@given(rows_strategy, things_strategy)
def test_agrees_with_the_plain_loop(rows: list[Row], things: list[Thing]) -> None:
    letters, positives = judge(rows, things)
    assert verdicts(rows, things) == "".join(letters)
    curve = precision_recall_curve(detections_of(rows), objects_of(things))
    assert curve.positives == positives
    if positives:
        eleven, area = plain_aps(letters, positives)
        assert curve.ap_11 == pytest.approx(eleven, abs=1e-12)
        assert curve.ap_area == pytest.approx(area, abs=1e-12)


def test_agrees_with_pycocotools_where_the_rules_are_the_same() -> None:
    """One object an image, none difficult: then COCO's matching (best unused object) is the devkit's."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    random = np.random.default_rng(5)
    things: list[tuple[int, tuple[int, int, int, int], bool]] = []
    rows: list[tuple[int, tuple[int, int, int, int], float]] = []
    scores = random.permutation(300) / 300
    for image in range(1, 51):
        x, y = random.integers(0, 30, 2)
        things.append((image, (int(x), int(y), int(x) + 20, int(y) + 20), False))
        for _ in range(6):
            left, top = int(x + random.integers(-9, 9)), int(y + random.integers(-9, 9))
            rows.append((image, (left, top, left + 20, top + 20), float(scores[len(rows)])))

    def annotation(number: int, image: int, box: tuple[int, ...]) -> dict[str, object]:
        sides = [box[2] - box[0], box[3] - box[1]]
        return {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "bbox": [*box[:2], *sides],
            "area": sides[0] * sides[1],
            "iscrowd": 0,
        }

    truth = coco.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image} for image, _, _ in things],
        "categories": [{"id": 1}],
        "annotations": [annotation(n, image, box) for n, (image, box, _) in enumerate(things, 1)],
    }
    truth.createIndex()
    given_scores = [{**annotation(n, image, box), "score": score} for n, (image, box, score) in enumerate(rows, 1)]
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(given_scores), "bbox")
    evaluation.params.areaRng, evaluation.params.maxDets = [[0, 1e10]], [100]
    evaluation.evaluate()
    matched: dict[int, bool] = {}
    for one in evaluation.evalImgs:
        if one:
            matched |= dict(zip(one["dtIds"], one["dtMatches"][0] > 0, strict=True))
    ours = match_devkit(detections_of(rows), objects_of(things), 0.5)
    assert 0 < ours.found.sum() < len(rows)
    assert [matched[n] for n in range(1, len(rows) + 1)] == ours.found.tolist()


# Properties

verdict_lists = st.lists(st.booleans(), max_size=40)


@given(verdict_lists, st.integers(0, 20))
def test_precision_is_between_zero_and_one(found: list[bool], missed: int) -> None:
    assume(sum(found) + missed > 0)
    recall, precision = precision_recall(np.array(found, bool), sum(found) + missed)
    for ap in (average_precision_11_point(recall, precision), average_precision_area(recall, precision)):
        assert 0 <= ap <= 1 + 1e-12
    if found and all(found) and not missed:
        assert average_precision_area(recall, precision) == pytest.approx(1)
        assert average_precision_11_point(recall, precision) == pytest.approx(1)


@given(verdict_lists, st.integers(0, 20))
def test_the_steps_that_are_drawn_are_those_that_ap_integrates(found: list[bool], missed: int) -> None:
    positives = sum(found) + missed
    recall, precision = precision_recall(np.array(found, bool), positives)
    curve = Curve(np.zeros(len(found), np.float32), recall, precision, positives, len(found))
    ends, heights = interpolated_steps(curve)
    assert (np.diff(ends) > 0).all()
    assert (np.diff(heights) < 0).all()
    assert len(ends) == len(heights) <= sum(found)
    assert float(np.sum(np.diff(ends, prepend=0.0) * heights)) == pytest.approx(curve.ap_area if positives else 0.0)
    for level in RECALL_LEVELS:
        holds = heights[ends >= level]
        assert holds.max(initial=0.0) == precision[recall >= level].max(initial=0.0)


@given(verdict_lists, st.integers(1, 5), st.integers(1, 6))
def test_false_detections_below_all_others_change_nothing(found: list[bool], missed: int, more: int) -> None:
    before = precision_recall(np.array(found, bool), sum(found) + missed)
    after = precision_recall(np.array(found + [False] * more, bool), sum(found) + missed)
    assert average_precision_area(*after) == pytest.approx(average_precision_area(*before))
    # With nothing found, the only points have precision 0.
    assert average_precision_11_point(*after) == pytest.approx(average_precision_11_point(*before))


@given(verdict_lists.filter(any), st.integers(0, 5), st.data())
def test_a_false_detection_never_helps(found: list[bool], missed: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(found)))
    before = precision_recall(np.array(found, bool), sum(found) + missed)
    after = precision_recall(np.array([*found[:place], False, *found[place:]], bool), sum(found) + missed)
    assert average_precision_area(*after) <= average_precision_area(*before) + 1e-12
    assert average_precision_11_point(*after) <= average_precision_11_point(*before) + 1e-12


@settings(deadline=None)
@given(rows_strategy, things_strategy, st.randoms())
def test_order_does_not_matter_without_ties(rows: list[Row], things: list[Thing], random: object) -> None:
    rows = [(image, box, number / 64) for number, (image, box, _) in enumerate(rows)]
    curve = precision_recall_curve(detections_of(rows), objects_of(things))
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = precision_recall_curve(detections_of(shuffled), objects_of(things))
    np.testing.assert_array_equal(curve.precision, again.precision)
    np.testing.assert_array_equal(curve.scores, again.scores)


def curve_of(scores: Sequence[float], found: Sequence[bool]) -> Curve:
    recall, precision = precision_recall(np.array(found, bool), max(1, sum(found)))
    return Curve(np.array(scores, np.float32), recall, precision, max(1, sum(found)), len(found))


def test_calibrated_precision_by_hand() -> None:
    """Precisions 1, 1/2, 2/3, 1/2 from the best score down: 1/2 at the second score becomes the 2/3 of the third."""
    curve = curve_of([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    scores = np.array([2.0, 0.9, 0.85, 0.8, 0.7, 0.65, 0.6, -1.0])
    third, half = 2 / 3, 1 / 2
    np.testing.assert_allclose(
        calibrated_precision(curve, scores), [1, 1, third, third, third, half, half, half], rtol=1e-12
    )
    assert np.isnan(calibrated_precision(curve_of([], []), scores)).all()


def test_equal_scores_are_not_parted_by_hand() -> None:
    """Right, then right and wrong and wrong with one score: 2/4 at that score, whatever the order of the three."""
    curve = curve_of([0.9, 0.5, 0.5, 0.5], [True, True, False, False])
    np.testing.assert_allclose(calibrated_precision(curve, np.array([0.9, 0.5, 0.1])), [1, 0.5, 0.5])
    assert lowest_score_at(0.6, curve) == pytest.approx(0.9)
    assert lowest_score_at(0.5, curve) == 0.5


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=20),
    st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]),
    st.lists(st.integers(-3, 15), min_size=1, max_size=10),
)
def test_calibrated_precision_never_falls_and_agrees_with_the_cut(
    ranked: list[tuple[int, bool]], precision: float, asked: list[int]
) -> None:
    """Ties of scores included: a score has the precision of a cut exactly where it reaches the cut."""
    ranked = sorted(ranked, key=lambda one: -one[0])
    curve = curve_of([score for score, _ in ranked], [found for _, found in ranked])
    scores = np.sort(np.array(asked, np.float32))
    calibrated = calibrated_precision(curve, scores)
    assert (np.diff(calibrated) >= 0).all()
    cut = lowest_score_at(precision, curve)
    inside = scores >= curve.scores[-1]
    reached = np.zeros(len(scores), bool) if cut is None else scores >= cut
    np.testing.assert_array_equal((calibrated >= precision)[inside], reached[inside])
