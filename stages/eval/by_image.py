"""A detector's result on each image, so that two detectors can be compared image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageCounts:
    """Per image: objects `found` and `false` positives, int64 [I], and the `worth` of its detections, float64 [I]."""

    found: NDArray[np.int64]
    false: NDArray[np.int64]
    worth: NDArray[np.float64]


def by_image(
    images: NDArray[np.int64],
    true: NDArray[np.bool_],
    false: NDArray[np.bool_],
    precision: NDArray[np.float64],
    count: int,
) -> ImageCounts:
    """The counts of `count` images, from n detections: their `images` int64 [n], whether each is `true` or `false`,
    bool [n] (neither: not counted), and the detector's `precision` at its score, float64 [n].

    An image's worth is the sum of the precisions of its true positives minus that of its false positives. Simply
    subtracting their numbers would not do: down to the score where its precision is 0.5, any detector has as many false
    positives as true ones, so the difference says nothing about its quality. Weighted by precision, a confident true
    positive counts nearly 1, an uncertain one half, and a confident false positive costs the most.
    """
    signed = np.where(true, 1.0, 0.0) - np.where(false, 1.0, 0.0)
    counted = signed != 0
    return ImageCounts(
        np.bincount(images[true], minlength=count),
        np.bincount(images[false], minlength=count),
        np.bincount(images[counted], (signed * precision)[counted], minlength=count).astype(np.float64),
    )
