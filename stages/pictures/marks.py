"""Drawing boxes of several kinds on one image, such as true positives, false positives and missed objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from stages.boxes import Boxes
from stages.images.reading import Pixels
from stages.masks import Mask
from stages.pictures.drawing import Rectangle, draw_box, draw_label, fitted, pixel_corners
from stages.pictures.palette import PROPOSAL, Colour, score_colours

DASH = 7
FAINTEST = 0.25
"""The opacity of the lowest score."""


@dataclass(frozen=True)
class Mark:
    """A box float32 [4] in pixels of the image, with colour and label; `dashed` for annotated objects, `thin` for one
    of many. `stroke` is the line width in pixels (None: that of all marks), `ground` the label's background (None:
    `colour`)."""

    box: NDArray[np.floating]
    colour: Colour
    text: str = ""
    dashed: bool = False
    thin: bool = False
    stroke: int | None = None
    ground: Colour | None = None


def draw_marks(image: Pixels, marks: Sequence[Mark], cell: tuple[int, int], stroke: int = 2) -> Pixels:
    """`image` scaled to fit `cell` (width, height), with marks, the first one on top: uint8 [H, W, 3] RGB.

    Labels that would hide an earlier one are left out; the boxes keep their colours.
    """
    canvas, scale = fitted(image, cell)
    pen = ImageDraw.Draw(canvas)
    boxes = [mark.box * scale for mark in marks]
    for mark, box in reversed(list(zip(marks, boxes, strict=True))):
        width = stroke if mark.stroke is None else mark.stroke
        if mark.dashed:
            draw_dashed(pen, pixel_corners(box, canvas.size), mark.colour, width)
        elif mark.thin:
            pen.rectangle(pixel_corners(box, canvas.size), outline=mark.colour)
        else:
            draw_box(pen, box, mark.colour, width, canvas.size)
    taken: list[Rectangle] = []
    for mark, box in zip(marks, boxes, strict=True):
        if mark.text:
            taken += draw_label(pen, mark.text, box, mark.ground or mark.colour, canvas.size, taken)
    return np.asarray(canvas).copy()


def draw_many(
    image: Pixels,
    boxes: Boxes,
    colours: Colour | NDArray[np.floating],
    cell: tuple[int, int],
    opacity: float | NDArray[np.floating],
) -> Pixels:
    """`image` scaled to fit `cell`, with the outlines of many `boxes` [n, 4], the last one on top, in one colour or in
    `colours` [n, 3], with an `opacity` in 0..1 or one for each [n]: uint8 [H, W, 3] RGB."""
    canvas, scale = fitted(image, cell)
    drawn = np.asarray(canvas).astype(np.float32)
    inks = np.broadcast_to(np.asarray(colours, np.float32), (len(boxes), 3))
    opacities = np.broadcast_to(np.asarray(opacity, np.float32), len(boxes))
    for box, ink, share in zip(boxes, inks, opacities, strict=True):
        left, top, right, bottom = pixel_corners(box * scale, canvas.size)
        edges = ((top, slice(left, right + 1)), (bottom, slice(left, right + 1)))
        for place in (*edges, (slice(top, bottom + 1), left), (slice(top, bottom + 1), right)):
            drawn[place] += share * (ink - drawn[place])
    return drawn.round().astype(np.uint8)


def draw_scored(
    image: Pixels, boxes: Boxes, scores: NDArray[np.floating], ends: tuple[float, float], cell: tuple[int, int]
) -> Pixels:
    """`image` scaled to fit `cell`, with the outlines of many `boxes` [n, 4] in the colours of their `scores` [n], the
    highest on top and the lowest faint; `ends` are the scores of the first and the last colour: uint8 [H, W, 3] RGB."""
    low, high = ends
    order = np.argsort(scores, kind="stable")
    shares = np.clip((scores[order].astype(np.float64) - low) / max(high - low, 1e-9), 0, 1)
    return draw_many(image, boxes[order], score_colours(shares), cell, FAINTEST + (1 - FAINTEST) * shares)


def draw_proposals(
    image: Pixels,
    boxes: Boxes,
    scores: NDArray[np.floating] | None,
    ends: tuple[float, float] | None,
    cell: tuple[int, int],
) -> Pixels:
    """`image` scaled to fit `cell`, with the outlines of proposals [n, 4] in the colours of their `scores` [n] between
    `ends` (see `draw_scored`); without scores in one colour, the fainter the more there are: uint8 [H, W, 3] RGB."""
    if scores is None or ends is None:
        return draw_many(image, boxes, PROPOSAL, cell, float(np.clip(60 / max(1, len(boxes)), 0.12, 1)))
    return draw_scored(image, boxes, scores, ends, cell)


def tinted(image: Pixels, mask: Mask, colour: Colour, opacity: float = 0.4) -> Pixels:
    """A copy of `image` uint8 [H, W, 3] with the region `mask` bool [H, W] in `colour`: its edge, one pixel wide, and
    with `opacity` in 0..1 the rest."""
    drawn, ink = image.astype(np.float32), np.array(colour, np.float32)
    drawn[mask] += opacity * (ink - drawn[mask])
    framed = np.pad(mask, 1)
    within = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    drawn[mask & ~within] = ink
    return drawn.round().astype(np.uint8)


def draw_dashed(pen: ImageDraw.ImageDraw, corners: Rectangle, colour: Colour, stroke: int) -> None:
    """A dashed outline inside the pixels `corners`, on a dark one to be visible on any background."""
    left, top, right, bottom = corners
    pen.rectangle(corners, outline=(0, 0, 0), width=stroke)
    for x in range(left, right + 1, 2 * DASH):
        end = min(x + DASH - 1, right)
        pen.rectangle((x, top, end, min(top + stroke - 1, bottom)), fill=colour)
        pen.rectangle((x, max(bottom - stroke + 1, top), end, bottom), fill=colour)
    for y in range(top, bottom + 1, 2 * DASH):
        end = min(y + DASH - 1, bottom)
        pen.rectangle((left, y, min(left + stroke - 1, right), end), fill=colour)
        pen.rectangle((max(right - stroke + 1, left), y, right, end), fill=colour)
