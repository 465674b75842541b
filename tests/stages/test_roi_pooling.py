"""RoI pooling: cells worked out by hand, the original's rule in NumPy, and what coincides on the map computed once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.networks import NETWORKS
from stages.networks.roi_pooling import corner_cells, map_boxes, map_regions, nearest_scale, pooled_regions
from stages.networks.roi_warping import roi_warp

VGG, SQUEEZENET = NETWORKS["vgg16"].trunk, NETWORKS["squeezenet1_0"].trunk


def original(cells: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """Fast R-CNN's RoI max pooling of one region: cells float32 [C, H, W], corners (x1, y1, x2, y2) in cells.

    Corners are inclusive. Every bin is rounded outwards to whole cells and clipped to the map; one without cells is 0.
    """
    channels, height, width = cells.shape
    pooled = np.zeros((channels, size, size), np.float32)
    x1, y1, x2, y2 = corners.tolist()
    bin_width, bin_height = (
        np.float32(max(last - first + 1, 1)) / np.float32(size) for first, last in ((x1, x2), (y1, y2))
    )
    for row in range(size):
        top = min(max(int(np.floor(np.float32(row) * bin_height)) + y1, 0), height)
        bottom = min(max(int(np.ceil(np.float32(row + 1) * bin_height)) + y1, 0), height)
        for column in range(size):
            left = min(max(int(np.floor(np.float32(column) * bin_width)) + x1, 0), width)
            right = min(max(int(np.ceil(np.float32(column + 1) * bin_width)) + x1, 0), width)
            if bottom > top and right > left:
                pooled[:, row, column] = cells[:, top:bottom, left:right].max(axis=(1, 2))
    return pooled


def pooled(cells: np.ndarray, boxes: np.ndarray, size: int, pooling: str = "max", trunk=VGG, scale: float = 1.0):
    """The boxes' regions of one map, one by one: [N, C, size, size]."""
    regions = map_regions(boxes, [scale], trunk, 224, pooling)
    batches = list(pooled_regions([torch.from_numpy(cells)], regions, size, pooling, 7))
    return torch.cat(batches).numpy()[regions.inverse]


def test_cells_by_hand():
    """A corner belongs to the nearest multiple of the stride, half a stride upwards; the last pixel is that before x2.

    At stride 16, the box (8, 7, 25, 24) has its first pixel in column 8 (8 / 16 = 0.5: cell 1) and row 7 (0.44: cell
    0), its last one in column 24 (1.5: cell 2) and row 23 (1.44: cell 1).
    """
    boxes = np.array([[8, 7, 25, 24], [0, 0, 1, 1], [0, 0, 500, 375]], np.float32)
    np.testing.assert_array_equal(corner_cells(boxes, np.ones(3), 16), [[1, 0, 2, 1], [0, 0, 0, 0], [0, 0, 31, 23]])
    doubled = corner_cells(boxes[:1], np.full(1, 2.0), 16)
    np.testing.assert_array_equal(doubled, [[1, 1, 3, 3]])  # pixels 16, 14 to 48, 46: 1, 0.875 to 3, 2.875


def test_bins_by_hand():
    """Three cells in two bins overlap by one: [0, 2) and [1, 3)."""
    cells = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    box = np.array([[0, 16, 33, 49]], np.float32)  # columns 0 to 2, rows 1 to 3
    np.testing.assert_array_equal(pooled(cells, box, 2), [[[[9, 10], [13, 14]]]])
    one_cell = np.array([[16, 16, 17, 17]], np.float32)
    np.testing.assert_array_equal(pooled(cells, one_cell, 2), np.full((1, 1, 2, 2), 5.0))
    outside = np.array([[400, 400, 420, 420]], np.float32)
    np.testing.assert_array_equal(pooled(cells, outside, 2), np.zeros((1, 1, 2, 2)))


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 4, 6, 7]))
def test_max_pooling_is_the_originals_bit_for_bit(seed, size):
    """Boxes inside, outside, inverted, and with corners exactly between two cells."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 30, 2)
    cells = generator.normal(size=(3, height, width)).astype(np.float32)
    corners = generator.integers(-40, 16 * 32, (20, 4)).astype(np.float32)
    corners[::2] = 8 * np.round(corners[::2] / 8)
    scale = float(generator.uniform(0.4, 3))
    found = pooled(cells, corners, size, scale=scale)
    expected = [original(cells, row, size) for row in corner_cells(corners, np.full(20, scale), 16)]
    np.testing.assert_array_equal(found, expected)


def test_it_is_torchvisions_given_inclusive_corners():
    """Which scales and rounds by itself."""
    from torchvision.ops import roi_pool

    generator = np.random.default_rng(0)
    cells = generator.normal(size=(4, 20, 31)).astype(np.float32)
    first = generator.uniform(0, 400, (300, 2))
    boxes = np.hstack([first, first + generator.uniform(1, 300, first.shape)]).astype(np.float32)
    inclusive = torch.from_numpy(boxes - np.array([0, 0, 1, 1], np.float32))
    expected = roi_pool(torch.from_numpy(cells)[None], [inclusive], 7, spatial_scale=1 / 16)
    np.testing.assert_array_equal(pooled(cells, boxes, 7), expected.numpy())


def test_align_by_hand():
    """On a map whose cells hold the position of their own centre, every bin of RoIAlign holds the position of its
    centre in the image, wherever the network's cells lie."""
    for trunk in (VGG, SQUEEZENET):
        centres = trunk.first_centre + trunk.stride * np.arange(40, dtype=np.float32)
        cells = np.stack(np.broadcast_arrays(centres[None, :], centres[:, None])).astype(np.float32)
        box = np.array([[100, 60, 420, 220]], np.float32)
        x, y = pooled(cells, box, 4, "align", trunk)[0]
        np.testing.assert_allclose(x[0], [140, 220, 300, 380], rtol=1e-5)
        np.testing.assert_allclose(y[:, 0], [80, 120, 160, 200], rtol=1e-5)


