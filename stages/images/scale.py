"""The scale at which a whole image enters a network (Fast R-CNN section 5.2; lib/utils/blob.py of its release)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.images.reading import Pixels


def image_scale(width: int, height: int, side: int, longest: int) -> float:
    """The factor that makes the shorter side of an image `side` pixels long; less if the longer side would then have
    more than `longest`. Not rounded: boxes are multiplied by it as it is."""
    shorter, longer = sorted((width, height))
    scale = side / shorter
    return longest / longer if round(scale * longer) > longest else scale


def scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """The width and height of an image times `scale`: rounded, at least one pixel each."""
    return max(1, round(scale * width)), max(1, round(scale * height))


def scaled_image(pixels: Pixels, scale: float) -> NDArray[np.float32]:
    """The image uint8 [H, W, 3] times `scale`, bilinear and without antialiasing, as in the release: float32 [h, w, 3],
    0..255, of `scaled_size`."""
    values = pixels.astype(np.float32)
    if scale == 1:
        return values
    height, width = (round(scale * side) for side in pixels.shape[:2])
    if min(height, width) < 1:
        return np.asarray(
            cv2.resize(values, scaled_size(pixels.shape[1], pixels.shape[0], scale), interpolation=cv2.INTER_LINEAR)
        )
    return np.asarray(cv2.resize(values, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR))


def stretched_image(pixels: Pixels, shorter: int, longer: int) -> NDArray[np.float32]:
    """The image uint8 [H, W, 3] stretched to sides of `shorter` and `longer` pixels, upright if it is taller than wide:
    float32 [h, w, 3], 0..255. Interpolated as by `scaled_image`."""
    upright = pixels.shape[0] > pixels.shape[1]
    size = (shorter, longer) if upright else (longer, shorter)
    return np.asarray(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
