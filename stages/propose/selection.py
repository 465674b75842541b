"""The order of proposals, and so which ones are kept; it depends only on the boxes, the image and a seed."""

from __future__ import annotations

import hashlib
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


def by_priority(boxes: Boxes, content: str, seed: int) -> Boxes:
    """`boxes` [n, 4] in an order of which any prefix is a good selection: the first 400 are part of the first 800.

    A weighted random order: each next box is drawn, without replacement, with probability proportional to the square
    root of its area. With few boxes this has higher recall than a uniformly random order, because most proposals are
    small and most objects are not, and it still finds small objects, unlike "largest first" (compare them with
    `python -m benchmarks.proposals`). The random numbers depend on `content`, the image's `content_of`, and `seed`
    alone, so that copies of a photograph get the same boxes, whatever their names.
    """
    canonical = canonical_boxes(boxes)
    random = Random(f"{seed}/{content}")
    waits = np.array([-math.log(1.0 - random.random()) for _ in canonical])  # exponential: shortest wait first
    return canonical[np.argsort(waits / np.sqrt(area(canonical)), kind="stable")]


def content_of(image: NDArray[np.uint8] | None, size: tuple[int, int]) -> str:
    """What tells an image of `size` (width, height) from others: the SHA-256 (hex) of its pixels, uint8 [H, W, 3], or,
    for a method that does not look at them, its size."""
    shape = "{} x {}".format(*size)
    return shape if image is None else f"{shape} {hashlib.sha256(image.tobytes()).hexdigest()}"


def first_distinct(boxes: Boxes) -> Boxes:
    """The distinct rows of `boxes` [n, 4], in order of first occurrence."""
    _, first = np.unique(boxes.reshape(-1, 4), axis=0, return_index=True)
    return boxes[np.sort(first)]
