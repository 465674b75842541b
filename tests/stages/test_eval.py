"""The eval stage on real caches, and what it writes: table, JSON, CSV, the devkit's files, pictures."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache import Identity, Reader, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import ImageRecord
from stages.detect import Settings as DetectSettings
from stages.detect.stage import schema as detections_schema
from stages.detections import Detections, detections_from_arrays
from stages.eval import Settings, stage
from stages.eval.pictures import evenly, plot_precision_recall
from stages.eval.report import format_table, read_curves, score_cuts, write_devkit_files, write_results
from stages.matching.average_precision import Curve
from stages.matching.objects import ClassObjects
from tests.stages.given_datasets import GivenDataset

CLASSES = ("cat", "dog", "owl")
SQUARE, AWAY = (0, 0, 10, 10), (20, 20, 30, 30)


def dataset_of(
    things: Mapping[str, Sequence[tuple[tuple[int, ...], int, bool]]], folder: Path | None = None, crowds: bool = False
) -> Any:
    """A dataset with these (box, label, difficult) in each image; with `crowds` the difficult ones are crowds."""
    records = {
        image: ImageRecord(
            image_id=image,
            path=Path(f"{image}.png"),
            width=100,
            height=100,
            boxes=np.array([thing[0] for thing in found], np.float32).reshape(-1, 4),
            labels=np.array([thing[1] for thing in found], np.int32),
            difficult=np.array([thing[2] for thing in found], bool),
            truncated=np.zeros(len(found), bool),
            occluded=np.zeros(len(found), bool),
            pose=("Unspecified",) * len(found),
            stated_crowds=np.array([thing[2] and crowds for thing in found], bool),
        )
        for image, found in things.items()
    }
    return GivenDataset(
        name="toy",
        classes=CLASSES,
        image_ids=tuple(things),
        record=records.__getitem__,
        image_path=lambda image: (folder or Path()) / f"{image}.png",
    )


def detections_cache(
    folder: Path, rows: Mapping[str, Sequence[tuple[tuple[float, ...], float, int]]], classes: tuple[str, ...] = CLASSES
) -> Reader:
    """A finished detections cache with these (box, score, label) in each image and no cap."""
    writer = Writer(
        folder, Identity("detect", 1), list(rows), detections_schema(DetectSettings(), Inputs()), part_size=2
    )
    for part in writer.claim():
        records = []
        for image in part.item_ids:
            score = np.array([row[1] for row in rows[image]], np.float32)
            label = np.array([row[2] for row in rows[image]], np.int32)
            boxes = np.array([row[0] for row in rows[image]], np.float32).reshape(-1, 4)
            candidates = {"candidates/score": score, "candidates/label": label}
            size = np.array([40, 30], np.int32)
            records.append({"boxes": boxes, "score": score, "label": label, "image_size": size, **candidates})
        writer.write(part, records)
    writer.finish({}, lambda reader: {"classes": list(classes), "thresholds": [None] * len(classes)})
    writer.release()
    return Reader(folder)


def evaluate(folder: Path, inputs: dict[str, Any], settings: Settings | None = None, part_size: int = 64) -> Reader:
    """Runs the stage."""
    settings = settings or Settings()
    given = Inputs(inputs)
    items, columns = stage.items(settings, given), stage.schema(settings, given)
    writer = Writer(folder, Identity("eval", 1), items, columns, part_size=part_size)
    stage.run(settings, given, writer, Execution())
    writer.finish({}, lambda reader: stage.summarise(settings, given, reader))
    writer.release()
    return Reader(folder)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Cat: one of two found, second best. Dog: a difficult and a plain one, both found. Owl: only a difficult one."""
    things = {
        "a": [(SQUARE, 0, False), (AWAY, 1, True)],
        "b": [(SQUARE, 1, False), (AWAY, 2, True)],
        "c": [(SQUARE, 0, False)],
        "d": [],
    }
    rows = {
        "a": [(SQUARE, 0.5, 0), (AWAY, 0.9, 1)],
        "b": [(AWAY, 0.9, 0), (SQUARE, 0.8, 1), (AWAY, 0.3, 2)],
        "c": [],
        "d": [(SQUARE, 0.1, 1)],
    }
    return {"images": dataset_of(things), "detections": detections_cache(tmp_path / "detections", rows)}


