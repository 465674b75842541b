"""An in-memory cache of decoded images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from stages.datasets.image_set import ImageSet
from stages.images.reading import Pixels

MEGABYTE = 1_000_000


class ImageMemory:
    """A dataset's images, decoded and `prepared`; the most recently used stay in memory, up to `limit` bytes.
    Thread-safe."""

    def __init__(
        self, dataset: ImageSet, limit: int, prepared: Callable[[Pixels], Pixels] = lambda pixels: pixels
    ) -> None:
        self.dataset = dataset
        self.limit = limit
        self.prepared = prepared
        self.held: OrderedDict[int, Pixels] = OrderedDict()
        self.bytes = 0
        self.guard = threading.Lock()

    def read(self, position: int) -> Pixels:
        """The pixels of the image at `position`, as prepared: uint8 [H, W, 3], RGB. Raises BadImage."""
        with self.guard:
            if position in self.held:
                self.held.move_to_end(position)
                return self.held[position]
        pixels = self.prepared(self.dataset.read_image(self.dataset.image_ids[position]))
        with self.guard:
            if position not in self.held:
                self.held[position] = pixels
                self.bytes += pixels.nbytes
            while self.bytes > self.limit and self.held:
                self.bytes -= self.held.popitem(last=False)[1].nbytes
        return pixels
