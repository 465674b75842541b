"""Windows, the labelled boxes of all images, and the batches drawn from them (R-CNN section 2.3).

Symbols: n boxes in one image, W windows in all images, K object classes (label K is the background), batch size B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes, has_area
from stages.finetune import Settings
from stages.images.colours import ColourChange, drawn_colours
from stages.matching.windows import UNUSED

VALIDATED = 2048
"""Windows that a validation measures."""


@dataclass(frozen=True)
class Windows:
    """The windows that batches are drawn from.

    `images` int32 [W] (positions in the dataset), `boxes` float32 [W, 4] in pixels, `labels` int32 [W] (K: background).
    """

    images: NDArray[np.int32]
    boxes: Boxes
    labels: NDArray[np.int32]
    background: int

    @cached_property
    def positive(self) -> NDArray[np.int64]:
        """Indices of the positive windows, int64 [P]."""
        return np.flatnonzero(self.labels != self.background)

    @cached_property
    def negative(self) -> NDArray[np.int64]:
        """Indices of the background windows, int64 [W - P]."""
        return np.flatnonzero(self.labels == self.background)


@dataclass(frozen=True)
class Draw:
    """A batch: `windows` int64 [B], the positive ones first, and which of them are `mirrored`, bool [B].

    With jitter, the `moves` float64 [B, 4] of the windows (`moved_windows`), and the change of each one's `colours`.
    """

    windows: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    moves: NDArray[np.float64] | None = None
    colours: tuple[ColourChange, ...] | None = None

    def share(self, rank: int, ranks: int) -> Draw:
        """This rank's share: every `ranks`-th window, from number `rank` on."""
        return self.where(slice(rank, None, ranks))

    def in_batches(self, size: int) -> Iterator[Draw]:
        """Batches of `size` windows, in order; the last may be smaller."""
        return (self.where(slice(first, first + size)) for first in range(0, len(self.windows), size))

    def where(self, own: slice) -> Draw:
        """Some of the windows."""
        return Draw(
            self.windows[own],
            self.mirrored[own],
            None if self.moves is None else self.moves[own],
            None if self.colours is None else self.colours[own],
        )


def joined_windows(images: Sequence[tuple[Boxes, NDArray[np.int32]]], background: int) -> Windows:
    """The windows of all images, from the boxes [n, 4] and `window_labels` [n] of each; UNUSED ones are dropped."""
    used = [labels != UNUSED for _, labels in images]
    boxes = [boxes[keep] for (boxes, _), keep in zip(images, used, strict=True)]
    labels = [labels[keep] for (_, labels), keep in zip(images, used, strict=True)]
    return Windows(
        np.repeat(np.arange(len(images), dtype=np.int32), [len(kept) for kept in labels]),
        np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
        np.concatenate([np.zeros(0, np.int32), *labels]),
        background,
    )


def draw_batch(windows: Windows, settings: Settings, iteration: int) -> Draw:
    """The batch of an iteration, which depends on the seed and the iteration alone.

    Positive and background windows are each drawn uniformly with replacement, as in Caffe's window data layer, so every
    batch has the same number of each; where there are few positives, a batch repeats some.
    """
    generator = np.random.default_rng([settings.seed, iteration])
    positives = settings.positives_of_batch
    chosen = [
        pool[generator.integers(len(pool), size=count)] if count else pool[:0]
        for pool, count in ((windows.positive, positives), (windows.negative, settings.batch_size - positives))
    ]
    mirrored = generator.random(settings.batch_size) < 0.5
    jitter = np.random.default_rng([settings.seed, iteration, 1])
    moves = settings.window_jitter * (2 * jitter.random((settings.batch_size, 4)) - 1)
    changed = settings.batch_size if settings.colour_jitter else 0
    colours = tuple(drawn_colours(settings.colour_jitter, jitter) for _ in range(changed))
    return Draw(
        np.concatenate(chosen),
        mirrored & settings.mirror,
        moves if settings.window_jitter else None,
        colours or None,
    )


def draw_validation(windows: Windows, settings: Settings) -> Draw:
    """VALIDATED windows, positive and background ones in the shares of a batch, always the same and as they are; those
    of an image follow each other."""
    as_they_are = replace(settings, batch_size=VALIDATED, mirror=False, window_jitter=0.0, colour_jitter=0.0)
    drawn = draw_batch(windows, as_they_are, 0).windows
    drawn = drawn[np.argsort(windows.images[drawn], kind="stable")]
    return Draw(drawn, np.zeros(len(drawn), bool))


def moved_windows(boxes: Boxes, moves: NDArray[np.float64], width: int, height: int) -> Boxes:
    """Windows [n, 4] of an image of `width` x `height` pixels, moved by `moves` [n, 4] and clipped: float32 [n, 4].

    The first two move the centre, as shares of the sides; the others make the sides longer, by shares of them. What
    would have no area stays where it was.
    """
    corners = boxes.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2]
    centres = corners[:, :2] + sides / 2 + moves[:, :2] * sides
    half = sides * (1 + moves[:, 2:]) / 2
    moved = clip_boxes(np.hstack([centres - half, centres + half]).astype(np.float32), width, height)
    return np.where(has_area(moved)[:, None], moved, boxes).astype(np.float32)
