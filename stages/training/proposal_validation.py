"""The proposals of a region proposal network while it is trained, and how many objects of a validation set they
recall: as `propose` makes them, without caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.anchors import anchors_of_map
from stages.boxes import Boxes, clip_boxes, reaches
from stages.contract.errors import StageError
from stages.detections.region_proposals import LIMITS, region_proposals
from stages.images.scale import scaled_size
from stages.matching.proposals import best_overlaps
from stages.networks.network import Network
from stages.training.whole_images import Objects, TrainingImage

IOU = 0.5


def own_proposals(stage: str, network: Network, maps: torch.Tensor, image: TrainingImage[Any]) -> Boxes:
    """The proposals of the network as it is now, in an image's pixels, highest score first: float32 [p, 4], at most 300
    (`stages.detections.region_proposals.LIMITS`). Raises StageError if its outputs are NaN or infinite."""
    head, stride = network.card.check_proposals(), network.card.trunk.stride
    scores, deltas = (values.cpu().numpy() for values in network.anchors(maps))
    anchors = anchors_of_map(*image.map_size, stride, head.scales, head.ratios)
    width, height = scaled_size(*image.size, image.scale)
    least = LIMITS["least_side"] * image.scale
    try:
        boxes, _ = region_proposals(anchors, deltas, scores, width, height, least_side=least)
    except ValueError as error:
        raise StageError(
            f"{stage}: the outputs of the region proposal network became NaN or infinite on the validation set; "
            "training diverged, lower learning_rate"
        ) from error
    return clip_boxes(boxes / np.float32(image.scale), *image.size)


def recalled(proposals: Boxes, objects: Objects) -> NDArray[np.bool_]:
    """Which of an image's m used objects a proposal covers with an IoU of IOU or more: bool [m]."""
    return np.asarray(reaches(best_overlaps(proposals, objects.used), IOU))


def recall_of(found: Mapping[str, NDArray[np.bool_]]) -> float:
    """The share of all objects that are recalled, from those of each image; 0 if there are none."""
    every = np.concatenate([np.zeros(0, bool), *(found[image_id] for image_id in sorted(found))])
    return float(every.mean()) if len(every) else 0.0
