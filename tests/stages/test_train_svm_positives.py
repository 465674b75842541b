"""Positives of the SVMs, on boxes worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.train_svm.positives import positives_of, read_positives


def test_objects_are_found_where_they_are(region_image: Any, feature_cache: Any, with_classes: Any) -> None:
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]]
    two, none, one = (region_image(boxes, labels, np.eye(3)) for labels in ([0, 1], [], [0]))
    features = feature_cache([two, none, one])
    positives = read_positives(features, with_classes(features, ("a", "b"))["images"], 1.0, "train")
    np.testing.assert_array_equal(positives.labels, [0, 1, 0])
    np.testing.assert_array_equal(positives.images, [0, 0, 2])
    np.testing.assert_array_equal(positives.rows, [0, 1, 0])
    np.testing.assert_array_equal(positives.of_class(0), [[0, 2], [0, 0]])


@pytest.mark.parametrize(
    ("positive_overlap", "expected"),
    [
        (1.0, [(0, 2), (1, 0)]),  # not the proposal that has an object's very box
        (0.75, [(0, 2), (1, 0), (2, 2)]),
        (0.5, [(0, 2), (1, 0), (2, 2), (3, 2), (4, 0), (4, 2)]),
    ],
)
def test_below_one_a_positive_overlaps_an_object_that_much(
    positive_overlap: float, expected: list[tuple[int, int]], region_image: Any
) -> None:
    # an owl, a cat that covers half of it, the owl's box again, half of the owl, and what has an IoU of 0.6 with both
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10], [0, 0, 10, 5], [2.5, 0, 12.5, 10]]
    record = region_image(boxes, [2, 0], np.eye(5))
    rows, labels = positives_of(record, positive_overlap, np.zeros(5, bool))
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("difficult", "positive_overlap", "expected"),
    [
        ("train", 1.0, [(0, 2), (1, 0)]),
        ("ignore", 1.0, [(1, 0)]),
        ("ignore", 0.5, [(1, 0), (4, 0)]),  # the owl's box is no cat's, and what is half an owl is nothing
    ],
)
def test_difficult_objects_are_positives_unless_they_are_to_be_ignored(
    difficult: str, positive_overlap: float, expected: list[tuple[int, int]], region_image: Any, feature_cache: Any,
    with_classes: Any,
) -> None:  # fmt: skip
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10], [0, 0, 10, 5], [2.5, 0, 12.5, 10]]
    features = feature_cache([region_image(boxes, [2, 0], np.eye(5), difficult=[True])])
    images = with_classes(features, ("cat", "dog", "owl"))["images"]
    found = read_positives(features, images, positive_overlap, difficult)
    assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == expected
