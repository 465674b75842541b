"""The annotated objects of a set of images, of one class or all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.detections import NO_ROWS, by_class, no_boxes


@dataclass(frozen=True)
class ClassObjects:
    """m annotated objects of one class: `images` int64 [m] (image index, ascending), `boxes` float32 [m, 4] in pixels,
    `difficult` bool [m] (which do not count), `areas` float64 [m] in square pixels (None: the areas of the boxes)."""

    images: NDArray[np.int64]
    boxes: Boxes
    difficult: NDArray[np.bool_]
    areas: NDArray[np.float64] | None = None

    @property
    def positives(self) -> int:
        """The number of objects to find, without difficult ones."""
        return int(np.sum(~self.difficult))


@dataclass(frozen=True)
class Objects:
    """m annotated objects: `images` int64 [m] (image index, ascending), `boxes` float32 [m, 4] in pixels, `labels`
    int32 [m]; `difficult`, `truncated`, `occluded` and `crowds` (which are difficult, too) bool [m]; `poses` str [m];
    `areas` float64 [m] in square pixels (None: the areas of the boxes)."""

    images: NDArray[np.int64]
    boxes: Boxes
    labels: NDArray[np.int32]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    occluded: NDArray[np.bool_]
    poses: NDArray[np.str_]
    crowds: NDArray[np.bool_]
    areas: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, keep: NDArray[Any]) -> Objects:
        """The objects selected by `keep`, bool [m] or ascending indices."""
        return Objects(
            self.images[keep],
            self.boxes[keep],
            self.labels[keep],
            self.difficult[keep],
            self.truncated[keep],
            self.occluded[keep],
            self.poses[keep],
            self.crowds[keep],
            None if self.areas is None else self.areas[keep],
        )

    def by_class(self, classes: int) -> list[tuple[NDArray[np.int64], ClassObjects]]:
        """For each of that many `classes`: the rows int64 [k] of its objects, and the objects."""
        rows = dict(by_class(self.labels))
        own = [rows.get(label, NO_ROWS) for label in range(classes)]
        return [(of_class, self.where(of_class).as_one_class) for of_class in own]

    @property
    def as_one_class(self) -> ClassObjects:
        """The same objects, without the attributes that only error analysis needs."""
        return ClassObjects(self.images, self.boxes, self.difficult, self.areas)


def read_objects(dataset: Any, image_ids: Sequence[str]) -> Objects:
    """The objects of the dataset's images, in the order of `image_ids`."""
    records = [dataset.record(image_id) for image_id in image_ids]
    flags = {
        name: np.concatenate([np.zeros(0, bool), *(getattr(record, name) for record in records)])
        for name in ("difficult", "truncated", "occluded", "crowds")
    }
    return Objects(
        images=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]),
        boxes=np.concatenate([no_boxes(), *(record.boxes for record in records)]),
        labels=np.concatenate([np.zeros(0, np.int32), *(record.labels for record in records)]),
        poses=np.array([pose for record in records for pose in record.pose], np.str_),
        areas=np.concatenate([np.zeros(0), *(record.areas for record in records)]),
        **flags,
    )


def counted_objects(objects: Objects, use_difficult: bool) -> Objects:
    """The objects as an evaluation counts them: with `use_difficult`, only crowds stay difficult, since a crowd is not
    a single object and never counts."""
    return replace(objects, difficult=objects.crowds) if use_difficult else objects
