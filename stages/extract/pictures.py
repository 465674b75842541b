"""Regions as the network sees them: those that activate a unit most, training samples, and the ways to warp a region.

R-CNN's figures 2, 4, 7 and 12.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.extract import ROI_POOL, Settings
from stages.images.reading import Pixels
from stages.images.warp import crop_geometry, warp_regions
from stages.networks import NetworkSource, Preprocessing
from stages.pictures.drawing import PAPER, contact_sheet, draw_field, resized, sections


@dataclass(frozen=True)
class View:
    """How regions become the network's S x S input: see `stages.images.warp`.

    `pooled`: they do not, but are pooled from the map of the whole image; what is shown is the region alone.
    """

    side: int
    mode: str
    padding: int
    preprocessing: Preprocessing
    pooled: bool = False

    @staticmethod
    def of(network: NetworkSource, settings: Settings) -> View:
        """As `network` sees regions under these settings."""
        pooled = settings.method == ROI_POOL
        padding = 0 if pooled else settings.padding
        return View(network.card.input_size, settings.mode, padding, network.preprocessing, pooled)


@dataclass(frozen=True)
class UnitRow:
    """One unit's row of the picture: its title, its regions as the network sees them, uint8 [S, S, 3] each, the
    normalised activations written on them, and the unit's receptive field in the network's input."""

    title: str
    regions: Sequence[Pixels]
    activations: Sequence[float]
    field: tuple[int, int, int, int]


@dataclass(frozen=True)
class Region:
    """One box in an image, uint8 [H, W, 3] RGB, and its title."""

    name: str
    image: Pixels
    box: NDArray[np.float32]


def seen_regions(image: Pixels, boxes: Boxes, view: View) -> list[Pixels]:
    """The regions `boxes` [n, 4] as the network sees them, uint8 [S, S, 3] each; the mean colour outside the image."""
    planes = torch.from_numpy(image).permute(2, 0, 1)
    warped = warp_regions(planes, boxes, view.side, view.mode, view.padding, view.preprocessing)
    return [region.permute(1, 2, 0).contiguous().numpy() for region in view.preprocessing.pixels(warped)]


def unit_sheet(rows: Sequence[UnitRow], side: int, *, columns: int = 16, cell: int = 96) -> Pixels:
    """Figures 4 and 12: each unit's regions, strongest first, with its receptive field outlined in white and its
    activation in the upper left corner of the field. uint8 [H, W, 3]; `side` is S; cells are `cell` pixels wide, at
    most `columns` to a line."""
    scale = cell / side
    longest = max((len(row.regions) for row in rows), default=1)
    columns = math.ceil(longest / math.ceil(longest / columns))  # lines of equal length
    return sections(
        [
            (
                row.title,
                [
                    draw_field(resized(region, cell, cell), tuple(scale * np.array(row.field)), f"{value:.2f}")
                    for region, value in zip(row.regions, row.activations, strict=True)
                ],
            )
            for row in rows
        ],
        columns,
    )


def sample_sheet(
    classes: Sequence[tuple[str, Sequence[Pixels]]], *, columns: int = 8, cell: int = 80, across: int = 2
) -> Pixels:
    """Figure 2: the name of each class and its warped training samples, uint8 [S, S, 3] each."""
    shown = [(name, [resized(sample, cell, cell) for sample in samples]) for name, samples in classes]
    return sections(shown, columns, across=across if len(classes) > 1 else 1)


def transformation_sheet(
    regions: Sequence[Region], side: int, padding: int, preprocessing: Preprocessing, cell: int = 120
) -> Pixels:
    """Figure 7: each region (A) unchanged, in its tightest square (B) with and (C) without context, and (D) warped.

    uint8 [H, W, 3]. Two rows per region, without padding and with `padding` pixels of the S x S input (`side`; the
    paper: S = 227, p = 16), or one row if `padding` is 0. (A) is drawn at the scale of the others; a region too large
    for that is shrunk, and its title says so.
    """
    sheets = []
    for region in regions:
        cells: list[Pixels] = []
        titles: list[str] = []
        for amount in sorted({0, padding}):
            original, shrunk = actual_scale(region, side, amount, cell)
            cells.append(original)
            titles.append("(A)" if shrunk == 1 else f"(A) shrunk, {shrunk:.2f}")
            for letter, mode in (("B", "square"), ("C", "square-masked"), ("D", "warp")):
                view = View(side, mode, amount, preprocessing)
                cells.append(resized(seen_regions(region.image, region.box[None], view)[0], cell, cell))
                titles.append(f"({letter}) p = {amount}")
        sheets.append((region.name, [contact_sheet(cells, 4, titles)]))
    return sections(sheets, 1, across=2)


def actual_scale(region: Region, side: int, padding: int, cell: int) -> tuple[Pixels, float]:
    """The region, with its context if there is padding, at `cell` / S of its size in the middle of an empty cell,
    uint8 [cell, cell, 3]; and the factor by which it had to be shrunk further to fit."""
    height, width = region.image.shape[:2]
    g = crop_geometry(region.box[None], width, height, side, "warp", padding)
    left, top, right, bottom = (int(edge[0]) for edge in (g.left, g.top, g.left + g.width, g.top + g.height))
    window = region.image[top:bottom, left:right]
    scale = cell / side
    shrunk = min(1.0, cell / (scale * max(window.shape[:2])))
    size = [max(1, round(scale * shrunk * length)) for length in (right - left, bottom - top)]
    canvas = np.full((cell, cell, 3), PAPER, np.uint8)
    x, y = (cell - size[0]) // 2, (cell - size[1]) // 2
    canvas[y : y + size[1], x : x + size[0]] = resized(window, *size)
    return canvas, shrunk
