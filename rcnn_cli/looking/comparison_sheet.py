"""The sheet of `rcnn compare`: images as A and as B see them, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from rcnn_cli.looking.evaluated import NAMES
from stages.images.reading import Pixels
from stages.matching.error_types import DIFFICULT
from stages.pictures.drawing import font_of, shortened
from stages.pictures.legends import Entry, draw_legend, with_margins
from stages.pictures.marks import Mark, draw_marks
from stages.pictures.palette import INK, PAPER, kind_colour

if TYPE_CHECKING:
    from rcnn_cli.looking.comparison import Side

CELL = (340, 280)
GAP = 14
COLUMNS = 2
LEGEND = {
    "true": "true",
    "Loc": "Loc: poorly localised, or a duplicate",
    "Sim": "Sim: on a similar class",
    "Oth": "Oth: on another class",
    "BG": "BG: on background",
    "ignored": "ignored: on a difficult object",
}
"""What the colours of detections mean; four are types of false positives."""


def comparison_sheet(a: Side, b: Side, images: Sequence[Mapping[str, Any]]) -> Pixels:
    """The images as A (left) and B (right) see them, with what each found, got wrong and missed: uint8 RGB [H, W, 3].

    `images` are entries of `comparison.images_as_json`. Boxes have a precision of at least 0.5; the number is the
    detector's precision at that score.
    """
    pairs = [pair(a, b, image) for image in images]
    columns = min(COLUMNS, len(pairs))
    rows = [pairs[first : first + columns] for first in range(0, len(pairs), columns)]
    heights = [max(cell.shape[0] for cell in row) + GAP for row in rows]
    width = pairs[0].shape[1] + 2 * GAP
    head = heading(a, b, columns * width - 2 * GAP)
    sheet = Image.new("RGB", (columns * width, head.shape[0] + sum(heights)), PAPER)
    sheet.paste(Image.fromarray(head), (GAP, 0))
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.paste(Image.fromarray(cell), (GAP + column * width, head.shape[0] + sum(heights[:number])))
    return np.asarray(sheet).copy()


def pair(a: Side, b: Side, entry: Mapping[str, Any]) -> Pixels:
    """The image of an `entry` of `comparison.images_as_json` as A and B see it, captioned: uint8 RGB [H, W, 3]."""
    evaluated = a.evaluated
    image = evaluated.detections.image_index[entry["image"]]
    pixels = evaluated.dataset.read_image(entry["image"])
    scenes = [draw_marks(pixels, marks(side, image), CELL) for side in (a, b)]
    font = font_of(14)
    line = sum(font.getmetrics()) + 2
    height, width = scenes[0].shape[:2]
    canvas = Image.new("RGB", (2 * CELL[0] + 4, height + 2 * line + 4), PAPER)
    pen = ImageDraw.Draw(canvas)
    gain = f": {entry['gain']:+.2f} in B"
    name = shortened(entry["image"], font_of(15), int(2 * CELL[0] - font_of(15).getlength(gain)))
    pen.text((CELL[0] + 2, 0), name + gain, fill=INK, font=font_of(15), anchor="ma")
    for number, scene in enumerate(scenes):
        left = number * (CELL[0] + 4)
        canvas.paste(Image.fromarray(scene), (left + (CELL[0] - width) // 2, line + 2))
        words = f"{'AB'[number]}: {entry['found'][number]} of {entry['objects']} found, {entry['false'][number]} false"
        pen.text((left + CELL[0] / 2, height + line + 4), words, fill=INK, font=font, anchor="ma")
    return np.asarray(canvas).copy()


def marks(side: Side, image: int) -> list[Mark]:
    """What a run shows in an image: false positives first, to be drawn on top, then missed objects, then the rest."""
    evaluated = side.evaluated
    classes, every = evaluated.detections.classes, evaluated.detections.every
    rows = np.flatnonzero(side.shown & (evaluated.images == image))
    rows = rows[np.argsort(-evaluated.precision[rows], kind="stable")]
    false, true, ignored = [], [], []
    for row in rows:
        text, kind = f"{classes[every.labels[row]]} {evaluated.precision[row]:.2f}", NAMES[int(evaluated.verdicts[row])]
        if side.false[row]:
            false.append(Mark(every.boxes[row], kind_colour(kind), f"{kind}: {text}"))
        elif side.true[row]:
            true.append(Mark(every.boxes[row], kind_colour(kind), text))
        elif evaluated.verdicts[row] == DIFFICULT:
            ignored.append(Mark(every.boxes[row], kind_colour(kind), text))
    objects = evaluated.objects
    missed = [
        Mark(
            objects.boxes[row],
            kind_colour("missed"),
            f"missed {evaluated.dataset.classes[objects.labels[row]]}",
            dashed=True,
        )
        for row in np.flatnonzero((objects.images == image) & ~objects.difficult & ~side.has_found)
    ]
    return [*false, *missed, *true, *ignored]


def heading(a: Side, b: Side, width: int) -> Pixels:
    """The legend: which side is which run, and what the colours mean."""
    sides = [Entry(f"A (left): {a.name}"), Entry(f"B (right): {b.name}")]
    kinds = [Entry(words, kind_colour(kind)) for kind, words in LEGEND.items()]
    missed = Entry("missed object", kind_colour("missed"), dashed=True)
    note = Entry("numbers: the precision at the detection's score")
    legend = draw_legend([sides, [*kinds, missed, note]], width)
    return with_margins(legend, GAP, GAP)
