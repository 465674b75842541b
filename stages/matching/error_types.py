"""The type of a detection: true positive, or which type of false positive (Hoiem et al. 2012; R-CNN section 3.4).

Symbols: n detections of one class. `verdicts` int8 [n] are TRUE, FALSE or IGNORED (of a difficult object).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stages.boxes import iou_matrix, reaches
from stages.detections import ClassDetections
from stages.matching.objects import Objects
from stages.matching.overlaps import shared_images

TRUE, IGNORED, FALSE = 1, 0, -1
FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER, BACKGROUND = range(6)
TYPES = {"Loc": LOCALISATION, "Sim": SIMILAR, "Oth": OTHER, "BG": BACKGROUND}
"""The types of false positives, named as in R-CNN's figure 5."""
TYPE_NAMES = ("found", "difficult", *TYPES)
"""The names of all detection types, in the order of their codes."""

Verdicts = NDArray[np.int8]


def largest_overlaps(
    detections: ClassDetections, objects: Objects, label: int, similar: Sequence[int]
) -> NDArray[np.float64]:
    """The highest IoU with an object of the class `label`, of a class in `similar`, and of any other class: float64
    [n, 3], 0 if there is none. Difficult objects count."""
    group = np.where(objects.labels == label, 0, np.where(np.isin(objects.labels, similar), 1, 2))
    largest = np.zeros((len(detections), 3))
    for rows, own in shared_images(detections.images, objects.images):
        overlaps = iou_matrix(detections.boxes[rows], objects.boxes[own])
        for column in np.unique(group[own]):
            largest[rows, column] = overlaps[:, group[own] == column].max(axis=1)
    return largest


def types_of(verdicts: Verdicts, overlaps: NDArray[np.float64], poor_iou: float) -> NDArray[np.int8]:
    """The type of each detection: FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER or BACKGROUND, int8 [n].

    Hoiem et al.'s analyzeFalsePositives.m: a false positive is a poor localisation if it overlaps an object of its
    class by at least `poor_iou` (duplicates included); else a confusion with a similar class if it overlaps such an
    object, else with another class, else with background. `overlaps` float64 [n, 3] are from `largest_overlaps`.
    """
    near = reaches(overlaps, poor_iou)
    choices = [verdicts == TRUE, verdicts == IGNORED, near[:, 0], near[:, 1], near[:, 2]]
    return np.select(choices, [FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER], BACKGROUND).astype(np.int8)


def similar_labels(classes: Sequence[str], sets: Sequence[Sequence[str]]) -> Mapping[str, list[int]]:
    """Per class, the (zero-based) labels of the other classes that share one of `sets` with it."""
    alike = {name: {other for members in sets if name in members for other in members} - {name} for name in classes}
    return {name: [label for label, other in enumerate(classes) if other in alike[name]] for name in classes}
