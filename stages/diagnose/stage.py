"""The diagnose stage: detections and annotations in, what every detection is and what every kind of error costs out."""

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
from stages.matching.ground_truth import check_classes, check_images, listed, warn_of_skipped
from stages.matching.objects import Objects, read_objects

log = logging.getLogger("stages.diagnose")

REMEDIES = ("Loc corrected", "Loc removed", "Sim removed", "Oth removed", "BG removed", "Oth and BG removed")
GROUPS = {
    "animals": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "furniture": ("chair", "diningtable", "sofa"),
    "vehicles": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
}
"""Figure 5's groups of VOC's classes (detectionAnalysisScript.m; people are not among the animals here)."""


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The dataset's classes."""
    return list(inputs.dataset("images").classes)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """A class's detections in the order of rank (`image`: index in the detections' cache; `type`: 0 found, 1 of a
    difficult object, 2 Loc, 3 Sim, 4 Oth, 5 BG; `overlap`: largest IoU with own class, similar, others) and its APs.

    `remedy_ap` are in the order of REMEDIES, `bin_...` in that of characteristics.BINS.
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
    """What the numbers in `type` stand for."""
    return {"types": list(TYPE_NAMES)}


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Diagnoses the classes; detections and annotations are read once and held in memory."""
    dataset = inputs.dataset("images")
    check_settings(settings, dataset.classes)
    if not output.remaining_items:
        return
    warn_of_skipped(inputs.reader("detections"))
    found = read_detections(inputs.reader("detections"))
    check_classes("diagnose", found.classes, dataset.classes)
    check_images("diagnose", found.image_ids, dataset)
    objects = read_objects(dataset, found.image_ids)
    warn_of_poses(objects)
    normal = normal_count(settings, objects, len(found.image_ids))
    similar = similar_labels(dataset.classes, settings.similar)
    with execution.progress("diagnose", output.remaining_items, "classes") as bar:
        for part in output.claim():
            detections = [detections_of(found, name) for name in part.item_ids]
            output.write(
                part,
                [
                    diagnosis(one, objects, dataset.classes.index(name), similar[name], normal, settings)
                    for name, one in zip(part.item_ids, detections, strict=True)
                ],
            )
            bar.advance(len(detections), sum(len(one) for one in detections))


def diagnosis(
    detections: ClassDetections,
    objects: Objects,
    label: int,
    similar: Sequence[int],
    normal: float,
    settings: Settings,
) -> Record:
    """All there is to say of one class, as the cache holds it."""
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
        "bin_positives": np.array([one.positives for one in bins], np.int64),
        "bin_ap_n": np.array([one.ap for one in bins]),
        "bin_ap_n_error": np.array([one.error for one in bins]),
    }


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The summary of what the cache holds."""
    return summary_of(settings, dict(reader.records()))


def summary_of(settings: Settings, records: Mapping[str, Record]) -> dict[str, Any]:
    """Each class's numbers, their means, and the trends of figure 5; None stands for a number that does not exist.

    `records` are those of `diagnosis`, by class.
    """
    bins = {name: bins_of_record(record) for name, record in records.items()}
    shown = [name for name in CHARACTERISTICS if is_annotated([of_class[name] for of_class in bins.values()])]
    classes = {name: class_summary(record, bins[name], shown) for name, record in records.items()}
    to_find = [one for one in classes.values() if one["positives"]]
    if len(to_find) < len(classes):
        without = [name for name, one in classes.items() if not one["positives"]]
        log.warning("no objects of %s to find: left out of the means", listed(without))
    members = groups(settings, list(records))
    return {
        "iou": settings.iou,
        "poor_iou": settings.poor_iou,
        "similar": [list(one) for one in settings.similar],
        "normal": float(next(iter(records.values()))["normal"]),
        "ap": mean_of([one["ap"] for one in to_find]),
        "ap_n": mean_of([one["ap_n"] for one in to_find]),
        "remedies": {name: mean_of([one["remedies"][name] for one in to_find]) for name in REMEDIES},
        "characteristics": {
            name: as_summary(mean_sensitivity(of_classes), classes=len(of_classes))
            for name in shown
            if (of_classes := sensitivities(records, bins, name))
        },
        "classes": classes,
        "groups": members,
        "trends": {
            name: {str(count): seen for count, seen in trend([records[one]["type"] for one in of_group]).items()}
            for name, of_group in {**{one: [one] for one in records}, **members}.items()
        },
    }


def class_summary(record: Record, bins: Mapping[str, Sequence[Normalised]], shown: Sequence[str]) -> dict[str, Any]:
    """One class's numbers as JSON values; `false_positives` are the top-ranked ones, as many as there are objects."""
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
                label: {"positives": one.positives, "ap_n": as_json(one.ap), "ap_n_error": as_json(one.error)}
                for label, one in zip(CHARACTERISTICS[name], bins[name], strict=True)
            }
            for name in shown
        },
    }


