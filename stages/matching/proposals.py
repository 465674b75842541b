"""The quality of proposals: how many objects they cover, and how well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import Reader, Record
from stages.boxes import Boxes, clip_boxes, iou_matrix, reaches
from stages.datasets import Dataset, ImageRecord
from stages.networks import BACKGROUND, SOFTMAX

LEVEL = "level"
"""The column that only dense windows have: at which scale they were read."""

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's object sizes: area in square pixels from the first number (inclusive) to the second (exclusive)."""


@dataclass(frozen=True)
class Coverage:
    """How well proposals cover m non-difficult objects: `labels` int32 [m], `areas` float64 [m] in square pixels,
    `overlaps` float64 [m, N], the best IoU among the first `counts[j]` boxes of the object's image (None: all boxes),
    and `boxes` float64 [N], the mean number of boxes per image that this takes."""

    counts: tuple[int | None, ...]
    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    boxes: NDArray[np.float64]


@dataclass(frozen=True)
class ProposalRecall:
    """Over that many non-difficult `objects`: `recall`, the share covered by a box with at least the given IoU, and the
    mean average best overlap over the classes that occur (MABO; Uijlings et al., IJCV 2013, section 5).

    Both are nan if there are no objects.
    """

    objects: int
    recall: float
    mean_average_best_overlap: float


def best_overlaps(boxes: Boxes, objects: Boxes) -> NDArray[np.float64]:
    """The highest IoU of each of `objects` [m, 4] with any of `boxes` [n, 4]: float64 [m], 0 if there are no boxes."""
    return iou_matrix(objects, boxes).max(axis=1, initial=0.0)


def proposal_recall(boxes: Mapping[str, Boxes], records: Iterable[ImageRecord], iou: float = 0.5) -> ProposalRecall:
    """Recall of the non-difficult objects in `records`, at IoU `iou`, from the `boxes` [n, 4] of each image id.

    Raises KeyError if an image has no entry in `boxes`.
    """
    return recall_of(((boxes[record.image_id], record) for record in records), iou)


def recall(reader: Reader, dataset: Dataset, iou: float = 0.5) -> ProposalRecall:
    """`proposal_recall` of a complete proposals cache on its own dataset, one image at a time."""
    records = reader.records(["boxes"])
    return recall_of(((record["boxes"], dataset.record(image_id)) for image_id, record in records), iou)


def recall_of(images: Iterable[tuple[Boxes, ImageRecord]], iou: float) -> ProposalRecall:
    """`proposal_recall` from the proposals [n, 4] and the record of each image."""
    overlaps, labels = [np.zeros(0)], [np.zeros(0, np.int32)]
    for boxes, record in images:
        counted = ~record.difficult
        overlaps.append(best_overlaps(boxes, record.boxes[counted]))
        labels.append(record.labels[counted])
    return summary_of(np.concatenate(overlaps), np.concatenate(labels), iou)


def summary_of(overlaps: NDArray[np.float64], labels: NDArray[np.int32], iou: float) -> ProposalRecall:
    """`proposal_recall` from the best overlap [m] and label [m] of every object."""
    if not len(overlaps):
        return ProposalRecall(0, float("nan"), float("nan"))
    per_class = [overlaps[labels == label].mean() for label in np.unique(labels)]
    return ProposalRecall(len(overlaps), float(reaches(overlaps, iou).mean()), float(np.mean(per_class)))


def coverage(reader: Reader, dataset: Dataset, counts: Sequence[int | None]) -> Coverage:
    """The `Coverage` of a complete cache of proposals, or of features, on its own dataset, one image at a time.

    Of features, the boxes that are scored count (`scored_first`); dense windows are clipped to the image."""
    of_features, windows, ranked = "is_object" in reader.schema.rows, are_windows(reader), are_ranked_windows(reader)
    columns = ["boxes", *(["is_object"] if of_features else []), *([SOFTMAX] if ranked else [])]
    labels, areas, overlaps = [np.zeros(0, np.int32)], [np.zeros(0)], [np.zeros((0, len(counts)))]
    boxes = np.zeros(len(counts))
    for image_id, proposals in reader.records(columns):
        record = dataset.record(image_id)
        counted = ~record.difficult
        scored = scored_first(proposals)
        if windows:
            scored = clip_boxes(scored, record.width, record.height)
        labels.append(record.labels[counted])
        areas.append(record.areas[counted])
        overlaps.append(best_overlaps_of_first(scored, record.boxes[counted], counts))
        boxes += [kept(len(scored), count) for count in counts]
    return Coverage(
        tuple(counts),
        np.concatenate(labels),
        np.concatenate(areas),
        np.concatenate(overlaps),
        boxes / max(1, len(reader)),
    )


def are_windows(reader: Reader) -> bool:
    """Whether a cache holds the features of dense windows (OverFeat section 3.3), not of proposals."""
    return LEVEL in reader.schema.rows


def are_ranked_windows(reader: Reader) -> bool:
    """Whether a cache holds dense windows with the probabilities of classes and, last, the background."""
    names = reader.manifest["summary"].get("class_names") or [""]
    return are_windows(reader) and SOFTMAX in reader.schema.rows and names[-1] == BACKGROUND


def scored_first(record: Record) -> Boxes:
    """The n boxes of an image that are to cover objects, float32 [n, 4]: proposals, or all rows of features except the
    objects themselves, in their order; with SOFTMAX [n, K + 1], by their best class's probability, highest first."""
    boxes = record["boxes"]
    if "is_object" in record:
        boxes = boxes[~record["is_object"]]
    if SOFTMAX not in record:
        return boxes
    probabilities = record[SOFTMAX][~record["is_object"], :-1].max(axis=1)
    return boxes[np.argsort(-probabilities, kind="stable")]


def kept(boxes: int, count: int | None) -> int:
    """How many of that many boxes are among the first `count` (None: all of them)."""
    return boxes if count is None else min(boxes, count)


def best_overlaps_of_first(boxes: Boxes, objects: Boxes, counts: Sequence[int | None]) -> NDArray[np.float64]:
    """The highest IoU of each of `objects` [m, 4] with any of the first `count` of `boxes` [n, 4] (None: all), for each
    of the N `counts`: float64 [m, N], 0 if there are no boxes."""
    best = np.zeros((len(objects), len(boxes) + 1))
    np.maximum.accumulate(iou_matrix(objects, boxes), axis=1, out=best[:, 1:])
    return best[:, [kept(len(boxes), count) for count in counts]]


def recall_at(overlaps: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Recall at each IoU in `levels` [L], from the objects' best `overlaps` [m]: float64 [L], nan without objects."""
    if not len(overlaps):
        return np.full(len(levels), np.nan)
    return np.asarray(reaches(overlaps[:, None], levels).mean(axis=0))


def average_recall(overlaps: NDArray[np.float64]) -> float:
    """Average recall over IoUs 0.5 to 1, from the objects' best `overlaps` [m]; nan without objects.

    Hosang et al., What makes for effective detection proposals?, PAMI 2016, section 5.2: 2 / m x sum of
    max(IoU - 0.5, 0).
    """
    return float(2 * np.maximum(overlaps - 0.5, 0).mean()) if len(overlaps) else float("nan")


def groups(objects: Coverage, classes: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Which of m objects are in each group, bool [m]: "all", COCO's sizes, then the classes."""
    members = {"all": np.ones(len(objects.labels), bool)}
    for name, (least, limit) in SIZES.items():
        members[name] = (objects.areas >= least) & (objects.areas < limit)
    return members | {f"class {name}": objects.labels == label for label, name in enumerate(classes)}
