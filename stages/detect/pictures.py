"""How the windows of a network that is read densely become detections (OverFeat, arXiv 1312.6229, Figures 6, 7, 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.boxes import Boxes
from stages.detect.trace import Trace
from stages.detections.candidates import Scored
from stages.images.reading import Pixels
from stages.pictures.drawing import class_colours, contact_sheet, fitted
from stages.pictures.legends import Entry, draw_legend, with_margins
from stages.pictures.marks import Mark, draw_many, draw_marks
from stages.pictures.palette import PAPER, TRUTH
from stages.plurals import number_of

HIGH = 0.5
"""The score from which the best window of a class is outlined in a confidence map."""
OUTLINED = 3
"""Windows outlined in a confidence map at most."""
DIMMED = 0.55
"""The brightness of the image behind a confidence map."""
FAINTEST = 0.12
"""The opacity of candidates with a score of 0."""


@dataclass(frozen=True)
class Steps:
    """An image, uint8 [H, W, 3] RGB, how its detections came about, and the marks of those that are `left`."""

    image: Pixels
    trace: Trace
    left: Sequence[Mark]


def window_sheet(images: Mapping[str, Steps], least: str, cell: tuple[int, int] = (250, 210)) -> Pixels:
    """A row for each of the images, by their ids: a confidence map of each scale, all candidates, and what is left:
    uint8 [H, W, 3] RGB. `least` says which of the boxes left are drawn; `cell` is (width, height) in pixels.

    All images are of one detector whose windows have levels.
    """
    scales = max(int(levels_of(steps.trace.scored).max(initial=-1)) for steps in images.values()) + 1
    sheets, shown = [], set[int]()
    for image_id, steps in images.items():
        scored, moved = steps.trace.scored, steps.trace.moved
        shown |= set(moved.labels.tolist())
        maps = [np.flatnonzero(levels_of(scored) == level) for level in range(scales)]
        pictures = [confidence_map(steps.image, scored, rows, cell) for rows in maps]
        pictures += [candidates(steps, cell), draw_marks(steps.image, steps.left, cell)]
        merged = "merged into" if steps.trace.merges else "left by suppression:"
        titles = [map_title(scored.boxes[rows]) for rows in maps]
        titles += [number_of(len(moved), "candidate"), f"{merged} {number_of(len(steps.trace.detections), 'box')}"]
        pictures = [centred(picture, cell[0]) for picture in pictures]
        sheets.append(contact_sheet(pictures, len(pictures), titles, heading=[image_id]))
    trace = next(iter(images.values())).trace
    words = draw_legend(legend(trace, sorted(shown), least), sheets[0].shape[1] - 24, points=13)
    return np.concatenate([with_margins(words, 12, 0, 12), *sheets])


def legend(trace: Trace, shown: Sequence[int], least: str) -> list[list[Entry]]:
    """What is drawn, and the colours of the classes that are `shown`."""
    classes = trace.scored.classes
    colours = class_colours(len(classes))
    regressed = ", regressed" if trace.scored.regress is not None else ""
    return [
        [
            Entry(
                "From left to right: the windows of each scale, the centre of each in the colour of its best class, "
                f"the stronger the higher the score, and outlined the best window of each of up to {OUTLINED} classes "
                f"that score {HIGH:g} or more; the boxes of all candidates{regressed}; what becomes of them: drawn are "
                f"the detections {least}, with their precision."
            )
        ],
        [*(Entry(classes[label], colours[label]) for label in shown), Entry("annotated objects", TRUTH, dashed=True)],
    ]


def levels_of(scored: Scored) -> NDArray[np.int32]:
    """The scale of each window, int32 [n]."""
    assert scored.levels is not None
    return scored.levels


def map_title(windows: Boxes) -> str:
    """How many windows [n, 4] there are, and how large they are in the image: "1,036 windows of 119 px"."""
    if not len(windows):
        return "no window fits"
    return f"{number_of(len(windows), 'window')} of {np.mean(windows[:, 3] - windows[:, 1]):.0f} px"


def confidence_map(image: Pixels, scored: Scored, rows: NDArray[np.int64], cell: tuple[int, int]) -> Pixels:
    """The dimmed image, scaled to fit `cell`, with the windows `rows` int64 [n] of one scale: around the centre of each
    a patch in the colour of its best class, whose opacity is the score; uint8 [H, W, 3] RGB."""
    canvas, scale = fitted(image, cell)
    drawn = np.repeat(np.asarray(canvas.convert("L"), np.float32)[:, :, None] * DIMMED, 3, axis=2)
    if not len(rows):
        return drawn.round().astype(np.uint8)
    scores = np.where(scored.trained, scored.scores[rows], -np.inf)
    inks = np.array(class_colours(len(scored.classes)), np.float32)[scores.argmax(axis=1)]
    for (left, top, right, bottom), ink, score in zip(
        patches(scored.boxes[rows] * scale).tolist(), inks, scores.max(axis=1), strict=True
    ):
        place = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
        drawn[place] += np.clip(score, 0, 1) * (ink - drawn[place])
    marks = best_windows(scored, rows, scores)
    scaled = [Mark(mark.box * scale, mark.colour, mark.text, stroke=mark.stroke) for mark in marks]
    return draw_marks(drawn.round().astype(np.uint8), scaled, canvas.size)


def patches(windows: Boxes) -> NDArray[np.int64]:
    """Patches around the centres of windows [n, 4] on a grid, which touch each other: whole corners, int64 [n, 4]."""
    centres = (windows[:, :2] + windows[:, 2:]) / 2
    steps = []
    for along, sides in zip(centres.T, (windows[:, 2:] - windows[:, :2]).T, strict=True):
        gaps = np.diff(np.unique(along.round(2)))
        steps.append(float(gaps.min()) if len(gaps) else float(sides[0]))
    known = [step for step, along in zip(steps, centres.T, strict=True) if len(np.unique(along.round(2))) > 1]
    half = np.array([min(known)] * 2 if known else steps) / 2  # windows are equally far apart along both axes
    return np.concatenate([(centres - half).round(), (centres + half).round()], axis=1).astype(np.int64)


def best_windows(scored: Scored, rows: NDArray[np.int64], scores: NDArray[np.floating]) -> list[Mark]:
    """The best of the windows `rows` [n], with `scores` [n, K], for each class that has a HIGH score, best first."""
    best = scores.max(axis=0)
    labels = [label for label in np.argsort(-best, kind="stable")[:OUTLINED] if best[label] >= HIGH]
    colours = class_colours(len(scored.classes))
    return [
        Mark(
            scored.boxes[rows[scores[:, label].argmax()]],
            colours[label],
            f"{scored.classes[label]} {best[label]:.2f}",
            stroke=2,
        )
        for label in labels
    ]


def candidates(steps: Steps, cell: tuple[int, int]) -> Pixels:
    """The image, scaled to fit `cell`, with the boxes of all candidates in the colours of their classes, the best on
    top and the others fainter: uint8 [H, W, 3] RGB."""
    moved = steps.trace.moved
    order = np.argsort(moved.scores, kind="stable")
    inks = np.array(class_colours(len(steps.trace.scored.classes)), np.float32)[moved.labels[order]]
    opacity = FAINTEST + (1 - FAINTEST) * np.clip(moved.scores[order], 0, 1)
    return draw_many(steps.image, moved.boxes[order], inks, cell, opacity)


def centred(picture: Pixels, width: int) -> Pixels:
    """A picture in the middle of a strip of this width: uint8 [H, width, 3] RGB."""
    canvas = Image.new("RGB", (width, picture.shape[0]), PAPER)
    canvas.paste(Image.fromarray(picture), ((width - picture.shape[1]) // 2, 0))
    return np.asarray(canvas).copy()
