"""How good proposals are: the share of objects that some box covers, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.boxes import Boxes, iou_matrix
from stages.datasets import Dataset, ImageRecord


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
    overlaps: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.int32]] = []
    for record in records:
        counted = ~record.difficult
        overlaps.append(best_overlaps(boxes[record.image_id], record.boxes[counted]))
        labels.append(record.labels[counted])
    return summary_of(np.concatenate([*overlaps, []]), np.concatenate([*labels, np.zeros(0, np.int32)]), iou)


def recall(reader: Reader, dataset: Dataset, iou: float = 0.5) -> ProposalRecall:
    """`proposal_recall` of a finished proposals cache on the dataset that it was made from, an image at a time."""
    overlaps: list[NDArray[np.float64]] = []
    labels: list[NDArray[np.int32]] = []
    for image_id, found in reader.records(["boxes"]):
        record = dataset.record(image_id)
        counted = ~record.difficult
        overlaps.append(best_overlaps(found["boxes"], record.boxes[counted]))
        labels.append(record.labels[counted])
    return summary_of(np.concatenate([*overlaps, []]), np.concatenate([*labels, np.zeros(0, np.int32)]), iou)


def summary_of(overlaps: NDArray[np.float64], labels: NDArray[np.int32], iou: float) -> ProposalRecall:
    """From the best overlap [m] and label [m] of every object."""
    if not len(overlaps):
        return ProposalRecall(0, float("nan"), float("nan"))
    per_class = [overlaps[labels == label].mean() for label in np.unique(labels)]
    return ProposalRecall(len(overlaps), float((overlaps >= iou).mean()), float(np.mean(per_class)))
