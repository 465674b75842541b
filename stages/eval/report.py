"""An evaluation as people and other programs read it: a table, JSON, CSV, the devkit's result files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.boxes import Boxes
from stages.detections import DetectionSet
from stages.eval.average_precision import Curve, lowest_score_at
from stages.tables import aligned, percent

MEASURES = {"voc07": "ap_11", "area": "ap_area"}
HEADLINES = {"voc07": "11-point", "area": "area"}


def read_curves(reader: Reader) -> dict[str, Curve]:
    """The curve of every class in a complete `evaluation` cache."""
    return {
        name: Curve(
            record["score"],
            record["recall"],
            record["precision"],
            int(record["positives"]),
            int(record["detections"]),
        )
        for name, record in reader.records()
    }


def score_cuts(curves: Mapping[str, Curve], classes: Sequence[str], precision: float = 0.5) -> NDArray[np.float32]:
    """For each of `classes`, the score above which at least `precision` of its detections are right: float32 [K].

    What to draw: SVM scores have no common scale. +inf for a class that never is that precise or was not evaluated.
    """
    cuts = [lowest_score_at(precision, curves[name]) if name in curves else None for name in classes]
    return np.array([np.inf if cut is None else cut for cut in cuts], np.float32)


def format_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """The evaluations side by side: `evaluations` maps a heading to an evaluation's summary; AP in percent.

    A row for each class with the headline measure, then mAP by both measures. Classes of all are listed, "-" where an
    evaluation lacks one or it has nothing to find.
    """
    summaries = list(evaluations.values())
    classes = list(dict.fromkeys(name for summary in summaries for name in summary["classes"]))
    rows = [["class", "objects", *evaluations], ["", "", *(headline(summary) for summary in summaries)]]
    for name in classes:
        found = [summary["classes"].get(name, {}) for summary in summaries]
        objects = next(str(one["positives"]) for one in found if one)
        aps = [percent(one.get(MEASURES[summary["metric"]])) for one, summary in zip(found, summaries, strict=True)]
        rows.append([name, objects, *aps])
    rows.append(["mAP, 11-point", "", *(percent(summary["map_11"]) for summary in summaries)])
    rows.append(["mAP, area", "", *(percent(summary["map_area"]) for summary in summaries)])
    return "\n".join(aligned(rows, rules_before=(2, len(rows) - 2)))


def headline(summary: Mapping[str, Any]) -> str:
    """The second heading of an evaluation's column, as "11-point" or "area @ 0.7"."""
    measure = HEADLINES[summary["metric"]]
    return measure if summary["iou"] == 0.5 else f"{measure} @ {summary['iou']:g}"


def write_results(
    summary: Mapping[str, Any], detections: DetectionSet, folder: Path, split: str = "test"
) -> list[Path]:
    """Writes `results.json`, `results.csv` and the devkit's result files into `folder`; returns their paths.

    `summary` is an evaluation's; `split` is the word in `comp4_det_SPLIT_CLASS.txt`. Files there are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, table = folder / "results.json", folder / "results.csv"
    results.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(csv_rows(summary))
    return [results, table, *write_devkit_files(detections, folder, split)]


def csv_rows(summary: Mapping[str, Any]) -> list[list[Any]]:
    """A heading, a row for each class and one for the mean; an AP that does not exist is empty."""
    columns = ("ap_11", "ap_area", "positives", "detections")
    rows: list[list[Any]] = [["class", *columns]]
    rows += [[name, *(one[column] for column in columns)] for name, one in summary["classes"].items()]
    totals = [sum(one[column] for one in summary["classes"].values()) for column in ("positives", "detections")]
    return [*rows, ["mean", summary["map_11"], summary["map_area"], *totals]]


def write_devkit_files(detections: DetectionSet, folder: Path, split: str = "test") -> list[Path]:
    """Writes `comp4_det_SPLIT_CLASS.txt` for each class: a line "image score x1 y1 x2 y2" for each detection, boxes
    one-based and inclusive, six decimals, for the devkit's VOCevaldet. Returns the paths."""
    paths = []
    for name in detections.classes:
        of_class = detections.of_class(name)
        boxes = to_devkit(of_class.boxes)
        paths.append(folder / f"comp4_det_{split}_{name}.txt")
        with paths[-1].open("w", encoding="utf-8") as file:
            for image, score, box in zip(of_class.images, of_class.scores, boxes, strict=True):
                numbers = " ".join(f"{number:.6f}" for number in (score, *box))
                file.write(f"{detections.image_ids[image]} {numbers}\n")
    return paths


def to_devkit(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes one-based with inclusive corners, float64 [n, 4]."""
    return boxes.astype(np.float64) + np.array([1.0, 1.0, 0.0, 0.0])
