"""Pictures of segmentations: an image, its truth and what was segmented, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.datasets.class_masks import VOID
from stages.images.reading import Pixels
from stages.pictures.drawing import class_colours, contact_sheet, fitted
from stages.pictures.legends import Entry, draw_legend, with_margins
from stages.pictures.marks import tinted
from stages.pictures.palette import GREY

OPACITY = 0.6
CELL = (300, 240)
GAP = 12


@dataclass(frozen=True)
class Segmented:
    """An image uint8 [H, W, 3] RGB called `name`, its class mask and its label map, uint8 [H, W] each; its `accuracy`
    is the share of its pixels that are labelled correctly, nan if all are void."""

    name: str
    image: Pixels
    truth: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    accuracy: float


def draw_labels(image: Pixels, labels: NDArray[np.uint8], classes: int) -> Pixels:
    """A copy of `image` uint8 [H, W, 3] RGB with each of the `classes` in its colour, void pixels in grey; `labels`
    uint8 [H, W] are 0 for the background, which stays as it is, and k + 1 for class k."""
    drawn = image
    for label in np.unique(labels[labels != 0]).tolist():
        colour = GREY if label == VOID else class_colours(classes)[label - 1]
        drawn = tinted(drawn, labels == label, colour, OPACITY)
    return drawn


def segmentation_sheet(images: Sequence[Segmented], classes: Sequence[str]) -> Pixels:
    """Three columns, image, truth and result, a row for each of the images, and a legend of the classes that occur:
    uint8 [H, W, 3] RGB."""
    cells, titles = [], []
    present: set[int] = set()
    for shown in images:
        present |= {*np.unique(shown.truth).tolist(), *np.unique(shown.labels).tolist()}
        for picture in (
            shown.image,
            draw_labels(shown.image, shown.truth, len(classes)),
            draw_labels(shown.image, shown.labels, len(classes)),
        ):
            cells.append(np.asarray(fitted(picture, CELL)[0]))
        correct = "" if np.isnan(shown.accuracy) else f", {100 * shown.accuracy:.0f} % of pixels"
        titles += [shown.name, "truth", f"result{correct}"]
    sheet = contact_sheet(cells, 3, titles, GAP)
    entries = [Entry(name, class_colours(len(classes))[k]) for k, name in enumerate(classes) if k + 1 in present]
    if VOID in present:
        entries.append(Entry("void", GREY))
    legend = draw_legend([entries], sheet.shape[1] - 2 * GAP)
    joined = with_margins(sheet, 0, legend.shape[0] + GAP)
    joined[sheet.shape[0] : sheet.shape[0] + legend.shape[0], GAP : GAP + legend.shape[1]] = legend
    return joined
