"""The examples of the regressions: which regions, with which targets, and which fold an image is in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.contract.errors import StageError
from stages.datasets import Dataset
from stages.datasets.class_masks import VOID
from stages.features.joined import JoinedFeatures
from stages.masks import COLUMNS, read_mask
from stages.matching.masks import class_targets, mask_overlaps


@dataclass(frozen=True)
class Examples:
    """m regions of one class: `images` int64 [m] (positions in the features), `rows` int64 [m] (within the image,
    ascending), `targets` float32 [m]."""

    images: NDArray[np.int64]
    rows: NDArray[np.int64]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


def image_targets(image_id: str, regions: dict[str, Any], proposals: Reader, masks: Dataset) -> NDArray[np.float32]:
    """The target of each region of an image for each class, float32 [n, K]: the best overlap with its objects.

    `regions` are the image's in the features, objects first. Raises StageError if they are not those of the
    `proposals`, or the objects not those of `masks`.
    """
    record = proposals.read(image_id, ["boxes", *COLUMNS])
    if not len(regions["boxes"]) and not len(record["boxes"]):  # as of a skipped image
        return np.zeros((0, len(masks.classes)), np.float32)
    labels, objects = masks.object_masks(image_id)
    first = int(regions["is_object"].sum())
    if first not in (0, len(labels)) or not np.array_equal(regions["boxes"][first:], record["boxes"]):
        raise StageError(
            f"train-svr: image '{image_id}': the features are of other regions than the proposals and the objects of "
            "the dataset; give the tables the same split, and the same proposals"
        )
    counted = masks.class_mask(image_id) != VOID
    of_objects = mask_overlaps(objects[:first], objects, counted)
    of_proposals = mask_overlaps(
        (read_mask(record, number) for number in range(len(record["boxes"]))), objects, counted
    )
    return class_targets(np.concatenate([of_objects, of_proposals]), labels, len(masks.classes))


def all_targets(features: JoinedFeatures, proposals: Reader, masks: Dataset) -> list[NDArray[np.float32]]:
    """`image_targets` of every image, in the order of the features."""
    return [image_targets(image_id, features.regions(image_id), proposals, masks) for image_id in features.item_ids]


def class_examples(targets: Sequence[NDArray[np.float32]], label: int, negatives: int, seed: int) -> Examples:
    """The examples of class `label`: all regions that overlap an object of it, and at most `negatives` (0: all) of the
    others of each image, drawn with `seed`. `targets` float32 [n, K] of each image."""
    rows = [chosen_rows(of_image[:, label], negatives, seed, number) for number, of_image in enumerate(targets)]
    return Examples(
        np.repeat(np.arange(len(rows)), [len(of_image) for of_image in rows]).astype(np.int64),
        np.concatenate([np.zeros(0, np.int64), *rows]),
        np.concatenate(
            [np.zeros(0, np.float32), *(of_image[own, label] for of_image, own in zip(targets, rows, strict=True))]
        ),
    )


def chosen_rows(targets: NDArray[np.float32], negatives: int, seed: int, image: int) -> NDArray[np.int64]:
    """The rows of one image's examples, ascending: int64 [m]. `targets` float32 [n] are those of one class."""
    others = np.flatnonzero(targets == 0)
    if negatives and len(others) > negatives:
        # the order of all regions is drawn, so that the classes of an image share most of their negatives
        order = np.random.default_rng([seed, image]).permutation(len(targets))
        others = order[targets[order] == 0][:negatives]
    return np.sort(np.concatenate([np.flatnonzero(targets > 0), others])).astype(np.int64)


def folds_of(images: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each image, int64 [I]: equally many images in each, give or take one; -1 without folds."""
    if not folds:
        return np.full(images, -1, np.int64)
    return np.random.default_rng(seed).permutation(images) % folds


def feature_rows(features: JoinedFeatures, examples: Examples) -> NDArray[np.floating]:
    """The features of the examples, as stored: [m, D]."""
    bounds = np.searchsorted(examples.images, np.arange(len(features.item_ids) + 1))
    read = [
        features.rows(features.item_ids[image], examples.rows[bounds[image] : bounds[image + 1]])
        for image in np.unique(examples.images).tolist()
    ]
    return np.concatenate([np.zeros((0, features.dimension), np.float16), *read])
