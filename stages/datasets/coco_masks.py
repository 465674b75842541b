"""Masks of annotations in COCO's format: polygons, or run lengths as numbers or as characters."""

from __future__ import annotations

from typing import Any

import numpy as np

from cache.files import is_number
from stages.datasets.records import BadAnnotation, shown
from stages.masks import Mask, decode

LEAST_POLYGON = 6
"""Numbers of a triangle."""


def object_mask(what: str, segmentation: Any, size: tuple[int, int]) -> Mask:
    """The mask of an annotation's `segmentation` on an image of `size` (width, height): bool [H, W].

    Polygons are filled as pycocotools does. Raises BadAnnotation, beginning with `what`, for anything else than
    polygons near the image or run lengths of its size.
    """
    width, height = size
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if stated != [height, width]:
            raise BadAnnotation(
                f"{what} has run lengths of size {shown(stated)}, but its image has [{height}, {width}] (height, "
                "width); correct one of the two"
            )
        return from_runs(what, segmentation.get("counts"), size)
    if not isinstance(segmentation, list) or not segmentation:
        raise BadAnnotation(
            f"{what} has segmentation = {shown(segmentation)}; write polygons or run lengths, or leave out masks = true"
        )
    for polygon in segmentation:
        if (
            not isinstance(polygon, list)
            or len(polygon) < LEAST_POLYGON
            or len(polygon) % 2
            or not all(is_number(number) for number in polygon)
        ):
            raise BadAnnotation(f"{what} has the polygon {shown(polygon)}; write x and y of three points or more")
        points = np.array(polygon, np.float64).reshape(-1, 2)
        if not (np.abs(points - np.array(size) / 2) <= 1.5 * np.array(size)).all():  # pycocotools allocates its length
            raise BadAnnotation(
                f"{what} has a polygon far outside its image of {width} x {height} pixels; write x and y in pixels"
            )
    from pycocotools import mask as coco

    filled = coco.merge(coco.frPyObjects(segmentation, height, width))
    return decode(np.frombuffer(filled["counts"], "S1"), size)


def from_runs(what: str, counts: Any, size: tuple[int, int]) -> Mask:
    """The mask of run lengths, bool [H, W]. Raises BadAnnotation if they are not those of an image of `size`."""
    width, height = size
    if isinstance(counts, str) and counts.isascii():
        try:
            return decode(np.frombuffer(counts.encode(), "S1"), size)
        except ValueError:
            counts = "characters"
    elif (
        isinstance(counts, list)
        and all(isinstance(length, int) and 0 <= length <= width * height for length in counts)
        and sum(counts) == width * height
    ):
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    raise BadAnnotation(f"{what} has run lengths that do not fill an image of {width} x {height} pixels; correct them")
