"""ILSVRC's localisation error: five guesses of a class and a box per image (OverFeat section 2).

A *case* is an image and a class of which it shows objects. In ILSVRC's data every image has one class, so that its
error is the share of images; an image with several classes is a case for each of them, with the same five guesses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.boxes import paired_iou, reaches
from stages.detections import ClassDetections, DetectionSet
from stages.matching.objects import ClassObjects

GUESSES = 5
"""Guesses per image."""


@dataclass(frozen=True)
class Cases:
    """The c cases of one class: `images` int64 [c] (image index, ascending); `misclassified` bool [c] where no guess
    has the class; `missed` bool [c] where none has the class and a box with the required IoU with one of its
    objects."""

    images: NDArray[np.int64]
    misclassified: NDArray[np.bool_]
    missed: NDArray[np.bool_]


def best_guesses(detections: DetectionSet, count: int = GUESSES) -> dict[str, ClassDetections]:
    """The guesses of all images, by class: in each image, the best box of each of the `count` classes that score best.

    Scores of different classes are compared as they are. Of equal scores the first detection counts; images with
    detections of fewer classes have fewer guesses. Classes without guesses are left out.
    """
    every = detections.every
    images = np.repeat(np.arange(len(detections.image_ids), dtype=np.int64), np.diff(detections.offsets))
    order = np.lexsort((-every.scores, images))
    first_of_class = np.unique(images[order] * len(detections.classes) + every.labels[order], return_index=True)[1]
    rows = order[np.sort(first_of_class)]  # by image, then by descending score
    starts = np.searchsorted(images[rows], images[rows])
    rows = np.sort(rows[np.arange(len(rows)) - starts < count])
    labels = every.labels[rows]
    by_label = ((label, rows[labels == label]) for label in np.unique(labels).tolist())
    return {
        detections.classes[label]: ClassDetections(images[own], every.boxes[own], every.scores[own])
        for label, own in by_label
    }


def judge_cases(guesses: ClassDetections, objects: ClassObjects, iou: float) -> Cases:
    """The cases of a class, from its `guesses` (at most one per image) and its objects.

    Difficult objects, and crowds, make no case and cannot be hit.
    """
    images, boxes = objects.images[~objects.difficult], objects.boxes[~objects.difficult]
    cases: NDArray[np.int64] = np.unique(images)
    own = np.searchsorted(guesses.images, images)
    guessed = np.isin(images, guesses.images)
    overlaps = paired_iou(boxes[guessed], guesses.boxes[own[guessed]])
    hit = images[guessed][reaches(overlaps, iou)]
    return Cases(cases, ~np.isin(cases, guesses.images), ~np.isin(cases, hit))
