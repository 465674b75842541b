"""Detections: what is found in images, one image's or a whole test set's, and the original's cap per class.

The cap (R-CNN's rcnn_test.m): of a class, a test set of N images keeps the `average_per_image` x N best candidates.
It is counted on candidates before non-maximum suppression and needs all images, so the detections' cache holds every
image's candidates as they are, and the cut is made when they are read. That is the same: whether greedy suppression
keeps a box depends on better-scored boxes alone, so what it keeps of the candidates above a score is exactly what it
keeps of all candidates, cut at that score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, as_boxes


@dataclass(frozen=True)
class Detections:
    """One image's detections, by class and within a class from the best score down.

    `boxes` float32 [n, 4] in pixels of the image, `scores` float32 [n], `labels` int32 [n] (0-based class).
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, keep: NDArray[Any]) -> Detections:
        """Those that `keep` (bool [n] or indices) selects."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])

    def above(self, thresholds: NDArray[np.floating]) -> Detections:
        """Those whose score is at least their class's entry of `thresholds` [classes]."""
        return self.where(self.scores >= np.asarray(thresholds)[self.labels])


@dataclass(frozen=True)
class ClassDetections:
    """All detections of one class in a set of images: `images` int64 [n] (index of the image, ascending),
    `boxes` float32 [n, 4], `scores` float32 [n]."""

    images: NDArray[np.int64]
    boxes: Boxes
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class DetectionSet:
    """The detections of a set of images, all in memory (24 bytes each: at most 20 MB per class and 20,000 images
    at the paper's 40 a class and image).

    `image_sizes` int32 [images, 2] (width, height); `offsets` int64 [images + 1] into `every`, which holds the
    images' detections one after another.
    """

    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    image_sizes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    every: Detections

    def __len__(self) -> int:
        return len(self.every)

    def of_image(self, image_id: str) -> Detections:
        """One image's detections. Raises KeyError for an image that is not in the set."""
        try:
            index = self.image_ids.index(image_id)
        except ValueError:
            raise KeyError(image_id) from None
        return self.every.where(np.arange(self.offsets[index], self.offsets[index + 1]))

    def of_class(self, name: str) -> ClassDetections:
        """One class's detections in all images. Raises KeyError for a class that is not in the set."""
        if name not in self.classes:
            raise KeyError(name)
        rows = np.flatnonzero(self.every.labels == self.classes.index(name))
        images = np.searchsorted(self.offsets, rows, side="right") - 1
        return ClassDetections(images.astype(np.int64), self.every.boxes[rows], self.every.scores[rows])


def detections_from_arrays(
    classes: Sequence[str],
    found: Iterable[tuple[str, Detections]],
    image_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> DetectionSet:
    """A DetectionSet from `found`, pairs (image id, Detections) in the order wanted; sizes default to (0, 0)."""
    pairs = list(found)
    sizes = [(image_sizes or {}).get(image_id, (0, 0)) for image_id, _ in pairs]
    lengths = [len(one) for _, one in pairs]
    every = Detections(
        np.concatenate([no_boxes(), *(as_boxes(one.boxes) for _, one in pairs)]),
        np.concatenate([np.zeros(0, np.float32), *(one.scores for _, one in pairs)]).astype(np.float32),
        np.concatenate([np.zeros(0, np.int32), *(one.labels for _, one in pairs)]).astype(np.int32),
    )
    return DetectionSet(
        tuple(classes),
        tuple(image_id for image_id, _ in pairs),
        np.array(sizes, np.int32).reshape(-1, 2),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        every,
    )


def no_boxes() -> Boxes:
    """An empty float32 [0, 4]."""
    return np.zeros((0, 4), np.float32)


def read_detections(reader: Any) -> DetectionSet:
    """The detections in a complete `detections` cache (a cache.Reader), after the cap over all its images.

    Class names and thresholds are those that the detect stage recorded in the cache's summary.
    """
    classes = reader.manifest["summary"]["classes"]
    thresholds = read_thresholds(reader)
    found, sizes = [], {}
    for image_id, record in reader.records(("boxes", "score", "label", "image_size")):
        found.append((image_id, Detections(record["boxes"], record["score"], record["label"]).above(thresholds)))
        sizes[image_id] = (int(record["image_size"][0]), int(record["image_size"][1]))
    return detections_from_arrays(classes, found, sizes)


def read_thresholds(reader: Any) -> NDArray[np.float32]:
    """The least score that each class keeps under the cap, float32 [classes] (-inf where nothing is cut)."""
    recorded = reader.manifest["summary"]["thresholds"]
    return np.array([-np.inf if score is None else score for score in recorded], np.float32)


class BestScores:
    """The `keep` best of a stream of scores, in memory for at most about 3 x `keep`."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.held: list[NDArray[np.float32]] = []
        self.size = 0
        self.dropped = False

    def add(self, scores: NDArray[np.float32]) -> None:
        """More scores, float32 [n]."""
        self.held.append(scores)
        self.size += len(scores)
        if self.size > 2 * self.keep:
            self.trim()

    def trim(self) -> None:
        """Forgets all but the best."""
        if self.size > self.keep:
            scores = np.concatenate(self.held)
            self.held = [np.partition(scores, self.size - self.keep)[-self.keep :]]
            self.size, self.dropped = self.keep, True

    def threshold(self) -> float:
        """The `keep`-th best score, or -inf while there were no more than that."""
        self.trim()
        return float(np.concatenate(self.held).min()) if self.dropped else -np.inf


def class_thresholds(
    candidates: Iterable[tuple[NDArray[np.float32], NDArray[np.int32]]], classes: int, keep: int
) -> NDArray[np.float32]:
    """The `keep`-th best candidate score of each class, float32 [classes]; -inf where there are no more than `keep`.

    `candidates` yields (scores [n], labels [n]) image by image. R-CNN's rcnn_test.m, with `keep` = 40 x images: a box
    with a score below its class's threshold is dropped, one that equals it stays.
    """
    best = [BestScores(keep) for _ in range(classes)]
    for scores, labels in candidates:
        for label in np.unique(labels):
            best[label].add(scores[labels == label])
    return np.array([one.threshold() for one in best], np.float32)


def detections_as_json(
    detections: Detections, classes: Sequence[str], image: str, width: int, height: int
) -> dict[str, Any]:
    """One image's detections as JSON values, from the best score down; boxes as in the project, zero-based and
    half-open (x1, y1, x2, y2) in pixels of the image of `width` x `height`."""
    order = np.argsort(-detections.scores, kind="stable")
    found = [
        {
            "class": classes[detections.labels[row]],
            "score": round(float(detections.scores[row]), 6),
            "box": [round(float(corner), 2) for corner in detections.boxes[row]],
        }
        for row in order
    ]
    return {"image": image, "width": int(width), "height": int(height), "detections": found}
