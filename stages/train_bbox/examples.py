"""The training examples of box regressors and their targets (rcnn_train_bbox_regressor.m)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader, Record
from stages.boxes import encode_deltas
from stages.features.reading import scaled
from stages.matching.examples import unused_rows
from stages.matching.windows import regression_pairs

BLOCK_ROWS = 512


@dataclass(frozen=True)
class Examples:
    """m regions in the order of the features cache: `images` int64 [m] (positions in the cache), `rows` int64 [m]
    (within the image), `labels` int32 [m] (classes), `targets` float64 [m, 4] (from `encode_deltas`)."""

    images: NDArray[np.int64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    targets: NDArray[np.float64]

    def of_class(self, label: int) -> Examples:
        """The examples of one class."""
        own = self.labels == label
        return Examples(self.images[own], self.rows[own], self.labels[own], self.targets[own])

    def __len__(self) -> int:
        return len(self.rows)


def image_examples(record: Record, image: int, min_overlap: float, unused: NDArray[np.bool_] | None = None) -> Examples:
    """The examples of one image: its `regression_pairs`, labelled with the class of their target; `unused` bool [n]."""
    boxes, labels = record["boxes"], record["label"]
    rows, targets = regression_pairs(boxes, record["is_object"], min_overlap, unused)
    deltas = encode_deltas(boxes[rows], boxes[targets])
    return Examples(np.full(len(rows), image, np.int64), rows.astype(np.int64), labels[targets], deltas)


def collect_examples(
    features: Reader, dataset: Any, min_overlap: float, difficult: str, only_exhaustive: bool = False
) -> Examples:
    """The examples of all images, for the settings `min_overlap`, `difficult` and `only_exhaustive`; reads no
    features."""
    images = []
    for position, (image_id, record) in enumerate(features.records(["boxes", "is_object", "label", "difficult"])):
        unused = unused_rows(record, image_id, dataset, difficult)
        if only_exhaustive and image_id in dataset.images_not_exhaustive:
            unused = np.ones(len(unused), bool)
        images.append(image_examples(record, position, min_overlap, unused))
    return Examples(
        np.concatenate([examples.images for examples in images]),
        np.concatenate([examples.rows for examples in images]),
        np.concatenate([examples.labels for examples in images]),
        np.concatenate([examples.targets for examples in images]),
    )


def feature_blocks(
    features: Reader, layer: str, scale: float, examples: Examples
) -> Iterator[tuple[NDArray[np.float64], slice]]:
    """Scaled features float64 [m, D] of `examples`, at most 512 at a time, each with the slice of examples covered."""
    for low in range(0, len(examples), BLOCK_ROWS):
        where = slice(low, min(low + BLOCK_ROWS, len(examples)))
        images, rows = examples.images[where], examples.rows[where]
        read = [features.rows(features.item_ids[image], layer, rows[images == image]) for image in np.unique(images)]
        yield scaled(np.concatenate(read), scale).astype(np.float64), where
