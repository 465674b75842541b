"""Matching anchors to objects, to train a region proposal network (Faster R-CNN section 3.1.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, encode_deltas, iou_matrix, reaches
from stages.matching.overlaps import nearest_objects

POSITIVE, NEGATIVE, UNUSED = 1, 0, -1


def anchor_labels(
    anchors: Boxes,
    objects: Boxes,
    positive_overlap: float = 0.7,
    negative_overlap: float = 0.3,
    best_of_object: bool = True,
    untouched_objects: bool = True,
) -> NDArray[np.int8]:
    """The label of each of n `anchors` [n, 4], those inside the image: int8 [n], POSITIVE, NEGATIVE or UNUSED.

    py-faster-rcnn, lib/rpn/anchor_target_layer.py, for `objects` float32 [m, 4]: an anchor is negative if no IoU
    reaches `negative_overlap`; then positive if it is the best of some object (with `best_of_object`; all of them, if
    tied) or if an IoU reaches `positive_overlap`. Without objects, all are negative.

    As in the release, the best anchors of an object that touches none of them are all with its highest IoU, 0: every
    anchor that does not touch it becomes positive. With `untouched_objects=False` such an object has none.
    """
    labels = np.full(len(anchors), UNUSED, np.int8)
    overlaps = iou_matrix(anchors, objects)
    best = overlaps.max(axis=1, initial=0.0)
    labels[~reaches(best, negative_overlap)] = NEGATIVE
    if best_of_object and len(anchors):
        highest = overlaps.max(axis=0)
        is_best = (overlaps == highest) & (untouched_objects | (highest > 0))
        labels[is_best.any(axis=1)] = POSITIVE
    labels[reaches(best, positive_overlap)] = POSITIVE
    return labels


def anchor_deltas(anchors: Boxes, objects: Boxes) -> NDArray[np.float64]:
    """The deltas that move each of `anchors` [n, 4] onto the object that it overlaps most (the first, if tied): float64
    [n, 4]; zeros without objects.

    This is the target also of an anchor that is positive because it is the best of another object. Faster R-CNN's sides
    count the last pixel (lib/fast_rcnn/bbox_transform.py), unlike R-CNN's.
    """
    nearest, _ = nearest_objects(anchors, objects)
    if not len(objects):
        return np.zeros((len(anchors), 4))
    return encode_deltas(anchors, objects[nearest], short=0)
