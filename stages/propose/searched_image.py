"""The image as selective search and EdgeBoxes see it, resized, and its boxes mapped back to the original's pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.propose import Settings

WholeBoxes = NDArray[np.int32] | NDArray[np.int64]


def size_advice(settings: Settings, size: tuple[int, int], slow_pixels: int, cost: str) -> str:
    """A warning that names the `cost` if images of `size` (width, height) are searched at over `slow_pixels`, or one
    that `min_side` leaves only the whole image, or ""."""
    width, height = searched_size(*size, settings.resize_width, settings.max_side)
    if settings.min_side >= max(width, height):
        return (
            f"is searched at {width} x {height} pixels, where propose.min_side = {settings.min_side} leaves only the "
            "whole image as a proposal; lower min_side, or search it larger (resize_width, max_side)"
        )
    if width * height <= slow_pixels:
        return ""
    return f"is searched at {width} x {height} pixels{cost}; set propose.resize_width = 500 to search a smaller image"


def check_pixels(image: NDArray[np.uint8]) -> None:
    """Raises ValueError for anything that is not an image uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"selective search needs uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")


def searched_size(width: int, height: int, resize_width: int, max_side: int) -> tuple[int, int]:
    """(width, height) at which an image is searched: `resize_width` wide (0: its own width), no side over `max_side`.

    OpenCV's time grows with the square of the longer side, however thin the image, and it fails from 32,767 pixels on.
    """
    scale = min((resize_width or width) / width, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image [H, W, 3] resized to `size` (width, height): area averaging to shrink it, bicubic to enlarge it."""
    if image.shape[1::-1] == size:
        return image
    method = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def are_large(boxes: WholeBoxes, size: tuple[int, int], min_side: int) -> NDArray[np.bool_]:
    """Whether width and height of `boxes` [n, 4] are at least `min_side`, or that of the searched image (its `size`):
    bool [n]."""
    least = np.minimum(size, min_side)
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= least).all(axis=1))


def map_back(boxes: WholeBoxes, searched: tuple[int, int], original: tuple[int, int]) -> Boxes:
    """`boxes` [n, 4] found at `searched` size (width, height), in pixels of the `original` size: float32 [n, 4].

    Each axis is scaled by its own exact ratio, so that image edges map to image edges. (The original maps one-based
    inclusive corners by the ratio of the widths: (b - 1) * scale + 1.)
    """
    ratio = np.array(original, np.float64) / np.array(searched, np.float64)
    mapped = boxes * np.tile(ratio, 2)
    return np.minimum(mapped, np.tile(original, 2)).astype(np.float32)