def test_warping_is_roi_warp():
    """In extraction as in training, but for float32's last digits; boxes at the map's edges and outside, too."""
    generator = np.random.default_rng(0)
    cells = generator.normal(size=(3, 12, 17)).astype(np.float32)
    first = generator.uniform(-60, 250, (40, 2))
    boxes = np.hstack([first, first + generator.uniform(1, 200, first.shape)]).astype(np.float32)
    corners = torch.from_numpy(map_boxes(boxes, np.ones(40), SQUEEZENET))
    expected = roi_warp(torch.from_numpy(cells)[None], corners, 5)
    np.testing.assert_allclose(pooled(cells, boxes, 5, "warp", SQUEEZENET), expected, atol=1e-4)


def test_boxes_on_the_map():
    """VGG's first cell is centred at 8: the middle of the cell 0 is the corner of a box at 8."""
    boxes = np.array([[8, 24, 40, 56]], np.float32)
    np.testing.assert_array_equal(map_boxes(boxes, np.ones(1), VGG), [[0.5, 1.5, 2.5, 3.5]])
    np.testing.assert_array_equal(map_boxes(boxes, np.full(1, 2.0), VGG), [[1, 3, 5, 7]])


def test_nearest_scale_by_hand():
    """fidelity: the level whose scaled area is nearest to 224 x 224, the first of equals."""
    boxes = np.array([[0, 0, 100, 100], [0, 0, 224, 224], [0, 0, 400, 300], [5, 5, 5, 5]], np.float32)
    np.testing.assert_array_equal(nearest_scale(boxes, [0.5, 1.0, 2.0], 224), [2, 1, 0, 0])
    assert nearest_scale(np.zeros((0, 4), np.float32), [1.0], 224).shape == (0,)


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_what_coincides_on_the_map_is_pooled_once(pooling):
    """The second and third box cover the same cells; for RoIAlign only equal boxes coincide."""
    boxes = np.array([[300, 300, 400, 400], [0, 0, 100, 100], [1, 1, 101, 101], [0, 0, 100, 100]], np.float32)
    regions = map_regions(boxes, [1.0], VGG, 224, pooling)
    assert len(regions.levels) == (2 if pooling == "max" else 3)
    cells = np.random.default_rng(0).normal(size=(2, 30, 30)).astype(np.float32)
    together = pooled(cells, boxes, 7, pooling)
    alone = np.concatenate([pooled(cells, box[None], 7, pooling) for box in boxes])
    np.testing.assert_array_equal(together, alone)


def test_regions_of_several_maps():
    """Each region comes from the map of its own scale, whatever their order."""
    boxes = np.array([[0, 0, 112, 112], [0, 0, 224, 224], [16, 16, 128, 128], [0, 0, 500, 500]], np.float32)
    regions = map_regions(boxes, [1.0, 2.0], VGG, 224, "max")
    maps = [torch.full((1, 40, 40), 1.0), torch.full((1, 80, 80), 2.0)]
    found = torch.cat(list(pooled_regions(maps, regions, 3, "max", 1)))
    assert found[regions.inverse, 0, 0, 0].tolist() == [2, 1, 2, 1]


def test_no_boxes():
    regions = map_regions(np.zeros((0, 4), np.float32), [1.0, 2.0], VGG, 224, "max")
    assert list(pooled_regions([torch.zeros((1, 4, 4))] * 2, regions, 7, "max", 8)) == []
    assert regions.inverse.shape == (0,)
