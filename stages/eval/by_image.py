"""What a detector does on each image, so that two detectors can be compared image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageCounts:
    """Of I images: objects `found` and `false` positives, int64 [I], and the `worth` of the detections, float64 [I]."""

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
    """The counts of `count` images from n detections: `images` int64 [n], whether each is `true` or `false` bool [n]
    (neither: it is not counted), and the detector's `precision` at its score, float64 [n].

    An image is worth the precisions of its true detections less those of its false ones. The number of true ones less
    that of false ones would not do: down to the score where a detector's precision is 0.5 it has as many false as true
    ones, so that their difference says nothing of how good it is. Weighted by precision, a confident true detection
    counts nearly 1, one that is as likely false counts half, and a confident false one costs the most.
    """
    signed = np.where(true, 1.0, 0.0) - np.where(false, 1.0, 0.0)
    counted = signed != 0
    return ImageCounts(
        np.bincount(images[true], minlength=count),
        np.bincount(images[false], minlength=count),
        np.bincount(images[counted], (signed * precision)[counted], minlength=count).astype(np.float64),
    )
