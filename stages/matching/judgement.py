"""Judging detections against annotated objects, for all classes of a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.detections import NO_ROWS, DetectionSet, detections_of
from stages.matching.detections import match_devkit
from stages.matching.error_types import DIFFICULT, FALSE, IGNORED, TRUE, largest_overlaps, similar_labels, types_of
from stages.matching.objects import Objects


@dataclass(frozen=True)
class Judged:
    """The type of each of n detections, and which detection found each of m objects.

    `verdicts` int8 [n]: FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER or BACKGROUND of `error_types`, matched by the
    evaluation's own rules (VOCevaldet.m); detections of classes that the dataset does not have are DIFFICULT, since
    eval ignores them. `own` int64 [n]: the object of its class that a detection overlaps most (the first, if tied), or
    -1 if its image has none. `overlaps` float64 [n, 3]: the highest IoU with an object of the same class, of a similar
    class, and of another class. `found_by` int64 [m]: the row of the detection that found the object, -1 if missed.
    """

    verdicts: NDArray[np.int8]
    own: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    found_by: NDArray[np.int64]


def judge(
    detections: DetectionSet,
    objects: Objects,
    classes: Sequence[str],
    iou: float,
    similar: Sequence[Sequence[str]],
    poor_iou: float,
) -> Judged:
    """Judges detections against `objects` of the same images in the same order, labelled by the dataset's `classes`.

    `iou` is the minimum for a true positive, `poor_iou` for a poor localisation; `similar` holds sets of classes."""
    alike = similar_labels(classes, similar)
    judged = Judged(
        verdicts=np.full(len(detections), DIFFICULT, np.int8),
        own=np.full(len(detections), -1, np.int64),
        overlaps=np.zeros((len(detections), 3)),
        found_by=np.full(len(objects), -1, np.int64),
    )
    for label, (name, (own_rows, own)) in enumerate(zip(classes, objects.by_class(len(classes)), strict=True)):
        of_class, rows = detections_of(detections, name), detections.class_rows.get(name, NO_ROWS)
        matches = match_devkit(of_class, own, iou)
        judged.overlaps[rows] = largest_overlaps(of_class, objects, label, alike[name])
        verdicts = np.where(matches.found, TRUE, np.where(matches.ignored, IGNORED, FALSE)).astype(np.int8)
        judged.verdicts[rows] = types_of(verdicts, judged.overlaps[rows], poor_iou)
        near = matches.nearest >= 0
        judged.own[rows[near]] = own_rows[matches.nearest[near]]
        judged.found_by[own_rows[matches.nearest[matches.found]]] = rows[matches.found]
    return judged
