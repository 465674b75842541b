"""An evaluation as a table, JSON, CSV and the devkit's result files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.boxes import Boxes
from stages.detections import DetectionSet
from stages.eval.localisation import GUESSES
from stages.file_names import file_names
from stages.matching.average_precision import Curve, lowest_score_at
from stages.matching.ground_truth import listed
from stages.resampling import percentile_interval, resampled_mean
from stages.tables import aligned, csv_text, percent

MEASURES = {"voc07": "ap_11", "area": "ap_area"}
HEADLINES = {"voc07": "11-point", "area": "area"}
COCO_ROWS = {
    "AP": "COCO AP @ .5:.95",
    "AP50": "COCO AP @ .5",
    "AP75": "COCO AP @ .75",
    "APs": "COCO AP, small",
    "APm": "COCO AP, medium",
    "APl": "COCO AP, large",
    "AR1": "COCO AR, 1 box",
    "AR10": "COCO AR, 10 boxes",
    "AR100": "COCO AR, 100 boxes",
    "ARs": "COCO AR, small",
    "ARm": "COCO AR, medium",
    "ARl": "COCO AR, large",
}
LOCALISATION_ROWS = {
    "error": f"localisation error, {GUESSES} guesses",
    "class_error": f"class error, {GUESSES} guesses",
}
RESAMPLED = ("ap_11_resampled", "ap_area_resampled")
PRECISION = 0.5
"""R-CNN, figures 8 to 11: detections with a precision of 0.5 or more are shown (the paper: above 0.5)."""
PAIRED = ("resamples", "seed", "confidence", "images")


def read_curves(reader: Reader) -> dict[str, Curve]:
    """The precision-recall curve of every class in a complete `evaluation` cache."""
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


def read_resampled_maps(reader: Reader) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """mAP (11-point and area) in each resample of an `evaluation` cache made with `bootstrap`: float64 [B] each."""
    records = [record for _, record in reader.records(RESAMPLED)]
    eleven, areas = (np.array([record[name] for record in records]) for name in RESAMPLED)
    return resampled_mean(eleven), resampled_mean(areas)


def paired_difference(base: Reader, other: Reader) -> dict[str, Any] | None:
    """The mAP of `other` minus that of `base`, by their headline measure, with its interval over the same resamples.

    Both are complete `evaluation` caches. None if they were resampled differently or have different measures.
    """
    first, second = base.manifest["summary"], other.manifest["summary"]
    resampling = [tuple(summary.get("bootstrap", {}).get(name) for name in PAIRED) for summary in (first, second)]
    if resampling[0] != resampling[1] or None in resampling[0] or first["metric"] != second["metric"]:
        return None
    if first["map"] is None or second["map"] is None:
        return None
    measure = list(MEASURES).index(first["metric"])
    resampled = read_resampled_maps(other)[measure] - read_resampled_maps(base)[measure]
    interval = percentile_interval(resampled, first["bootstrap"]["confidence"])
    return {"metric": first["metric"], "difference": second["map"] - first["map"], "interval": interval}


def format_difference(base: str, other: str, paired: Mapping[str, Any], bootstrap: Mapping[str, Any]) -> str:
    """A line of text for a `paired_difference` between evaluations with these names."""
    low, high = paired["interval"]
    return (
        f"mAP ({HEADLINES[paired['metric']]}), {other} minus {base}: {100 * paired['difference']:+.1f} "
        f"[{100 * low:+.1f}, {100 * high:+.1f}] ({100 * bootstrap['confidence']:g} % of {bootstrap['resamples']:,} "
        f"paired resamples of the images)"
    )


def score_cuts(
    curves: Mapping[str, Curve], classes: Sequence[str], precision: float = PRECISION
) -> NDArray[np.float32]:
    """The score down to which each of `classes` has at least this `precision`: float32 [K].

    Used to choose what to draw, since SVM scores have no common scale. +inf for a class that never is that precise or
    was not evaluated.
    """
    cuts = [lowest_score_at(precision, curves[name]) if name in curves else None for name in classes]
    return np.array([np.inf if cut is None else cut for cut in cuts], np.float32)


def format_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of evaluations side by side, AP in percent; `evaluations` maps a heading to an evaluation's summary.

    One row per class with the headline measure, then mAP by both measures, with intervals, COCO metrics and ILSVRC's
    localisation error if they were computed. All classes are listed, with "-" if an evaluation lacks one or there is
    nothing to find; a line below says which ones a detector does not know.
    """
    summaries = list(evaluations.values())
    classes = list(dict.fromkeys(name for summary in summaries for name in summary["classes"]))
    rows = [["class", "objects", *evaluations], ["", "", *(headline(summary) for summary in summaries)]]
    for name in classes:
        results = [summary["classes"].get(name, {}) for summary in summaries]
        objects = next(str(result["positives"]) for result in results if result)
        measures = [MEASURES[summary["metric"]] for summary in summaries]
        aps = [percent(result.get(measure)) for result, measure in zip(results, measures, strict=True)]
        rows.append([name, objects, *aps])
    rules = [2, len(rows)]
    rows.append(["mAP, 11-point", "", *(with_interval(summary, "map_11") for summary in summaries)])
    rows.append(["mAP, area", "", *(with_interval(summary, "map_area") for summary in summaries)])
    if any("coco" in summary for summary in summaries):
        rules.append(len(rows))
        for measure, words in COCO_ROWS.items():
            rows.append([words, "", *(percent(summary.get("coco", {}).get(measure)) for summary in summaries)])
    if any("localisation" in summary for summary in summaries):
        rules.append(len(rows))
        for measure, words in LOCALISATION_ROWS.items():
            rows.append([words, "", *(localisation_error(summary, measure) for summary in summaries)])
    return "\n".join([*aligned(rows, rules_before=rules), *notes_on_classes(evaluations)])


