"""A pyramid of sliding windows, the predecessor of selective search (R-CNN section 1), as a cheap baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.propose import Settings
from stages.propose.selection import Proposals

MOST_WINDOWS = 1_000_000
"""Per image; they take about 100 MB while they are made."""


def find(settings: Settings, size: tuple[int, int], image: None, key: Mapping[str, Any]) -> Proposals:
    """The windows of an image of `size` (width, height)."""
    return Proposals(sliding_windows(*size, settings.scales, settings.aspects, settings.stride))


def sliding_windows(width: int, height: int, scales: Sequence[float], aspects: Sequence[float], stride: float) -> Boxes:
    """Windows over an image of `width` x `height` pixels: float32 [n, 4], all inside the image.

    For every scale s and aspect ratio a (width / height), windows have the area s² W H, clipped to the image's sides,
    and are spaced evenly from edge to edge by at most `stride` times their side. The whole image is always included.
    Raises StageError if that makes more than MOST_WINDOWS.
    """
    image = width, height
    shapes = list(window_shapes(image, scales, aspects))
    count = 1 + sum(math.prod(counts(image, window, stride)) for window in shapes)
    if count > MOST_WINDOWS:
        raise StageError(
            f"propose: stride = {stride:g} makes {count:,} windows of the scales {', '.join(f'{s:g}' for s in scales)} "
            f"in an image of {width} x {height} pixels, more than {MOST_WINDOWS:,}; raise propose.stride, or leave out "
            "the smallest scales"
        )
    layers = [np.array([[0, 0, width, height]], np.float32)]
    layers += [window_grid(image, window, stride) for window in shapes]
    return np.vstack(layers)


def window_shapes(
    image: tuple[int, int], scales: Sequence[float], aspects: Sequence[float]
) -> Iterator[tuple[float, float]]:
    """The (width, height) of the windows for an `image` of this size, for every scale and aspect ratio."""
    for scale in scales:
        side = scale * math.sqrt(math.prod(image))
        for aspect in aspects:
            yield min(image[0], side * math.sqrt(aspect)), min(image[1], side / math.sqrt(aspect))


def counts(image: tuple[int, int], window: tuple[float, float], stride: float) -> list[int]:
    """How many positions a `window` has in the `image` along each axis."""
    return [steps(length, side, stride) + 1 for length, side in zip(image, window, strict=True)]


def window_grid(image: tuple[int, int], window: tuple[float, float], stride: float) -> Boxes:
    """All positions of a `window` (width, height) in the `image` (width, height): float32 [n, 4]."""
    lefts, tops = (starts(*sides, stride) for sides in zip(image, window, strict=True))
    left, top = (grid.ravel() for grid in np.meshgrid(lefts, tops))
    boxes = np.column_stack([left, top, left + window[0], top + window[1]])
    return np.minimum(boxes, np.tile(image, 2)).astype(np.float32)


def starts(length: float, window: float, stride: float) -> NDArray[np.float64]:
    """The starts of windows along an axis, float64 [n]: evenly spaced from 0 to `length - window`, by at most `stride`
    x `window`."""
    return np.linspace(0.0, length - window, steps(length, window, stride) + 1)


def steps(length: float, window: float, stride: float) -> int:
    """How many steps of at most `stride` x `window` lead from 0 to `length - window`."""
    return math.ceil((length - window) / (stride * window) - 1e-9)
