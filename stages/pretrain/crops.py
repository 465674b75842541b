"""Random crops of images, as OverFeat section 3.1 trains on, or GoogLeNet (arXiv 1409.4842, section 6).

Images are scaled to a shorter side of a fixed length and a crop of the network's input size is cut, mirrored or not.
OverFeat takes five crops of an image, and their mirror images; here each epoch draws one. GoogLeNet's crops are of any
size and nearly any shape, and are scaled to the input. Symbols: n images, N a batch, S the side of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stages.images.batches import read_ahead
from stages.images.colours import AS_THEY_ARE, ColourChange, drawn_colours, recoloured
from stages.images.reading import Pixels
from stages.images.scale import scaled_image
from stages.training.image_memory import ImageMemory

CENTRE = (0.5, 0.5)
SHAPES = (3 / 4, 4 / 3)
"""Width over height of GoogLeNet's crops: the least and the most."""


def scaled_pixels(side: int, pixels: Pixels) -> Pixels:
    """An image uint8 [H, W, 3] scaled to a shorter side of `side` pixels, as whole images enter a network, rounded."""
    scaled = scaled_image(pixels, side / min(pixels.shape[:2]))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def cut(pixels: Pixels, place: tuple[float, float], side: int, mirrored: bool) -> NDArray[np.uint8]:
    """The crop uint8 [3, S, S] with sides of `side` pixels of an image [H, W, 3], mirrored if asked.

    `place` (x, y), from 0 to 1 each, says how far the crop lies between the left and the right edge, and between the
    top and the bottom.
    """
    crop = part(pixels, place, side, side)
    return np.ascontiguousarray((crop[:, ::-1] if mirrored else crop).transpose(2, 0, 1))


def part(pixels: Pixels, place: tuple[float, float], width: int, height: int) -> Pixels:
    """The part of `width` x `height` pixels of an image [H, W, 3] at a `place` (see `cut`): a view of it."""
    left, top = (
        min(int(share * (length - own + 1)), length - own)
        for share, length, own in zip(place, (pixels.shape[1], pixels.shape[0]), (width, height), strict=True)
    )
    return pixels[top : top + height, left : left + width]


def resized_part(pixels: Pixels, place: tuple[float, float], extent: Extent, side: int) -> Pixels:
    """The part of an image [H, W, 3] of an `extent` at a `place` (see `cut`), scaled to uint8 [S, S, 3], bilinear; no
    wider or higher than the image."""
    cells = extent.area * pixels.shape[0] * pixels.shape[1]
    width = min(max(1, round((cells * extent.shape) ** 0.5)), pixels.shape[1])
    height = min(max(1, round((cells / extent.shape) ** 0.5)), pixels.shape[0])
    crop = np.ascontiguousarray(part(pixels, place, width, height))
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR))


@dataclass(frozen=True)
class Extent:
    """The share `area` of an image's area, and the `shape` of a crop, width over height."""

    area: float
    shape: float


@dataclass(frozen=True)
class Crop:
    """Which crop of which image: its `position` in the dataset, its `place` (see `cut`), and whether it is mirrored.

    It is cut in the size of the input, or scaled to it from its `extent`; then its `colours` are changed.
    """

    position: int
    place: tuple[float, float]
    mirrored: bool
    extent: Extent | None = None
    colours: ColourChange = AS_THEY_ARE

    def of(self, pixels: Pixels, side: int) -> torch.Tensor:
        """This crop of an image uint8 [H, W, 3], for an input of `side` pixels: uint8 [3, S, S]."""
        whole = pixels if self.extent is None else resized_part(pixels, self.place, self.extent, side)
        return recoloured(torch.from_numpy(cut(whole, self.place, side, self.mirrored)), self.colours)


@dataclass(frozen=True)
class CroppedImages:
    """The images at these `positions` int64 [n] of the dataset of `memory`, their classes `labels` int64 [n], and the
    `side` of the network's input in pixels; `threads` read them ahead.

    Random crops show at least the share `area` of an image, or are cut in the input's size if it is None, and their
    colours are jittered with the strength `colours`."""

    memory: ImageMemory
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    side: int
    threads: int
    area: float | None = None
    colours: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    def random_batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One random crop of each image, in random order: batches uint8 [N, 3, S, S] with labels int64 [N].

        All of them are drawn from `generator` before the first is read. A last batch of one image is dropped, as batch
        normalisation cannot train on it. Raises BadImage.
        """
        order = torch.randperm(len(self), generator=generator).numpy()
        places = torch.rand((len(self), 2), generator=generator).tolist()
        mirrored = torch.randint(2, (len(self),), generator=generator).bool().tolist()
        extents, colours = self.random_extents(generator), self.random_colours(generator)
        crops = [
            Crop(int(self.positions[index]), (x, y), flip, extent, change)
            for index, (x, y), flip, extent, change in zip(order, places, mirrored, extents, colours, strict=True)
        ]
        starts = [start for start in range(0, len(self), size) if len(self) - start > 1]
        return self.read((crops[start : start + size], self.labels[order[start : start + size]]) for start in starts)

    def random_extents(self, generator: torch.Generator) -> list[Extent | None]:
        """The extent of each of n crops: its area uniform, its shape uniform in the logarithm."""
        if self.area is None:
            return [None] * len(self)
        drawn = torch.rand((len(self), 2), generator=generator, dtype=torch.float64).numpy()
        areas = self.area + (1 - self.area) * drawn[:, 0]
        low, high = np.log(SHAPES)
        shapes = np.exp(low + (high - low) * drawn[:, 1])
        return [Extent(float(area), float(shape)) for area, shape in zip(areas, shapes, strict=True)]

    def random_colours(self, generator: torch.Generator) -> list[ColourChange]:
        """How the colours of each of n crops change."""
        if not self.colours:
            return [AS_THEY_ARE] * len(self)
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        return [drawn_colours(self.colours, random) for _ in range(len(self))]

    def central_batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The crop in the middle of each image, in order: batches as of `random_batches`. Raises BadImage."""
        crops = [Crop(position, CENTRE, False) for position in self.positions.tolist()]
        starts = range(0, len(self), size)
        return self.read((crops[start : start + size], self.labels[start : start + size]) for start in starts)

    def read(
        self, batches: Iterable[tuple[list[Crop], NDArray[np.int64]]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The pixels of these batches, read ahead."""
        for (_, labels), pixels in read_ahead(self.pixels, batches, ahead=self.threads + 1, threads=self.threads):
            yield pixels, torch.from_numpy(labels)

    def pixels(self, batch: tuple[list[Crop], NDArray[np.int64]]) -> torch.Tensor:
        """The crops of a batch, uint8 [N, 3, S, S]."""
        crops, _ = batch
        return torch.stack([crop.of(self.memory.read(crop.position), self.side) for crop in crops])
