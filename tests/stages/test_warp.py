"""Warping against the release's golden numbers and an independent, slow implementation of Appendix A."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.images.warp import MODES, crop_geometry, round_half_away, warp_batches, warp_regions
from stages.networks import CAFFE, TORCHVISION


def one_based(*corners: float) -> np.ndarray:
    """A box of VOC corners in the project's convention."""
    x1, y1, x2, y2 = corners
    return np.array([[x1 - 1, y1 - 1, x2, y2]], np.float32)


@pytest.mark.parametrize(
    ("corners", "mode", "window", "crop", "pad"),
    [
        ((100, 100, 199, 299), "warp", (92, 84, 208, 316), (227, 227), (0, 0)),
        ((1, 1, 100, 100), "warp", (1, 1, 109, 109), (211, 211), (16, 16)),
        ((401, 276, 500, 375), "warp", (393, 268, 500, 375), (210, 210), (0, 0)),
        ((1, 1, 100, 50), "square", (1, 1, 109, 84), (211, 163), (16, 64)),
    ],
)
def test_geometry_equals_the_release(corners, mode, window, crop, pad):
    """fidelity.md section 1: values from the authors' arithmetic, W = 500, H = 375, crop 227, padding 16."""
    g = crop_geometry(one_based(*corners), 500, 375, 227, mode, 16)
    x1, y1, x2, y2 = window
    assert (g.left[0] + 1, g.top[0] + 1) == (x1, y1)
    assert (g.left[0] + g.width[0], g.top[0] + g.height[0]) == (x2, y2)
    assert (g.crop_width[0], g.crop_height[0]) == crop
    assert (g.pad_x[0], g.pad_y[0]) == pad


def test_mirrored_pad_is_the_overhang_on_the_right():
    """Caffe's data layer: the first box's overhang (16) goes to the right, the last one's (17) to the left."""
    boxes = np.concatenate([one_based(1, 1, 100, 100), one_based(401, 276, 500, 375)])
    g = crop_geometry(boxes, 500, 375, 227, "warp", 16, flip=np.array([True, True]))
    assert g.pad_x.tolist() == [0, 17]
    assert g.pad_y.tolist() == [16, 0]
    assert g.crop_width.tolist() == [211, 210]


def test_half_is_rounded_away_from_zero():
    """numpy would give -2, -0, 0, 2, 2."""
    assert round_half_away(np.array([-1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-2, -1, 1, 2, 3]


def test_warp_without_padding_takes_the_box_as_it_is():
    """No pixel is added, where the general formula would add a column and a row."""
    g = crop_geometry(np.array([[10, 20, 50, 100]], np.float32), 500, 375, 227, "warp", 0)
    assert (g.left[0], g.top[0], g.width[0], g.height[0]) == (10, 20, 40, 80)
    assert (g.crop_width[0], g.crop_height[0], g.pad_x[0], g.pad_y[0]) == (227, 227, 0, 0)


def test_impossible_mode_and_padding_are_refused():
    """A padding of half the crop leaves no region."""
    box = np.array([[0, 0, 9, 9]], np.float32)
    with pytest.raises(ValueError, match="impossible"):
        crop_geometry(box, 20, 20, 32, "warp", 16)
    with pytest.raises(ValueError, match="impossible"):
        crop_geometry(box, 20, 20, 32, "stretch", 4)


# An independent implementation: one region at a time, scalars, OpenCV's resize


def matlab_round(value: float) -> int:
    return int(math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1))


def slow_window(box, side, mode, padding):
    """(unclipped x1, y1, x2, y2), (visible x1, y1, x2, y2), one-based inclusive."""
    x1, y1, x2, y2 = (float(value) for value in box)  # doubles as in MATLAB: halves are met exactly
    x1, y1 = x1 + 1, y1 + 1
    if mode == "warp" and padding == 0:
        whole = [matlab_round(value) for value in (x1, y1, x2, y2)]
        whole[2:] = max(whole[2], whole[0]), max(whole[3], whole[1])
        return whole, whole
    scale = side / (side - 2.0 * padding)
    half_w, half_h = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
    cx, cy = x1 + half_w, y1 + half_h
    full_w, full_h = (half_w, half_h) if mode == "warp" else (max(half_w, half_h),) * 2
    sides = (cx - full_w * scale, cy - full_h * scale, cx + full_w * scale, cy + full_h * scale)
    window = [matlab_round(value) for value in sides]
    if mode != "square-masked":
        return window, window
    border = full_w * (scale - 1)  # `padding` input pixels, in image pixels
    reach_w, reach_h = half_w + border, half_h + border
    shown = (cx - reach_w, cy - reach_h, cx + reach_w, cy + reach_h)
    return window, [matlab_round(value) for value in shown]


def slow_axis(low, high, visible_low, visible_high, image_side, side, flip):
    """(start, end) zero-based half-open in the image, (pad, crop) in the input."""
    start, end = max(visible_low, 1), min(visible_high, image_side)
    if end < start:
        return None
    scale = side / (high - low + 1)
    pad = min(matlab_round((high - end if flip else start - low) * scale), side)
    crop = max(matlab_round((end - start + 1) * scale), 1)
    return start - 1, end, pad, min(crop, side - pad)


def slow_warp(image, box, side, mode, padding, mean, std, bgr, flip=False):
    """float32 [side, side, 3] of one region of `image`, float32 [H, W, 3]."""
    canvas = np.zeros((side, side, 3), np.float32)
    (x1, y1, x2, y2), (vx1, vy1, vx2, vy2) = slow_window(box, side, mode, padding)
    x = slow_axis(x1, x2, vx1, vx2, image.shape[1], side, flip)
    y = slow_axis(y1, y2, vy1, vy2, image.shape[0], side, False)
    if x is None or y is None or 0 in (x[3], y[3]):
        return canvas
    window = image[y[0] : y[1], x[0] : x[1], ::-1] if bgr else image[y[0] : y[1], x[0] : x[1]]
    if flip:
        window = window[:, ::-1]
    resized = cv2.resize(np.ascontiguousarray(window), (x[3], y[3]), interpolation=cv2.INTER_LINEAR)
    canvas[y[2] : y[2] + y[3], x[2] : x[2] + x[3]] = (resized.reshape(y[3], x[3], 3) - mean) / std
    return canvas


coordinate = st.floats(-30, 130, width=32)


@st.composite
def boxes_in(draw):
    """One to four boxes, whole or fractional, inside, astride or outside an image of about 100 pixels."""
    drawn = draw(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=4))
    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in drawn], np.float32)
    return np.round(boxes) if draw(st.booleans()) else boxes


