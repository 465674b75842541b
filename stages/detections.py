"""Detections: what is found in images, one image's or a whole test set's, and the original's cap per class.

The cap (R-CNN's rcnn_test.m): of a class, a test set of N images keeps the `average_per_image` x N best candidates.
It is counted on candidates before non-maximum suppression and needs all images, so the detections' cache holds every
image's candidates as they are, and the cut is made when they are read. That is the same: whether greedy suppression
keeps a box depends on better-scored boxes alone, so what it keeps of the candidates above a score is exactly what it
keeps of all candidates, cut at that score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, as_boxes

STREAMED = 1 << 20
"""Scores that are read between two looks at which are the best."""
NO_ROWS: NDArray[np.int64] = np.zeros(0, np.int64)


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

    @cached_property
    def image_index(self) -> dict[str, int]:
        """The place of each image."""
        return {image_id: index for index, image_id in enumerate(self.image_ids)}

    @cached_property
    def class_rows(self) -> dict[str, NDArray[np.int64]]:
        """The rows of `every` that belong to each class that has some."""
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


def detections_of(found: DetectionSet, name: str) -> ClassDetections:
    """The class's detections, none for a class that the detector does not know."""
    try:
        return found.of_class(name)
    except KeyError:
        return ClassDetections(np.zeros(0, np.int64), no_boxes(), np.zeros(0, np.float32))


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


def falling(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Whole numbers of 32 bits in the order opposite to that of `scores`, the same for the same score.

    A float's bits, read as a number, are in its order, but for the sign. With a class or a row beside them in one
    number they sort fast.
    """
    bits = (np.float32(0) - scores).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def scores_of(falling: NDArray[np.int64]) -> NDArray[np.float32]:
    """The inverse of `falling`."""
    bits = falling.astype(np.int32)
    return np.float32(0) - (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def by_class(labels: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each class that occurs in `labels` [n]: the class and its rows, ascending."""
    order = np.argsort(labels, kind="stable")
    for low, high in pairwise(np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1)).tolist()):
        yield int(labels[order[low]]), order[low:high]


class BestScores:
    """The `keep` best scores of each class in a stream: 8 bytes each, and as much again before the others go."""

    def __init__(self, classes: int, keep: int) -> None:
        self.classes = classes
        self.keep = keep
        self.held = [np.zeros(0, np.int64)]
        self.size = 0
        self.limit = STREAMED
        self.dropped = np.zeros(classes, bool)

    def add(self, scores: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
        """More scores, float32 [n], of the classes `labels` int32 [n]."""
        self.held.append((labels.astype(np.int64) << 32) + (falling(scores) + 2**31))
        self.size += len(scores)
        if self.size > self.limit:
            self.trim()

    def trim(self) -> None:
        """Forgets all but the best."""
        every = np.sort(np.concatenate(self.held))
        labels = every >> 32
        rank = np.arange(len(every)) - np.searchsorted(labels, labels)
        self.dropped[labels[rank >= self.keep]] = True
        self.held = [every[rank < self.keep]]
        self.size = len(self.held[0])
        self.limit = 2 * self.size + STREAMED

    def thresholds(self) -> NDArray[np.float32]:
        """Of each class the `keep`-th best score, or -inf while there were no more than that: float32 [classes]."""
        self.trim()
        last = np.searchsorted(self.held[0], np.arange(1, self.classes + 1) << 32)[self.dropped] - 1
        found = np.full(self.classes, -np.inf, np.float32)
        found[self.dropped] = scores_of((self.held[0][last] & 0xFFFFFFFF) - 2**31)
        return found


def class_thresholds(
    candidates: Iterable[tuple[NDArray[np.float32], NDArray[np.int32]]], classes: int, keep: int
) -> NDArray[np.float32]:
    """The `keep`-th best candidate score of each class, float32 [classes]; -inf where there are no more than `keep`.

    `candidates` yields (scores [n], labels [n]) image by image. R-CNN's rcnn_test.m, with `keep` = 40 x images: a box
    with a score below its class's threshold is dropped, one that equals it stays.
    """
    best = BestScores(classes, keep)
    for scores, labels in candidates:
        best.add(scores, labels)
    return best.thresholds()


def best_first(scores: NDArray[np.floating], precision: NDArray[np.floating]) -> NDArray[np.int64]:
    """The rows of detections, int64 [n], by `precision` [n] from the best down (nan last), equal ones by `scores` [n].

    Scores of different classes have no common scale, their precisions have.
    """
    return np.lexsort((-scores, -np.nan_to_num(precision, nan=-1.0)))


def shortest(score: np.float32) -> float:
    """The number with the fewest digits that is this score in 32 bits: what is compared with it compares the same."""
    return float(str(np.float32(score)))


def detections_as_json(
    detections: Detections,
    classes: Sequence[str],
    precision: NDArray[np.floating],
    drawn: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Detections as JSON values, in the order of `best_first`; boxes as in the project, zero-based and half-open
    (x1, y1, x2, y2). `precision` [n] is null where it is nan, `drawn` [n] is whether a picture shows them."""
    return [
        {
            "class": classes[detections.labels[row]],
            "score": shortest(detections.scores[row]),
            "precision": None if np.isnan(precision[row]) else float(precision[row]),
            "box": [round(float(corner), 2) for corner in detections.boxes[row]],
            "drawn": bool(drawn[row]),
        }
        for row in best_first(detections.scores, precision)
    ]
