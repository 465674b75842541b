"""A pyramid of sliding windows, the predecessor of selective search (R-CNN section 1), as a cheap baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.propose import Settings
from stages.propose.selection import Proposals, canonical_boxes


def find(settings: Settings, size: tuple[int, int], image: None) -> Proposals:
    """The windows of an image of `size` (width, height), in canonical order."""
    return Proposals(sliding_windows(*size, settings.scales, settings.aspects, settings.stride))


def sliding_windows(width: int, height: int, scales: Sequence[float], aspects: Sequence[float], stride: float) -> Boxes:
    """Windows over an image of `width` x `height` pixels: float32 [n, 4], in canonical order, all inside the image.

    For every scale s and aspect ratio a (width / height), windows have the area s² W H, clipped to the image's sides,
    and are spaced evenly from edge to edge by at most `stride` times their side. The whole image is always included.
    """
    layers = [np.array([[0, 0, width, height]], np.float32)]
    for scale in scales:
        side = scale * math.sqrt(width * height)
        for aspect in aspects:
            window = min(width, side * math.sqrt(aspect)), min(height, side / math.sqrt(aspect))
            layers.append(window_grid((width, height), window, stride))
    return canonical_boxes(np.vstack(layers))


def window_grid(image: tuple[int, int], window: tuple[float, float], stride: float) -> Boxes:
    """All positions of a `window` (width, height) in the `image` (width, height): float32 [n, 4]."""
    lefts, tops = (starts(*sides, stride) for sides in zip(image, window, strict=True))
    left, top = (grid.ravel() for grid in np.meshgrid(lefts, tops))
    boxes = np.column_stack([left, top, left + window[0], top + window[1]])
    return np.minimum(boxes, np.tile(image, 2)).astype(np.float32)


def starts(length: float, window: float, stride: float) -> NDArray[np.float64]:
    """The starts of windows along an axis, float64 [n]: evenly spaced from 0 to `length - window`, by at most `stride`
    x `window`."""
    steps = math.ceil((length - window) / (stride * window) - 1e-9)
    return np.linspace(0.0, length - window, steps + 1)
