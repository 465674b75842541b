"""The eval stage: detections and annotations in, a precision-recall curve for each class out."""

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
from stages.matching.ground_truth import check_classes, check_images, listed, warn_of_skipped
from stages.matching.objects import ClassObjects, counted_objects, read_objects

log = logging.getLogger("stages.eval")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The dataset's classes."""
    return list(inputs.dataset("images").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """A class's curve, a row for each detection that counts, and its numbers."""
    asked: dict[str, Column] = {"coco": Column("float64", (len(MEASURES),))} if settings.coco else {}
    if settings.bootstrap:
        asked |= {name: Column("float64", (settings.bootstrap,)) for name in RESAMPLED}
    return Schema(
        item="class",
        rows={"score": Column("float32"), "recall": Column("float64"), "precision": Column("float64")},
        per_item={
            "ap_11": Column("float64"),
            "ap_area": Column("float64"),
            "positives": Column("int64"),
            "detections": Column("int64"),
            **asked,
        },
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Evaluates the classes; detections and annotations are read once and held in memory."""
    if not output.remaining_items:
        return
    dataset = inputs.dataset("images")
    warn_of_skipped(inputs.reader("detections"))
    found = read_detections(inputs.reader("detections"))
    check_classes("eval", found.classes, dataset.classes)
    check_images("eval", found.image_ids, dataset)
    every = counted_objects(read_objects(dataset, found.image_ids), settings.use_difficult)
    objects = dict(zip(dataset.classes, (own for _, own in every.by_class(len(dataset.classes))), strict=True))
    weights = image_weights(len(found.image_ids), settings.bootstrap, settings.bootstrap_seed)
    with execution.progress("eval", output.remaining_items, "classes") as bar:
        for part in output.claim():
            records = [evaluate(settings, detections_of(found, name), objects[name], weights) for name in part.item_ids]
            output.write(part, records)
            bar.advance(len(records), sum(int(record["detections"]) for record in records))


def evaluate(
    settings: Settings, detections: ClassDetections, objects: ClassObjects, weights: NDArray[np.float64]
) -> Record:
    """One class's record: its curve, and what else the settings ask for; `weights` are the resamples' [images, B]."""
    record = curve_record(precision_recall_curve(detections, objects, settings.iou))
    if settings.coco:
        record["coco"] = class_measures(detections, objects)
    if settings.bootstrap:
        matches = match_devkit(detections, objects, settings.iou)
        resampled = resampled_average_precision(detections, objects, matches, weights)
        record.update(zip(RESAMPLED, resampled, strict=True))
    return record


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """mAP and each class's numbers; None stands for the AP of a class that has nothing to find."""
    classes = {}
    for name, record in reader.records(("ap_11", "ap_area", "positives", "detections")):
        counts = {column: int(record[column]) for column in ("positives", "detections")}
        classes[name] = {"ap_11": as_json(record["ap_11"]), "ap_area": as_json(record["ap_area"]), **counts}
    without = [name for name, one in classes.items() if not one["positives"]]
    if without:
        log.warning("no objects of %s to find: left out of the mean", listed(without))
    map_11, map_area = mean_of(classes, "ap_11"), mean_of(classes, "ap_area")
    asked = coco_summary(reader, classes) if settings.coco else {}
    if settings.bootstrap:
        asked |= bootstrap_summary(settings, inputs.dataset("images").image_ids, reader, classes)
    return {
        "map": map_11 if settings.metric == "voc07" else map_area,
        "map_11": map_11,
        "map_area": map_area,
        "metric": settings.metric,
        "iou": settings.iou,
        "classes": classes,
        "without_positives": without,
        **asked,
    }


def coco_summary(reader: Reader, classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """COCO's measures: each class's are put into `classes`, their means, nan left out, are returned."""
    for name, record in reader.records(("coco",)):
        classes[name]["coco"] = {
            measure: as_json(value) for measure, value in zip(MEASURES, record["coco"], strict=True)
        }
    every = [one["coco"] for one in classes.values()]
    return {"coco": {measure: mean_of(dict(enumerate(every)), measure) for measure in MEASURES}}


def bootstrap_summary(
    settings: Settings, image_ids: Sequence[str], reader: Reader, classes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The intervals: each class's, of the headline measure, are put into `classes`, those of mAP are returned.

    `images` names the images that were resampled: evaluations that agree in it, in number and seed are paired.
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
    """The mean of a measure over the classes that have something to find; None if none has."""
    values = [one[measure] for one in classes.values() if one[measure] is not None]
    return float(np.mean(values)) if values else None


def as_json(value: np.ndarray) -> float | None:
    """A number, or None for nan."""
    return None if np.isnan(value) else float(value)


def curve_record(curve: Curve) -> Record:
    """A curve as the cache holds it."""
    return {
        "score": curve.scores,
        "recall": curve.recall,
        "precision": curve.precision,
        "ap_11": np.array(curve.ap_11),
        "ap_area": np.array(curve.ap_area),
        "positives": np.array(curve.positives, np.int64),
        "detections": np.array(curve.detections, np.int64),
    }