@settings(max_examples=150, deadline=None)
@given(
    boxes=boxes_in(),
    mode=st.sampled_from(MODES),
    padding=st.sampled_from([0, 3, 16]),
    side=st.sampled_from([40, 61]),
    shape=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    flip=st.booleans(),
)
@example(np.array([[21, 0, 72, 0]], np.float32), "warp", 3, 40, (1, 17), False)  # half a pixel: 47.5 - 30
def test_equals_crop_resize_and_paste(boxes, mode, padding, side, shape, flip):
    """Every mode, padding and flip, for boxes anywhere, against cv2.resize of the cropped window."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.float32)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    warped = warp_regions(tensor, boxes, side, mode, padding, CAFFE, flip)
    assert warped.shape == (len(boxes), 3, side, side)
    for box, region in zip(boxes, warped, strict=True):
        expected = slow_warp(image, box, side, mode, padding, np.array(CAFFE.mean, np.float32), 1, True, flip)
        np.testing.assert_allclose(region.permute(1, 2, 0).numpy(), expected, atol=0.05)


def test_torchvision_preprocessing_and_uint8():
    """Values / 255, minus mean, over std, RGB order; uint8 images give what float32 ones give."""
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    box = np.array([[5, 6, 40, 45]], np.float32)
    warped = warp_regions(torch.from_numpy(image).permute(2, 0, 1), box, 64, "warp", 8, TORCHVISION)
    mean, std = np.array(TORCHVISION.mean) * 255, np.array(TORCHVISION.std) * 255
    expected = slow_warp(image.astype(np.float32), box[0], 64, "warp", 8, mean, std, False)
    np.testing.assert_allclose(warped[0].permute(1, 2, 0).numpy(), expected, atol=1e-3)
    assert warped.dtype == torch.float32
    assert warped.is_contiguous(memory_format=torch.channels_last)


def test_outside_is_exactly_the_mean_colour():
    """A box with its middle at the image's corner: one quarter is image, three quarters are zero."""
    image = torch.full((3, 80, 80), 255, dtype=torch.uint8)
    warped = warp_regions(image, np.array([[-40, -40, 40, 40]], np.float32), 64, "warp", 0, TORCHVISION)[0]
    assert (warped[:, :32] == 0).all()
    assert (warped[:, :, :32] == 0).all()
    assert (warped[:, 32:, 32:] > 1).all()


def test_masked_square_shows_only_the_box():
    """A wide box in a white image: the rows above and below it are the mean colour, with context they are white."""
    image = torch.full((3, 200, 200), 255, dtype=torch.uint8)
    box = np.array([[50, 90, 150, 110]], np.float32)
    masked = warp_regions(image, box, 100, "square-masked", 0, TORCHVISION)[0]
    shown = warp_regions(image, box, 100, "square", 0, TORCHVISION)[0]
    assert (shown > 1).all()
    assert (masked[:, :39] == 0).all()
    assert (masked[:, 62:] == 0).all()
    assert (masked[:, 41:60, 1:-1] > 1).all()


def test_batches_are_the_whole():
    """Cutting into batches changes nothing, and no box gives no batch."""
    image = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (3, 60, 90)).astype(np.uint8))
    boxes = np.random.default_rng(3).uniform(0, 60, (7, 2)).repeat(2, 1).astype(np.float32)[:, [0, 2, 1, 3]]
    boxes[:, 2:] += 25
    whole = warp_regions(image, boxes, 48, "warp", 5, CAFFE)
    batches = list(warp_batches(image, boxes, 48, "warp", 5, CAFFE, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat(batches), whole)
    assert list(warp_batches(image, boxes[:0], 48, "warp", 5, CAFFE, 3)) == []
