"""The outlines of the shapes in the generated sets.

An outline is a list of contours, float64 [points, 2] (x, y) with y pointing down, within about one unit of the origin;
the first contour is filled, the others are holes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = list[NDArray[np.float64]]
Silhouette = Callable[[np.random.Generator], Outline]

SUPERSAMPLING = 4


def arc(start: float, stop: float, radius: float = 1.0, centre: tuple[float, float] = (0, 0)) -> NDArray[np.float64]:
    """Points on a circular arc between two angles (radians, clockwise on screen), float64 [48, 2]."""
    angles = np.linspace(start, stop, 48)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + np.array(centre)


def regular(rng: np.random.Generator, corners: int) -> Outline:
    """A regular polygon with a corner at the top (a flat top, where the number of corners is even)."""
    turn = -np.pi / 2 + (np.pi / corners if corners % 2 == 0 else 0)
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return [np.stack([np.cos(angles), np.sin(angles)], 1)]


def polygon(rng: np.random.Generator, corners: tuple[tuple[float, float], ...]) -> Outline:
    """A fixed polygon."""
    return [np.array(corners, np.float64)]


def disc(rng: np.random.Generator) -> Outline:
    """A filled circle."""
    return [arc(0, 2 * np.pi)]


def ring(rng: np.random.Generator) -> Outline:
    """A circle with a round hole of about half its radius."""
    return [arc(0, 2 * np.pi), arc(0, 2 * np.pi, rng.uniform(0.48, 0.6))]


def star(rng: np.random.Generator) -> Outline:
    """A five-pointed star."""
    radii = np.tile([1.0, rng.uniform(0.4, 0.5)], 5)
    angles = -np.pi / 2 + np.pi * np.arange(10) / 5
    return [np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]]


def cross(rng: np.random.Generator) -> Outline:
    """An upright cross with four equal arms."""
    a = rng.uniform(0.28, 0.38)
    top = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
    return [np.array([*top, *[(-x, -y) for x, y in top]], np.float64)]


def crescent(rng: np.random.Generator) -> Outline:
    """A crescent moon: a circle minus a smaller, shifted one."""
    shift, radius = 0.48, rng.uniform(0.72, 0.8)
    meet = (1 + shift**2 - radius**2) / (2 * shift)
    outer, inner = np.arccos(meet), np.arccos((meet - shift) / radius)
    contour = np.concatenate([arc(outer, 2 * np.pi - outer), arc(2 * np.pi - inner, inner, radius, (shift, 0))])
    return [contour + np.array([0.2, 0])]


def heart(rng: np.random.Generator) -> Outline:
    """A heart, pointing down."""
    t = np.linspace(0, 2 * np.pi, 80)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [np.stack([x, y - 2.5], 1) / 16]


def arrow(rng: np.random.Generator) -> Outline:
    """An arrow that points to the right."""
    shaft, neck = rng.uniform(0.24, 0.34), rng.uniform(-0.1, 0.15)
    upper = [(-1, -shaft), (neck, -shaft), (neck, -0.75)]
    return [np.array([*upper, (1, 0), *[(x, -y) for x, y in reversed(upper)]], np.float64)]


def ellipse(rng: np.random.Generator) -> Outline:
    """An ellipse about half as high as it is wide."""
    return [arc(0, 2 * np.pi) * np.array([1, rng.uniform(0.42, 0.58)])]


def half_disc(rng: np.random.Generator) -> Outline:
    """The upper half of a circle."""
    return [arc(np.pi, 2 * np.pi) + np.array([0, 0.45])]


def pie(rng: np.random.Generator) -> Outline:
    """A circle with a wedge cut out on the right."""
    half = rng.uniform(0.5, 0.75)
    return [np.concatenate([arc(half, 2 * np.pi - half), [[0.0, 0.0]]])]


def gear(rng: np.random.Generator) -> Outline:
    """A wheel with eight teeth and a small hole."""
    angles = np.linspace(0, 2 * np.pi, 33)[:-1] + 0.1
    radii = np.tile([1.0, 1.0, 0.72, 0.72], 8)
    return [np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None], arc(0, 2 * np.pi, 0.25)]


def frame(rng: np.random.Generator) -> Outline:
    """A rectangle with a rectangular hole."""
    hole = rng.uniform(0.5, 0.65)
    outer = np.array([(-0.95, -0.7), (0.95, -0.7), (0.95, 0.7), (-0.95, 0.7)])
    return [outer, outer * hole]


def lens(rng: np.random.Generator) -> Outline:
    """Two arcs that meet at points on the left and right."""
    half = np.arcsin(1 / 1.25)
    upper = arc(-np.pi / 2 - half, -np.pi / 2 + half, 1.25, (0, 0.75))
    return [np.concatenate([upper, (upper * np.array([1, -1]))[::-1]])]


def drop(rng: np.random.Generator) -> Outline:
    """A drop of water, pointing up."""
    return [np.concatenate([arc(-0.45, np.pi + 0.45, 0.62, (0, 0.36)), [[0.0, -1.0]]])]


def blob(rng: np.random.Generator) -> Outline:
    """An irregular patch that belongs to no class: a circle with a varying radius."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = 0.7 + sum(
        rng.uniform(0.06, 0.2) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in rng.choice(5, 2, False) + 2
    )
    return [np.stack([np.cos(angles), np.sin(angles)], 1) * np.asarray(radius)[:, None]]


