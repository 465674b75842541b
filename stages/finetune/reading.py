"""Reading and warping batches of windows while the network trains on earlier ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Record
from stages.boxes import Boxes
from stages.contract.execution import Execution
from stages.finetune import Settings
from stages.finetune.training import Batch
from stages.finetune.windows import Draw, Windows, draw_batch, draw_validation, moved_windows
from stages.images.batches import read_ahead
from stages.images.colours import ColourChange, recoloured
from stages.images.preprocessing import Preprocessing
from stages.images.reading import Pixels
from stages.images.warp import OUTSIDE, region_grid, warp_prepared
from stages.networks import NetworkSource
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks

BATCHES_AHEAD = 2
Label = Callable[[int, Boxes], NDArray[np.int32]]
"""The labels int32 [n] of boxes [n, 4] in the image at a position of the dataset."""


class WindowSampler:
    """Reads this rank's share of every batch: `execution.jobs` threads decode images, the device warps windows.

    A batch depends on its iteration alone, not on threads, memory or the order of reading. `label` says what windows
    that were moved show.
    """

    def __init__(
        self,
        settings: Settings,
        memory: ImageMemory,
        windows: Windows,
        source: NetworkSource,
        execution: Execution,
        ranks: Ranks,
        label: Label,
    ) -> None:
        self.settings = settings
        self.memory = memory
        self.windows = windows
        self.source = source
        self.execution = execution
        self.ranks = ranks
        self.label = label
        self.regions_per_step = settings.batch_size

    def record(self) -> Record:
        """The numbers of positive and background windows to draw from."""
        windows = self.windows
        return {
            "positive_windows": np.array(len(windows.positive)),
            "background_windows": np.array(len(windows.negative)),
        }

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of the iterations `first` to `last`, read ahead. Raises BadImage."""
        with ThreadPoolExecutor(self.execution.jobs) as decoding:

            def read(iteration: int) -> Batch:
                draw = draw_batch(self.windows, self.settings, iteration)
                return self.batch(draw.share(self.ranks.rank, self.ranks.count), decoding)

            ready = read_ahead(
                read,
                range(first, last + 1),
                ahead=BATCHES_AHEAD,
                initializer=torch.set_num_threads,
                initargs=(self.settings.threads,),
            )
            for _, batch in ready:
                yield batch

    def validation(self) -> Iterator[Batch]:
        """This rank's share of the windows to validate on, in batches, read ahead. Raises BadImage."""
        draw = draw_validation(self.windows, self.settings).share(self.ranks.rank, self.ranks.count)
        with ThreadPoolExecutor(self.execution.jobs) as decoding:
            ready = read_ahead(
                lambda own: self.batch(own, decoding),
                draw.in_batches(self.settings.batch_size),
                ahead=BATCHES_AHEAD,
                initializer=torch.set_num_threads,
                initargs=(self.settings.threads,),
            )
            with contextlib.closing(ready) as batches:
                for _, batch in batches:
                    yield batch

    def batch(self, draw: Draw, decoding: ThreadPoolExecutor) -> Batch:
        """The windows of `draw` as network input; windows of the same image are warped together."""
        device, side, settings = self.execution.device, self.source.card.input_size, self.settings
        images = self.windows.images[draw.windows]
        waiting = {int(image): decoding.submit(self.memory.read, int(image)) for image in np.unique(images)}
        decoded = {image: future.result() for image, future in waiting.items()}
        heights, widths = np.array([decoded[int(image)].shape[:2] for image in images]).T
        boxes = self.boxes(draw, decoded)
        x, y = region_grid(widths, heights, boxes, side, settings.mode, settings.padding, draw.mirrored)
        inputs = torch.empty((len(images), 3, side, side), device=device).to(memory_format=torch.channels_last)
        for image, pixels in decoded.items():
            rows = np.flatnonzero(images == image)
            prepared = self.source.preprocessing.apply(torch.from_numpy(pixels).to(device).permute(2, 0, 1))
            inputs[torch.from_numpy(rows)] = warp_prepared(prepared, (x[rows], y[rows]))
        for row, change in enumerate(draw.colours or ()):
            inside = torch.from_numpy((y[row] > OUTSIDE)[:, None] & (x[row] > OUTSIDE)).to(device)
            inputs[row] = recoloured_input(inputs[row], change, self.source.preprocessing) * inside
        labels = torch.from_numpy(self.windows.labels[draw.windows].astype(np.int64))
        return Batch(inputs, labels.to(device))

    def boxes(self, draw: Draw, decoded: dict[int, Pixels]) -> Boxes:
        """The windows of `draw` in their images, `decoded` by position: float32 [b, 4]. Of those that are to be moved,
        only those are whose label stays the same."""
        boxes = self.windows.boxes[draw.windows]
        if draw.moves is None:
            return boxes
        images, labels = self.windows.images[draw.windows], self.windows.labels[draw.windows]
        for image, pixels in decoded.items():
            rows = np.flatnonzero(images == image)
            moved = moved_windows(boxes[rows], draw.moves[rows], pixels.shape[1], pixels.shape[0])
            same = self.label(image, moved) == labels[rows]
            boxes[rows[same]] = moved[same]
        return boxes


def recoloured_input(prepared: torch.Tensor, change: ColourChange, preprocessing: Preprocessing) -> torch.Tensor:
    """A preprocessed image float32 [3, H, W] with the colours of its pixels changed."""
    return preprocessing.apply(recoloured(preprocessing.colours(prepared), change) * 255)
