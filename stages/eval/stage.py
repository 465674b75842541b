"""The eval stage: detections and annotations in, one precision-recall curve per class out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Column, Reader, Record, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.detections import NO_DETECTIONS, ClassDetections, detections_of, read_detections
from stages.eval import Settings
from stages.eval.bootstrap import resampled_average_precision
from stages.eval.coco import MEASURES, class_measures
from stages.eval.localisation import Cases, best_guesses, judge_cases
from stages.eval.report import RESAMPLED, read_resampled_maps
from stages.matching.average_precision import Curve, precision_recall_curve
from stages.matching.detections import match_devkit
from stages.matching.ground_truth import (
    check_classes,
    check_exhaustive,
    check_images,
    classes_apart,
    listed,
    warn_of_skipped,
)
from stages.matching.objects import ClassObjects, counted_objects, read_objects
from stages.resampling import CONFIDENCE, image_weights, percentile_interval

log = logging.getLogger("stages.eval")

COUNTED = ("cases", "misclassified", "mislocalised")
COUNTED_RESAMPLED = ("cases_resampled", "mislocalised_resampled")
"""Columns of the localisation error: counts of a class's cases, and their sums in each bootstrap resample."""


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The dataset's classes."""
    return list(inputs.dataset("images").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per class: its curve, one row per detection that counts, its APs, counts and what else was requested."""
    requested: dict[str, Column] = {"coco": Column("float64", (len(MEASURES),))} if settings.coco else {}
    if settings.bootstrap:
        requested |= {name: Column("float64", (settings.bootstrap,)) for name in RESAMPLED}
    if settings.localisation:
        requested |= {name: Column("int64") for name in COUNTED}
    if settings.localisation and settings.bootstrap:
        requested |= {name: Column("float64", (settings.bootstrap,)) for name in COUNTED_RESAMPLED}
    return Schema(
        item="class",
        rows={"score": Column("float32"), "recall": Column("float64"), "precision": Column("float64")},
        per_item={
            "ap_11": Column("float64"),
            "ap_area": Column("float64"),
            "positives": Column("int64"),
            "detections": Column("int64"),
            **requested,
        },
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Evaluates the classes; detections and annotations are read once and held in memory."""
    if not output.remaining_items:
        return
    dataset = inputs.dataset("images")
    warn_of_skipped(inputs.reader("detections"))
    detections = read_detections(inputs.reader("detections"))
    check_classes("eval", detections.classes, dataset.classes)
    check_images("eval", detections.image_ids, dataset)
    check_exhaustive("eval", dataset, "would count as false positives when found")
    every = counted_objects(read_objects(dataset, detections.image_ids), settings.use_difficult)
    objects = dict(zip(dataset.classes, (own for _, own in every.by_class(len(dataset.classes))), strict=True))
    weights = image_weights(len(detections.image_ids), settings.bootstrap, settings.bootstrap_seed)
    guesses = best_guesses(detections) if settings.localisation else {}
    with execution.progress("eval", output.remaining_items, "classes") as bar:
        for part in output.claim():
            records = [
                {
                    **evaluate(settings, detections_of(detections, name), objects[name], weights),
                    **localisation_record(settings, guesses.get(name, NO_DETECTIONS), objects[name], weights),
                }
                for name in part.item_ids
            ]
            output.write(part, records)
            bar.advance(len(records), sum(int(record["detections"]) for record in records))


def evaluate(
    settings: Settings, detections: ClassDetections, objects: ClassObjects, weights: NDArray[np.float64]
) -> Record:
    """One class's record: its curve, and what else the settings request; `weights` [I, B] are the resamples'."""
    record = curve_record(precision_recall_curve(detections, objects, settings.iou))
    if settings.coco:
        record["coco"] = class_measures(detections, objects)
    if settings.bootstrap:
        matches = match_devkit(detections, objects, settings.iou)
        resampled = resampled_average_precision(detections, objects, matches, weights)
        record.update(zip(RESAMPLED, resampled, strict=True))
    return record


def localisation_record(
    settings: Settings, guesses: ClassDetections, objects: ClassObjects, weights: NDArray[np.float64]
) -> Record:
    """What one class contributes to the localisation error, if the settings request it."""
    if not settings.localisation:
        return {}
    cases = judge_cases(guesses, objects, settings.iou)
    counts = (len(cases.images), cases.misclassified.sum(), cases.missed.sum())
    record: Record = {name: np.array(count, np.int64) for name, count in zip(COUNTED, counts, strict=True)}
    if settings.bootstrap:
        record |= dict(zip(COUNTED_RESAMPLED, resampled_cases(cases, weights), strict=True))
    return record


def resampled_cases(cases: Cases, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many cases each resample of `weights` [I, B] has, and how many of them are missed: float64 [B] each."""
    drawn = weights[cases.images]
    return drawn.sum(axis=0), drawn[cases.missed].sum(axis=0)


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """mAP and each class's results; the AP of a class with nothing to find is None. `unknown_classes`, if any, are
    those that the detector does not have: their objects are all missed, and their AP of 0 counts."""
    classes = {}
    for name, record in reader.records(("ap_11", "ap_area", "positives", "detections")):
        counts = {column: int(record[column]) for column in ("positives", "detections")}
        classes[name] = {"ap_11": as_json(record["ap_11"]), "ap_area": as_json(record["ap_area"]), **counts}
    without = [name for name, result in classes.items() if not result["positives"]]
    if without:
        log.warning("%s: no objects to find, left out of the mean", listed(without))
    map_11, map_area = mean_of(classes, "ap_11"), mean_of(classes, "ap_area")
    requested: dict[str, Any] = coco_summary(reader, classes) if settings.coco else {}
    _, unknown = classes_apart(inputs.reader("detections").manifest["summary"]["classes"], list(classes))
    if unknown:
        requested["unknown_classes"] = unknown
    if settings.localisation:
        requested |= localisation_summary(reader, classes)
    if settings.bootstrap:
        requested |= bootstrap_summary(settings, inputs.dataset("images").image_ids, reader, classes)
    return {
        "map": map_11 if settings.metric == "voc07" else map_area,
        "map_11": map_11,
        "map_area": map_area,
        "metric": settings.metric,
        "iou": settings.iou,
        "classes": classes,
        "without_positives": without,
        **requested,
    }


def coco_summary(reader: Reader, classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds each class's COCO metrics to `classes`, and returns their means, ignoring nan."""
    for name, record in reader.records(("coco",)):
        classes[name]["coco"] = {
            measure: as_json(value) for measure, value in zip(MEASURES, record["coco"], strict=True)
        }
    every = [result["coco"] for result in classes.values()]
    return {"coco": {measure: mean_of(dict(enumerate(every)), measure) for measure in MEASURES}}


def localisation_summary(reader: Reader, classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Adds each class's cases and errors to `classes`, and returns those of all cases together, None without cases.

    `error` is the share of cases that no guess hits, `class_error` that of cases whose class is not guessed.
    """
    totals = np.zeros(len(COUNTED), np.int64)
    for name, record in reader.records(COUNTED):
        counts = np.array([int(record[column]) for column in COUNTED])
        classes[name]["localisation"] = errors_of(counts)
        totals += counts
    return {"localisation": errors_of(totals)}


def errors_of(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Shares of cases from the counts of COUNTED, None where there are no cases."""
    cases, misclassified, mislocalised = counts.tolist()
    shares = [count / cases if cases else None for count in (mislocalised, misclassified)]
    return {"error": shares[0], "class_error": shares[1], "cases": cases}


def bootstrap_summary(
    settings: Settings, image_ids: Sequence[str], reader: Reader, classes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Adds each class's interval of the headline measure to `classes`, and returns the intervals of mAP.

    `images` identifies the resampled images: evaluations with the same images, number of resamples and seed are paired.
    """
    headline = RESAMPLED[0] if settings.metric == "voc07" else RESAMPLED[1]
    for name, record in reader.records(RESAMPLED):
        classes[name]["interval"] = percentile_interval(record[headline])
    errors = {"localisation_error": localisation_interval(reader)} if settings.localisation else {}
    maps = dict(zip(RESAMPLED, read_resampled_maps(reader), strict=True))
    return {
        "bootstrap": {
            "resamples": settings.bootstrap,
            "seed": settings.bootstrap_seed,
            "confidence": CONFIDENCE,
            "images": sha256("\n".join(image_ids).encode()).hexdigest()[:12],
            "map": percentile_interval(maps[headline]),
            "map_11": percentile_interval(maps[RESAMPLED[0]]),
            "map_area": percentile_interval(maps[RESAMPLED[1]]),
            **errors,
        }
    }


def localisation_interval(reader: Reader) -> tuple[float, float] | None:
    """The interval of the localisation error over all classes; None where no resample has a case."""
    sums = [np.array([record[name] for name in COUNTED_RESAMPLED]) for _, record in reader.records(COUNTED_RESAMPLED)]
    cases, missed = np.sum(sums, axis=0)
    return percentile_interval(np.divide(missed, cases, out=np.full(len(cases), np.nan), where=cases > 0))


def mean_of(classes: Mapping[Any, Mapping[str, Any]], measure: str) -> float | None:
    """The mean of a measure over the classes with objects to find; None if there are none."""
    values = [result[measure] for result in classes.values() if result[measure] is not None]
    return float(np.mean(values)) if values else None


def as_json(value: np.ndarray) -> float | None:
    """A number, or None for nan."""
    return None if np.isnan(value) else float(value)


def curve_record(curve: Curve) -> Record:
    """A curve as a cache record."""
    return {
        "score": curve.scores,
        "recall": curve.recall,
        "precision": curve.precision,
        "ap_11": np.array(curve.ap_11),
        "ap_area": np.array(curve.ap_area),
        "positives": np.array(curve.positives, np.int64),
        "detections": np.array(curve.detections, np.int64),
    }
