"""Which regions are examples of nothing: crowds, what lies in them and, where so asked, difficult objects.

R-CNN's release trains on VOC's difficult objects as on all others (no filter in roidb_from_voc.m). A crowd of COCO's is
one box around many things, and nobody trains on it: Fast R-CNN's COCO code (py-faster-rcnn, lib/datasets/coco.py) takes
neither crowds nor the proposals that lie in one, for any class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Record
from stages.boxes import Boxes, covered_share, exceeds
from stages.contract.errors import StageError

TRAIN, IGNORE = "train", "ignore"
"""What the setting `difficult` of the stages that train on objects may be."""
CROWD_OVERLAP = 0.7
"""A proposal with more than this share of its own area in a crowd lies in it (coco.py: crowd_thresh)."""


def unused_regions(
    boxes: Boxes, difficult: NDArray[np.bool_], crowds: NDArray[np.bool_], choice: str
) -> NDArray[np.bool_]:
    """Which of an image's n regions, its m objects first, are neither positives nor negatives of any class, bool [n].

    `boxes` float32 [n, 4]; `difficult` and `crowds` bool [m]; `choice` is the setting `difficult`. These are the crowds
    and the proposals that lie in one; with IGNORE the difficult objects, too.
    """
    unused = np.zeros(len(boxes), bool)
    unused[: len(crowds)] = (crowds | difficult) if choice == IGNORE else crowds
    if crowds.any():
        proposals, within = boxes[len(crowds) :], boxes[: len(crowds)][crowds]
        unused[len(crowds) :] = exceeds(covered_share(proposals, within).max(axis=1), CROWD_OVERLAP)
    return unused


def unused_rows(record: Record, image_id: str, dataset: Any, choice: str) -> NDArray[np.bool_]:
    """`unused_regions` of an image of a features cache, from the columns `boxes`, `is_object` and `difficult` of its
    `record`: bool [n]. `dataset` tells which of the objects are crowds; only the annotations of images with crowds are
    read. Raises StageError if they are of other objects."""
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
