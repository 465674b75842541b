"""Which objects boxes overlap most, in an image or in a set of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, iou_matrix


def nearest_objects(boxes: Boxes, objects: Boxes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The object of `objects` float32 [m, 4] that each of the `boxes` float32 [n, 4] overlaps most, of equals the
    first: (index int64 [n], IoU float64 [n]); (-1, 0) where there are no objects."""
    if not len(objects):
        return np.full(len(boxes), -1, np.int64), np.zeros(len(boxes))
    iou = iou_matrix(boxes, objects)
    return iou.argmax(axis=1), iou.max(axis=1)


def class_overlaps(
    boxes: Boxes, object_boxes: Boxes, object_labels: NDArray[np.int32], classes: int
) -> NDArray[np.float32]:
    """For every box and class, the largest IoU with an object of that class: float32 [n, classes] (section 2.3).

    `boxes` float32 [n, 4], `object_boxes` float32 [m, 4], `object_labels` int32 [m]; 0 for a class without objects.
    """
    overlaps = np.zeros((len(boxes), classes), np.float32)
    iou = iou_matrix(boxes, object_boxes)
    for column, label in enumerate(object_labels):
        np.maximum(overlaps[:, label], iou[:, column], out=overlaps[:, label])
    return overlaps


def shared_images(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """For each image in both: its rows in `first` [n] and in `second` [m], which are image indices, ascending."""
    both = np.intersect1d(first, second)
    starts, ends = np.searchsorted(first, both), np.searchsorted(first, both, side="right")
    lows, highs = np.searchsorted(second, both), np.searchsorted(second, both, side="right")
    places = zip(starts.tolist(), ends.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [(slice(start, end), slice(low, high)) for start, end, low, high in places]