def bins_of_record(record: Record) -> dict[str, list[Normalised]]:
    """For each characteristic its bins, as the record of a class has them."""
    columns = (record["bin_ap_n"], record["bin_ap_n_error"], record["bin_positives"])
    every = [Normalised(float(ap), float(error), int(count)) for ap, error, count in zip(*columns, strict=True)]
    return {
        name: [one for (owner, _), one in zip(BINS, every, strict=True) if owner == name] for name in CHARACTERISTICS
    }


def sensitivities(
    records: Mapping[str, Record], bins: Mapping[str, Mapping[str, Sequence[Normalised]]], characteristic: str
) -> list[Sensitivity]:
    """The sensitivity to a characteristic of each class that has one."""
    found = [sensitivity_of(bins[name][characteristic], float(record["ap_n"])) for name, record in records.items()]
    return [one for one in found if one is not None]


def as_summary(means: Sensitivity, classes: int) -> dict[str, Any]:
    """Means over `classes` classes as JSON values."""
    return {
        "classes": classes,
        "lowest": means.lowest,
        "highest": means.highest,
        "overall": means.overall,
        "sensitivity": means.sensitivity,
        "impact": means.impact,
    }


def groups(settings: Settings, classes: Sequence[str]) -> dict[str, list[str]]:
    """The groups of classes that figure 5 is drawn for: all, and VOC's three or the recipe's own sets of similar ones.

    Only groups of at least two of the dataset's `classes`.
    """
    named = GROUPS if settings.similar == SIMILAR else {", ".join(one): one for one in settings.similar}
    own = {name: [one for one in classes if one in members] for name, members in named.items()}
    every = {"all classes": list(classes), **own}
    return {name: members for name, members in every.items() if len(members) > 1}


def normal_count(settings: Settings, objects: Objects, images: int) -> float:
    """N of the normalised AP: as set, else the mean number of objects to find of the classes that have any."""
    if settings.objects_per_image is not None:
        return settings.objects_per_image * images
    counts = np.unique(objects.labels[~objects.difficult], return_counts=True)[1]
    return float(counts.mean()) if len(counts) else 0.0


def check_settings(settings: Settings, classes: Sequence[str]) -> None:
    """Raises BadSetting if poor localisations are none, or a set of similar classes names one that is not there."""
    if settings.poor_iou >= settings.iou:
        raise BadSetting(
            f"diagnose: poor_iou = {settings.poor_iou:g} must be below iou = {settings.iou:g}; lower it, or raise iou"
        )
    if settings.similar == SIMILAR:
        return
    for name in (name for one in settings.similar for name in one):
        if name not in classes:
            raise BadSetting(
                f"diagnose: similar names '{name}', which is no class of the dataset{nearest(name, classes)}"
            )


def warn_of_poses(objects: Objects) -> None:
    """Names the poses that are none of VOC's."""
    strange = set(objects.poses.tolist()) - {*CHARACTERISTICS["viewpoint"], "Unspecified"}
    if strange:
        log.warning("poses %s are none of VOC's: these objects have no viewpoint", listed(sorted(strange)))


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return float(np.mean(values)) if values else None


def as_json(value: Any) -> float | None:
    """A number, or None for nan."""
    return None if np.isnan(value) else float(value)
