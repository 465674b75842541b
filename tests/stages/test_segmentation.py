"""Graph-based segmentation: by hand, and against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.propose.segmentation import ascending, pixel_graph, segment
from tests.stages.drawn_photos import photo

SHARP = 1e-3  # a blur that changes nothing


def row(*values: int) -> np.ndarray:
    """A grey image of one row."""
    return np.array(values, np.uint8).reshape(1, -1, 1)


@pytest.mark.parametrize(
    ("k", "min_size", "labels"),
    [
        (1, 1, [0, 0, 1, 1, 2]),
        (100, 1, [0, 0, 0, 0, 0]),
        (1, 2, [0, 0, 1, 1, 1]),  # the last pixel is joined to its only neighbour
        (12, 1, [0, 0, 1, 1, 1]),  # Int + k / |C| is 1 + 12 / 2 = 7 on both sides of the edge of weight 9: no join
    ],
)
def test_by_hand(k, min_size, labels):
    graph = pixel_graph(row(0, 1, 10, 11, 17), SHARP)
    assert graph.weights.tolist() == [1, 1, 6, 9]
    assert segment(graph, k, min_size).tolist() == [labels]


def test_neighbours_on_the_diagonal():
    """A chequered image falls into pixels with 4 neighbours, into two regions with 8."""
    image = (np.indices((4, 5)).sum(axis=0) % 2 * 200).astype(np.uint8)[:, :, None]
    assert segment(pixel_graph(image, SHARP, 4), 1, 1).max() == 19
    np.testing.assert_array_equal(segment(pixel_graph(image, SHARP, 8), 1, 1), image[:, :, 0] // 200)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (30, 50)])
def test_one_colour_is_one_region(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    np.testing.assert_array_equal(segment(pixel_graph(image, 0.8), 50, 100), np.zeros(shape))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(60, 90), (1, 300), (300, 1), (7, 5)])
@pytest.mark.parametrize(("k", "min_size"), [(20, 10), (50, 100), (150, 100)])
def test_it_is_opencvs(shape, channels, k, min_size):
    image = photo(shape, channels, seed=k)
    theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.8, k, min_size).processImage(image)
    ours = segment(pixel_graph(image, 0.8), k, min_size)
    np.testing.assert_array_equal(ours, theirs.reshape(shape))


@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 5), max_size=60))
def test_equal_values_keep_their_order(values):
    keys = ascending(np.array(values, np.uint32))
    order = np.argsort(np.array(values, np.uint32), kind="stable")
    assert [divmod(int(key), 2**32) for key in keys] == [(values[place], place) for place in order]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_regions_are_connected_and_no_smaller_than_asked(height, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    labels = segment(pixel_graph(image, 0.8), 30, 5)
    sizes = np.bincount(labels.ravel())
    assert sizes.min() >= min(5, height * width)
    for label in range(len(sizes)):
        assert cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)[0] == 2
