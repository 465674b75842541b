"""Which part of a training image is seen: random crops that keep an object in sight, and mirroring.

Symbols: n boxes, m objects of an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes, covered_share, has_area, reaches
from stages.images.colours import drawn_colours, recoloured
from stages.images.reading import Pixels

TRIALS = 40
"""Crops that are tried until one keeps an object; after that the image is not cropped (torchvision's RandomIoUCrop)."""


def mirrored_boxes(boxes: Boxes, width: int) -> Boxes:
    """Boxes [n, 4] in the mirrored image of `width` pixels: float32 [n, 4]."""
    return np.column_stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]]).astype(np.float32)


@dataclass(frozen=True)
class Crop:
    """A part of an image, from the pixel (`left`, `top`) on, `width` x `height` pixels."""

    left: int
    top: int
    width: int
    height: int

    def pixels(self, image: Pixels) -> Pixels:
        """The part of an image uint8 [H, W, 3]: uint8 [height, width, 3], a view of it."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def boxes(self, boxes: Boxes) -> Boxes:
        """Boxes [n, 4] of the image in the pixels of the crop, clipped to it: float32 [n, 4]. Those that lie outside
        have no area."""
        corner = np.array([self.left, self.top, self.left, self.top], np.float32)
        return clip_boxes((boxes - corner).astype(np.float32), self.width, self.height)

    def visible(self, boxes: Boxes) -> NDArray[np.float64]:
        """The share of the area of each box [n, 4] of the image that the crop shows: float64 [n]."""
        edges = np.array([[self.left, self.top, self.left + self.width, self.top + self.height]], np.float32)
        return covered_share(boxes, edges)[:, 0]


@dataclass(frozen=True)
class View:
    """How an image of `width` pixels is seen: its `crop`, if it is cropped, mirrored or not."""

    width: int
    mirrored: bool = False
    crop: Crop | None = None

    def boxes(self, boxes: Boxes) -> Boxes:
        """Boxes [n, 4] of the image as they are seen, clipped to the crop: float32 [n, 4]."""
        cropped = boxes if self.crop is None else self.crop.boxes(boxes)
        width = self.width if self.crop is None else self.crop.width
        return mirrored_boxes(cropped, width) if self.mirrored else cropped

    def visible(self, boxes: Boxes) -> NDArray[np.float64]:
        """The share of the area of each box [n, 4] that is seen: float64 [n]."""
        return np.ones(len(boxes)) if self.crop is None else self.crop.visible(boxes)

    def regions(self, boxes: Boxes, least_visible: float) -> Boxes:
        """Those of the boxes [n, 4] of which at least the share `least_visible` is seen, as they are seen: float32
        [k, 4]. All of them where the image is not cropped."""
        if self.crop is None:
            return self.boxes(boxes)
        seen = self.boxes(boxes)
        return seen[reaches(self.visible(boxes), least_visible) & has_area(seen)]


def drawn_crop(
    size: tuple[int, int], objects: Boxes, jitter: float, least_visible: float, random: np.random.Generator
) -> Crop | None:
    """A random crop of an image of `size` (width, height) that shows at least the share `least_visible` of one of its
    `objects` [m, 4]; any crop where there are none. None if TRIALS crops show too little.

    Each side is drawn between 1 - `jitter` and 1 times the image's, then the place (detectron2, RandomCrop with
    "relative_range").
    """
    for _ in range(TRIALS):
        crop = random_crop(size, jitter, random)
        visible = crop.visible(objects)
        if not len(objects) or (reaches(visible, least_visible) & (visible > 0)).any():
            return crop
    return None


def random_crop(size: tuple[int, int], jitter: float, random: np.random.Generator) -> Crop:
    """A crop whose sides are drawn between 1 - `jitter` and 1 times those of `size` (width, height), anywhere."""
    width, height = (
        max(1, round(side * share)) for side, share in zip(size, 1 - jitter * random.random(2), strict=True)
    )
    left, top = (int(random.integers(side - own + 1)) for side, own in zip(size, (width, height), strict=True))
    return Crop(left, top, width, height)


def drawn_scale(jitter: float, random: np.random.Generator) -> float:
    """A factor between 1 - `jitter` and 1 + `jitter`."""
    return float(1 + jitter * (2 * random.random() - 1))


def with_drawn_colours(pixels: Pixels, jitter: float, random: np.random.Generator) -> Pixels:
    """The image uint8 [H, W, 3] with its colours changed at random, with the strength `jitter`."""
    change = drawn_colours(jitter, random)
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return recoloured(image, change).permute(1, 2, 0).numpy()
