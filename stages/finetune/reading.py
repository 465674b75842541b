"""Batches read and warped while the network trains on the ones before."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from stages.contract.execution import Execution
from stages.datasets import Dataset
from stages.finetune import Settings
from stages.finetune.ranks import Ranks
from stages.finetune.training import Batch
from stages.finetune.windows import Draw, Windows, draw_batch
from stages.images.reading import Pixels
from stages.images.warp import region_grid, warp_prepared
from stages.networks import NetworkSource

BATCHES_AHEAD = 2
MEGABYTE = 1_000_000


class ImageMemory:
    """The images of a dataset, of which those used last stay decoded, up to `limit` bytes; for several threads."""

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self.dataset = dataset
        self.limit = limit
        self.held: OrderedDict[int, Pixels] = OrderedDict()
        self.bytes = 0
        self.guard = threading.Lock()

    def read(self, position: int) -> Pixels:
        """The pixels of the image at `position`: uint8 [H, W, 3], RGB. Raises BadImage."""
        with self.guard:
            if position in self.held:
                self.held.move_to_end(position)
                return self.held[position]
        pixels = self.dataset.read_image(self.dataset.image_ids[position])
        with self.guard:
            if position not in self.held:
                self.held[position] = pixels
                self.bytes += pixels.nbytes
            while self.bytes > self.limit and self.held:
                self.bytes -= self.held.popitem(last=False)[1].nbytes
        return pixels


class BatchReader:
    """This rank's share of every batch: images are decoded by `execution.jobs` threads, windows warped on the device.

    What is read depends on the iteration alone, not on the threads, the memory or the order of asking.
    """

    def __init__(
        self,
        settings: Settings,
        memory: ImageMemory,
        windows: Windows,
        source: NetworkSource,
        execution: Execution,
        ranks: Ranks,
    ) -> None:
        self.settings = settings
        self.memory = memory
        self.windows = windows
        self.source = source
        self.execution = execution
        self.ranks = ranks

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of the iterations `first` to `last`, read ahead. Raises BadImage."""
        threads = self.settings.threads
        with (
            ThreadPoolExecutor(self.execution.jobs) as decoding,
            ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,)) as warping,
        ):
            queue: deque[Future[Batch]] = deque()
            try:
                for iteration in range(first, last + 1):
                    draw = draw_batch(self.windows, self.settings, iteration)
                    share = draw.share(self.ranks.rank, self.ranks.count)
                    queue.append(warping.submit(self.batch, share, decoding))
                    if len(queue) > BATCHES_AHEAD:
                        yield queue.popleft().result()
                while queue:
                    yield queue.popleft().result()
            finally:
                for waiting in queue:
                    waiting.cancel()

    def batch(self, draw: Draw, decoding: ThreadPoolExecutor) -> Batch:
        """The windows of `draw` as the network's input; windows of one image are warped together."""
        device, side, settings = self.execution.device, self.source.card.input_size, self.settings
        images = self.windows.images[draw.windows]
        waiting = {int(one): decoding.submit(self.memory.read, int(one)) for one in np.unique(images)}
        decoded = {image: future.result() for image, future in waiting.items()}
        heights, widths = np.array([decoded[int(image)].shape[:2] for image in images]).T
        boxes = self.windows.boxes[draw.windows]
        x, y = region_grid(widths, heights, boxes, side, settings.mode, settings.padding, draw.mirrored)
        inputs = torch.empty((len(images), 3, side, side), device=device).to(memory_format=torch.channels_last)
        for image, pixels in decoded.items():
            rows = np.flatnonzero(images == image)
            prepared = self.source.preprocessing.apply(torch.from_numpy(pixels).to(device).permute(2, 0, 1))
            inputs[torch.from_numpy(rows)] = warp_prepared(prepared, (x[rows], y[rows]))
        labels = torch.from_numpy(self.windows.labels[draw.windows].astype(np.int64))
        return Batch(inputs, labels.to(device))
