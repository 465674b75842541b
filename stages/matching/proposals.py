"""How good proposals are: the share of objects that some box covers, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.boxes import Boxes, iou_matrix, reaches
from stages.datasets import Dataset, ImageRecord

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's sizes: the object's area in square pixels is at least the first number and less than the second."""


@dataclass(frozen=True)
class Coverage:
    """How well proposals cover m non-difficult objects: `labels` int32 [m], `areas` float64 [m] in square pixels,
    `overlaps` float64 [m, N], the best IoU among the first `counts[j]` boxes of the object's image (None: among all),
    and `boxes`, how many boxes an image that is on average, float64 [N]."""

    counts: tuple[int | None, ...]
    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    boxes: NDArray[np.float64]


@dataclass(frozen=True)
class ProposalRecall:
    """Of `objects` non-difficult objects: the share `recall` that a box covers with at least the IoU asked for, and the
    mean best overlap per class, averaged over the classes that occur (MABO; Uijlings et al., IJCV 2013, section 5).

    Both are NaN when there is no object.
    """

    objects: int
    recall: float
    mean_average_best_overlap: float


def best_overlaps(boxes: Boxes, objects: Boxes) -> NDArray[np.float64]:
    """For each of the `objects` [m, 4] the largest IoU with one of the `boxes` [n, 4]: float64 [m], 0 without boxes."""
    return iou_matrix(objects, boxes).max(axis=1, initial=0.0)


def proposal_recall(boxes: Mapping[str, Boxes], records: Iterable[ImageRecord], iou: float = 0.5) -> ProposalRecall:
    """Recall of the non-difficult objects in `records` by the `boxes` [n, 4] of each image id at the threshold `iou`.

    Raises KeyError for a record whose image has no entry in `boxes`.
    """
    return recall_of(((boxes[record.image_id], record) for record in records), iou)


def recall(reader: Reader, dataset: Dataset, iou: float = 0.5) -> ProposalRecall:
    """`proposal_recall` of a finished proposals cache on the dataset that it was made from, an image at a time."""
    return recall_of(((read["boxes"], dataset.record(image_id)) for image_id, read in reader.records(["boxes"])), iou)


def recall_of(images: Iterable[tuple[Boxes, ImageRecord]], iou: float) -> ProposalRecall:
    """From the proposals [n, 4] and the record of each image."""
    overlaps, labels = [np.zeros(0)], [np.zeros(0, np.int32)]
    for boxes, record in images:
        counted = ~record.difficult
        overlaps.append(best_overlaps(boxes, record.boxes[counted]))
        labels.append(record.labels[counted])
    return summary_of(np.concatenate(overlaps), np.concatenate(labels), iou)


def summary_of(overlaps: NDArray[np.float64], labels: NDArray[np.int32], iou: float) -> ProposalRecall:
    """From the best overlap [m] and label [m] of every object."""
    if not len(overlaps):
        return ProposalRecall(0, float("nan"), float("nan"))
    per_class = [overlaps[labels == label].mean() for label in np.unique(labels)]
    return ProposalRecall(len(overlaps), float(reaches(overlaps, iou).mean()), float(np.mean(per_class)))


def coverage(reader: Reader, dataset: Dataset, counts: Sequence[int | None]) -> Coverage:
    """The `Coverage` of a finished proposals cache on the dataset that it was made from, an image at a time."""
    labels, areas, overlaps = [np.zeros(0, np.int32)], [np.zeros(0)], [np.zeros((0, len(counts)))]
    boxes = np.zeros(len(counts))
    for image_id, found in reader.records(["boxes"]):
        record = dataset.record(image_id)
        counted = ~record.difficult
        labels.append(record.labels[counted])
        areas.append(record.areas[counted])
        overlaps.append(best_overlaps_of_first(found["boxes"], record.boxes[counted], counts))
        boxes += [kept(len(found["boxes"]), count) for count in counts]
    return Coverage(
        tuple(counts),
        np.concatenate(labels),
        np.concatenate(areas),
        np.concatenate(overlaps),
        boxes / max(1, len(reader)),
    )


def kept(boxes: int, count: int | None) -> int:
    """How many of so many boxes are among the first `count` (None: all)."""
    return boxes if count is None else min(boxes, count)


def best_overlaps_of_first(boxes: Boxes, objects: Boxes, counts: Sequence[int | None]) -> NDArray[np.float64]:
    """For each of the `objects` [m, 4] the largest IoU with one of the first `count` of the `boxes` [n, 4] (None: all),
    for each of the N `counts`: float64 [m, N], 0 without boxes."""
    best = np.zeros((len(objects), len(boxes) + 1))
    np.maximum.accumulate(iou_matrix(objects, boxes), axis=1, out=best[:, 1:])
    return best[:, [kept(len(boxes), count) for count in counts]]


def recall_at(overlaps: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of objects, by their best `overlaps` [m], that are covered with at least each IoU of `levels` [L]:
    float64 [L], nan without objects."""
    if not len(overlaps):
        return np.full(len(levels), np.nan)
    return np.asarray(reaches(overlaps[:, None], levels).mean(axis=0))


def average_recall(overlaps: NDArray[np.float64]) -> float:
    """Twice the area under recall over the IoUs 0.5 to 1, from the best `overlaps` [m]; nan without objects.

    Hosang et al., What makes for effective detection proposals?, PAMI 2016, section 5.2: 2 / m x sum of
    max(IoU - 0.5, 0).
    """
    return float(2 * np.maximum(overlaps - 0.5, 0).mean()) if len(overlaps) else float("nan")


def groups(found: Coverage, classes: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Which objects are of each group, bool [m]: "all", COCO's sizes, then the classes."""
    chosen = {"all": np.ones(len(found.labels), bool)}
    for name, (least, limit) in SIZES.items():
        chosen[name] = (found.areas >= least) & (found.areas < limit)
    return chosen | {f"class {name}": found.labels == label for label, name in enumerate(classes)}
