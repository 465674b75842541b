"""The objects that boxes overlap most, in one image or in a set of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, iou_matrix


def nearest_objects(boxes: Boxes, objects: Boxes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each of `boxes` float32 [n, 4], the one of `objects` float32 [m, 4] that it overlaps most (the first, if
    tied): (index int64 [n], IoU float64 [n]), or (-1, 0) if there are no objects."""
    if not len(objects):
        return np.full(len(boxes), -1, np.int64), np.zeros(len(boxes))
    iou = iou_matrix(boxes, objects)
    return iou.argmax(axis=1), iou.max(axis=1)


def class_overlaps(
    boxes: Boxes, object_boxes: Boxes, object_labels: NDArray[np.int32], classes: int
) -> NDArray[np.float32]:
    """For every box and class, the highest IoU with an object of that class: float32 [n, classes] (R-CNN section 2.3).

    `boxes` float32 [n, 4], `object_boxes` float32 [m, 4], `object_labels` int32 [m]; 0 for classes without objects.
    """
    overlaps = np.zeros((len(boxes), classes), np.float32)
    iou = iou_matrix(boxes, object_boxes)
    for column, label in enumerate(object_labels):
        np.maximum(overlaps[:, label], iou[:, column], out=overlaps[:, label])
    return overlaps


def shared_images(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """For each image in both `first` [n] and `second` [m], ascending image indices: its rows in each, as slices."""
    both = np.intersect1d(first, second)
    starts, ends = np.searchsorted(first, both), np.searchsorted(first, both, side="right")
    lows, highs = np.searchsorted(second, both), np.searchsorted(second, both, side="right")
    places = zip(starts.tolist(), ends.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [(slice(start, end), slice(low, high)) for start, end, low, high in places]
