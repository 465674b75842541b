"""The proposals of an image and their order, which decides which ones are kept.

The order is by score if the method ranks its proposals; otherwise it is random, and depends only on the proposals, the
image's content and a seed. Orders are rows of `Proposals`, so that whatever belongs to a box follows it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache import Record
from stages.boxes import Boxes, area

Number = TypeVar("Number", bound=np.generic)
Rows = NDArray[np.intp]
"""Places of boxes in an array [n, 4]."""


class Regions(Protocol):
    """The regions of an image's proposals, whose masks are to be kept."""

    def take(self, rows: Rows) -> Regions:
        """The regions at `rows`, in their order."""

    def columns(self) -> Record:
        """The columns of a cache that hold their masks (stages/masks.py)."""


@dataclass(frozen=True)
class Proposals:
    """What a method proposes for an image: `boxes` float32 [n, 4], which may repeat, and, if it ranks them, their
    `scores` float32 [n], higher for a better box. `positions` int64 [n]: in a hierarchy, from 1 at the top.
    `regions`: those that the boxes enclose, if their masks are to be kept.

    Raises ValueError if the scores are not finite, or not one per box.
    """

    boxes: Boxes
    scores: NDArray[np.float32] | None = None
    positions: NDArray[np.int64] | None = None
    regions: Regions | None = None

    def __post_init__(self) -> None:
        if self.scores is not None and (
            self.scores.shape != self.boxes.shape[:1] or not np.isfinite(self.scores).all()
        ):
            raise ValueError(
                f"boxes {list(self.boxes.shape)} need a finite score each, not scores {list(self.scores.shape)}, "
                f"{int(np.isfinite(self.scores).sum())} of them finite"
            )

    def take(self, rows: Rows) -> Proposals:
        """The proposals at `rows`, in their order."""
        return Proposals(
            self.boxes[rows],
            None if self.scores is None else self.scores[rows],
            None if self.positions is None else self.positions[rows],
            None if self.regions is None else self.regions.take(rows),
        )

    def columns(self) -> Record:
        """The columns of the cache: `boxes`, `scores` if there are any, and those of the regions' masks."""
        scores = {} if self.scores is None else {"scores": self.scores}
        return {"boxes": self.boxes, **scores, **({} if self.regions is None else self.regions.columns())}


def canonical_rows(boxes: NDArray[np.generic]) -> Rows:
    """The rows of the distinct `boxes` [n, 4], sorted by x1, then y1, x2 and y2; of equal boxes the first."""
    return np.unique(boxes.reshape(-1, 4), axis=0, return_index=True)[1]


def canonical_boxes(boxes: NDArray[Number]) -> NDArray[Number]:
    """The distinct rows of `boxes` [n, 4], sorted by x1, then y1, x2 and y2."""
    return boxes.reshape(-1, 4)[canonical_rows(boxes)]


def first_distinct_rows(boxes: Boxes) -> Rows:
    """The rows of the distinct `boxes` [n, 4], in order of first occurrence."""
    return np.sort(canonical_rows(boxes))


def rows_by_score(proposals: Proposals) -> Rows:
    """The rows of the distinct boxes from the highest score to the lowest; equally good ones in canonical order.

    A box that occurs more than once has its highest score. Raises ValueError if there are no scores.
    """
    if proposals.scores is None:
        raise ValueError("only proposals with scores can be ranked")
    order = np.lexsort([*proposals.boxes.T[::-1], -proposals.scores])  # the last key counts first
    return order[first_distinct_rows(proposals.boxes[order])]


# Of a random order any prefix is a good selection, and the first 400 are part of the first 800. The random numbers
# depend on `content`, the image's `content_of`, and `seed` alone: copies of a photograph get the same boxes, whatever
# their names.


def rows_by_position(proposals: Proposals, content: str, seed: int) -> Rows:
    """The rows of the distinct boxes by their position in the hierarchy times a random number between 0 and 1, smallest
    first (Uijlings et al., IJCV 2013, "Combining Locations"): regions near the top, which are large, tend to come
    first, but not always. A box of several regions has its smallest product.

    Raises ValueError if there are no positions.
    """
    if proposals.positions is None:
        raise ValueError("only proposals with positions in a hierarchy can be ordered by them")
    products = proposals.positions * uniform_numbers(len(proposals.boxes), content, seed)
    order = np.argsort(products, kind="stable")
    return order[first_distinct_rows(proposals.boxes[order])]


def rows_by_size(boxes: Boxes, content: str, seed: int) -> Rows:
    """The rows of the distinct `boxes` [n, 4] in a weighted random order: each next box is drawn, without replacement,
    with probability proportional to the square root of its area.

    Most proposals are small and most objects are not, so among the first boxes this has more that fit an object well
    (IoU 0.7) than a uniformly random order has, though it may find fewer objects at IoU 0.5; and unlike "largest first"
    it also finds small objects (compare them with `python -m benchmarks.proposals`).
    """
    canonical = canonical_rows(boxes)
    numbers = uniform_numbers(len(canonical), content, seed)
    waits = np.array([-math.log(1.0 - number) for number in numbers])  # exponential: shortest wait first
    return canonical[np.argsort(waits / np.sqrt(area(boxes[canonical])), kind="stable")]


def uniform_numbers(count: int, content: str, seed: int) -> NDArray[np.float64]:
    """Random numbers from 0 to below 1, float64 [count], by Python's generator, whose numbers never change."""
    random = Random(f"{seed}/{content}")
    return np.array([random.random() for _ in range(count)], np.float64)


def content_of(image: NDArray[np.uint8] | None, size: tuple[int, int]) -> str:
    """What tells an image of `size` (width, height) from others: the SHA-256 (hex) of its pixels, uint8 [H, W, 3], or,
    for a method that does not look at them, its size."""
    shape = "{} x {}".format(*size)
    return shape if image is None else f"{shape} {hashlib.sha256(image.tobytes()).hexdigest()}"
