"""Dense sliding windows: Faster R-CNN's anchors as proposals, for one-stage detectors (section 4.1, Table 10).

OverFeat's dense windows, which the network computes by convolution, are not proposals and not made here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.anchors import anchors_of_map
from stages.boxes import Boxes, clip_boxes
from stages.contract.errors import StageError
from stages.images.scale import image_scale, scaled_size
from stages.propose import Settings
from stages.propose.selection import Proposals

MOST_ANCHORS = 1_000_000
"""Per image; they take about 100 MB while they are made."""


def find(settings: Settings, size: tuple[int, int], image: None, key: Mapping[str, Any]) -> Proposals:
    """The anchors in an image of `size` (width, height)."""
    return Proposals(
        dense_windows(
            *size,
            settings.anchor_stride,
            settings.anchor_scales,
            settings.anchor_ratios,
            settings.anchor_side,
            settings.anchor_longest,
        )
    )


def dense_windows(
    width: int, height: int, stride: int, scales: Sequence[float], ratios: Sequence[float], side: int, longest: int
) -> Boxes:
    """The anchors at every cell of the map of an image of `width` x `height` pixels: float32 [n, 4], clipped to it.

    The image enters the network with a shorter side of `side` pixels, the longer one at most `longest`; there the map
    has a cell for every `stride` pixels begun, and `cell_anchors` their sizes. Raises StageError if that makes more
    than MOST_ANCHORS.
    """
    scale = image_scale(width, height, side, longest)
    columns, rows = (math.ceil(side / stride) for side in scaled_size(width, height, scale))
    count = columns * rows * len(scales) * len(ratios)
    if count > MOST_ANCHORS:
        raise StageError(
            f"propose: anchor_stride = {stride} makes {count:,} anchors in an image of {width} x {height} pixels, more "
            f"than {MOST_ANCHORS:,}; raise propose.anchor_stride or lower propose.anchor_side"
        )
    anchors = anchors_of_map(columns, rows, stride, scales, ratios)
    return clip_boxes((anchors / np.float32(scale)).astype(np.float32), width, height)
