"""The diagnose stage: detections and annotations in, the type of each detection and the cost of each error type out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache import Column, Reader, Record, Schema, Writer
from stages.contract.errors import BadSetting
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import nearest
from stages.detections import ClassDetections, detections_of, read_detections
from stages.diagnose import SIMILAR, Settings
from stages.diagnose.characteristics import (
    BINS,
    CHARACTERISTICS,
    Normalised,
    Sensitivity,
    is_annotated,
    mean_sensitivity,
    normalised_ap,
    normalised_ap_of_bins,
    sensitivity_of,
)
from stages.diagnose.false_positives import average_precision, effects, top_false_positives, trend
from stages.matching.detections import by_rank, match_hoiem
from stages.matching.error_types import TYPE_NAMES, largest_overlaps, similar_labels, types_of
from stages.matching.ground_truth import check_classes, check_exhaustive, check_images, listed, warn_of_skipped
from stages.matching.objects import Objects, read_objects

log = logging.getLogger("stages.diagnose")

REMEDIES = ("Loc corrected", "Loc removed", "Sim removed", "Oth removed", "BG removed", "Oth and BG removed")
GROUPS = {
    "animals": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "furniture": ("chair", "diningtable", "sofa"),
    "vehicles": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
}
"""Figure 5's groups of VOC classes (detectionAnalysisScript.m; person is not among the animals here)."""


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The dataset's classes."""
    return list(inputs.dataset("images").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per class: its detections by rank (`image`: index in the detections cache; `type`: 0 found, 1 difficult object,
    2 Loc, 3 Sim, 4 Oth, 5 BG; `overlap`: highest IoU with the own class, similar classes, others) and its APs.

    `remedy_ap` is in the order of REMEDIES, `bin_...` in that of characteristics.BINS.
    """
    return Schema(
        item="class",
        rows={
            "image": Column("int64"),
            "boxes": Column("float32", (4,)),
            "score": Column("float32"),
            "type": Column("int8"),
            "overlap": Column("float64", (3,)),
        },
        per_item={
            "positives": Column("int64"),
            "ap": Column("float64"),
            "normal": Column("float64"),
            "ap_n": Column("float64"),
            "ap_n_error": Column("float64"),
            "remedy_ap": Column("float64", (len(REMEDIES),)),
            "bin_positives": Column("int64", (len(BINS),)),
            "bin_ap_n": Column("float64", (len(BINS),)),
            "bin_ap_n_error": Column("float64", (len(BINS),)),
        },
    )


def attributes(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """The names of the values of `type`."""
    return {"types": list(TYPE_NAMES)}


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Diagnoses the classes; detections and annotations are read once and held in memory."""
    dataset = inputs.dataset("images")
    check_settings(settings, dataset.classes)
    if not output.remaining_items:
        return
    warn_of_skipped(inputs.reader("detections"))
    detections = read_detections(inputs.reader("detections"))
    check_classes("diagnose", detections.classes, dataset.classes)
    check_images("diagnose", detections.image_ids, dataset)
    check_exhaustive("diagnose", dataset, "would count as false positives when found")
    objects = read_objects(dataset, detections.image_ids)
    warn_of_poses(objects)
    normal = normal_count(settings, objects, len(detections.image_ids))
    similar = similar_labels(dataset.classes, settings.similar)
    with execution.progress("diagnose", output.remaining_items, "classes") as bar:
        for part in output.claim():
            of_classes = [detections_of(detections, name) for name in part.item_ids]
            output.write(
                part,
                [
                    diagnosis(of_class, objects, dataset.classes.index(name), similar[name], normal, settings)
                    for name, of_class in zip(part.item_ids, of_classes, strict=True)
                ],
            )
            bar.advance(len(of_classes), sum(len(of_class) for of_class in of_classes))


def diagnosis(
    detections: ClassDetections,
    objects: Objects,
    label: int,
    similar: Sequence[int],
    normal: float,
    settings: Settings,
) -> Record:
    """The cache record of one class, `label`, from its detections and all `objects`; `normal` is N."""
    own = objects.where(objects.labels == label)
    positives = int(np.sum(~own.difficult))
    order = by_rank(detections)
    matches = match_hoiem(detections, own, settings.iou)
    verdicts = matches.verdicts[order]
    poor = match_hoiem(detections, own, settings.poor_iou).verdicts[order]
    overlaps = largest_overlaps(detections, objects, label, similar)[order]
    every = normalised_ap(verdicts, positives, normal)
    bins = normalised_ap_of_bins(matches, own, order, normal)
    remedied = effects(verdicts, poor, overlaps, positives, settings.poor_iou)
    return {
        "image": detections.images[order],
        "boxes": detections.boxes[order],
        "score": detections.scores[order],
        "type": types_of(verdicts, overlaps, settings.poor_iou),
        "overlap": overlaps,
        "positives": np.array(positives, np.int64),
        "ap": np.array(average_precision(verdicts, positives)),
        "normal": np.array(normal),
        "ap_n": np.array(every.ap),
        "ap_n_error": np.array(every.error),
        "remedy_ap": np.array([remedied[name] for name in REMEDIES]),
        "bin_positives": np.array([of_bin.positives for of_bin in bins], np.int64),
        "bin_ap_n": np.array([of_bin.ap for of_bin in bins]),
        "bin_ap_n_error": np.array([of_bin.error for of_bin in bins]),
    }


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The summary of a complete cache."""
    return summary_of(settings, dict(reader.records()))


def summary_of(settings: Settings, records: Mapping[str, Record]) -> dict[str, Any]:
    """Each class's results, their means, and the trends of figure 5; undefined values are None.

    `records` are the records of `diagnosis`, by class.
    """
    bins = {name: bins_of_record(record) for name, record in records.items()}
    shown = [name for name in CHARACTERISTICS if is_annotated([of_class[name] for of_class in bins.values()])]
    classes = {name: class_summary(record, bins[name], shown) for name, record in records.items()}
    to_find = [of_class for of_class in classes.values() if of_class["positives"]]
    if len(to_find) < len(classes):
        without = [name for name, of_class in classes.items() if not of_class["positives"]]
        log.warning("%s: no objects to find, left out of the means", listed(without))
    members = groups(settings, list(records))
    return {
        "iou": settings.iou,
        "poor_iou": settings.poor_iou,
        "similar": [list(names) for names in settings.similar],
        "normal": float(next(iter(records.values()))["normal"]),
        "ap": mean_of([of_class["ap"] for of_class in to_find]),
        "ap_n": mean_of([of_class["ap_n"] for of_class in to_find]),
        "remedies": {name: mean_of([of_class["remedies"][name] for of_class in to_find]) for name in REMEDIES},
        "characteristics": {
            name: as_summary(mean_sensitivity(of_classes), classes=len(of_classes))
            for name in shown
            if (of_classes := sensitivities(records, bins, name))
        },
        "classes": classes,
        "groups": members,
        "trends": {
            name: {str(count): types for count, types in trend([records[member]["type"] for member in group]).items()}
            for name, group in {**{name: [name] for name in records}, **members}.items()
        },
    }


def class_summary(record: Record, bins: Mapping[str, Sequence[Normalised]], shown: Sequence[str]) -> dict[str, Any]:
    """One class's results as JSON values; `false_positives` counts the top-ranked ones, as many as it has objects."""
    positives = int(record["positives"])
    return {
        "positives": positives,
        "detections": len(record["type"]),
        "ap": as_json(record["ap"]),
        "ap_n": as_json(record["ap_n"]),
        "ap_n_error": as_json(record["ap_n_error"]),
        "false_positives": top_false_positives(record["type"], positives),
        "remedies": {name: as_json(ap) for name, ap in zip(REMEDIES, record["remedy_ap"], strict=True)},
        "characteristics": {
            name: {
                label: {"positives": of_bin.positives, "ap_n": as_json(of_bin.ap), "ap_n_error": as_json(of_bin.error)}
                for label, of_bin in zip(CHARACTERISTICS[name], bins[name], strict=True)
            }
            for name in shown
        },
    }


def bins_of_record(record: Record) -> dict[str, list[Normalised]]:
    """The bins of each characteristic, from the record of a class."""
    columns = (record["bin_ap_n"], record["bin_ap_n_error"], record["bin_positives"])
    every = [Normalised(float(ap), float(error), int(count)) for ap, error, count in zip(*columns, strict=True)]
    return {
        name: [of_bin for (owner, _), of_bin in zip(BINS, every, strict=True) if owner == name]
        for name in CHARACTERISTICS
    }


def sensitivities(
    records: Mapping[str, Record], bins: Mapping[str, Mapping[str, Sequence[Normalised]]], characteristic: str
) -> list[Sensitivity]:
    """The sensitivities to a characteristic of all classes that have one."""
    every = [sensitivity_of(bins[name][characteristic], float(record["ap_n"])) for name, record in records.items()]
    return [sensitivity for sensitivity in every if sensitivity is not None]


def as_summary(means: Sensitivity, classes: int) -> dict[str, Any]:
    """Means over that many `classes`, as JSON values."""
    return {
        "classes": classes,
        "lowest": means.lowest,
        "highest": means.highest,
        "overall": means.overall,
        "sensitivity": means.sensitivity,
        "impact": means.impact,
    }


def groups(settings: Settings, classes: Sequence[str]) -> dict[str, list[str]]:
    """The groups of classes shown in figure 5: all classes, and VOC's three groups or the recipe's `similar` sets.

    Only groups with at least two of the dataset's `classes` are returned.
    """
    named = GROUPS if settings.similar == SIMILAR else {", ".join(names): names for names in settings.similar}
    present = {name: [member for member in classes if member in members] for name, members in named.items()}
    every = {"all classes": list(classes), **present}
    return {name: members for name, members in every.items() if len(members) > 1}


def normal_count(settings: Settings, objects: Objects, images: int) -> float:
    """N of the normalised AP: from the settings, else the mean number of objects over the classes that have any."""
    if settings.objects_per_image is not None:
        return settings.objects_per_image * images
    counts = np.unique(objects.labels[~objects.difficult], return_counts=True)[1]
    return float(counts.mean()) if len(counts) else 0.0


def check_settings(settings: Settings, classes: Sequence[str]) -> None:
    """Raises BadSetting if `poor_iou` is not below `iou`, or `similar` names a class that the dataset does not have."""
    if settings.poor_iou >= settings.iou:
        raise BadSetting(
            f"diagnose: poor_iou = {settings.poor_iou:g} must be below iou = {settings.iou:g}; lower it, or raise iou"
        )
    if settings.similar == SIMILAR:
        return
    for name in (name for names in settings.similar for name in names):
        if name not in classes:
            raise BadSetting(
                f"diagnose: similar names '{name}', which is not a class of the dataset{nearest(name, classes)}"
            )


def warn_of_poses(objects: Objects) -> None:
    """Warns of poses that VOC does not have."""
    unknown = set(objects.poses.tolist()) - {*CHARACTERISTICS["viewpoint"], "Unspecified"}
    if unknown:
        log.warning("unknown poses, not among VOC's: %s; these objects have no viewpoint", listed(sorted(unknown)))


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None if there are no values."""
    return float(np.mean(values)) if values else None


def as_json(value: Any) -> float | None:
    """A number, or None for nan."""
    return None if np.isnan(value) else float(value)
