"""Matching regions to objects for training: which regions are examples of which class, or of none.

Symbols: n regions of one image (in caches, its objects are among them), m objects, K classes, p classes present.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, exceeds, iou_matrix, reaches
from stages.matching.overlaps import class_overlaps, nearest_objects

UNUSED = -1


def window_labels(
    boxes: Boxes,
    object_boxes: Boxes,
    object_labels: NDArray[np.int32],
    classes: int,
    positive_overlap: float,
    background_overlap: float,
    unused: NDArray[np.bool_] | None = None,
    background_least: float = 0.0,
) -> NDArray[np.int32]:
    """The label of each of n boxes for fine-tuning: int32 [n], a class, `classes` for background, or UNUSED.

    R-CNN section 2.3. A box has the class of the object it overlaps most, from IoU `positive_overlap` on (the first
    class, if tied); below `background_overlap` it is background. (rcnn_make_window_file.m rounds overlaps to three
    digits, so there 0.4996 is positive.) `unused`, bool [n] with the objects first, marks boxes that are UNUSED
    whatever they overlap. A box whose nearest object is unused is UNUSED too, unless it overlaps it by less than
    `background_overlap`.

    Fast R-CNN (section 2.3; lib/roi_data_layer/minibatch.py) labels regions in the same way, but for background whose
    overlap is below `background_least`, 0.1 in the paper, which is UNUSED: "a heuristic for hard example mining".
    """
    left_out = np.zeros(len(boxes), bool) if unused is None else unused
    counted = ~left_out[: len(object_boxes)]
    overlaps = class_overlaps(boxes, object_boxes[counted], object_labels[counted], classes)
    best = overlaps.max(axis=1, initial=0.0)
    passed_over = iou_matrix(boxes, object_boxes[~counted]).max(axis=1, initial=0.0).astype(np.float32)
    background = ~reaches(np.maximum(best, passed_over), background_overlap) & reaches(best, background_least)
    positive = reaches(best, positive_overlap) & (best >= passed_over)
    shown = np.where(positive, overlaps.argmax(axis=1), np.where(background, classes, UNUSED))
    return np.where(left_out, UNUSED, shown).astype(np.int32)


@dataclass(frozen=True)
class Overlaps:
    """How the n regions of an image overlap the objects of the p classes present in it.

    `present` int32 [p] are these classes; `overlaps` float32 [n, p] the highest IoU with an object of the class;
    `own_object` bool [n, p] whether the region is itself an object of the class.
    """

    present: NDArray[np.int32]
    overlaps: NDArray[np.float32]
    own_object: NDArray[np.bool_]


def present_overlaps(
    boxes: Boxes, is_object: NDArray[np.bool_], labels: NDArray[np.int32], unused: NDArray[np.bool_] | None = None
) -> Overlaps:
    """The overlaps of an image's regions with its objects, without `unused` ones (bool [n]).

    `boxes` float32 [n, 4]; `is_object` bool [n]; `labels` int32 [n], the classes of the objects."""
    if unused is not None:
        is_object = is_object & ~unused
    present = np.unique(labels[is_object])
    columns = np.searchsorted(present, labels[is_object]).astype(np.int32)
    overlaps = class_overlaps(boxes, boxes[is_object], columns, len(present))
    return Overlaps(present, overlaps, is_object[:, None] & (labels[:, None] == present))


def positive_rows(here: Overlaps, positive_overlap: float) -> NDArray[np.bool_]:
    """Which regions are positives of each class's SVM: bool [n, p], its objects and the regions that overlap one by at
    least `positive_overlap` (fine-tuning's definition, tried for SVMs in R-CNN's Appendix B)."""
    return here.own_object | reaches(here.overlaps, positive_overlap)


def negative_rows(
    overlaps: NDArray[np.float32], own_object: NDArray[np.bool_], negative_overlap: float
) -> NDArray[np.bool_]:
    """Which regions are negatives of each of k classes' SVMs (R-CNN section 2.3, rcnn_train.m): bool [n, k].

    `overlaps` [n, k] are the highest IoUs with an object of the class; a negative's is strictly below
    `negative_overlap`, or exactly 0: at threshold 0, the lowest in section 2.3's grid search, negatives are the regions
    that touch no object of the class. Objects of other classes may be negatives, the class's own (`own_object` [n, k])
    never are.
    """
    return (~reaches(overlaps, negative_overlap) | (overlaps == 0)) & ~own_object


def regression_pairs(
    boxes: Boxes, is_object: NDArray[np.bool_], min_overlap: float, unused: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The regions a box regressor is trained on, and the object each should be moved to: rows int64 [e] and [e].

    R-CNN Appendix C, rcnn_train_bbox_regressor.m: regions (objects included) whose IoU with the nearest object, of any
    class, is strictly greater than `min_overlap`; that object is the target (the first, if tied). `boxes` float32
    [n, 4], `is_object` bool [n]. Boxes no wider or higher than one pixel have no scale and are left out, as are
    `unused` regions (bool [n]) and regions nearest to an unused object.
    """
    objects = np.flatnonzero(is_object)
    if not len(objects):
        return objects, objects
    index, overlap = nearest_objects(boxes, boxes[objects])
    nearest = objects[index]
    fit = np.all(boxes[:, 2:] - boxes[:, :2] > 1, axis=1)
    if unused is not None:
        fit &= ~unused
    rows = np.flatnonzero(exceeds(overlap, min_overlap) & fit & fit[nearest])
    return rows, nearest[rows]


def shown_labels(boxes: Boxes, objects: Boxes, labels: NDArray[np.int32], iou: float) -> NDArray[np.int32]:
    """The class of the object that each of `boxes` [n, 4] overlaps most, int32 [n], or -1 if their IoU is below `iou`.

    `objects` float32 [m, 4], `labels` int32 [m]."""
    nearest, overlap = nearest_objects(boxes, objects)
    shown = (nearest >= 0) & reaches(overlap, iou)
    return np.where(shown, np.append(labels, np.int32(-1))[nearest], -1).astype(np.int32)
