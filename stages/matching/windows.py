"""Windows to objects: which regions of an image are examples of which class, and of nothing.

Letters: n regions of one image (in caches its objects are among them), m objects, K classes, p classes that occur.
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
) -> NDArray[np.int32]:
    """What each of the n boxes shows to fine-tuning: int32 [n], a class, `classes` for the background, or UNUSED.

    R-CNN section 2.3. The class is that of the largest IoU with an object, from `positive_overlap` on; of equals the
    first class (rcnn_make_window_file.m, but its overlaps are rounded to three digits: there 0.4996 is positive). Below
    `background_overlap` it is the background. `unused`, bool [n] (the objects come first), names boxes that are UNUSED
    whatever they overlap. Where such an object is the nearest, a window is UNUSED, too, unless it overlaps it as little
    as background overlaps an object.
    """
    left_out = np.zeros(len(boxes), bool) if unused is None else unused
    counted = ~left_out[: len(object_boxes)]
    overlaps = class_overlaps(boxes, object_boxes[counted], object_labels[counted], classes)
    best = overlaps.max(axis=1, initial=0.0)
    passed_over = iou_matrix(boxes, object_boxes[~counted]).max(axis=1, initial=0.0).astype(np.float32)
    background = ~reaches(np.maximum(best, passed_over), background_overlap)
    positive = reaches(best, positive_overlap) & (best >= passed_over)
    shown = np.where(positive, overlaps.argmax(axis=1), np.where(background, classes, UNUSED))
    return np.where(left_out, UNUSED, shown).astype(np.int32)


@dataclass(frozen=True)
class Overlaps:
    """How the n regions of an image lie to the p classes that have an object in it.

    `present` int32 [p] these classes; `overlaps` float32 [n, p] the largest IoU with an object of the class;
    `own_object` bool [n, p] whether the region is one.
    """

    present: NDArray[np.int32]
    overlaps: NDArray[np.float32]
    own_object: NDArray[np.bool_]


def present_overlaps(
    boxes: Boxes, is_object: NDArray[np.bool_], labels: NDArray[np.int32], unused: NDArray[np.bool_] | None = None
) -> Overlaps:
    """The overlaps of an image's regions `boxes` [n, 4] with its objects, those where `is_object` bool [n], of the
    classes `labels` int32 [n], but for the `unused` (bool [n])."""
    if unused is not None:
        is_object = is_object & ~unused
    present = np.unique(labels[is_object])
    columns = np.searchsorted(present, labels[is_object]).astype(np.int32)
    overlaps = class_overlaps(boxes, boxes[is_object], columns, len(present))
    return Overlaps(present, overlaps, is_object[:, None] & (labels[:, None] == present))


def positive_rows(here: Overlaps, positive_overlap: float) -> NDArray[np.bool_]:
    """Which regions are positives of an SVM: bool [n, p], the objects of its class and what overlaps one of them by
    `positive_overlap` or more (fine-tuning's definition, tried for SVMs in R-CNN's Appendix B)."""
    return here.own_object | reaches(here.overlaps, positive_overlap)


def negative_rows(
    overlaps: NDArray[np.float32], own_object: NDArray[np.bool_], negative_overlap: float
) -> NDArray[np.bool_]:
    """Which regions are negatives of an SVM (R-CNN section 2.3, rcnn_train.m): bool [n, k] for k classes.

    `overlaps` [n, k] are the largest IoU with an object of the class, and a negative's is strictly below
    `negative_overlap` or exactly 0: at a threshold of 0, the least of section 2.3's search, negatives are the
    regions that touch no object of the class. Objects of other classes may be negatives, the class's own (`own_object`
    [n, k]) never.
    """
    return (~reaches(overlaps, negative_overlap) | (overlaps == 0)) & ~own_object


def regression_pairs(
    boxes: Boxes, is_object: NDArray[np.bool_], min_overlap: float, unused: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which regions a box regressor learns from, and which regions, objects, they should become: rows int64 [e] each.

    R-CNN Appendix C, rcnn_train_bbox_regressor.m: regions (objects too) whose IoU with their nearest object is strictly
    more than `min_overlap`; the nearest object, of whatever class, is the target, of equally near ones the first. Boxes
    no wider or higher than one pixel have no scale to regress by and are left out, and so are `unused` regions (bool
    [n]) and those nearest to an unused object.
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
    """What each region shows: the class of the object that it overlaps most, int32 [n], -1 where that is less than
    `iou`. `objects` float32 [m, 4], `labels` int32 [m]."""
    nearest, overlap = nearest_objects(boxes, objects)
    shown = (nearest >= 0) & reaches(overlap, iou)
    return np.where(shown, np.append(labels, np.int32(-1))[nearest], -1).astype(np.int32)
