"""Accuracy of segmentations: against scikit-learn's confusion matrix, by hand, and resampled exactly."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as golden
from sklearn.metrics import jaccard_score

from stages.eval_segmentation.confusion import class_accuracy, confusion_matrix, resampled_accuracy
from stages.resampling import image_weights

VOID = 255


def maps(seed: int, classes: int, size: tuple[int, int] = (30, 40)) -> tuple[np.ndarray, np.ndarray]:
    """A random truth with some void pixels, and a segmentation that agrees in two thirds of them."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes + 1, size).astype(np.uint8)
    segmented = np.where(random.random(size) < 2 / 3, truth, random.integers(0, classes + 1, size)).astype(np.uint8)
    truth[random.random(size) < 0.1] = VOID
    return truth, segmented


@pytest.mark.parametrize("classes", [1, 3, 20])
def test_confusion_matrix_is_scikit_learns(classes):
    for seed in range(5):
        truth, segmented = maps(seed, classes)
        counted = truth != VOID
        expected = golden(truth[counted], segmented[counted], labels=np.arange(classes + 1))
        np.testing.assert_array_equal(confusion_matrix(truth, segmented, classes, VOID), expected)


def test_class_accuracy_is_the_jaccard_index_of_its_pixels():
    truth, segmented = maps(0, 4)
    counted = truth != VOID
    expected = jaccard_score(truth[counted], segmented[counted], labels=np.arange(5), average=None)
    np.testing.assert_allclose(class_accuracy(confusion_matrix(truth, segmented, 4, VOID)), expected, rtol=1e-12)


def test_by_hand():
    """Background 1 of 3, class 0 2 of 4; class 1 is not in the truth, so its accuracy is unknown."""
    truth = np.array([[0, 0, 1, 1], [1, VOID, VOID, VOID]], np.uint8)
    segmented = np.array([[0, 1, 1, 1], [0, 2, 0, 1]], np.uint8)
    matrix = confusion_matrix(truth, segmented, 2, VOID)
    assert matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    np.testing.assert_array_equal(class_accuracy(matrix), [1 / 3, 1 / 2, np.nan])
    truth[1, 1] = 0  # labelled as class 1: the background loses it, and class 1 still has nothing to find
    np.testing.assert_array_equal(class_accuracy(confusion_matrix(truth, segmented, 2, VOID)), [1 / 4, 1 / 2, np.nan])


def test_truth_without_any_pixel_and_a_perfect_segmentation():
    truth = np.full((3, 4), VOID, np.uint8)
    assert np.isnan(class_accuracy(confusion_matrix(truth, np.zeros_like(truth), 2, VOID))).all()
    truth, _ = maps(1, 3)
    same = np.where(truth == VOID, 0, truth).astype(np.uint8)
    assert class_accuracy(confusion_matrix(truth, same, 3, VOID)).tolist() == [1, 1, 1, 1]


def test_resampling_is_evaluating_the_drawn_images():
    """Exactly, image by image; a class without pixels in a resample is left out of its mean."""
    truths, segmented = zip(*(maps(seed, 3, (6, 5)) for seed in range(4)), strict=True)
    truths[0][truths[0] == 3] = 1  # so that class 2 is missing from resamples of image 0 alone
    matrices = np.stack([confusion_matrix(a, b, 3, VOID) for a, b in zip(truths, segmented, strict=True)])
    weights = image_weights(4, 200, seed=0)
    weights[:, 0] = [4, 0, 0, 0]
    classes, means = resampled_accuracy(matrices, weights)
    for column in range(weights.shape[1]):
        drawn = np.repeat(np.arange(4), weights[:, column].astype(int))
        whole = confusion_matrix(
            np.concatenate([truths[image] for image in drawn]),
            np.concatenate([segmented[image] for image in drawn]),
            3,
            VOID,
        )
        np.testing.assert_allclose(classes[:, column], class_accuracy(whole), rtol=1e-12)
        np.testing.assert_allclose(means[column], np.nanmean(class_accuracy(whole)), rtol=1e-12)
    assert np.isnan(classes[3, 0])