def test_a_worked_evaluation(tmp_path: Path, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    reader = evaluate(tmp_path / "eval", inputs)
    summary = reader.manifest["summary"]
    # Cat: false, true of 2: precision 1/2 up to recall 1/2. Dog: (ignored), true, false of 1.
    cat = {"ap_11": pytest.approx(6 * 0.5 / 11), "ap_area": 0.25, "positives": 2, "detections": 2}
    dog = {"ap_11": pytest.approx(1.0), "ap_area": 1.0, "positives": 1, "detections": 3}
    owl = {"ap_11": None, "ap_area": None, "positives": 0, "detections": 1}
    assert summary["classes"] == {"cat": cat, "dog": dog, "owl": owl}
    assert summary["map_11"] == summary["map"] == pytest.approx((6 * 0.5 / 11 + 1) / 2)
    assert summary["map_area"] == pytest.approx(0.625)
    assert summary["without_positives"] == ["owl"]
    assert "owl" in caplog.text
    assert reader.read("dog")["recall"].tolist() == [1, 1]
    assert reader.read("dog")["precision"].tolist() == [1, 0.5]


def test_settings_count(tmp_path: Path, inputs: dict[str, Any]) -> None:
    area = evaluate(tmp_path / "area", inputs, Settings(metric="area")).manifest["summary"]
    assert area["map"] == area["map_area"] == pytest.approx(0.625)
    difficult = evaluate(tmp_path / "difficult", inputs, Settings(use_difficult=True)).manifest["summary"]
    assert [one["positives"] for one in difficult["classes"].values()] == [2, 2, 1]
    assert difficult["classes"]["owl"]["ap_area"] == 1


def test_crowds_are_ignored_whatever_the_settings_say(tmp_path: Path) -> None:
    things = {"a": [(SQUARE, 0, True), (AWAY, 0, False)]}
    found = detections_cache(tmp_path / "detect", {"a": [(SQUARE, 0.9, 0), (AWAY, 0.8, 0)]})
    for use_difficult, crowds, positives in ((False, True, 1), (True, True, 1), (True, False, 2)):
        inputs = {"images": dataset_of(things, crowds=crowds), "detections": found}
        reader = evaluate(tmp_path / f"{use_difficult}-{crowds}", inputs, Settings(use_difficult=use_difficult))
        cat = reader.manifest["summary"]["classes"]["cat"]
        assert (cat["positives"], cat["ap_area"]) == (positives, 1.0)


def test_parts_change_nothing(tmp_path: Path, inputs: dict[str, Any]) -> None:
    one, other = evaluate(tmp_path / "one", inputs), evaluate(tmp_path / "other", inputs, part_size=1)
    for (_, first), (_, second) in zip(one.records(), other.records(), strict=True):
        for name in first:
            assert first[name].tobytes() == second[name].tobytes()


def test_a_class_unknown_to_the_detector_is_missed_aloud(
    tmp_path: Path, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = {"a": [(SQUARE, 0.5, 1)], "b": [], "c": [], "d": []}
    inputs["detections"] = detections_cache(tmp_path / "others", rows, classes=("yak", "cat"))
    classes = evaluate(tmp_path / "eval", inputs).manifest["summary"]["classes"]
    assert (classes["cat"]["ap_area"], classes["dog"]["ap_area"]) == (0.5, 0)
    assert "classes unknown to the detector, so all their objects are missed: dog" in caplog.text
    assert "classes that the dataset does not have are ignored: yak" in caplog.text


def test_what_does_not_belong_together_is_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    alone = dict(inputs, detections=detections_cache(tmp_path / "one", {"a": []}))
    with pytest.raises(StageError, match="same split"):
        evaluate(tmp_path / "eval", alone)
    strangers: dict[str, list[tuple[tuple[float, ...], float, int]]] = {image: [] for image in "abcd"}
    foreign = dict(inputs, detections=detections_cache(tmp_path / "two", strangers, classes=("yak",)))
    with pytest.raises(StageError, match="no class in common"):
        evaluate(tmp_path / "eval2", foreign)


# What it writes


def test_the_table_sets_evaluations_side_by_side(tmp_path: Path, inputs: dict[str, Any]) -> None:
    first = evaluate(tmp_path / "one", inputs).manifest["summary"]
    second = evaluate(tmp_path / "two", inputs, Settings(metric="area", iou=0.7)).manifest["summary"]
    assert format_table({"eval": first, "strict": second}).splitlines() == [
        "class          objects      eval      strict",
        "                        11-point  area @ 0.7",
        "--------------------------------------------",
        "cat                  2      27.3        25.0",
        "dog                  1     100.0       100.0",
        "owl                  0         -           -",
        "--------------------------------------------",
        "mAP, 11-point               63.6        63.6",
        "mAP, area                   62.5        62.5",
    ]


def test_results_as_json_csv_and_devkit_files(tmp_path: Path, inputs: dict[str, Any]) -> None:
    reader = evaluate(tmp_path / "eval", inputs)
    found = stage.read_detections(inputs["detections"])
    paths = write_results(reader.manifest["summary"], found, tmp_path / "deep" / "results")
    assert [path.name for path in paths] == [
        "results.json",
        "results.csv",
        *(f"comp4_det_test_{name}.txt" for name in CLASSES),
    ]
    assert json.loads(paths[0].read_text()) == reader.manifest["summary"]
    rows = list(csv.reader(paths[1].read_text().splitlines()))
    assert rows[0] == ["class", "ap_11", "ap_area", "positives", "detections"]
    assert rows[3] == ["owl", "", "", "0", "1"]
    assert rows[4][0] == "mean"
    assert float(rows[4][2]) == 0.625
    assert paths[2].read_text().splitlines() == [
        "a 0.500000 1.000000 1.000000 10.000000 10.000000",
        "b 0.900000 21.000000 21.000000 30.000000 30.000000",
    ]


def test_devkit_files_lead_back_to_the_same_average_precision(tmp_path: Path) -> None:
    """Read as the devkit reads them, with its `+ 1` overlap, the files give the detections and IoUs that we had."""
    random = np.random.default_rng(2)
    corners = random.integers(0, 40, (50, 2))
    boxes = np.hstack([corners, corners + random.integers(1, 30, (50, 2))]).astype(np.float32)
    found = Detections(boxes, random.random(50).astype(np.float32), np.zeros(50, np.int32))
    every = detections_from_arrays(["cat"], [("x", found)])
    path = write_devkit_files(every, tmp_path)[0]
    lines = np.array([[float(word) for word in line.split()[1:]] for line in path.read_text().splitlines()])
    x1, y1, x2, y2 = lines[:, 1:].T
    truth = (5, 6, 30, 28)  # one-based, inclusive
    width = np.minimum(x2, truth[2]) - np.maximum(x1, truth[0]) + 1
    height = np.minimum(y2, truth[3]) - np.maximum(y1, truth[1]) + 1
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (30 - 5 + 1) * (28 - 6 + 1) - shared
    objects = ClassObjects(np.zeros(1, np.int64), np.array([[4, 5, 30, 28]], np.float32), np.zeros(1, bool))
    curve = stage.precision_recall_curve(every.of_class("cat"), objects, 0.4)
    assert np.any(shared / union >= 0.4)
    assert curve.recall[-1] == 1
    best = int(np.argmax(np.where(shared / union >= 0.4, lines[:, 0], -1)))
    first_true = int(np.flatnonzero(curve.recall == 1)[0])
    assert curve.scores[first_true] == pytest.approx(lines[best, 0], abs=1e-6)


def test_score_cuts_follow_precision(tmp_path: Path, inputs: dict[str, Any]) -> None:
    curves = read_curves(evaluate(tmp_path / "eval", inputs))
    assert math.isnan(curves["owl"].ap_11)
    cuts = score_cuts(curves, ["dog", "cat", "owl", "yak"])
    np.testing.assert_allclose(cuts, [0.1, 0.5, np.inf, np.inf])


def wavy_curve(seed: int, points: int = 400) -> Curve:
    """A plausible curve."""
    random = np.random.default_rng(seed)
    found = random.random(points) < np.linspace(0.95, 0.05, points)
    true = np.cumsum(found)
    positives = int(true[-1] * 1.3)
    scores = np.linspace(1, -1, points).astype(np.float32)
    return Curve(scores, true / positives, true / np.arange(1, points + 1), positives, points)


@pytest.mark.parametrize("classes", [1, 3, 20])
def test_curves_become_a_picture(tmp_path: Path, classes: int) -> None:
    empty = Curve(np.zeros(0, np.float32), np.zeros(0), np.zeros(0), 3, 0)
    named = {f"class{number}": wavy_curve(number) for number in range(classes - 1)} | {"empty": empty}
    plot_precision_recall({"plain": named, "moved": named}, tmp_path / "new" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "curves.png").convert("RGB")).astype(int)
    assert picture.shape[0] > 250
    assert picture.shape[1] > 250
    coloured = np.abs(picture - picture.mean(axis=2, keepdims=True)).max(axis=2) > 40
    assert coloured.sum() > 100 * classes


def test_no_class_at_all_is_still_a_picture(tmp_path: Path) -> None:
    plot_precision_recall({"plain": {}}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_evenly() -> None:
    assert evenly("abcdefg", 3) == ["a", "d", "g"]
    assert evenly("ab", 5) == ["a", "b"]
    assert evenly("abc", 1) == ["a"]


def test_skipped_images_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    stage.warn_of_skipped(SimpleNamespace(manifest={"skipped": {"x": "is damaged"}}))
    assert "1 unreadable image was skipped: its objects count as missed" in caplog.text
