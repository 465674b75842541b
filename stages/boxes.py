"""Boxes: intersection over union, clipping and the regression transform.

A box is `(x1, y1, x2, y2)`, float32, in pixels of the original image, zero-based and half-open: width = x2 - x1.
Symbols: N and M boxes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def as_boxes(boxes: object) -> Boxes:
    """Box-like values as float32 [N, 4]; an empty list becomes [0, 4]. Raises ValueError for any other shape."""
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape [N, 4], not {list(array.shape)}")
    return array


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Areas in square pixels, float64 [N]; inverted boxes have area 0."""
    sides = np.clip(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0, None)
    return np.asarray(sides[:, 0] * sides[:, 1])


def has_area(boxes: Boxes) -> NDArray[np.bool_]:
    """Which boxes are finite, with positive width and height: bool [N]."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def look_normalised(numbers: NDArray[np.floating]) -> bool:
    """Whether boxes [N, 4], in whatever convention, are fractions of an image's sides rather than pixels: all their
    numbers lie between 0 and 1, and they are not whole."""
    inside = (numbers >= 0) & (numbers <= 1)
    return bool(len(numbers) and inside.all() and (numbers % 1 != 0).any())


def iou_matrix(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every pair, float64 [N, M] (0 if the union is empty).

    On VOC's boxes this equals the devkit's `+ 1` formula, because half-open widths already count the last pixel.
    """
    top_left = np.maximum(first[:, None, :2], second[None, :, :2]).astype(np.float64)
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:]).astype(np.float64)
    sides = np.clip(bottom_right - top_left, 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(first)[:, None] + area(second)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def paired_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of each box [N, 4] with the one in the same row of `second` [N, 4]: float64 [N], as in
    `iou_matrix`."""
    top_left = np.maximum(first[:, :2], second[:, :2]).astype(np.float64)
    bottom_right = np.minimum(first[:, 2:], second[:, 2:]).astype(np.float64)
    intersection = np.clip(bottom_right - top_left, 0, None).prod(axis=1)
    union = area(first) + area(second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def reaches(overlaps: NDArray[np.floating], limit: float | NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which `overlaps` [...] (IoUs or shares) are at least `limit`, rounded to their dtype: bool [...].

    An IoU of exactly 1/10 is 0.100000001 in float32, which is more than the double 0.1; with this function and
    `exceeds`, it reaches a limit of 0.1 and does not exceed it, in either precision.
    """
    return np.asarray(overlaps >= np.asarray(limit, overlaps.dtype))


def exceeds(overlaps: NDArray[np.floating], limit: float | NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which `overlaps` [...] are greater than `limit`, rounded as in `reaches`: bool [...]."""
    return np.asarray(overlaps > np.asarray(limit, overlaps.dtype))


def covered_share(boxes: Boxes, regions: Boxes) -> NDArray[np.float64]:
    """The share of each box's own area that lies inside each region: float64 [N, M] (0 for a box without area).

    COCO's evaluation uses it in place of the IoU with a crowd (pycocotools, `iscrowd`).
    """
    top_left = np.maximum(boxes[:, None, :2], regions[None, :, :2]).astype(np.float64)
    bottom_right = np.minimum(boxes[:, None, 2:], regions[None, :, 2:]).astype(np.float64)
    sides = np.clip(bottom_right - top_left, 0, None)
    intersection, own = sides[..., 0] * sides[..., 1], area(boxes)[:, None]
    return np.divide(intersection, own, out=np.zeros_like(intersection), where=own > 0)


def clip_boxes(boxes: Boxes, width: int, height: int) -> Boxes:
    """Boxes [N, 4] clipped to an image of `width` x `height` pixels, float32 [N, 4]."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, 0, limit).astype(np.float32)


def encode_deltas(boxes: Boxes, targets: Boxes, short: float = 1.0) -> NDArray[np.float64]:
    """Regression targets (t_x, t_y, t_w, t_h) that move `boxes` P [N, 4] onto `targets` G [N, 4]: float64 [N, 4].

    R-CNN Appendix C, equations 6 to 9: the shift of the centre in units of P's width and height, and the logarithms of
    the side ratios. R-CNN's and Fast R-CNN's releases subtract inclusive corners without `+ 1` (and add a tiny
    epsilon), so their sides are one pixel `short` of ours; Faster R-CNN adds the pixel: `short=0`.
    """
    p_centre, p_sides = centres_and_sides(boxes, short)
    g_centre, g_sides = centres_and_sides(targets, short)
    return np.hstack([(g_centre - p_centre) / p_sides, np.log(g_sides / p_sides)])


def decode_deltas(boxes: Boxes, deltas: NDArray[np.floating], short: float = 1.0) -> Boxes:
    """`boxes` [N, 4] moved by `deltas` [N, 4] (R-CNN Appendix C, equations 1 to 4): float32 [N, 4].

    The inverse of `encode_deltas`, with the same `short`.
    """
    centre, sides = centres_and_sides(boxes, short)
    centre = centre + deltas[:, :2] * sides
    half = 0.5 * (np.exp(deltas[:, 2:]) * sides + short)
    return np.hstack([centre - half, centre + half]).astype(np.float32)


def centres_and_sides(boxes: Boxes, short: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (x, y), and sides (width, height) minus `short` pixels, at least a tiny epsilon: float64 [N, 2] each."""
    corners = boxes.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    return corners[:, :2] + 0.5 * sides, np.maximum(sides - short, 0) + np.finfo(np.float64).eps
