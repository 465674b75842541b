"""Matching detections to objects, one class at a time, by the rules of the VOC devkit and of Hoiem et al.

Symbols: n detections of the class, m objects. Both process detections by descending score; ties are in the order of the
images and, within an image, of the cache's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.boxes import iou_matrix, reaches
from stages.detections import ClassDetections
from stages.matching.error_types import FALSE, IGNORED, TRUE, Verdicts
from stages.matching.objects import ClassObjects, Objects
from stages.matching.overlaps import nearest_objects, shared_images


@dataclass(frozen=True)
class DevkitMatches:
    """The outcome for each detection: `found` bool [n] (true positive), `ignored` bool [n] (neither true nor false) and
    `nearest` int64 [n] (the object it overlaps most, -1 in an image without objects), indexed like the detections.
    `order` int64 [n] ranks them by descending score."""

    order: NDArray[np.int64]
    found: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    nearest: NDArray[np.int64]


@dataclass(frozen=True)
class HoiemMatches:
    """`verdicts` int8 [n], and `objects` int64 [n]: the object matched by a TRUE or IGNORED detection, -1 if FALSE."""

    verdicts: Verdicts
    objects: NDArray[np.int64]


@dataclass(frozen=True)
class AnyClassMatches:
    """`objects` int64 [n]: the object, of any class, that each detection takes, -1 if none; `excused` bool [n]: whether
    it takes none and overlaps a difficult object."""

    objects: NDArray[np.int64]
    excused: NDArray[np.bool_]


def by_rank(detections: ClassDetections) -> NDArray[np.int64]:
    """Rows int64 [n] by descending score; ties in the order of images, then of rows."""
    return np.argsort(-detections.scores, kind="stable")


def match_devkit(detections: ClassDetections, objects: ClassObjects, iou: float = 0.5) -> DevkitMatches:
    """Which detections are true, false or ignored, by the devkit's rules (VOCevaldet.m).

    By descending score, each detection is compared with the object in its image that it overlaps most (the first, if
    tied), even if that object has already been found. If their IoU is at least `iou`, a detection of a difficult object
    is ignored, and the first detection of any other object is true. All others are false.
    """
    order = by_rank(detections)
    nearest, overlap = np.full(len(detections), -1, np.int64), np.full(len(detections), -1.0)
    for rows, own in shared_images(detections.images, objects.images):
        index, overlap[rows] = nearest_objects(detections.boxes[rows], objects.boxes[own])
        nearest[rows] = own.start + index
    hit = reaches(overlap, iou)
    ignored = np.zeros(len(detections), bool)
    ignored[hit] = objects.difficult[nearest[hit]]
    claims = order[(hit & ~ignored)[order]]
    _, first = np.unique(nearest[claims], return_index=True)
    found = np.zeros(len(detections), bool)
    found[claims[first]] = True
    return DevkitMatches(order, found, ignored, nearest)


def match_hoiem(detections: ClassDetections, objects: Objects, iou: float) -> HoiemMatches:
    """Matches detections to the class's `objects` (matchDetectionsWithGroundTruth.m).

    By descending score, a detection takes the object that it overlaps most (the first, if tied) among those in its
    image that are not yet taken and that it overlaps by at least `iou`. It is TRUE if it takes an ordinary object,
    IGNORED if a difficult one, and FALSE if none. The devkit differs in two points: a detection competes for the object
    that it overlaps most even if that is taken, and every detection of a difficult object is ignored, not just the
    first.
    """
    verdicts = np.full(len(detections), FALSE, np.int8)
    taken_by = np.full(len(detections), -1, np.int64)
    for rows, own in shared_images(detections.images, objects.images):
        overlaps = iou_matrix(detections.boxes[rows], objects.boxes[own])
        candidates = np.flatnonzero(reaches(overlaps.max(axis=1), iou))
        for row in candidates[np.argsort(-detections.scores[rows][candidates], kind="stable")]:
            best = int(overlaps[row].argmax())
            if reaches(overlaps[row, best], iou):
                taken_by[rows.start + row] = own.start + best
                overlaps[:, best] = -1.0
    took = taken_by >= 0
    verdicts[took] = np.where(objects.difficult[taken_by[took]], IGNORED, TRUE)
    return HoiemMatches(verdicts, taken_by)


def match_any_class(detections: ClassDetections, objects: Objects, iou: float) -> AnyClassMatches:
    """Matches the detections of all classes together to `objects` of all classes, one to one, whatever their class.

    By descending score, a detection takes the object that it overlaps most (the first, if tied) among those in its
    image that are not yet taken and that it overlaps by at least `iou`; difficult objects cannot be taken. One that
    takes none is excused if it overlaps a difficult object, of any class, by at least `iou`. Ours, for confusion
    matrices: `match_hoiem` without regard to classes.
    """
    counted = np.flatnonzero(~objects.difficult)
    matches = match_hoiem(detections, objects.where(counted), iou)
    taken = np.where(matches.objects >= 0, np.append(counted, -1)[matches.objects], -1)
    near = np.zeros(len(detections), bool)
    difficult = objects.where(np.flatnonzero(objects.difficult))
    for rows, own in shared_images(detections.images, difficult.images):
        near[rows] = reaches(iou_matrix(detections.boxes[rows], difficult.boxes[own]).max(axis=1), iou)
    return AnyClassMatches(taken, near & (taken < 0))
