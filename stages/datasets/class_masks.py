"""Masks of classes and of objects: which pixels of an image belong to what, with pixels that belong to nothing known.

A class mask is uint8 [H, W]: 0 is the background, k + 1 the dataset's class k, and VOID pixels, of which it is not said
what they show, count for nothing (VOC's contours around objects).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ClassMask = NDArray[np.uint8]
"""[H, W]: 0 background, k + 1 class k, VOID."""
ObjectMasks = tuple[NDArray[np.int32], NDArray[np.bool_]]
"""n objects: their labels [n], which index the dataset's classes, and their masks [n, H, W]."""

VOID = 255
MOST_CLASSES = 254
LEAST_COMPONENT = 100
"""Pixels of the smallest component that is an object: VOC's void contours leave specks between them, mostly single
pixels (the spokes of a bicycle), which are none."""


def components(class_mask: ClassMask) -> ObjectMasks:
    """The connected components of each class (pixels that touch at a corner are connected), by class, then by their
    first pixel; those smaller than LEAST_COMPONENT are left out.

    Two objects that touch are one component, and an object in two pieces is two.
    """
    from scipy.ndimage import label

    labels, masks = [], []
    for index in np.unique(class_mask[(class_mask != 0) & (class_mask != VOID)]):
        numbers, count = label(class_mask == index, structure=np.ones((3, 3)))
        large = np.flatnonzero(np.bincount(numbers.ravel(), minlength=count + 1)[1:] >= LEAST_COMPONENT) + 1
        labels += [int(index) - 1] * len(large)
        masks += [numbers == number for number in large]
    return stacked(labels, masks, class_mask.shape)


def objects_of(class_mask: ClassMask, object_mask: NDArray[np.uint8]) -> ObjectMasks:
    """The objects of `object_mask` uint8 [H, W] (0 background, i object i, VOID), in ascending order.

    An object's label is that of most of its pixels in `class_mask`; one without pixels of a class is left out.
    """
    labels, masks = [], []
    for number in np.unique(object_mask[(object_mask != 0) & (object_mask != VOID)]):
        mask = object_mask == number
        counts = np.bincount(class_mask[mask], minlength=VOID + 1)[1:VOID]
        if counts.any():
            labels.append(int(counts.argmax()))
            masks.append(mask)
    return stacked(labels, masks, class_mask.shape)


def stacked(labels: list[int], masks: list[NDArray[np.bool_]], shape: tuple[int, ...]) -> ObjectMasks:
    """Labels and masks, each [H, W] = `shape`, as arrays, of which there may be none."""
    return np.array(labels, np.int32), np.array(masks, np.bool_).reshape(len(masks), *shape)
