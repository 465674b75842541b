"""The proposals of a training step, and regions whose boxes the region proposal network has predicted (Faster R-CNN
section 3.2).

Symbols: n anchors of an image's map; p proposals; m objects; k regions drawn from the objects and proposals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes
from stages.detections.region_proposals import proposed_anchors
from stages.images.scale import scaled_size
from stages.networks.cards import Trunk
from stages.networks.roi_warping import roi_warp
from stages.train_joint import Settings

LONGEST_LOG = 20.0
"""A box e to this power times as long as its anchor fills any image; its length is still finite in float32."""


@dataclass(frozen=True)
class StepProposals:
    """The p proposals of an image in a training step: `boxes` float32 [p, 4] in its pixels, by falling score, and the
    anchors that they come from, `anchors` int64 [p]."""

    boxes: Boxes
    anchors: NDArray[np.int64]


def proposals_of_step(
    anchors: Boxes,
    deltas: NDArray[np.float32],
    scores: NDArray[np.float32],
    size: tuple[int, int],
    scale: float,
    settings: Settings,
) -> StepProposals:
    """The proposals of an image of `size` (width, height), from the `scores` [n] and `deltas` [n, 4] that the network
    has for its `anchors` [n, 4], in pixels of its input, at `scale`, at this step. Raises ValueError for outputs that
    are not finite."""
    moved, proposed = proposed_anchors(
        anchors,
        deltas,
        scores,
        *scaled_size(*size, scale),
        least_side=settings.least_side * scale,
        before_suppression=settings.before_suppression,
        iou=settings.suppression_iou if settings.suppression_iou < 1 else None,
        at_most=settings.max_boxes,
    )
    return StepProposals(clip_boxes(moved[proposed] / np.float32(scale), *size), proposed)


def moved_anchors(anchors: torch.Tensor, deltas: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """`anchors` [k, 4] moved by `deltas` [k, 4] and clipped to an input of `width` x `height` pixels, as by
    `stages.boxes.decode_deltas` and `clip_boxes`: [k, 4], differentiable with respect to the deltas."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + 0.5 * sides + deltas[:, :2] * sides
    half = 0.5 * torch.exp(deltas[:, 2:].clamp(max=LONGEST_LOG)) * sides
    limit = anchors.new_tensor([width, height])
    first, last = (torch.minimum(corner.clamp(min=0), limit) for corner in (centre - half, centre + half))
    return torch.cat([first, last], dim=1)


def warped_regions(maps: torch.Tensor, boxes: torch.Tensor, trunk: Trunk, side: int) -> torch.Tensor:
    """The regions `boxes` [k, 4], in pixels of the input, of the trunk's map [1, C, H, W] of it, by RoI warping: [k, C,
    side, side]. Gradients reach the map and the boxes."""
    cells = (boxes - trunk.first_centre) / trunk.stride + 0.5
    return roi_warp(maps.to(cells.dtype), cells, side)
