"""The order of proposals, and so which ones are kept; it depends only on the boxes, the image id and a seed."""

from __future__ import annotations

import math
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, area

Number = TypeVar("Number", bound=np.generic)


def canonical_boxes(boxes: NDArray[Number]) -> NDArray[Number]:
    """The distinct rows of `boxes` [n, 4], sorted by x1, then y1, x2 and y2."""
    return np.unique(boxes.reshape(-1, 4), axis=0)


def by_priority(boxes: Boxes, image_id: str, seed: int) -> Boxes:
    """`boxes` [n, 4] in an order of which any prefix is a good selection: the first 400 are part of the first 800.

    A weighted random order: each next box is drawn, without replacement, with probability proportional to the square
    root of its area. With few boxes this has higher recall than a uniformly random order, because most proposals are
    small and most objects are not, and it still finds small objects, unlike "largest first" (compare them with
    `python -m benchmarks.proposals`). Random numbers depend on `image_id` and `seed` alone, never on libc's `rand()`.
    """
    canonical = canonical_boxes(boxes)
    random = Random(f"{seed}/{image_id}")
    waits = np.array([-math.log(1.0 - random.random()) for _ in canonical])  # exponential: shortest wait first
    return canonical[np.argsort(waits / np.sqrt(area(canonical)), kind="stable")]


def first_distinct(boxes: Boxes) -> Boxes:
    """The distinct rows of `boxes` [n, 4], in order of first occurrence."""
    _, first = np.unique(boxes.reshape(-1, 4), axis=0, return_index=True)
    return boxes[np.sort(first)]
