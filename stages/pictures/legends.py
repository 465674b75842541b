"""Legends of sheets, wrapped to the sheet's width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from stages.images.reading import Pixels
from stages.pictures.drawing import font_of, shortened, wrapped
from stages.pictures.marks import draw_dashed
from stages.pictures.palette import INK, PAPER, Colour

SWATCH = 14
BETWEEN = 18
"""Pixels between entries on a line."""


@dataclass(frozen=True)
class Entry:
    """A legend entry: `words` after a patch of `colour`, a `dashed` outline or a `line`; without a colour, just the
    words."""

    words: str
    colour: Colour | None = None
    dashed: bool = False
    line: bool = False

    @property
    def indent(self) -> int:
        """Pixels before the words."""
        return 0 if self.colour is None else SWATCH + 6 + (8 if self.line or self.dashed else 0)


def draw_legend(paragraphs: Sequence[Sequence[Entry]], width: int, points: int = 15) -> Pixels:
    """The entries from left to right, each paragraph starting a new line: uint8 [H, `width`, 3] RGB on PAPER.

    Entries that do not fit a line move to the next; longer ones are broken between words, and only words longer than a
    line are truncated, with an ellipsis.
    """
    font = font_of(points)
    step = sum(font.getmetrics()) + 4
    end = width - 2  # the last letter's edge may be a pixel further right than its advance
    placed: list[tuple[float, int, Entry, str]] = []
    row = -1
    for paragraph in paragraphs:
        row, left = row + 1, 0.0
        for entry in paragraph:
            room = end - entry.indent
            for number, piece in enumerate(wrapped(entry.words, points, room)):
                text = shortened(piece, font, room)
                length = entry.indent + font.getlength(text)
                if left and (number or left + length > end):
                    row, left = row + 1, 0.0
                indented = left if number == 0 else left + entry.indent
                placed.append((indented, row, entry if number == 0 else Entry(""), text))
                left += length + BETWEEN
    canvas = Image.new("RGB", (width, max(1, (row + 1) * step)), PAPER)
    pen = ImageDraw.Draw(canvas)
    for left, line, entry, text in placed:
        top = line * step
        if entry.colour is not None:
            draw_swatch(pen, entry, (round(left), top + (step - SWATCH) // 2 - 1))
        pen.text((left + entry.indent, top), text, fill=INK, font=font)
    return np.asarray(canvas).copy()


def with_margins(image: Pixels, top: int, bottom: int, sides: int = 0) -> Pixels:
    """`image` uint8 [H, W, 3] RGB with margins of PAPER, in pixels."""
    height, width = image.shape[:2]
    canvas = np.full((top + height + bottom, width + 2 * sides, 3), PAPER, np.uint8)
    canvas[top : top + height, sides : sides + width] = image
    return canvas


def draw_swatch(pen: ImageDraw.ImageDraw, entry: Entry, corner: tuple[int, int]) -> None:
    """Draws the symbol of an entry with a colour, its top left pixel at `corner`."""
    assert entry.colour is not None
    left, top = corner
    right, bottom = left + entry.indent - 7, top + SWATCH - 1
    if entry.dashed:
        draw_dashed(pen, (left, top, right, bottom), entry.colour, 2)
    elif entry.line:
        pen.rectangle((left, top + SWATCH // 2 - 2, right, top + SWATCH // 2 + 1), fill=entry.colour)
    else:
        pen.rectangle((left, top, right, bottom), fill=entry.colour, outline=INK)
