"""Which regions are positives of which class (R-CNN section 2.3 and Appendix B)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader, Record
from stages.boxes import class_overlaps
from stages.matching.examples import TRAIN, unused_rows

COLUMNS = ["boxes", "is_object", "label", "difficult"]
"""What of a features cache says which regions are examples."""


@dataclass(frozen=True)
class Positives:
    """Rows of a features cache that are positives of a class, in its order.

    `labels` int32 [p] class indices; `images` int64 [p] positions of images in the cache; `rows` int64 [p] rows within
    the image.
    """

    labels: NDArray[np.int32]
    images: NDArray[np.int64]
    rows: NDArray[np.int64]

    @cached_property
    def by_label(self) -> NDArray[np.int64]:
        """The order that puts a class's rows together, and leaves them in theirs: int64 [p]."""
        return np.argsort(self.labels, kind="stable")

    def of_class(self, label: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`images` and `rows` of the positives of one class."""
        low, high = np.searchsorted(self.labels, (label, label + 1), sorter=self.by_label)
        own = self.by_label[low:high]
        return self.images[own], self.rows[own]


@dataclass(frozen=True)
class Overlaps:
    """How the n regions of an image lie to the p classes that have an object in it.

    `present` int32 [p] these classes; `overlaps` float32 [n, p] the largest IoU with an object of the class;
    `own_object` bool [n, p] whether the region is one.
    """

    present: NDArray[np.int32]
    overlaps: NDArray[np.float32]
    own_object: NDArray[np.bool_]


def overlaps_of(record: Record, unused: NDArray[np.bool_] | None = None) -> Overlaps:
    """The overlaps of an image, from the COLUMNS of its `record`, with its objects but for the `unused` (bool [n])."""
    is_object, labels = record["is_object"], record["label"]
    if unused is not None:
        is_object = is_object & ~unused
    present = np.unique(labels[is_object])
    columns = np.searchsorted(present, labels[is_object]).astype(np.int32)
    overlaps = class_overlaps(record["boxes"], record["boxes"][is_object], columns, len(present))
    return Overlaps(present, overlaps, is_object[:, None] & (labels[:, None] == present))


def positives_of(
    record: Record, positive_overlap: float, unused: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The positives of an image: their rows int64 [p] and classes int32 [p], none of them `unused` (bool [n]).

    At a `positive_overlap` of 1 the objects, each of its class; below it also, of each class, what overlaps one of its
    objects that much or more (fine-tuning's definition, tried for SVMs in Appendix B).
    """
    if positive_overlap == 1:
        rows = np.flatnonzero(record["is_object"] & ~unused)
        return rows, record["label"][rows]
    here = overlaps_of(record, unused)
    near = here.own_object | (here.overlaps >= np.float32(positive_overlap))
    rows, columns = np.nonzero(near & ~unused[:, None])
    return rows, here.present[columns]


def read_positives(features: Reader, dataset: Any, positive_overlap: float, difficult: str) -> Positives:
    """The positives of every class, by the settings of these names; reads no features."""
    labels, images, rows = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for position, (record, unused) in enumerate(regions_and_unused(features, dataset, positive_overlap, difficult)):
        found, classes = positives_of(record, positive_overlap, unused)
        labels.append(classes)
        images.append(np.full(len(found), position, np.int64))
        rows.append(found)
    return Positives(np.concatenate(labels), np.concatenate(images), np.concatenate(rows))


def regions_and_unused(
    features: Reader, dataset: Any, positive_overlap: float, difficult: str
) -> Iterator[tuple[Record, NDArray[np.bool_]]]:
    """For each image the columns that `positives_of` needs, as few as that takes, and its `unused_rows`."""
    if positive_overlap == 1 and difficult == TRAIN and not dataset.images_with_crowds:
        for _, record in features.records(["is_object", "label"]):
            yield record, np.zeros(len(record["label"]), bool)
        return
    for image_id, record in features.records(COLUMNS):
        yield record, unused_rows(record, image_id, dataset, difficult)
