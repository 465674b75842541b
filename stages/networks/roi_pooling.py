"""Regions of a feature map, pooled to a fixed size: RoI max pooling (Fast R-CNN section 2.1), RoIAlign (Mask R-CNN,
arXiv 1703.06870, section 3) and RoI warping (Dai et al., arXiv 1512.04412, section 3.2).

Notation: N boxes; S scales; a map has C channels and a cell every `stride` pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes, area
from stages.images.warp import round_half_away
from stages.networks.cards import Trunk

SAMPLES = 2
"""RoIAlign averages SAMPLES x SAMPLES bilinear samples per bin; RoI warping takes the largest."""


def nearest_scale(boxes: Boxes, scales: Sequence[float], side: int) -> NDArray[np.int64]:
    """The scale at which each box's area is nearest to `side` x `side` pixels, the first of equals: int64 [N].

    Fast R-CNN's release, lib/fast_rcnn/test.py, with 224 for `side`.
    """
    areas = area(boxes)[:, None] * np.square(np.asarray(scales, np.float64))
    return np.abs(areas - side * side).argmin(axis=1)


def corner_cells(boxes: Boxes, scales: NDArray[np.float64], stride: int) -> NDArray[np.int64]:
    """The first and last cell (x1, y1, x2, y2) of each box on the map at its own scale (`scales` [N]): int64 [N, 4].

    As in the release: the inclusive corners, scaled, divided by the stride and rounded, half away from zero. They may
    lie outside the map.
    """
    inclusive = boxes.astype(np.float64) - [0, 0, 1, 1]
    scaled = (inclusive * scales[:, None]).astype(np.float32)
    return round_half_away(scaled.astype(np.float64) / stride).astype(np.int64)


def map_boxes(boxes: Boxes, scales: NDArray[np.float64], trunk: Trunk) -> NDArray[np.float32]:
    """The boxes in units of cells on the map at their own scales, with the middle of cell i at i + 0.5: float32 [N, 4].

    The middle is where the cell's receptive field is centred.
    """
    scaled = boxes.astype(np.float64) * scales[:, None]
    return ((scaled - trunk.first_centre) / trunk.stride + 0.5).astype(np.float32)


@dataclass(frozen=True)
class MapRegions:
    """What is to be pooled for N boxes: the M <= N different regions of the maps, ordered by scale.

    `levels` int64 [M]: the number of the map; `corners` [M, 4]: int64 cells for "max", else float32 as of `map_boxes`;
    `inverse` int64 [N]: the region of each box.
    """

    levels: NDArray[np.int64]
    corners: NDArray[np.generic]
    inverse: NDArray[np.int64]


def map_regions(boxes: Boxes, scales: Sequence[float], trunk: Trunk, side: int, pooling: str) -> MapRegions:
    """The regions of the maps at `scales` that boxes [N, 4] of the image cover: each on the map on which its area is
    nearest to `side` x `side` pixels, and what coincides there once."""
    levels = nearest_scale(boxes, scales, side)
    own = np.asarray(scales, np.float64)[levels]
    corners = corner_cells(boxes, own, trunk.stride) if pooling == "max" else map_boxes(boxes, own, trunk)
    different, inverse = np.unique(np.column_stack([levels, corners]), axis=0, return_inverse=True)
    return MapRegions(
        different[:, 0].astype(np.int64), different[:, 1:].astype(corners.dtype), inverse.reshape(len(boxes))
    )


def pooled_regions(
    maps: Sequence[torch.Tensor], regions: MapRegions, size: int, pooling: str, batch_size: int
) -> Iterator[torch.Tensor]:
    """The M regions pooled to `size` x `size` cells from float32 maps [C, H, W], in batches of at most `batch_size` of
    one map: float32 [m, C, size, size], on the maps' device."""
    for level, cells in enumerate(maps):
        rows = np.flatnonzero(regions.levels == level)
        for first in range(0, len(rows), batch_size):
            corners = torch.from_numpy(regions.corners[rows[first : first + batch_size]].astype(np.float32))
            yield pool_regions(cells[None], corners.to(cells.device), size, pooling)


def pool_regions(maps: torch.Tensor, corners: torch.Tensor, size: int, pooling: str) -> torch.Tensor:
    """The regions with these `corners`, float32 [m, 4] as in `MapRegions`, of one map [1, C, H, W], pooled to `size` x
    `size` cells: float32 [m, C, size, size]."""
    from torchvision.ops import roi_align, roi_pool

    boxes = torch.cat([torch.zeros_like(corners[:, :1]), corners], dim=1)
    if pooling == "max":
        return roi_pool(maps, boxes, size)
    if pooling == "align":
        return roi_align(maps, boxes, size, sampling_ratio=SAMPLES, aligned=True)
    samples = roi_align(maps, boxes, SAMPLES * size, sampling_ratio=1, aligned=True)
    return torch.nn.functional.max_pool2d(samples, SAMPLES)  # the values of `roi_warp`, without its gradients
