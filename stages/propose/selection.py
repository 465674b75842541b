"""The order of proposals, and so the choice of some: it depends on nothing but the boxes, the image id and a seed."""

from __future__ import annotations

import math
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, area

Number = TypeVar("Number", bound=np.generic)


def canonical_boxes(boxes: NDArray[Number]) -> NDArray[Number]:
    """The distinct rows of `boxes` [n, 4], ordered by x1, then y1, x2 and y2."""
    return np.unique(boxes.reshape(-1, 4), axis=0)


def by_priority(boxes: Boxes, image_id: str, seed: int) -> Boxes:
    """`boxes` [n, 4] in an order of which every beginning is a good choice: the first 400 are part of the first 800.

    A weighted random order without replacement: each next box is drawn with odds proportional to the root of its area.
    While few are kept it finds more than the plain random order, because most proposals are small and most objects are
    not, and it still finds the small ones, which "largest first" does not (`python -m benchmarks.proposals` compares
    them). The random numbers are decided by `image_id` and `seed` alone, never by libc's `rand()`.
    """
    canonical = canonical_boxes(boxes)
    random = Random(f"{seed}/{image_id}")
    waits = np.array([-math.log(1.0 - random.random()) for _ in canonical])  # exponential: shortest wait first
    return canonical[np.argsort(waits / np.sqrt(area(canonical)), kind="stable")]


def first_distinct(boxes: Boxes) -> Boxes:
    """The distinct rows of `boxes` [n, 4], each where it comes first."""
    _, first = np.unique(boxes.reshape(-1, 4), axis=0, return_index=True)
    return boxes[np.sort(first)]
