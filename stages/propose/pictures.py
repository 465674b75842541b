"""Contact sheets of proposals, coloured by score, and of the sizes that anchors are moved to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache import Record
from stages.boxes import iou_matrix, reaches
from stages.images.reading import Pixels
from stages.pictures.drawing import contact_sheet
from stages.pictures.legends import Entry, draw_legend, with_margins
from stages.pictures.marks import Mark, draw_marks, draw_proposals
from stages.pictures.palette import FAINT, PROPOSAL, TRUTH, Colour, score_colours
from stages.plurals import number_of
from stages.propose.anchor_trace import ProposalSizes

COVERED = 0.5
"""The IoU from which a proposal covers an object."""
STEPS = 5
"""Colours in the legend."""
SIZE_CELL = 210
"""The side of a cell of the sheet of sizes, in pixels."""


def proposal_sheet(
    dataset: Any,
    proposals: Mapping[str, Record],
    *,
    columns: int = 4,
    cell: tuple[int, int] = (360, 300),
) -> Pixels:
    """The images with all their proposals, thin lines in the colours of their scores, and the annotated objects: uint8
    [H, W, 3] RGB.

    `proposals` maps image ids to records with `boxes` [n, 4] and, if the method ranks them, `scores` [n]; without
    scores all have one colour. `cell` is (width, height) in pixels.
    """
    scores = [record["scores"] for record in proposals.values() if "scores" in record and len(record["scores"])]
    ends = (float(min(map(np.min, scores))), float(max(map(np.max, scores)))) if scores else None
    cells, titles = [], []
    for image_id, record in proposals.items():
        annotated, boxes = dataset.record(image_id), record["boxes"]
        pixels = dataset.read_image(image_id)
        drawn = draw_proposals(pixels, boxes, record.get("scores"), ends, cell)
        scale = np.array([drawn.shape[1] / pixels.shape[1], drawn.shape[0] / pixels.shape[0]] * 2, np.float32)
        marks = [Mark(box * scale, TRUTH, dashed=True) for box in annotated.boxes]
        cells.append(draw_marks(drawn, marks, (drawn.shape[1], drawn.shape[0])))
        titles.append(title_of(image_id, annotated, boxes))
    sheet = contact_sheet(cells, columns, titles)
    width = sheet.shape[1] - 24
    return np.concatenate([with_margins(draw_legend(legend(ends), width, points=13), 12, 0, 12), sheet])


def title_of(image_id: str, annotated: Any, boxes: np.ndarray) -> str:
    """An image's id, and how many of its objects that are not difficult have a proposal with an IoU of COVERED."""
    objects = annotated.boxes[~annotated.difficult]
    best = iou_matrix(objects, boxes).max(axis=1, initial=0.0)
    covered = int(reaches(best, COVERED).sum())
    return f"{image_id}: {number_of(len(boxes), 'proposal')}, {covered} of {number_of(len(objects), 'object')} covered"


def legend(ends: tuple[float, float] | None) -> Sequence[Sequence[Entry]]:
    """The colours of scores between these `ends` (None: there are no scores), and what the white dashes are."""
    if ends is None:
        colours = [Entry("proposals, which this method does not score", PROPOSAL, line=True)]
    else:
        values = np.linspace(*ends, STEPS)
        entries = zip(score_colours(np.linspace(0, 1, STEPS)), values, strict=True)
        colours = [Entry("score of the proposal:"), *(Entry(f"{value:.3g}", as_colour(ink)) for ink, value in entries)]
    covered = f"covered: by a proposal with an IoU of {COVERED:g} or more"
    return [[*colours, Entry("annotated objects", TRUTH, dashed=True), Entry(covered)]]


def as_colour(ink: np.ndarray) -> Colour:
    """A colour float32 [3] as whole numbers."""
    red, green, blue = (round(float(channel)) for channel in ink)
    return red, green, blue


def size_sheet(sizes: ProposalSizes, columns: int) -> Pixels:
    """Each anchor and, around the same centre, the average size of its proposals, all at one scale, in rows of
    `columns`: uint8 [H, W, 3] RGB."""
    anchors = (sizes.anchors[:, 2:] - sizes.anchors[:, :2]).astype(np.float64)
    scale = (SIZE_CELL - 12) / max(float(anchors.max()), float(np.nanmax(sizes.means, initial=1.0)))
    ground = np.full((SIZE_CELL, SIZE_CELL, 3), 48, np.uint8)
    cells = []
    for anchor, mean in zip(anchors, sizes.means, strict=True):
        marks = [Mark(centred(anchor * scale), FAINT)]
        if np.isfinite(mean).all():
            marks.insert(0, Mark(centred(mean * scale), PROPOSAL))
        cells.append(draw_marks(ground, marks, (SIZE_CELL, SIZE_CELL)))
    sheet = contact_sheet(cells, columns, size_words(sizes))
    width = sheet.shape[1] - 24
    entries = [Entry("anchor", FAINT, line=True), Entry("average size of its proposals", PROPOSAL, line=True)]
    return np.concatenate([with_margins(draw_legend([entries], width, points=13), 12, 0, 12), sheet])


def size_words(sizes: ProposalSizes) -> list[str]:
    """Each anchor's size and the average of its proposals': "128 x 128: 113 x 114 (1,204)"."""
    words = []
    for anchor, mean, count in zip(sizes.anchors, sizes.means, sizes.counts, strict=True):
        width, height = anchor[2:] - anchor[:2]
        average = f"{mean[0]:.0f} x {mean[1]:.0f} ({count:,})" if count else "none"
        words.append(f"{width:.0f} x {height:.0f}: {average}")
    return words


def centred(size: np.ndarray) -> np.ndarray:
    """A box float64 [4] of this size (width, height) around the centre of a cell."""
    return np.concatenate([(SIZE_CELL - size) / 2, (SIZE_CELL + size) / 2])
