"""Windows: every box of every image with what it shows, and the batches drawn from them (R-CNN section 2.3).

Letters: n boxes of one image, W windows of all images, K classes of objects (K itself is the background), B a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.finetune import Settings
from stages.matching.windows import UNUSED


@dataclass(frozen=True)
class Windows:
    """The windows of a set of images that can be drawn.

    `images` int32 [W] (positions in the dataset), `boxes` float32 [W, 4], `labels` int32 [W] (K: the background).
    """

    images: NDArray[np.int32]
    boxes: Boxes
    labels: NDArray[np.int32]
    background: int

    @cached_property
    def positive(self) -> NDArray[np.int64]:
        """Which windows show an object: int64 [P]."""
        return np.flatnonzero(self.labels != self.background)

    @cached_property
    def negative(self) -> NDArray[np.int64]:
        """Which windows show the background: int64 [W - P]."""
        return np.flatnonzero(self.labels == self.background)


@dataclass(frozen=True)
class Draw:
    """A batch: `windows` int64 [B], the positive ones first, and which of them are `mirrored`, bool [B]."""

    windows: NDArray[np.int64]
    mirrored: NDArray[np.bool_]

    def share(self, rank: int, ranks: int) -> Draw:
        """Every `ranks`-th of them, beginning with number `rank`."""
        return Draw(self.windows[rank::ranks], self.mirrored[rank::ranks])


def joined_windows(images: Sequence[tuple[Boxes, NDArray[np.int32]]], background: int) -> Windows:
    """One set of windows from the boxes [n, 4] and `window_labels` [n] of each image."""
    used = [labels != UNUSED for _, labels in images]
    return Windows(
        np.repeat(np.arange(len(images), dtype=np.int32), [int(keep.sum()) for keep in used]),
        np.concatenate([np.zeros((0, 4), np.float32), *(one[0][keep] for one, keep in zip(images, used, strict=True))]),
        np.concatenate([np.zeros(0, np.int32), *(one[1][keep] for one, keep in zip(images, used, strict=True))]),
        background,
    )


def draw_batch(windows: Windows, settings: Settings, iteration: int) -> Draw:
    """The batch of an iteration: a function of the seed and the iteration's number alone.

    Positive windows and background are each drawn uniformly from all there are, with replacement, as in Caffe's window
    data layer; so few positive windows come again within a batch, and their number in it is always the same.
    """
    generator = np.random.default_rng([settings.seed, iteration])
    positives = settings.positives_of_batch
    chosen = [
        pool[generator.integers(len(pool), size=count)] if count else pool[:0]
        for pool, count in ((windows.positive, positives), (windows.negative, settings.batch_size - positives))
    ]
    mirrored = generator.random(settings.batch_size) < 0.5
    return Draw(np.concatenate(chosen), mirrored & settings.mirror)
