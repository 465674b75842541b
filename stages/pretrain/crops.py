"""Random crops of images, as OverFeat section 3.1 trains on.

Images are scaled to a shorter side of a fixed length and a crop of the network's input size is cut, mirrored or not.
OverFeat takes five crops of an image, and their mirror images; here each epoch draws one. Symbols: n images, N a batch,
S the side of a crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.images.batches import read_ahead
from stages.images.reading import Pixels
from stages.images.scale import scaled_image
from stages.training.image_memory import ImageMemory

CENTRE = (0.5, 0.5)


def scaled_pixels(side: int, pixels: Pixels) -> Pixels:
    """An image uint8 [H, W, 3] scaled to a shorter side of `side` pixels, as whole images enter a network, rounded."""
    scaled = scaled_image(pixels, side / min(pixels.shape[:2]))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def cut(pixels: Pixels, place: tuple[float, float], side: int, mirrored: bool) -> NDArray[np.uint8]:
    """The crop uint8 [3, S, S] with sides of `side` pixels of an image [H, W, 3], mirrored if asked.

    `place` (x, y), from 0 to 1 each, says how far the crop lies between the left and the right edge, and between the
    top and the bottom.
    """
    left, top = (
        min(int(share * (length - side + 1)), length - side)
        for share, length in zip(place, (pixels.shape[1], pixels.shape[0]), strict=True)
    )
    crop = pixels[top : top + side, left : left + side]
    return np.ascontiguousarray((crop[:, ::-1] if mirrored else crop).transpose(2, 0, 1))


@dataclass(frozen=True)
class Crop:
    """Which crop of which image: its `position` in the dataset, its `place` (see `cut`), and whether it is mirrored."""

    position: int
    place: tuple[float, float]
    mirrored: bool


@dataclass(frozen=True)
class CroppedImages:
    """The images at these `positions` int64 [n] of the dataset of `memory`, their classes `labels` int64 [n], and the
    `side` of a crop in pixels; `threads` read them ahead."""

    memory: ImageMemory
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    side: int
    threads: int

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
        crops = [
            Crop(int(self.positions[index]), (x, y), flip)
            for index, (x, y), flip in zip(order, places, mirrored, strict=True)
        ]
        starts = [start for start in range(0, len(self), size) if len(self) - start > 1]
        return self.read((crops[start : start + size], self.labels[order[start : start + size]]) for start in starts)

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
        cropped = [cut(self.memory.read(crop.position), crop.place, self.side, crop.mirrored) for crop in crops]
        return torch.from_numpy(np.stack(cropped))