def notes_on_classes(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each evaluation, by its heading, with classes that the detector does not know."""
    return [
        f"{name}: the detector does not know {listed(summary['unknown_classes'])}, so all their objects are missed"
        for name, summary in evaluations.items()
        if summary.get("unknown_classes")
    ]


def headline(summary: Mapping[str, Any]) -> str:
    """The second heading of an evaluation's column, such as "11-point" or "area @ 0.7"."""
    measure = HEADLINES[summary["metric"]]
    return measure if summary["iou"] == 0.5 else f"{measure} @ {summary['iou']:g}"


def with_interval(summary: Mapping[str, Any], measure: str) -> str:
    """A mean in percent with its bootstrap interval, if any: "80.0 [77.1, 82.6]"."""
    return percent(summary[measure]) + bounds_of(summary.get("bootstrap", {}).get(measure))


def bounds_of(interval: Sequence[float] | None) -> str:
    """An interval in percent after a number, " [77.1, 82.6]"; "" if there is none."""
    return f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else ""


def localisation_error(summary: Mapping[str, Any], measure: str) -> str:
    """One of LOCALISATION_ROWS in percent, the localisation error with its bootstrap interval, if any."""
    interval = summary.get("bootstrap", {}).get("localisation_error") if measure == "error" else None
    return percent(summary.get("localisation", {}).get(measure)) + bounds_of(interval)


def write_results(
    summary: Mapping[str, Any], detections: DetectionSet, folder: Path, split: str = "test"
) -> list[Path]:
    """Writes `results.json`, `results.csv` and the devkit's result files into `folder`; returns their paths.

    `summary` is an evaluation's; `split` is used in `comp4_det_SPLIT_CLASS.txt`. Existing files are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, table = folder / "results.json", folder / "results.csv"
    results.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    table.write_text(csv_text(csv_rows(summary)), encoding="utf-8")
    return [results, table, *write_devkit_files(detections, folder, split)]


def csv_rows(summary: Mapping[str, Any]) -> list[list[Any]]:
    """A heading, one row per class and one for the mean; undefined APs are empty.

    If computed: `low` and `high`, the interval of the headline measure, COCO metrics, and the localisation error.
    """
    columns = ("ap_11", "ap_area", "positives", "detections")
    classes = summary["classes"]
    totals = [sum(result[column] for result in classes.values()) for column in ("positives", "detections")]
    rows: list[list[Any]] = [["class", *columns]]
    rows += [[name, *(result[column] for column in columns)] for name, result in classes.items()]
    rows.append(["mean", summary["map_11"], summary["map_area"], *totals])
    if "bootstrap" in summary:
        intervals = [*(result["interval"] for result in classes.values()), summary["bootstrap"]["map"]]
        extend(rows, ["low", "high"], [interval or [None, None] for interval in intervals])
    if "coco" in summary:
        coco = [*(result["coco"] for result in classes.values()), summary["coco"]]
        extend(rows, COCO_ROWS, [[measures[name] for name in COCO_ROWS] for measures in coco])
    if "localisation" in summary:
        errors = [*(result["localisation"] for result in classes.values()), summary["localisation"]]
        headings = {"cases": "cases", "localisation_error": "error", "class_error": "class_error"}
        extend(rows, headings, [[own[name] for name in headings.values()] for own in errors])
    return rows


def extend(rows: list[list[Any]], headings: Iterable[str], values: Iterable[Sequence[Any]]) -> None:
    """Appends columns to a table whose first row is its heading."""
    for row, more in zip(rows, [[*headings], *values], strict=True):
        row.extend(more)


def write_devkit_files(detections: DetectionSet, folder: Path, split: str = "test") -> list[Path]:
    """Writes `comp4_det_SPLIT_CLASS.txt` for each class, for the devkit's VOCevaldet; returns the paths.

    One line "image score x1 y1 x2 y2" per detection, with one-based inclusive boxes and six decimals. Class names that
    are not valid file names are replaced by derived ones."""
    paths = []
    names = file_names(detections.classes)
    for name in detections.classes:
        of_class = detections.of_class(name)
        boxes = to_devkit(of_class.boxes)
        paths.append(folder / f"comp4_det_{split}_{names[name]}.txt")
        with paths[-1].open("w", encoding="utf-8") as file:
            for image, score, box in zip(of_class.images, of_class.scores, boxes, strict=True):
                numbers = " ".join(f"{number:.6f}" for number in (score, *box))
                file.write(f"{detections.image_ids[image]} {numbers}\n")
    return paths


def to_devkit(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes [n, 4] with VOC's one-based inclusive corners, float64 [n, 4]."""
    return boxes.astype(np.float64) + np.array([1.0, 1.0, 0.0, 0.0])
