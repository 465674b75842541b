"""Anchors: the boxes at every cell of a map that a region proposal network scores and refines (Faster R-CNN, arXiv
1506.01497v3, section 3.1.1).

Boxes are half-open as everywhere in the project (`stages.boxes`), in pixels of the network's input. Symbols: A anchors
per cell; a map of H x W cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.networks.heads import RATIOS, SCALES


def cell_anchors(stride: int = 16, scales: Sequence[float] = SCALES, ratios: Sequence[float] = RATIOS) -> Boxes:
    """The anchors of the first cell: float32 [A, 4], all scales of the first ratio, then those of the next.

    py-faster-rcnn, lib/rpn/generate_anchors.py: a square of `stride` pixels is reshaped to each ratio, its sides
    rounded to whole pixels (half to even), and scaled. All are centred on the middle of the square. Its nine rows, in
    inclusive corners, begin with -84, -40, 99, 55; the release's comment lists the one-based ones of the MATLAB
    original.
    """
    ratio = np.asarray(ratios, np.float64)
    widths = np.round(np.sqrt(stride * stride / ratio))
    sides = np.stack([widths, np.round(widths * ratio)], axis=1)
    scaled = (sides[:, None, :] * np.asarray(scales, np.float64)[None, :, None]).reshape(-1, 2)
    centre = stride / 2
    return np.hstack([centre - scaled / 2, centre + scaled / 2]).astype(np.float32)


def map_anchors(cell: Boxes, width: int, height: int, stride: int = 16) -> Boxes:
    """The anchors of all cells of a map of `width` x `height` cells, given those of the first `cell` [A, 4]: float32
    [height x width x A, 4], row by row, the anchors of a cell together."""
    x, y = np.meshgrid(np.arange(width) * stride, np.arange(height) * stride)
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return np.asarray((cell[None] + shifts).reshape(-1, 4), np.float32)


def anchors_of_map(width: int, height: int, stride: int, scales: Sequence[float], ratios: Sequence[float]) -> Boxes:
    """The anchors of these `scales` and `ratios` at all cells of a map of `width` x `height` cells: as `map_anchors`
    of `cell_anchors`."""
    return map_anchors(cell_anchors(stride, scales, ratios), width, height, stride)


def inside(anchors: Boxes, width: int, height: int, border: float = 0.0) -> NDArray[np.bool_]:
    """Which `anchors` [n, 4] lie inside an image of `width` x `height` pixels, or at most `border` pixels outside: bool
    [n]. Only they are trained on (section 3.3)."""
    return np.asarray(
        (anchors[:, :2] >= -border).all(axis=1) & (anchors[:, 2:] <= np.array([width, height]) + border).all(axis=1)
    )
