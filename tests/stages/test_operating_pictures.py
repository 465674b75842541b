"""Figures of thresholds, confusions and calibration: what they show, and that their texts can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.eval.calibration import RAW, measure_calibration
from stages.eval.confusion import Confusion
from stages.eval.operating_pictures import plot_calibration, plot_confusion, plot_thresholds, sampled_points
from stages.matching.average_precision import Curve, precision_recall
from tests.plotted import clashes, drawn, texts_of

__all__ = ["drawn"]

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def curve_of(scores: Sequence[float], found: Sequence[bool]) -> Curve:
    order = np.argsort(-np.array(scores), kind="stable")
    recall, precision = precision_recall(np.array(found, bool)[order], max(1, sum(found)))
    return Curve(np.array(scores, np.float32)[order], recall, precision, max(1, sum(found)), len(found))


def test_points_between_scores_are_those_of_the_next_higher_score() -> None:
    """Right at 4, wrong at 2, right at 0; thresholds 0, 1, ... 4."""
    thresholds, values = sampled_points(curve_of([4, 2, 0], [True, False, True]), steps=5)
    assert thresholds.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(values[0], [2 / 3, 1 / 2, 1 / 2, 1, 1])
    np.testing.assert_allclose(values[1], [1, 1 / 2, 1 / 2, 1 / 2, 1 / 2])
    np.testing.assert_allclose(values[2], [4 / 5, 1 / 2, 1 / 2, 2 / 3, 2 / 3])
    assert sampled_points(curve_of([], []))[1].shape == (3, 0)


def confused(names: Sequence[str], seed: int = 0) -> Confusion:
    random = np.random.default_rng(seed)
    counts = random.poisson(0.6, (len(names) + 1, len(names) + 1))
    counts[np.diag_indices(len(names))] += random.integers(5, 1500, len(names))
    counts[-1, -1] = 0
    return Confusion(tuple(names), counts, np.zeros(len(names)))


@pytest.mark.parametrize("names", [VOC[:3], VOC, [f"a class with a long name {n}" for n in range(80)]])
def test_a_confusion_matrix_can_be_read(names: Sequence[str], tmp_path: Path, drawn: list[Any]) -> None:
    confusion = confused(names)
    plot_confusion(confusion, tmp_path / "confusion.png")
    (figure,) = drawn
    assert clashes(figure) == []
    texts = [text for text, _ in texts_of(figure)]
    assert any(text.endswith(f"  {confusion.counts[0].sum():,}") for text in texts)
    numbers = [text for text in texts if text.isdecimal() or text == "<1"]
    if len(names) <= 30:
        assert len(numbers) >= np.sum(confusion.counts > 0)
    assert {"missed"} <= set(texts)


def test_too_many_classes_are_left_to_the_table(tmp_path: Path, drawn: list[Any]) -> None:
    plot_confusion(confused([str(n) for n in range(201)]), tmp_path / "confusion.png")
    assert [text for text, _ in texts_of(drawn[0])] == ["201 classes are too many to draw; see the table"]


@pytest.mark.parametrize("names", [VOC[:1], VOC[:3], VOC[:9]])
def test_thresholds_can_be_read(names: Sequence[str], tmp_path: Path, drawn: list[Any]) -> None:
    random = np.random.default_rng(0)
    curves = {name: curve_of(random.normal(size=50).tolist(), (random.uniform(size=50) < 0.3).tolist())
              for name in names}  # fmt: skip
    curves["nothing to find"] = Curve(np.zeros(0, np.float32), np.zeros(0), np.zeros(0), 0, 0)
    curves["never found"] = curve_of([1.0], [False])
    plot_thresholds(curves, "SVM margin", tmp_path / "thresholds.png")
    texts = [text for text, _ in texts_of(drawn[0])]
    assert clashes(drawn[0]) == []
    assert {*names, "precision", "recall", "F1", "never found", "no true positive"} <= set(texts)
    assert "nothing to find" not in texts
    assert len([text for text in texts if text.startswith("F1 ")]) == len(names)


def test_without_objects_the_figure_says_so(tmp_path: Path, drawn: list[Any]) -> None:
    plot_thresholds({}, "SVM margin", tmp_path / "thresholds.png")
    assert "no objects to find" in [text for text, _ in texts_of(drawn[0])]


@pytest.mark.parametrize("probabilities", [True, False])
def test_calibration_can_be_read(probabilities: bool, tmp_path: Path, drawn: list[Any]) -> None:
    random = np.random.default_rng(0)
    scores, first = random.uniform(size=200), random.uniform(size=200) < 0.5
    correct = random.uniform(size=200) < scores**2
    calibration = measure_calibration(scores, correct, np.zeros(200, int), first, 100, probabilities)
    plot_calibration(calibration, tmp_path / "calibration.png")
    assert clashes(drawn[0]) == []
    told = [text for text, _ in texts_of(drawn[0]) if "D-ECE" in text]
    assert told[0].startswith(RAW) == probabilities
    assert told[-1].startswith(f"cross-fitted: D-ECE {100 * calibration.fitted.error:.1f} %")
    none = np.zeros(0, bool)
    nothing = measure_calibration(np.zeros(0), none, np.zeros(0, int), none, 0, probabilities)
    plot_calibration(nothing, tmp_path / "calibration.png")
    assert "no threshold reaches\nthese precisions" in [text for text, _ in texts_of(drawn[1])]
    assert any(text.startswith("cross-fitted: D-ECE - %") for text, _ in texts_of(drawn[1]))