DETECTION: dict[str, Silhouette] = {
    "arrow": arrow,
    "crescent": crescent,
    "cross": cross,
    "disc": disc,
    "heart": heart,
    "hexagon": partial(regular, corners=6),
    "ring": ring,
    "square": partial(polygon, corners=((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))),
    "star": star,
    "triangle": partial(regular, corners=3),
}
"""The classes of the detection set."""

CLASSIFICATION: dict[str, Silhouette] = {
    "bolt": partial(
        polygon, corners=((0.15, -1), (-0.55, 0.15), (-0.05, 0.15), (-0.25, 1), (0.55, -0.2), (0.05, -0.2), (0.6, -1))
    ),
    "diamond": partial(polygon, corners=((0, -1), (0.68, 0), (0, 1), (-0.68, 0))),
    "drop": drop,
    "ell": partial(
        polygon, corners=((-0.75, -0.95), (-0.2, -0.95), (-0.2, 0.4), (0.8, 0.4), (0.8, 0.95), (-0.75, 0.95))
    ),
    "ellipse": ellipse,
    "frame": frame,
    "gear": gear,
    "half-disc": half_disc,
    "hourglass": partial(
        polygon, corners=((-0.75, -0.95), (0.75, -0.95), (0.15, 0), (0.75, 0.95), (-0.75, 0.95), (-0.15, 0))
    ),
    "lens": lens,
    "octagon": partial(regular, corners=8),
    "parallelogram": partial(polygon, corners=((-0.4, -0.6), (1, -0.6), (0.4, 0.6), (-1, 0.6))),
    "pentagon": partial(regular, corners=5),
    "pie": pie,
    "tee": partial(
        polygon,
        corners=(
            (-0.9, -0.9), (0.9, -0.9), (0.9, -0.35), (0.28, -0.35),
            (0.28, 0.95), (-0.28, 0.95), (-0.28, -0.35), (-0.9, -0.35),
        ),
    ),
    "trapezoid": partial(polygon, corners=((-0.5, -0.65), (0.5, -0.65), (1, 0.65), (-1, 0.65))),
}  # fmt: skip
"""The classes of the classification set, none of which is in the detection set."""


def placed(outline: Outline, scale: tuple[float, float], turn: float, flip: bool) -> Outline:
    """The outline mirrored left to right if `flip`, scaled by `scale` (x, y), and rotated by `turn` radians."""
    cosine, sine = np.cos(turn), np.sin(turn)
    stretch = np.diag([scale[0] * (-1 if flip else 1), scale[1]])
    matrix = np.array([[cosine, -sine], [sine, cosine]]) @ stretch
    return [contour @ matrix.T for contour in outline]


def rasterise(outline: Outline) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """An antialiased mask uint8 [h, w], 0..255, just large enough for the outline (in pixels), and the offset (x, y) of
    its top left corner from the outline's origin, in whole pixels.
    """
    low = np.floor(outline[0].min(0)).astype(int)
    width, height = (np.ceil(outline[0].max(0)).astype(int) - low + 1).tolist()
    image = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    for number, contour in enumerate(outline):
        points = ((contour - low) * SUPERSAMPLING).ravel().tolist()
        draw.polygon(points, fill=255 if number == 0 else 0)
    return np.asarray(image.reduce(SUPERSAMPLING)), (int(low[0]), int(low[1]))
