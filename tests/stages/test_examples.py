"""Which regions no stage trains on, by hand and against COCO's own overlap with a crowd."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from stages.boxes import as_boxes, covered_share
from stages.contract.errors import StageError
from stages.matching.examples import unused_regions, unused_rows

CROWD, ONE, OWL = (0, 0, 50, 40), (20, 10, 30, 20), (60, 0, 70, 10)
BOXES = [
    CROWD,
    ONE,
    OWL,
    (0, 0, 10, 10),  # in the crowd
    (40, 0, 54, 10),  # 10 of 14 columns in it: more than 0.7
    (43, 0, 53, 10),  # 7 of 10: not more
    (0, 0, 100, 80),  # around it: a quarter
    (80, 80, 90, 90),
]
FLAGS = np.zeros(3, bool)


def test_crowds_and_what_lies_in_them_are_no_examples_but_an_object_is_one_wherever_it_lies() -> None:
    crowds = np.array([True, False, False])
    found = unused_regions(as_boxes(BOXES), crowds, crowds, "train")
    assert np.flatnonzero(found).tolist() == [0, 3, 4]
    difficult = np.array([True, False, True])
    assert np.flatnonzero(unused_regions(as_boxes(BOXES), difficult, crowds, "train")).tolist() == [0, 3, 4]
    assert np.flatnonzero(unused_regions(as_boxes(BOXES), difficult, crowds, "ignore")).tolist() == [0, 2, 3, 4]


def test_without_crowds_only_the_setting_leaves_out() -> None:
    difficult = np.array([False, True, False])
    assert not unused_regions(as_boxes(BOXES), difficult, FLAGS, "train").any()
    assert np.flatnonzero(unused_regions(as_boxes(BOXES), difficult, FLAGS, "ignore")).tolist() == [1]
    assert unused_regions(as_boxes([]), FLAGS[:0], FLAGS[:0], "ignore").tolist() == []


def test_crowds_are_read_from_the_annotations_of_the_images_that_have_some(region_image: Any) -> None:
    record = region_image(BOXES, [0, 0, 1], np.zeros((8, 1)), difficult=[True])
    read = []

    def annotated(image_id: str) -> Any:
        read.append(image_id)
        return SimpleNamespace(crowds=np.array([True, False, False]))

    dataset = SimpleNamespace(name="toy", images_with_crowds=frozenset({"a"}), record=annotated)
    assert np.flatnonzero(unused_rows(record, "a", dataset, "train")).tolist() == [0, 3, 4]
    assert not unused_rows(record, "b", dataset, "train").any()
    assert read == ["a"]
    skipped = region_image(np.zeros((0, 4)), [], np.zeros((0, 1)))
    assert unused_rows(skipped, "a", dataset, "train").tolist() == []
    other = region_image(BOXES, [0, 0], np.zeros((8, 1)))
    with pytest.raises(StageError, match="'a' have 2 objects but its annotation in toy has 3"):
        unused_rows(other, "a", dataset, "train")


CORNERS = st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2), min_size=1, max_size=5)


@given(CORNERS, CORNERS)
def test_the_share_of_a_box_in_a_region_is_cocos_iou_with_a_crowd(first: Any, second: Any) -> None:
    """pycocotools takes (x, y, width, height)."""
    expected = mask.iou(np.array(first, float), np.array(second, float), [1] * len(second))
    boxes, regions = (as_boxes([(x, y, x + w, y + h) for x, y, w, h in rows]) for rows in (first, second))
    np.testing.assert_allclose(covered_share(boxes, regions), expected, rtol=1e-12)


def test_nothing_of_a_box_without_area_lies_anywhere() -> None:
    assert covered_share(as_boxes([(5, 5, 5, 9)]), as_boxes([CROWD])).tolist() == [[0]]
