"""Detections as arrays: of one image, of one class, and of a whole set of images, as read from a cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, as_boxes
from stages.detections.order import by_class

NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Detections:
    """One image's detections, by class and, within a class, by descending score.

    `boxes` float32 [n, 4] in pixels of the image, `scores` float32 [n], `labels` int32 [n] (zero-based classes).
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, keep: NDArray[Any]) -> Detections:
        """The detections selected by `keep`, bool [n] or indices."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])

    def above(self, thresholds: NDArray[np.floating]) -> Detections:
        """The detections that score at least their class's entry in `thresholds` [classes]."""
        return self.where(self.scores >= np.asarray(thresholds)[self.labels])


@dataclass(frozen=True)
class ClassDetections:
    """All detections of one class in a set of images: `images` int64 [n] (image index, ascending), `boxes` float32
    [n, 4] in pixels, `scores` float32 [n]."""

    images: NDArray[np.int64]
    boxes: Boxes
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class DetectionSet:
    """The detections of a set of images, in memory (24 bytes each: at most 20 MB per class for 20,000 images, at the
    paper's 40 per class and image).

    `image_sizes` int32 [images, 2] (width, height) in pixels; `offsets` int64 [images + 1] into `every`, which holds
    the detections of all images in order.
    """

    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    image_sizes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    every: Detections

    def __len__(self) -> int:
        return len(self.every)

    @cached_property
    def image_index(self) -> dict[str, int]:
        """The index of each image, by id."""
        return {image_id: index for index, image_id in enumerate(self.image_ids)}

    @cached_property
    def class_rows(self) -> dict[str, NDArray[np.int64]]:
        """The rows of `every` of each class with detections, by class name: ascending int64 [k] each."""
        return {self.classes[label]: rows for label, rows in by_class(self.every.labels)}

    def of_image(self, image_id: str) -> Detections:
        """One image's detections. Raises KeyError for an image that is not in the set."""
        index = self.image_index[image_id]
        return self.every.where(np.arange(self.offsets[index], self.offsets[index + 1]))

    def of_class(self, name: str) -> ClassDetections:
        """One class's detections in all images. Raises KeyError for a class that is not in the set."""
        rows = self.class_rows.get(name, NO_ROWS)
        if not len(rows) and name not in self.classes:
            raise KeyError(name)
        images = np.searchsorted(self.offsets, rows, side="right") - 1
        return ClassDetections(images.astype(np.int64), self.every.boxes[rows], self.every.scores[rows])


def detections_from_arrays(
    classes: Sequence[str],
    images: Iterable[tuple[str, Detections]],
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> DetectionSet:
    """A DetectionSet from `images`, ordered pairs (image id, Detections); sizes default to (0, 0)."""
    pairs = list(images)
    image_ids, detections = [image_id for image_id, _ in pairs], [of_image for _, of_image in pairs]
    sizes = [(image_sizes or {}).get(image_id, (0, 0)) for image_id in image_ids]
    every = Detections(
        np.concatenate([no_boxes(), *(as_boxes(of_image.boxes) for of_image in detections)]),
        np.concatenate([np.zeros(0, np.float32), *(of_image.scores for of_image in detections)]).astype(np.float32),
        np.concatenate([np.zeros(0, np.int32), *(of_image.labels for of_image in detections)]).astype(np.int32),
    )
    return DetectionSet(
        tuple(classes),
        tuple(image_ids),
        np.array(sizes, np.int32).reshape(-1, 2),
        np.cumsum([0, *map(len, detections)], dtype=np.int64),
        every,
    )


def detections_of(detections: DetectionSet, name: str) -> ClassDetections:
    """The class's detections; empty for a class that the detector does not have."""
    try:
        return detections.of_class(name)
    except KeyError:
        return NO_DETECTIONS


def no_boxes() -> Boxes:
    """No boxes: an empty float32 [0, 4]."""
    return np.zeros((0, 4), np.float32)


NO_DETECTIONS = ClassDetections(NO_ROWS, no_boxes(), np.zeros(0, np.float32))
"""Of a class without detections."""


def read_detections(reader: Any) -> DetectionSet:
    """The detections in a complete `detections` cache (a cache.Reader), after the cap over all its images.

    Class names and thresholds are read from the cache's summary.
    """
    classes = reader.manifest["summary"]["classes"]
    thresholds = read_thresholds(reader)
    images, sizes = [], {}
    for image_id, record in reader.records(("boxes", "score", "label", "image_size")):
        images.append((image_id, Detections(record["boxes"], record["score"], record["label"]).above(thresholds)))
        sizes[image_id] = (int(record["image_size"][0]), int(record["image_size"][1]))
    return detections_from_arrays(classes, images, sizes)


def read_thresholds(reader: Any) -> NDArray[np.float32]:
    """The lowest score that the cap keeps in each class, float32 [classes]; -inf where nothing is cut."""
    recorded = reader.manifest["summary"]["thresholds"]
    return np.array([-np.inf if score is None else score for score in recorded], np.float32)
