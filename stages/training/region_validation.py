"""Mean average precision on a validation set while a detector is trained: its detections, straight from its outputs.

As `detect` with cap = "image" and `eval` do it, without caches; `detect` reads features that are rounded to float16
unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes, decode_deltas
from stages.datasets import Dataset
from stages.detections import Detections, detections_from_arrays, detections_of
from stages.detections.cap import image_threshold
from stages.detections.suppression import GreedyNms
from stages.matching.average_precision import precision_recall_curve
from stages.matching.objects import read_objects
from stages.networks.network import Network
from stages.training.region_examples import DeltaStatistics, region_outputs
from stages.training.region_settings import RegionTraining

LEAST_SCORE, SUPPRESSION_IOU, AT_MOST = 0.05, 0.3, 100
"""py-faster-rcnn, lib/fast_rcnn/test.py and config.py."""
REGIONS_AT_ONCE = 256
IOU = 0.5


def network_detections(
    network: Network,
    maps: torch.Tensor,
    proposals: Boxes,
    size: tuple[int, int],
    scale: float,
    statistics: DeltaStatistics,
    settings: RegionTraining,
) -> Detections:
    """What the network detects among the `proposals` [n, 4] of an image of `size` (width, height), given the trunk's
    map [1, C, H, W] of it at `scale`; its deltas are normalised with the `statistics`."""
    probabilities, deltas = [], []
    for first in range(0, len(proposals), REGIONS_AT_ONCE):
        scores, moves = region_outputs(network, maps, proposals[first : first + REGIONS_AT_ONCE], scale)
        probabilities.append(torch.softmax(scores, dim=1).cpu().numpy())
        deltas.append(moves.cpu().numpy())
    classes = len(statistics.means)
    every = np.concatenate([np.zeros((0, classes + 1), np.float32), *probabilities])
    moved = np.concatenate([np.zeros((0, 4 * classes), np.float32), *deltas]).reshape(-1, classes, 4)
    moved = moved * statistics.stds + statistics.means if settings.box_weight else np.zeros_like(moved)
    return best_detections(proposals, every[:, :-1], moved, size)


def best_detections(
    boxes: Boxes, probabilities: NDArray[np.float32], deltas: NDArray[np.floating], size: tuple[int, int]
) -> Detections:
    """The detections of an image of `size` (width, height) among regions `boxes` [n, 4], from their `probabilities`
    [n, K] of each class and the `deltas` [n, K, 4]: those above LEAST_SCORE, moved, clipped and suppressed class by
    class, the AT_MOST best."""
    rows, labels = np.nonzero(probabilities > np.float32(LEAST_SCORE))
    scores = probabilities[rows, labels]
    order = np.lexsort((-scores, labels))
    rows, labels, scores = rows[order], labels[order], scores[order]
    with np.errstate(over="ignore"):  # a side of infinite length is clipped
        moved = clip_boxes(decode_deltas(boxes[rows], deltas[rows, labels], short=0), *size)
    kept = GreedyNms(SUPPRESSION_IOU).outcome(Detections(moved, scores, labels.astype(np.int32))).detections
    return kept.where(kept.scores >= image_threshold(kept.scores, AT_MOST))


def mean_average_precision(found: Mapping[str, Detections], dataset: Dataset) -> float:
    """The mean, over the classes with objects to find, of the area under the precision-recall curve, from the
    detections of every image of the dataset by its id; 0 if there is no object to find."""
    image_ids = list(dataset.image_ids)
    detections = detections_from_arrays(dataset.classes, [(image_id, found[image_id]) for image_id in image_ids])
    objects = read_objects(dataset, image_ids).by_class(len(dataset.classes))
    curves = [
        precision_recall_curve(detections_of(detections, name), own, IOU)
        for name, (_, own) in zip(dataset.classes, objects, strict=True)
        if own.positives
    ]
    return float(np.mean([curve.ap_area for curve in curves])) if curves else 0.0
