"""ILSVRC's localisation error: which guesses are made, and which cases they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.boxes import as_boxes, iou_matrix, paired_iou
from stages.detections import ClassDetections, Detections, DetectionSet, detections_from_arrays
from stages.eval import Settings
from stages.eval.localisation import best_guesses, judge_cases
from stages.eval.report import csv_rows, format_table
from stages.matching.objects import ClassObjects
from tests.stages.test_eval import AWAY, SQUARE, dataset_of, detections_cache, evaluate

HALF = (0, 0, 10, 5)
"""IoU of exactly 1/2 with SQUARE."""
CLASSES = tuple("abcdefg")


def detected(*images: Sequence[tuple[tuple[int, ...], float, int]]) -> DetectionSet:
    """Detections (box, score, label) of images named 0, 1, ..."""
    sets = [
        Detections(
            as_boxes([row[0] for row in rows]),
            np.array([row[1] for row in rows], np.float32),
            np.array([row[2] for row in rows], np.int32),
        )
        for rows in images
    ]
    return detections_from_arrays(CLASSES, [(str(number), rows) for number, rows in enumerate(sets)])


def test_paired_iou_is_the_diagonal_of_the_matrix() -> None:
    draw = np.random.default_rng(0)
    corners = draw.uniform(0, 20, (2, 50, 2))
    first, second = (np.hstack([low, low + draw.uniform(0, 20, (50, 2))]).astype(np.float32) for low in corners)
    np.testing.assert_array_equal(paired_iou(first, second), np.diag(iou_matrix(first, second)))
    assert paired_iou(as_boxes([(3, 3, 3, 3)]), as_boxes([(3, 3, 3, 3)])).tolist() == [0]


def test_a_guess_is_the_best_box_of_one_of_the_five_best_classes() -> None:
    """Seven classes, two boxes each: the five best classes keep their better box, two classes none."""
    rows = [(SQUARE, 0.1 * label, label) for label in range(7)] + [
        (AWAY, 0.1 * label + 0.01, label) for label in range(7)
    ]
    guesses = best_guesses(detected([], rows, [(SQUARE, 0.3, 6)]))
    assert list(guesses) == ["c", "d", "e", "f", "g"]
    assert guesses["c"].boxes.tolist() == [list(AWAY)]
    assert guesses["g"].images.tolist() == [1, 2]
    assert guesses["g"].boxes.tolist() == [list(AWAY), list(SQUARE)]
    np.testing.assert_allclose(guesses["g"].scores, [0.61, 0.3])


def test_of_equal_scores_the_first_counts_and_no_detections_are_no_guesses() -> None:
    assert best_guesses(detected([(AWAY, 0.5, 1), (SQUARE, 0.5, 1)]))["b"].boxes.tolist() == [list(AWAY)]
    assert list(best_guesses(detected([(SQUARE, 0.5, label) for label in range(7)]))) == list("abcde")
    assert best_guesses(detected([], [])) == {}


def test_cases_by_hand() -> None:
    """Image 0: hit at an IoU of exactly 1/2. 1: right class, wrong box. 2: not guessed. 3: the second object is hit.
    4: only a difficult object, no case. 5: a difficult object is hit, the other one missed."""
    objects = ClassObjects(
        np.array([0, 1, 2, 3, 3, 4, 5, 5]),
        as_boxes([SQUARE, AWAY, SQUARE, AWAY, SQUARE, SQUARE, SQUARE, AWAY]),
        np.array([0, 0, 0, 0, 0, 1, 1, 0], bool),
    )
    boxes = as_boxes([HALF, HALF, HALF, HALF, SQUARE])
    guesses = ClassDetections(np.array([0, 1, 3, 4, 5]), boxes, np.ones(5, np.float32))
    cases = judge_cases(guesses, objects, 0.5)
    assert cases.images.tolist() == [0, 1, 2, 3, 5]
    assert cases.missed.tolist() == [False, True, True, False, True]
    assert cases.misclassified.tolist() == [False, False, True, False, False]
    assert judge_cases(guesses, objects, 0.51).missed.tolist() == [True] * 5


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Six cases. Cat: hit in a, wrong box in b. Dog: hit in a, not guessed in c. Owl, which is the detector's class 0:
    hit in b, not guessed in d."""
    things = {
        "a": [(SQUARE, 0, False), (SQUARE, 0, False), (AWAY, 1, False)],
        "b": [(SQUARE, 0, False), (AWAY, 2, False)],
        "c": [(SQUARE, 1, False), (AWAY, 0, True)],
        "d": [(SQUARE, 2, False)],
        "e": [],
    }
    rows = {
        "a": [(SQUARE, 0.5, 2), (AWAY, 0.9, 1)],
        "b": [(AWAY, 0.9, 2), (AWAY, 0.8, 0), (SQUARE, 0.3, 2)],
        "c": [(AWAY, 0.1, 2)],
        "d": [],
        "e": [(SQUARE, 0.1, 1)],
    }
    found = detections_cache(tmp_path / "detections", rows, classes=("owl", "dog", "cat"))
    return {"images": dataset_of(things), "detections": found}


def test_an_evaluation_with_it(tmp_path: Path, inputs: dict[str, Any]) -> None:
    summary = evaluate(tmp_path / "eval", inputs, Settings(localisation=True, bootstrap=200)).manifest["summary"]
    assert summary["localisation"] == {"error": 0.5, "class_error": pytest.approx(2 / 6), "cases": 6}
    errors = {name: result["localisation"]["error"] for name, result in summary["classes"].items()}
    assert errors == {"cat": 0.5, "dog": 0.5, "owl": 0.5}
    low, high = summary["bootstrap"]["localisation_error"]
    assert 0 <= low < 0.5 < high <= 1
    lines = format_table({"eval": summary}).splitlines()
    assert lines[-2].split()[:5] == ["localisation", "error,", "5", "guesses", "50.0"]
    assert lines[-1].split() == ["class", "error,", "5", "guesses", "33.3"]
    rows = csv_rows(summary)
    assert rows[0][-3:] == ["cases", "localisation_error", "class_error"]
    assert rows[1][-3:] == [2, 0.5, 0.0]
    assert rows[-1][-3:] == [6, 0.5, pytest.approx(2 / 6)]
    assert {len(row) for row in rows} == {len(rows[0])}


def test_an_evaluation_without_it_and_one_without_cases(tmp_path: Path, inputs: dict[str, Any]) -> None:
    plain = evaluate(tmp_path / "plain", inputs).manifest["summary"]
    assert "localisation" not in plain
    nothing = {"images": dataset_of({name: [] for name in "abcde"}), "detections": inputs["detections"]}
    summary = evaluate(tmp_path / "eval", nothing, Settings(localisation=True, bootstrap=20)).manifest["summary"]
    assert summary["localisation"] == {"error": None, "class_error": None, "cases": 0}
    assert summary["bootstrap"]["localisation_error"] is None
    assert format_table({"with": summary, "plain": plain}).splitlines()[-2].split()[-2:] == ["-", "-"]


def test_parts_change_nothing(tmp_path: Path, inputs: dict[str, Any]) -> None:
    settings = Settings(localisation=True)
    whole, split = (evaluate(tmp_path / name, inputs, settings, part_size=size) for name, size in (("a", 9), ("b", 1)))
    assert whole.manifest["summary"] == split.manifest["summary"]
