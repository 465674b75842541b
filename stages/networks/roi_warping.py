"""RoI warping: regions of a map pooled so that gradients reach the boxes, too (Dai et al., arXiv 1512.04412, section
3.2).

Joint training of a region proposal network and Fast R-CNN without approximation needs these gradients (Faster R-CNN,
arXiv 1506.01497v3, section 3.2, iii); those of RoI max pooling and RoIAlign stop at the map.
"""

from __future__ import annotations

import torch
from torch.nn import functional

SAMPLES = 2
"""A cell is the largest of SAMPLES x SAMPLES bilinear samples."""


def roi_warp(maps: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """The regions `boxes` [n, 4] of one image's `maps` [1, C, H, W], pooled to `size` x `size` cells: [n, C, size,
    size], differentiable with respect to the maps and the boxes.

    `boxes` are in cells with the middle of cell i at i + 0.5, as `map_boxes` of `stages.networks.roi_pooling` has them,
    and may be fractions. A region is sampled bilinearly on an even grid of SAMPLES x `size` points a side, then
    max-pooled to `size`. Samples beyond the middle of an outer cell have its value, those more than a cell beyond it
    are 0, as in RoIAlign: the samples are those of torchvision's `roi_align(aligned=True, sampling_ratio=1)`.
    """
    channels, height, width = maps.shape[1:]
    x = sample_positions(boxes[:, 0], boxes[:, 2], size)
    y = sample_positions(boxes[:, 1], boxes[:, 3], size)
    count, points = x.shape
    grid = torch.stack(
        [
            (2 * x / width - 1)[:, None, :].expand(count, points, points),
            (2 * y / height - 1)[:, :, None].expand(count, points, points),
        ],
        dim=-1,
    )
    sampled = functional.grid_sample(
        maps, grid.reshape(1, count * points, points, 2), padding_mode="border", align_corners=False
    )
    on_map = near(x, width)[:, None, None, :] & near(y, height)[:, None, :, None]
    regions = sampled[0].reshape(channels, count, points, points).transpose(0, 1) * on_map
    return functional.max_pool2d(regions, SAMPLES)


def sample_positions(first: torch.Tensor, last: torch.Tensor, size: int) -> torch.Tensor:
    """Positions [n, SAMPLES x size] along one axis, evenly spaced between the sides `first` and `last` [n]."""
    points = SAMPLES * size
    shares = (torch.arange(points, dtype=first.dtype, device=first.device) + 0.5) / points
    return first[:, None] + (last - first)[:, None] * shares


def near(positions: torch.Tensor, cells: int) -> torch.Tensor:
    """Which `positions` [...] lie at most a cell beyond the middles of the outer ones of `cells` cells: bool [...]."""
    return (positions >= -0.5) & (positions <= cells + 0.5)
