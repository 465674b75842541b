"""The positive examples of each class (R-CNN section 2.3 and Appendix B)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader, Record
from stages.matching.examples import TRAIN, unused_rows
from stages.matching.windows import positive_rows, present_overlaps

COLUMNS = ["boxes", "is_object", "label", "difficult"]
"""The columns of a features cache that determine which regions are examples."""


@dataclass(frozen=True)
class Positives:
    """The positives of all classes, in the order of the features cache.

    `labels` int32 [p] (class indices), `images` int64 [p] (positions in the cache), `rows` int64 [p] (within the
    image).
    """

    labels: NDArray[np.int32]
    images: NDArray[np.int64]
    rows: NDArray[np.int64]

    @cached_property
    def by_label(self) -> NDArray[np.int64]:
        """A stable ordering that groups the positives by class: int64 [p]."""
        return np.argsort(self.labels, kind="stable")

    def of_class(self, label: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`images` and `rows` of the positives of one class: int64 [n] each."""
        low, high = np.searchsorted(self.labels, (label, label + 1), sorter=self.by_label)
        own = self.by_label[low:high]
        return self.images[own], self.rows[own]


def positives_of(
    record: Record, positive_overlap: float, unused: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The positives of an image, without the `unused` rows (bool [n]): rows int64 [p] and classes int32 [p].

    If `positive_overlap` is 1, these are the objects themselves; below 1, the `positive_rows` of matching.windows.
    """
    if positive_overlap == 1:
        rows = np.flatnonzero(record["is_object"] & ~unused)
        return rows, record["label"][rows]
    here = present_overlaps(record["boxes"], record["is_object"], record["label"], unused)
    rows, columns = np.nonzero(positive_rows(here, positive_overlap) & ~unused[:, None])
    return rows, here.present[columns]


def read_positives(features: Reader, dataset: Any, positive_overlap: float, difficult: str) -> Positives:
    """The positives of all classes, for the settings `positive_overlap` and `difficult`; reads no features."""
    labels, images, rows = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for position, (record, unused) in enumerate(regions_and_unused(features, dataset, positive_overlap, difficult)):
        image_rows, image_labels = positives_of(record, positive_overlap, unused)
        labels.append(image_labels)
        images.append(np.full(len(image_rows), position, np.int64))
        rows.append(image_rows)
    return Positives(np.concatenate(labels), np.concatenate(images), np.concatenate(rows))


def regions_and_unused(
    features: Reader, dataset: Any, positive_overlap: float, difficult: str
) -> Iterator[tuple[Record, NDArray[np.bool_]]]:
    """Per image, the columns that `positives_of` needs, and its `unused_rows` (bool [n])."""
    if positive_overlap == 1 and difficult == TRAIN and not dataset.images_with_crowds:
        for _, record in features.records(["is_object", "label"]):
            yield record, np.zeros(len(record["label"]), bool)
        return
    for image_id, record in features.records(COLUMNS):
        yield record, unused_rows(record, image_id, dataset, difficult)
