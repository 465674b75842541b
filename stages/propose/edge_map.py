"""Edges of an image, how strong they are and which way they face: what EdgeBoxes starts from.

Structured forests (Dollár and Zitnick, PAMI 2015) need a trained model, gradients need none. Orientation and thinning
are OpenCV's versions of the release's (edgesDetect.m, edgesNmsMex.cpp), for both: second derivatives are 3 x 3 Sobel
filters, and smoothing mirrors the image at its border without repeating the outermost pixels.

Angles are float64 until they are rounded to float32: NumPy's float32 functions differ in the last bit from one
processor to another.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
"""A number per pixel: float32 [H, W]."""

STRONG = 99.5
"""The percentile of an image's gradients that counts as an edge of strength 1."""
SMOOTHING_RADIUS = 4
THINNING_RADIUS = 2


def gradient_edges(image: NDArray[np.uint8], sigma: float) -> Map:
    """The strength, 0 to 1, of the edges in an image uint8 [H, W, 3] RGB: its gradients.

    Lab is blurred by `sigma` pixels; of its three channels' gradients the largest counts, divided by its 99.5th
    percentile in the image. An image of one colour has no edges.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    blurred = cv2.GaussianBlur(lab, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    across, down = (
        cv2.Sobel(blurred, cv2.CV_32F, *orders, ksize=1, borderType=cv2.BORDER_REPLICATE) for orders in ((1, 0), (0, 1))
    )
    magnitude = np.sqrt(across * across + down * down).max(axis=2)
    strong = float(np.percentile(magnitude, STRONG))
    if strong < 1e-3:  # Lab's channels reach 100: rounding, not edges
        return np.zeros_like(magnitude)
    return np.minimum(magnitude / np.float32(strong), np.float32(1))


def orientation_of(edges: Map) -> Map:
    """Which way the `edges` [H, W] face, in radians from 0 to pi: 0 across a vertical edge, pi / 2 across a horizontal
    one. From the second derivatives of the map, smoothed by a triangle of radius 4.

    The release takes every edge whose mixed derivative is exactly 0 for a vertical one; drawn images have such edges.
    """
    smooth = triangle_filtered(edges, SMOOTHING_RADIUS)
    xx, xy, yy = (cv2.Sobel(smooth, cv2.CV_32F, *orders) for orders in ((2, 0), (1, 1), (0, 2)))
    angle = np.arctan2(np.where(xy > 0, -yy, yy), xx + np.float32(1e-5), dtype=np.float64)
    return np.mod(angle, np.pi).astype(np.float32)


def triangle_filtered(values: Map, radius: int) -> Map:
    """`values` [H, W] convolved with a triangle of this `radius` along both axes."""
    rising = np.arange(1, radius + 2, dtype=np.float32)
    triangle = np.concatenate([rising, rising[-2::-1]]) / np.float32((radius + 1) ** 2)
    return np.asarray(cv2.sepFilter2D(values, -1, triangle, triangle), np.float32)


def thinned(edges: Map, orientation: Map, above: float) -> Map:
    """The `edges` [H, W] stronger than `above` that no edge within 2 pixels across them exceeds; 0 elsewhere."""
    y, x = np.nonzero(edges > np.float32(above))
    strength, angle = edges[y, x], orientation[y, x].astype(np.float64)
    step_x, step_y = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    strongest = np.ones(len(strength), bool)
    for step in range(-THINNING_RADIUS, THINNING_RADIUS + 1):
        if step:
            strongest &= strength >= interpolated(edges, x + step * step_x, y + step * step_y)
    result = np.zeros_like(edges)
    result[y[strongest], x[strongest]] = strength[strongest]
    return result


def interpolated(values: Map, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float32]:
    """`values` [H, W] at the points (`x`, `y`), each [n], bilinearly; points outside count as on the border."""
    height, width = values.shape
    x, y = np.clip(x, 0, width - 1).astype(np.float32), np.clip(y, 0, height - 1).astype(np.float32)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    from_left, from_top = x - left.astype(np.float32), y - top.astype(np.float32)
    upper = values[top, left] * (1 - from_left) + values[top, right] * from_left
    lower = values[bottom, left] * (1 - from_left) + values[bottom, right] * from_left
    return upper * (1 - from_top) + lower * from_top
