"""Warping regions to the network's input (R-CNN Appendix A), in the exact arithmetic of the authors' release.

In this module S is the side of the network's input and N the number of regions. Boxes come as everywhere in the project
(float32, zero-based, half-open) and are converted once to the release's one-based inclusive corners
(x1 + 1, y1 + 1, x2, y2), in which its rounding (half away from zero) is defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.masks import Mask

if TYPE_CHECKING:
    from stages.images.preprocessing import Preprocessing

MODES = ("warp", "square", "square-masked")
Side = int | NDArray[np.int64]
"""The width or height in pixels of one image for all regions, or of each region's own image, int64 [N]."""

MaskOf = Callable[[int], Mask]
"""The mask of the region in a row."""

OUTSIDE = -3.0  # a sampling coordinate outside any image, where grid_sample returns zero


@dataclass(frozen=True)
class CropGeometry:
    """Where each of N regions is read from its image and written to the S x S input; int64 [N] each, zero-based pixels.

    The source window `left, top, width, height` is resized to `crop_width` x `crop_height` and pasted at
    `pad_x, pad_y`; the rest is the mean colour. The crop of a window outside the image is empty.
    """

    left: NDArray[np.int64]
    top: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    pad_x: NDArray[np.int64]
    pad_y: NDArray[np.int64]
    crop_width: NDArray[np.int64]
    crop_height: NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """One axis of regions, float64 [N] each, one-based and inclusive: `first..last` before clipping, of which
    `low..high` is shown."""

    first: NDArray[np.float64]
    last: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def round_half_away(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """MATLAB's `round` of float64 [...], half away from zero (NumPy rounds half to even)."""
    return np.trunc(values + np.copysign(0.5, values))


def crop_geometry(
    boxes: Boxes,
    image_width: Side,
    image_height: Side,
    crop_size: int,
    mode: str = "warp",
    padding: int = 16,
    flip: bool | NDArray[np.bool_] = False,
) -> CropGeometry:
    """The geometry of rcnn_im_crop.m for N boxes [N, 4], of one image or of N images (R-CNN Appendix A).

    `mode` "warp" scales both sides independently; "square" takes the tightest square with its context; "square-masked"
    takes the same square and replaces all but the box (and its padding) by the mean colour. `padding` is the context in
    pixels of the S x S input. With `flip` (for all, or bool [N]) the crop is mirrored, and its left border is the
    overhang on the right, as in Caffe's window data layer. Raises ValueError for an unknown mode or a padding of S / 2
    or more.
    """
    if mode not in MODES or not 0 <= 2 * padding < crop_size:
        raise ValueError(f"mode {mode!r} with padding {padding} is impossible for a crop of {crop_size} pixels")
    corners = np.asarray(boxes, np.float64).reshape(-1, 4) + np.array([1, 1, 0, 0])
    x, y = expanded_spans(corners, crop_size, mode, padding)
    mirrored = np.broadcast_to(np.asarray(flip, bool), len(corners))
    left, width, pad_x, crop_width = place_span(x, image_width, crop_size, mirrored)
    top, height, pad_y, crop_height = place_span(y, image_height, crop_size, np.zeros_like(mirrored))
    return CropGeometry(left, top, width, height, pad_x, pad_y, crop_width, crop_height)


def expanded_spans(corners: NDArray[np.float64], crop_size: int, mode: str, padding: int) -> tuple[Span, Span]:
    """Boxes [N, 4] (one-based, inclusive) enlarged by their context, as `Span`s along x and y in whole pixels."""
    if mode == "warp" and padding == 0:  # the release uses the box as it is; whole-number corners are unchanged
        first = round_half_away(corners[:, :2])
        last = np.maximum(round_half_away(corners[:, 2:]), first)
        return as_span(first, last, first, last, 0), as_span(first, last, first, last, 1)
    half = np.maximum(corners[:, 2:] - corners[:, :2] + 1, 0) / 2
    centre = corners[:, :2] + half  # half a pixel right of and below the middle, as in the release
    sides = half if mode == "warp" else half.max(axis=1, keepdims=True, initial=0)
    scale = crop_size / (crop_size - 2 * padding)
    first, last = round_half_away(centre - sides * scale), round_half_away(centre + sides * scale)
    shown = half + sides * (scale - 1)  # the box and `padding` input pixels around it
    low, high = round_half_away(centre - shown), round_half_away(centre + shown)
    if mode != "square-masked":
        low, high = first, last
    return as_span(first, last, low, high, 0), as_span(first, last, low, high, 1)


def as_span(
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    axis: int,
) -> Span:
    """One axis of corners [N, 2]."""
    return Span(
        np.broadcast_to(first, low.shape)[:, axis],
        np.broadcast_to(last, low.shape)[:, axis],
        low[:, axis],
        high[:, axis],
    )


def place_span(
    span: Span, image_side: Side, crop_size: int, mirrored: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(start, length) in the image and (pad, crop) in the input along one axis, each int64 [N]."""
    scale = crop_size / (span.last - span.first + 1)
    start, end = np.maximum(span.low, 1), np.minimum(span.high, image_side)
    length = np.maximum(end - start + 1, 0)
    overhang = np.where(mirrored, span.last - end, start - span.first)
    pad = np.clip(round_half_away(overhang * scale), 0, crop_size)
    crop = np.maximum(round_half_away(length * scale), length > 0)  # at least one pixel if any is in the image
    crop = np.minimum(crop, crop_size - pad)
    return as_whole(start - 1), as_whole(length), as_whole(pad), as_whole(crop)


def as_whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers stored as float64 [...], as int64 [...]."""
    return values.astype(np.int64)


def sample_positions(
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    pad: NDArray[np.int64],
    crop: NDArray[np.int64],
    image_side: Side,
    crop_size: int,
    mirrored: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Where each of the S input pixels along one axis samples the image: float32 [N, S] in grid_sample's units.

    Bilinear without antialiasing: half-pixel centres, positions clamped to the window so that its edge repeats. -1 is
    the image's first edge, +1 its last (align_corners=False); pixels outside the crop are `OUTSIDE`.
    """
    position, inside = pixel_positions(start, length, pad, crop, crop_size, mirrored)
    sides = np.broadcast_to(image_side, len(start))[:, None]
    return np.where(inside, (2 * position + 1) / sides - 1, OUTSIDE).astype(np.float32)


def pixel_positions(
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    pad: NDArray[np.int64],
    crop: NDArray[np.int64],
    crop_size: int,
    mirrored: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """As `sample_positions`, in pixels of the image: float64 [N, S], a whole number at a pixel's centre; and whether
    the input pixel is inside the crop, bool [N, S]."""
    offset = np.arange(crop_size) - pad[:, None]
    inside = (offset >= 0) & (offset < crop[:, None])
    offset = np.where(mirrored[:, None], crop[:, None] - 1 - offset, offset)
    position = (offset + 0.5) * (length / np.maximum(crop, 1))[:, None] - 0.5
    return np.clip(position, 0, np.maximum(length - 1, 0)[:, None]) + start[:, None], inside


def warp_regions(
    image: torch.Tensor,
    boxes: Boxes,
    crop_size: int,
    mode: str,
    padding: int,
    preprocessing: Preprocessing,
    flip: bool | NDArray[np.bool_] = False,
) -> torch.Tensor:
    """All regions of one image as network input: float32 [N, 3, S, S], channels_last, on the image's device.

    `image` is uint8 or float32 [3, H, W], RGB, 0..255; `boxes` float32 [N, 4]. A single grid_sample samples all
    regions. Pixels outside the image, or masked, are 0 after preprocessing: the mean colour.
    """
    prepared = preprocessing.apply(image)
    height, width = image.shape[-2:]
    return warp_prepared(prepared, region_grid(width, height, boxes, crop_size, mode, padding, flip))


def warp_batches(
    image: torch.Tensor,
    boxes: Boxes,
    crop_size: int,
    mode: str,
    padding: int,
    preprocessing: Preprocessing,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    mask_of: MaskOf | None = None,
) -> Iterator[torch.Tensor]:
    """`warp_regions` in batches [n <= batch_size, 3, S, S], so that memory is independent of the number of boxes.

    With `mask_of`, which gives the mask of each box by its row, what is outside a region is 0, the mean colour (see
    `crop_masks`).
    """
    prepared = preprocessing.apply(image)
    height, width = image.shape[-2:]
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        regions = warp_prepared(prepared, region_grid(width, height, batch, crop_size, mode, padding), dtype)
        if mask_of is not None:
            masks = map(mask_of, range(first, first + len(batch)))
            inside = torch.from_numpy(crop_masks(masks, (width, height), batch, crop_size, mode, padding))
            regions.masked_fill_(~inside.to(regions.device)[:, None], 0)
        yield regions


def crop_masks(
    masks: Iterable[Mask],
    image_size: tuple[int, int],
    boxes: Boxes,
    crop_size: int,
    mode: str = "warp",
    padding: int = 16,
) -> NDArray[np.bool_]:
    """Which pixels of each region's input show the region itself, not its surroundings: bool [N, S, S].

    `masks` are bool [h, w], one for each of the `boxes` [N, 4], of the image of `image_size` (width, height) at any
    scale. An input pixel takes its value from the mask's pixel nearest to where it samples the image; pixels outside
    the image are outside the region.
    """
    g = crop_geometry(boxes, *image_size, crop_size, mode, padding)
    mirrored = np.zeros(len(g.left), bool)
    columns = pixel_positions(g.left, g.width, g.pad_x, g.crop_width, crop_size, mirrored)
    rows = pixel_positions(g.top, g.height, g.pad_y, g.crop_height, crop_size, mirrored)
    inside = np.zeros((len(g.left), crop_size, crop_size), bool)
    for number, mask in enumerate(masks):
        (x, shown_x), (y, shown_y) = (
            (scaled_pixels(positions[number][within[number]], side, scaled), within[number])
            for (positions, within), side, scaled in zip((columns, rows), image_size, mask.shape[::-1], strict=True)
        )
        inside[number][np.ix_(shown_y, shown_x)] = mask[np.ix_(y, x)]
    return inside


def scaled_pixels(positions: NDArray[np.float64], side: int, scaled: int) -> NDArray[np.int64]:
    """The pixels nearest to `positions` along an axis of `side` pixels, as pixels of the same axis `scaled` to another
    number of them, those in which their centres lie: int64 [n]."""
    nearest = np.clip(np.floor(positions + 0.5), 0, side - 1).astype(np.int64)
    return (2 * nearest + 1) * scaled // (2 * side)


def region_grid(
    image_width: Side,
    image_height: Side,
    boxes: Boxes,
    crop_size: int,
    mode: str,
    padding: int,
    flip: bool | NDArray[np.bool_] = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The x and y sampling positions, float32 [N, S] each, of N boxes in one image or in N images."""
    g = crop_geometry(boxes, image_width, image_height, crop_size, mode, padding, flip)
    mirrored = np.broadcast_to(np.asarray(flip, bool), len(g.left))
    x = sample_positions(g.left, g.width, g.pad_x, g.crop_width, image_width, crop_size, mirrored)
    y = sample_positions(g.top, g.height, g.pad_y, g.crop_height, image_height, crop_size, np.zeros_like(mirrored))
    return x, y


def warp_prepared(
    prepared: torch.Tensor,
    positions: tuple[NDArray[np.float32], NDArray[np.float32]],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Samples a preprocessed image, float32 [3, H, W], on the grid spanned by `positions` (x and y, [N, S] each):
    [N, 3, S, S] of `dtype`."""
    x, y = (torch.from_numpy(axis).to(prepared.device, non_blocking=True) for axis in positions)
    count, side = x.shape
    grid = torch.empty((count, side, side, 2), device=prepared.device)
    grid[..., 0] = x[:, None, :]
    grid[..., 1] = y[:, :, None]
    copies = prepared.expand(count, -1, -1, -1)  # N images for grid_sample, but one in memory
    regions = torch.nn.functional.grid_sample(copies, grid, "bilinear", "zeros", align_corners=False)
    return regions.to(dtype, memory_format=torch.channels_last)
