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
from stages.detections import ClassDetections, detections_of, read_detections
from stages.eval import Settings
from stages.eval.average_precision import Curve, precision_recall_curve
from stages.eval.bootstrap import CONFIDENCE, image_weights, percentile_interval, resampled_average_precision
from stages.eval.coco import MEASURES, class_measures
from stages.eval.report import RESAMPLED, read_resampled_maps
from stages.matching.detections import match_devkit
from stages.matching.ground_truth import check_classes, check_images, classes_apart, listed, warn_of_skipped
from stages.matching.objects import ClassObjects, counted_objects, read_objects

log = logging.getLogger("stages.eval")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The dataset's classes."""
    return list(inputs.dataset("images").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per class: its curve, one row per detection that counts, its APs, counts and what else was requested."""
    requested: dict[str, Column] = {"coco": Column("float64", (len(MEASURES),))} if settings.coco else {}
    if settings.bootstrap:
        requested |= {name: Column("float64", (settings.bootstrap,)) for name in RESAMPLED}
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
    every = counted_objects(read_objects(dataset, detections.image_ids), settings.use_difficult)
    objects = dict(zip(dataset.classes, (own for _, own in every.by_class(len(dataset.classes))), strict=True))
    weights = image_weights(len(detections.image_ids), settings.bootstrap, settings.bootstrap_seed)
    with execution.progress("eval", output.remaining_items, "classes") as bar:
        for part in output.claim():
            of_classes = ((detections_of(detections, name), objects[name]) for name in part.item_ids)
            records = [evaluate(settings, *of_class, weights) for of_class in of_classes]
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


def bootstrap_summary(
    settings: Settings, image_ids: Sequence[str], reader: Reader, classes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Adds each class's interval of the headline measure to `classes`, and returns the intervals of mAP.

    `images` identifies the resampled images: evaluations with the same images, number of resamples and seed are paired.
    """
    headline = RESAMPLED[0] if settings.metric == "voc07" else RESAMPLED[1]
    for name, record in reader.records(RESAMPLED):
        classes[name]["interval"] = percentile_interval(record[headline])
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
        }
    }


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
