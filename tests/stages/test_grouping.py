"""Hierarchical grouping: by hand, by its properties, and box by box against OpenCV's."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.propose.grouping import COLOUR_BINS, TEXTURE_BINS, Strategy, bin_of, describe, features_of, group
from stages.propose.segmentation import pixel_graph, segment
from tests.stages.drawn_photos import photo

CV = cv2.ximgproc.segmentation
THEIRS = {
    "colour": CV.createSelectiveSearchSegmentationStrategyColor,
    "fill": CV.createSelectiveSearchSegmentationStrategyFill,
    "texture": CV.createSelectiveSearchSegmentationStrategyTexture,
    "size": CV.createSelectiveSearchSegmentationStrategySize,
}
STRATEGIES = [
    *((name,) for name in THEIRS),
    ("fill", "texture", "size"),
    ("colour", "fill", "texture", "size"),
]
SHARES = {1: 1.0, 3: 0.3333, 4: 0.25}  # OpenCV's


def theirs(image: np.ndarray, names: tuple[str, ...], k: int) -> np.ndarray:
    """The distinct boxes int64 [n, 4] that OpenCV finds by one strategy from one segmentation."""
    search = CV.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.addImage(image)
    search.addGraphSegmentation(CV.createGraphSegmentation(0.8, k, 100))
    search.addStrategy(CV.createSelectiveSearchSegmentationStrategyMultiple(*(THEIRS[name]() for name in names)))
    found = np.asarray(search.process(), np.int64)
    return np.unique(np.hstack([found[:, :2], found[:, :2] + found[:, 2:]]), axis=0)


@pytest.mark.parametrize("names", STRATEGIES, ids="+".join)
@pytest.mark.parametrize("space", ["rgb", "hsv", "lab", "grey"])
def test_the_boxes_are_opencvs(names, space):
    image = photo((110, 150), seed=len(space))
    codes = {"hsv": cv2.COLOR_BGR2HSV, "lab": cv2.COLOR_BGR2Lab, "grey": cv2.COLOR_BGR2GRAY}
    image = np.asarray(cv2.cvtColor(image, codes[space]) if space in codes else image, np.uint8)
    labels = np.asarray(CV.createGraphSegmentation(0.8, 30, 100).processImage(image), np.int32)
    regions = describe(labels, features_of(image.reshape(*labels.shape, -1)))
    assert len(regions.sizes) > 8
    tree = group(regions, labels.size, Strategy(**dict.fromkeys(names, SHARES[len(names)])))
    np.testing.assert_array_equal(np.unique(tree.boxes, axis=0), theirs(image, names, 30))


@pytest.mark.parametrize("shape", [(30, 200), (200, 30), (60, 130), (2, 12)])
def test_long_images_have_opencvs_textures(shape):
    image = photo(shape)
    labels = np.asarray(CV.createGraphSegmentation(0.8, 30, 100).processImage(image), np.int32)
    tree = group(describe(labels, features_of(image)), labels.size, Strategy(texture=1))
    np.testing.assert_array_equal(np.unique(tree.boxes, axis=0), theirs(image, ("texture",), 30))


def test_by_hand():
    """Three strips of a grey image: the two dark ones look alike, the bright one joins last."""
    image = np.repeat(np.array([20, 25, 200], np.uint8), [3, 4, 5])[None, :, None].repeat(6, axis=0)
    labels = np.repeat(np.arange(3, dtype=np.int32), [3, 4, 5])[None].repeat(6, axis=0)
    regions = describe(labels, features_of(image))
    assert regions.sizes.tolist() == [18, 24, 30]
    assert regions.boxes.tolist() == [[0, 0, 3, 6], [3, 0, 7, 6], [7, 0, 12, 6]]
    assert regions.pairs.tolist() == [[0, 1], [1, 2]]
    assert [np.flatnonzero(histogram).tolist() for histogram in regions.colour] == [[1], [2], [19]]
    tree = group(regions, labels.size, Strategy(texture=1))
    assert tree.boxes[3:].tolist() == [[0, 0, 7, 6], [0, 0, 12, 6]]
    assert tree.parts.tolist() == [[0, 1], [3, 2]] or tree.parts.tolist() == [[0, 1], [2, 3]]


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 999))
@example(2, 12, 0)  # a gradient that is positive everywhere: 0 is outside its range
def test_every_region_is_the_union_of_two_and_the_last_is_the_image(height, width, seed):
    image = photo((height, width), seed=seed)
    labels = segment(pixel_graph(image, 0.8), 20, 4)
    regions = describe(labels, features_of(image))
    tree = group(regions, labels.size, Strategy(0.25, 0.25, 0.25, 0.25))
    count = len(regions.sizes)
    assert len(tree.boxes) == 2 * count - 1
    assert tree.boxes[-1].tolist() == [0, 0, width, height]
    for number, (first, second) in enumerate(tree.parts, count):
        assert max(first, second) < number
        both = tree.boxes[[first, second]]
        assert tree.boxes[number].tolist() == [*both[:, :2].min(axis=0), *both[:, 2:].max(axis=0)]
    merged = tree.parts.ravel().tolist()
    assert sorted(merged) == list(range(2 * count - 2)), "every region but the last is a part of one other"


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1)])
def test_an_image_of_one_row_or_column_has_no_neighbours_as_in_opencv(shape):
    image = photo(shape)
    labels = segment(pixel_graph(image, 0.8), 5, 3)
    tree = group(describe(labels, features_of(image)), labels.size, Strategy(colour=1))
    assert len(tree.boxes) == labels.max() + 1
    assert tree.parts.shape == (0, 2)


def test_histograms_sum_to_one():
    image = photo((50, 70))
    regions = describe(segment(pixel_graph(image, 0.8), 50, 50), features_of(image))
    np.testing.assert_allclose(regions.colour.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(regions.texture.sum(axis=1), 1, atol=1e-5)
    assert regions.colour.shape[1] == 3 * COLOUR_BINS
    assert regions.texture.shape[1] == 3 * 8 * TEXTURE_BINS


def test_bins_are_those_of_a_range_to_256():
    bins = [bin_of(np.float32(value), np.float32(1), np.float32(0)) for value in range(256)]
    assert bins == [int(np.float32(value) / np.float32(25.6)) for value in range(256)]
    assert all(step in (0, 1) for step in (b - a for a, b in pairwise(bins)))
