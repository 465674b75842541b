"""Confusion matrices of pixels, and the accuracy of a segmentation from them (VOCevalseg.m).

Symbols: K classes; C = K + 1 with the background, which is class 0; I images; B bootstrap resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.resampling import resampled_mean

Counts = NDArray[np.int64]


def confusion_matrix(truth: NDArray[np.uint8], segmented: NDArray[np.uint8], classes: int, void: int) -> Counts:
    """How many pixels of each class are labelled as each: int64 [C, C], a row for each class of the truth.

    `truth` and `segmented` uint8 [H, W]: 0 for the background, k + 1 for class k of `classes`. Pixels whose truth is
    `void` are left out.
    """
    counted = truth != void
    pairs = truth[counted].astype(np.int64) * (classes + 1) + segmented[counted]
    return np.bincount(pairs, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


def class_accuracy(matrices: NDArray[np.integer | np.floating]) -> NDArray[np.float64]:
    """The accuracy of each class from confusion matrices [..., C, C]: float64 [..., C].

    True pixels over the union of the class's pixels and those labelled so (intersection over union); nan for a class
    that has no pixels in the truth, of which nothing can be found.
    """
    return accuracy_of(*summands(matrices))


def summands(
    matrices: NDArray[np.integer | np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The pixels of each class that are labelled correctly, that are its own, and that are labelled so: float64
    [..., C] each."""
    true = np.diagonal(matrices, axis1=-2, axis2=-1)
    own, labelled = matrices.sum(axis=-1), matrices.sum(axis=-2)
    return true.astype(np.float64), own.astype(np.float64), labelled.astype(np.float64)


def accuracy_of(
    true: NDArray[np.float64], own: NDArray[np.float64], labelled: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`class_accuracy` of the `summands` of a matrix, or of the sums of those of several: float64 [..., C]."""
    return np.divide(true, own + labelled - true, out=np.full(true.shape, np.nan), where=own > 0)


def resampled_accuracy(
    matrices: Counts, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The accuracy of each class and the mean over classes in each resample: float64 [C, B] and [B].

    `matrices` are those of the images, [I, C, C], and `weights` [I, B] how often each image is drawn: this is exactly
    what evaluating the drawn images would give. The mean is over the classes with pixels in the resample.
    """
    true, own, labelled = (weights.T @ part for part in summands(matrices))
    classes = accuracy_of(true, own, labelled).T
    return classes, resampled_mean(classes)
