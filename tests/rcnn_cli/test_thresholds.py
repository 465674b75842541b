"""Thresholds of classes: chosen from curves by hand, written and read, and what is wrong with a file of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcnn_cli.looking.showing import Showing
from rcnn_cli.looking.thresholds import (
    Thresholds,
    class_thresholds,
    format_table,
    read_thresholds_file,
    rows_of,
    thresholds_text,
    with_thresholds,
)
from stages.contract.errors import StageError
from stages.detections import Detections
from stages.matching.average_precision import Curve, precision_recall

INF = float("inf")


def curve(correct: list[int], positives: int, scores: list[float] | None = None) -> Curve:
    """A class whose detections, by falling score (9, 8, ... unless given), are true where 1."""
    hits = np.array(correct, bool)
    given = np.array(scores or np.arange(9, 9 - len(hits), -1), np.float32)
    return Curve(given, *precision_recall(hits, positives), positives, len(hits))


CURVES = {
    "cat": curve([1, 1, 0, 1, 0], 4),  # F1 by score: 2/5, 4/6, 4/7, 6/8, 6/9
    "dog": curve([0, 0, 1], 2),  # F1: 0, 0, 2/5; precision 1/3 at most
    "owl": curve([0, 0], 3),
    "fox": curve([1, 0], 0),
    "elk": curve([1, 0, 1], 2, [5, 4, 4]),  # a threshold cannot separate the last two: F1 2/3, 4/5
}
CLASSES = (*CURVES, "yak")


def test_thresholds_by_hand() -> None:
    assert class_thresholds(CURVES, CLASSES).tolist() == [6, 7, INF, INF, 4, INF]
    assert class_thresholds(CURVES, CLASSES).dtype == np.float32
    assert class_thresholds(CURVES, CLASSES, 0.75).tolist() == [6, INF, INF, INF, 5, INF]
    assert class_thresholds(CURVES, CLASSES, 0.3).tolist() == [5, 7, INF, INF, 4, INF]
    assert class_thresholds({}, ()).shape == (0,)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 6)
)
def test_no_threshold_has_a_better_f1_than_the_chosen_one(
    rows: list[tuple[int, bool]], missed: int, other: int
) -> None:
    rows = sorted(rows, key=lambda row: -row[0])
    found = sum(true for _, true in rows)
    made = curve([int(true) for _, true in rows], found + missed, [float(score) for score, _ in rows])
    (chosen,) = class_thresholds({"cat": made}, ("cat",))

    def f1(threshold: float) -> float:
        kept = [true for score, true in rows if score >= threshold]
        return 2 * sum(kept) / (len(kept) + found + missed)

    assert np.isinf(chosen) == (found == 0)
    assert f1(float(chosen)) >= f1(other) - 1e-12


def chosen_for(classes: tuple[str, ...] = CLASSES, precision: float | None = None) -> Thresholds:
    scores = class_thresholds(CURVES, classes, precision)
    return Thresholds(classes, scores, "best F1 on val", "SVM margin", "r.toml", "detect", "0123456789ab")


def test_the_table_says_what_they_achieve() -> None:
    rows = rows_of(chosen_for(), CURVES)
    assert rows[0] == {"class": "cat", "objects": 4, "score": 6.0, "precision": 0.75, "recall": 0.75, "f1": 0.75}
    assert rows[4] == {"class": "elk", "objects": 2, "score": 4.0, "precision": 2 / 3, "recall": 1, "f1": 0.8}
    assert rows[5] == {"class": "yak", "objects": 0, "score": None, "precision": None, "recall": None, "f1": None}
    table = format_table(chosen_for(), rows)
    assert re.search(r"^cat +4 +6.000 +75.0 +75.0 +75.0$", table, re.MULTILINE)
    few = "few objects to choose by, so that other images may need other thresholds: cat (4), dog (2), elk (2)"
    assert f"\n{few}\n" in table
    assert table.endswith("none of their detections count, whatever the score: owl, fox, yak")


names = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), unique=True, max_size=4)


@given(names, st.data())
def test_a_file_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    number = st.one_of(st.floats(width=32, allow_nan=False, allow_subnormal=False), st.just(INF))
    scores = np.array(data.draw(st.lists(number, min_size=len(names), max_size=len(names))), np.float32)
    given = Thresholds(tuple(names), scores, "best F1 on val", "SVM margin", 'a "b".toml', "detect", "")
    path = tmp_path_factory.mktemp("thresholds") / "t.toml"
    path.write_text(thresholds_text(given), encoding="utf-8")
    read = read_thresholds_file(path)
    assert read.classes == given.classes
    np.testing.assert_array_equal(read.scores, given.scores)
    assert vars(read) | {"scores": None} == vars(given) | {"scores": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[thresholds]\ncat = true", "the threshold of 'cat' is True; write a number, or inf to leave it out"),
        ("[thresholds]\ncat = nan", "the threshold of 'cat' is nan"),
        ("[thresholds]\ncat = '1'", "the threshold of 'cat' is '1'"),
        ("thresholds = 1", r"has no table \[thresholds\]"),
        ("rule = 3\n[thresholds]\ncat = 1", "rule = 3 is not text"),
        ("[thresholds", "is not valid TOML"),
        ("\udcff", "is not valid TOML"),
    ],
)
def test_what_is_no_file_of_thresholds(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StageError, match=rf"t\.toml: {said}"):
        read_thresholds_file(path)
    with pytest.raises(StageError, match=r"cannot be read"):
        read_thresholds_file(tmp_path)


def test_many_detections_are_counted_in_a_line() -> None:
    showing = Showing(("dog", "cat"), "SVM margin", np.zeros(2, np.float32), "a score of 0", {}, {})
    labels = np.array([1] * 9 + [0] * 4, np.int32)
    found = Detections(np.zeros((13, 4), np.float32), np.ones(13, np.float32), labels)
    assert showing.drawn_line(found) == "cat 9, dog 4"
    assert showing.drawn_line(found.where(np.arange(8, 11))) == "cat, dog, dog"


def test_thresholds_are_those_of_the_detector_s_classes(tmp_path: Path) -> None:
    showing = Showing(("dog", "cat"), "SVM margin", np.zeros(2, np.float32), "a score of 0", {}, {})
    path = Path("t.toml")
    shown = with_thresholds(showing, chosen_for(("cat", "dog")), path)
    assert shown.cuts.tolist() == [7, 6]
    assert shown.rule == "the threshold of its class (best F1 on val)"
    with pytest.raises(StageError, match=r"t.toml: has no threshold for dog; add it, or choose again"):
        with_thresholds(showing, chosen_for(("cat",)), path)
    with pytest.raises(StageError, match=r"t.toml: 'owl' is not a class of this detector"):
        with_thresholds(showing, chosen_for(("cat", "dog", "owl")), path)
    other = Showing(("dog", "cat"), "softmax probability", np.zeros(2, np.float32), "", {}, {})
    with pytest.raises(StageError, match="has thresholds of a SVM margin, but the detections of this detector are"):
        with_thresholds(other, chosen_for(("cat", "dog")), path)
