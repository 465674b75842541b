"""The colours and textures of the generated sets: cluttered backgrounds, and objects that stand out from them."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stages.datasets.silhouettes import blob, placed, rasterise

Canvas = NDArray[np.float32]
"""float32 [H, W, 3], RGB, 0..255 (values outside are clipped on conversion to an image)."""

CONTRAST = 85.0  # the least distance in RGB between an object's colour and what it is painted over


def colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> NDArray[np.float32]:
    """A random RGB colour, float32 [3], 0..255, of any hue."""
    hsv = (rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32) * 255


def noise(rng: np.random.Generator, height: int, width: int, cell: float) -> NDArray[np.float32]:
    """Smooth noise, float32 [H, W], about -1..1, with a grain of `cell` pixels."""
    rows, columns = max(2, round(height / cell) + 1), max(2, round(width / cell) + 1)
    grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    if (rows, columns) == (height + 1, width + 1):
        return grid[:height, :width]
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def stripes(rng: np.random.Generator, height: int, width: int, period: float) -> NDArray[np.float32]:
    """Straight stripes in a random direction, float32 [H, W], -1..1."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    phase = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + rng.uniform(0, 2 * np.pi)
    return np.sin(phase).astype(np.float32)


def background(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """A dull, textured background, float32 [H, W, 3]: a colour, noise of several grain sizes, and sometimes stripes."""
    base = colour(rng, (0.05, 0.4), (0.3, 0.85))
    light = sum(
        amplitude * rng.uniform(0.4, 1) * noise(rng, height, width, cell)
        for cell, amplitude in ((70, 32), (22, 14), (7, 9), (1, 9))
    )
    if rng.uniform() < 0.4:
        light = light + rng.uniform(5, 14) * stripes(rng, height, width, rng.uniform(5, 24))
    tint = colour(rng, (0.3, 0.7), (0.3, 0.8)) - base
    mixed = 0.3 * np.clip(noise(rng, height, width, 60), -0.2, 1)
    return base + np.asarray(light, np.float32)[:, :, None] + mixed[:, :, None] * tint


def add_clutter(rng: np.random.Generator, canvas: Canvas, blobs: int, lines: int) -> Canvas:
    """Paints irregular `blobs`, then `lines` and scribbles, none of any class; `canvas` [H, W, 3] is overwritten."""
    height, width = canvas.shape[:2]
    for _ in range(blobs):
        size = rng.uniform(0.05, 0.17) * min(height, width)
        outline = placed(blob(rng), (size * rng.uniform(0.7, 1.6), size), rng.uniform(0, np.pi), False)
        mask, offset = rasterise(outline)
        at = (round(rng.uniform(0, width)) + int(offset[0]), round(rng.uniform(0, height)) + int(offset[1]))
        paint(canvas, mask, at, textured(rng, mask.shape, colour(rng, (0.1, 0.85), (0.25, 0.95))))
    return add_lines(rng, canvas, lines)


def add_lines(rng: np.random.Generator, canvas: Canvas, count: int) -> Canvas:
    """A copy of `canvas` [H, W, 3] with `count` straight lines or wandering scribbles, one to three pixels wide."""
    height, width = canvas.shape[:2]
    image = Image.fromarray(as_pixels(canvas))
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        start = rng.uniform((0, 0), (width, height))
        straight = rng.uniform() < 0.5
        steps = rng.normal(0, 1, (1 if straight else 12, 2)) * (width / 3 if straight else width / 20)
        points = (start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])).ravel().tolist()
        fill = tuple(int(part) for part in colour(rng, (0.0, 0.8), (0.1, 1)))
        draw.line(points, fill=fill, width=int(rng.integers(1, 4)), joint="curve")
    return np.array(image, np.float32)


def textured(rng: np.random.Generator, shape: tuple[int, ...], base: NDArray[np.float32]) -> Canvas:
    """A surface, float32 [H, W, 3] for `shape` (H, W), in the colour `base` [3]: plain or with a pattern."""
    height, width = shape
    kind = rng.integers(4)
    grain = rng.uniform(2, 6) * noise(rng, height, width, 1)
    if kind == 0:
        light = grain
    elif kind == 1:
        light = grain + rng.uniform(12, 28) * noise(rng, height, width, max(height, width))
    elif kind == 2:
        light = grain + rng.uniform(8, 20) * stripes(rng, height, width, rng.uniform(4, 12))
    else:
        light = grain + rng.uniform(10, 22) * noise(rng, height, width, 4)
    return base + light[:, :, None]


def contrasting(rng: np.random.Generator, under: NDArray[np.float32]) -> NDArray[np.float32]:
    """A strong colour, float32 [3], at least CONTRAST away in RGB from the mean colour `under` it."""
    best = colour(rng, (0.45, 1), (0.35, 1))
    for _ in range(12):
        if np.linalg.norm(best - under) >= CONTRAST:
            break
        other = colour(rng, (0.45, 1), (0.35, 1))
        best = max(best, other, key=lambda colour: float(np.linalg.norm(colour - under)))
    return best


def paint(canvas: Canvas, mask: NDArray[np.uint8], at: tuple[int, int], surface: Canvas) -> None:
    """Blends `surface` [h, w, 3] into the canvas through `mask` [h, w] at `at` (x, y), its top left corner, clipped."""
    (rows, columns), (mask_rows, mask_columns) = windows(canvas.shape[:2], mask.shape, at)
    alpha = (mask[mask_rows, mask_columns].astype(np.float32) / 255)[:, :, None]
    patch = canvas[rows, columns]
    patch += alpha * (surface[mask_rows, mask_columns] - patch)


def windows(
    canvas: tuple[int, ...], patch: tuple[int, ...], at: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a patch [h, w] placed `at` (x, y) overlaps a canvas [H, W]: (rows, columns) of the canvas and the patch."""
    left, top = max(at[0], 0), max(at[1], 0)
    right, bottom = max(min(at[0] + patch[1], canvas[1]), left), max(min(at[1] + patch[0], canvas[0]), top)
    on_canvas = (slice(top, bottom), slice(left, right))
    return on_canvas, (slice(top - at[1], bottom - at[1]), slice(left - at[0], right - at[0]))


def as_pixels(canvas: Canvas) -> NDArray[np.uint8]:
    """The canvas as uint8 [H, W, 3]."""
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
