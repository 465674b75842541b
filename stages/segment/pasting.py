"""From scored regions to a label for every pixel, by pasting the best regions first (R-CNN section 5, as in O2P).

Symbols: n regions, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.features.linear_models import NEVER_DETECTED
from stages.masks import Mask

BACKGROUND = 0


@dataclass(frozen=True)
class Pasted:
    """m segments in the order in which they were pasted: `rows` int64 [m] of their regions, `labels` int32 [m] of their
    classes, `scores` float32 [m], and their `pixels` int64 [m] that no better segment had taken."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    pixels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def paste(
    scores: NDArray[np.float32],
    mask_of: Callable[[int], Mask],
    size: tuple[int, int],
    *,
    threshold: float,
    most: int,
    most_taken: float,
) -> tuple[NDArray[np.uint8], Pasted]:
    """The label of each pixel, uint8 [H, W] (0 for the background, k + 1 for class k), and the segments it came from.

    `scores` float32 [n, K]; `mask_of` gives the mask [H, W] of a region; `size` is (width, height). A region is of the
    class that scores best, and of none if no class had examples. Regions are taken from the best score down to
    `threshold`, at most `most` of them, and pasted under those before: where two overlap, the better one stays. A
    region is left out if more than the share `most_taken` of it is taken already, or all of it.
    """
    width, height = size
    labels = np.full((height, width), BACKGROUND, np.uint8)
    taken = np.zeros((height, width), bool)
    best = scores.argmax(axis=1) if scores.shape[1] else np.zeros(len(scores), np.int64)
    of_best = np.take_along_axis(scores, best[:, None], axis=1)[:, 0] if len(scores) else np.zeros(0, np.float32)
    chosen: list[tuple[int, int, float, int]] = []
    for row in np.argsort(-of_best, kind="stable").tolist():
        if len(chosen) == most or of_best[row] < threshold or of_best[row] <= NEVER_DETECTED:
            break
        mask = mask_of(row)
        free = mask & ~taken
        pixels, whole = int(np.count_nonzero(free)), int(np.count_nonzero(mask))
        if not pixels or whole - pixels > most_taken * whole:
            continue
        labels[free] = best[row] + 1
        taken |= mask
        chosen.append((row, int(best[row]), float(of_best[row]), pixels))
    return labels, as_pasted(chosen)


def as_pasted(chosen: Sequence[tuple[int, int, float, int]]) -> Pasted:
    """Segments (row, label, score, pixels) as arrays."""
    rows, labels, scores, pixels = zip(*chosen, strict=True) if chosen else ((), (), (), ())
    return Pasted(
        np.array(rows, np.int64), np.array(labels, np.int32), np.array(scores, np.float32), np.array(pixels, np.int64)
    )


def calibrated_threshold(scores: Sequence[NDArray[np.float32]], objects: int) -> float | None:
    """The threshold at which as many segments are pasted as there are `objects`; None if there are too few segments.

    `scores` float32 [m] are, for each image, those of the segments that are pasted without a threshold: with one, those
    below it are left out, and nothing else changes, since a segment depends only on better ones. With equal scores, it
    may be more segments.
    """
    every = np.sort(np.concatenate([np.zeros(0, np.float32), *scores]))[::-1]
    if not objects or len(every) < objects:
        return None
    return float(every[objects - 1])
