"""Regions that are never examples: crowds, proposals inside them and, on request, difficult objects.

R-CNN's release trains on VOC's difficult objects like on any other (no filter in roidb_from_voc.m). A COCO crowd is one
box around many objects, and nobody trains on it: Fast R-CNN's COCO code (py-faster-rcnn, lib/datasets/coco.py) uses
neither crowds nor proposals inside one, for any class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Record
from stages.boxes import Boxes, covered_share, exceeds
from stages.contract.errors import StageError

TRAIN, IGNORE = "train", "ignore"
"""The values of the setting `difficult`, in the stages that train on objects."""
CROWD_OVERLAP = 0.7
"""A proposal is inside a crowd if more than this share of its own area is (coco.py: crowd_thresh)."""


def unused_regions(
    boxes: Boxes, difficult: NDArray[np.bool_], crowds: NDArray[np.bool_], choice: str
) -> NDArray[np.bool_]:
    """Which of an image's n regions (its m objects first) are neither positives nor negatives of any class: bool [n].

    These are the crowds and the proposals inside one and, with IGNORE, the difficult objects. `boxes` float32 [n, 4];
    `difficult` and `crowds` bool [m]; `choice` is the setting `difficult`.
    """
    unused = np.zeros(len(boxes), bool)
    unused[: len(crowds)] = (crowds | difficult) if choice == IGNORE else crowds
    if crowds.any():
        proposals, within = boxes[len(crowds) :], boxes[: len(crowds)][crowds]
        unused[len(crowds) :] = exceeds(covered_share(proposals, within).max(axis=1), CROWD_OVERLAP)
    return unused


def unused_rows(record: Record, image_id: str, dataset: Any, choice: str) -> NDArray[np.bool_]:
    """`unused_regions` of an image in a features cache, from the columns `boxes`, `is_object` and `difficult` of its
    `record`: bool [n].

    Crowds come from the `dataset`, whose annotations are read only for images with crowds. Raises StageError if the
    annotation has another number of objects than the record."""
    difficult = record["difficult"][record["is_object"]]
    crowds = np.zeros(len(difficult), bool)
    if image_id in dataset.images_with_crowds and len(record["boxes"]):  # a skipped image has no regions
        crowds = dataset.record(image_id).crowds
    if len(crowds) != len(difficult):
        raise StageError(
            f"the features of image '{image_id}' have {len(difficult)} objects but its annotation in {dataset.name} "
            f"has {len(crowds)}; use features of the same dataset"
        )
    return unused_regions(record["boxes"], difficult, crowds, choice)
