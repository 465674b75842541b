"""The regions that a detector's region head is trained on, and its loss (Fast R-CNN sections 2.2 and 2.3).

Symbols: n regions of an image (its m objects first), k drawn, f of them foreground; K classes, and the background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes, encode_deltas, iou_matrix
from stages.matching.examples import IGNORE, unused_regions
from stages.matching.windows import UNUSED, window_labels
from stages.networks import DELTAS
from stages.networks.network import Network
from stages.networks.roi_pooling import map_regions, pooled_regions
from stages.training.losses import smooth_l1
from stages.training.region_settings import RegionTraining
from stages.training.sampling import draw_examples
from stages.training.whole_images import Objects

FIXED_STDS = (0.1, 0.1, 0.2, 0.2)
"""py-faster-rcnn, lib/fast_rcnn/config.py: BBOX_NORMALIZE_STDS."""


@dataclass(frozen=True)
class DeltaStatistics:
    """Each class's means and standard deviations of the deltas that move foreground regions onto their objects:
    float64 [K, 4] each."""

    means: NDArray[np.float64]
    stds: NDArray[np.float64]

    @staticmethod
    def fixed(classes: int) -> DeltaStatistics:
        """Those of the end-to-end training of py-faster-rcnn."""
        return DeltaStatistics(np.zeros((classes, 4)), np.tile(FIXED_STDS, (classes, 1)))

    @staticmethod
    def of(
        images: Iterable[tuple[NDArray[np.int32], NDArray[np.float64]]], classes: int, mirrored: bool
    ) -> DeltaStatistics:
        """Those of a training set, from (labels [f], deltas [f, 4]) of each image (lib/roi_data_layer/roidb.py) and, if
        `mirrored`, of the mirrored image, which shifts its regions the other way.

        The standard deviation is 1 where there are no foreground regions, or the deltas never vary.
        """
        counts, sums, squares = np.zeros((classes, 1)), np.zeros((classes, 4)), np.zeros((classes, 4))
        for labels, deltas in images:
            np.add.at(counts, labels, 1)
            np.add.at(sums, labels, deltas)
            np.add.at(squares, labels, deltas**2)
        means = sums / np.maximum(counts, 1)
        if mirrored:
            means[:, 0] = 0
        stds = np.sqrt(np.maximum(squares / np.maximum(counts, 1) - means**2, 0))
        return DeltaStatistics(means, np.where(stds > 1e-6, stds, 1.0))

    def normalised(self, deltas: NDArray[np.float64], labels: NDArray[np.int32]) -> NDArray[np.float64]:
        """The deltas [f, 4] of regions of the classes `labels` int32 [f]."""
        return (deltas - self.means[labels]) / self.stds[labels]

    def folded(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The (weight [4K, D], bias [4K]) of the layer that predicts deltas themselves, from that of the layer that
        predicts normalised ones."""
        means, stds = (torch.from_numpy(values.reshape(-1)) for values in (self.means, self.stds))
        scaled = weight.detach().cpu().double() * stds[:, None]
        moved = bias.detach().cpu().double() * stds + means
        return scaled.to(weight.dtype), moved.to(bias.dtype)


@dataclass(frozen=True)
class RegionExamples:
    """The k regions drawn of an image, the f foreground ones first: their `rows` int64 [k] among its m objects and the
    proposals that follow them, `boxes` float32 [k, 4] in its pixels, `labels` int64 [k] (K: background), and the
    normalised `deltas` float32 [f, 4] that move the foreground onto its objects."""

    rows: NDArray[np.int64]
    boxes: Boxes
    labels: torch.Tensor
    deltas: torch.Tensor


def labelled_regions(boxes: Boxes, objects: Objects, classes: int, settings: RegionTraining) -> NDArray[np.int32]:
    """`window_labels` of n regions [n, 4] of an image, its objects first: int32 [n]."""
    unused = unused_regions(boxes, objects.unused, objects.crowds, IGNORE)
    return window_labels(
        boxes,
        objects.boxes,
        objects.labels,
        classes,
        settings.foreground_overlap,
        settings.background_overlap,
        unused,
        settings.background_least,
    )


def region_deltas(boxes: Boxes, labels: NDArray[np.int32], objects: Objects) -> NDArray[np.float64]:
    """The deltas that move foreground regions [f, 4] of the classes `labels` onto the object of their class that they
    overlap most: float64 [f, 4]."""
    used = ~objects.unused
    overlaps = iou_matrix(boxes, objects.boxes[used])
    overlaps[labels[:, None] != objects.labels[used]] = -1
    nearest = overlaps.argmax(axis=1) if overlaps.shape[1] else np.zeros(0, np.int64)
    return encode_deltas(boxes, objects.boxes[used][nearest], short=0)


def foreground_deltas(
    proposals: Boxes, objects: Objects, classes: int, settings: RegionTraining
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The labels int32 [f] and deltas float64 [f, 4] of all foreground regions of an image: its objects and
    proposals."""
    boxes = with_objects(proposals, objects)
    labels = labelled_regions(boxes, objects, classes, settings)
    rows = np.flatnonzero((labels != UNUSED) & (labels != classes))
    return labels[rows], region_deltas(boxes[rows], labels[rows], objects)


def with_objects(proposals: Boxes, objects: Objects) -> Boxes:
    """The regions of an image: its objects, then proposals [p, 4] (lib/rpn/proposal_target_layer.py)."""
    return np.concatenate([objects.boxes, proposals]).astype(np.float32)


def draw_regions(
    proposals: Boxes,
    objects: Objects,
    statistics: DeltaStatistics,
    settings: RegionTraining,
    random: np.random.Generator,
    device: torch.device | str,
) -> RegionExamples:
    """The regions of one image to train on, drawn from its objects and the proposals [p, 4], in the same pixels."""
    classes = len(statistics.means)
    boxes = with_objects(proposals, objects)
    labels = labelled_regions(boxes, objects, classes, settings)
    foreground = (labels != UNUSED) & (labels != classes)
    drawn = draw_examples(foreground, labels == classes, settings.regions_per_image, settings.most_foreground, random)
    moved = drawn[foreground[drawn]]
    deltas = statistics.normalised(region_deltas(boxes[moved], labels[moved], objects), labels[moved])
    return RegionExamples(
        drawn,
        boxes[drawn],
        torch.from_numpy(labels[drawn].astype(np.int64)).to(device),
        torch.from_numpy(deltas.astype(np.float32)).to(device),
    )


def statistics_of(
    images: Iterable[tuple[Boxes, Objects]], classes: int, settings: RegionTraining, mirrored: bool
) -> DeltaStatistics:
    """The statistics of a training set, from the proposals and objects of each image, and of the mirrored image if
    `mirrored`."""
    return DeltaStatistics.of((foreground_deltas(*image, classes, settings) for image in images), classes, mirrored)


def region_outputs(
    network: Network, maps: torch.Tensor, boxes: Boxes, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores [k, K + 1] and deltas [k, 4K], float32, of regions `boxes` [k, 4], in pixels of the image, of the
    trunk's map [1, C, H, W] of it at `scale`. Gradients reach the map."""
    card = network.card
    head = card.heads.regions
    assert head is not None
    if not len(boxes):
        sizes = (network.layers[network.card.check_classifier()], network.layers[DELTAS])
        return maps.new_zeros((0, sizes[0])), maps.new_zeros((0, sizes[1]))
    regions = map_regions(boxes, [scale], card.trunk, card.input_size, head.pooling)
    cells = maps[0].to(torch.float32)  # torchvision's RoI max pooling on a CPU takes no bfloat16 maps
    pooled = torch.cat(list(pooled_regions([cells], regions, head.side, head.pooling, len(boxes))))
    return head_outputs(network, pooled[torch.from_numpy(regions.inverse).to(pooled.device)])


def head_outputs(network: Network, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores [k, K + 1] and deltas [k, 4K], float32, of regions pooled to [k, C, side, side]."""
    scores = network.card.check_classifier()
    outputs = network.head(pooled, [scores, DELTAS])
    return outputs[scores].to(torch.float32), outputs[DELTAS].to(torch.float32)


def region_losses(
    scores: torch.Tensor, deltas: torch.Tensor, examples: RegionExamples, settings: RegionTraining
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the classification loss, lambda times the box loss) of one image, scalars: Fast R-CNN equations 1 to 3.

    `scores` [k, K + 1] and `deltas` [k, 4K] are the network's outputs for the regions drawn. The log loss and, of the
    foreground, the smooth L1 loss of the deltas of its own class, both divided by k.
    """
    count = max(len(examples.labels), 1)
    classes = torch.nn.functional.cross_entropy(scores, examples.labels, reduction="sum")
    foreground = len(examples.deltas)
    rows = torch.arange(foreground, device=deltas.device)
    own = deltas.unflatten(1, (-1, 4))[rows, examples.labels[:foreground]]
    boxes = smooth_l1(own - examples.deltas).sum()
    return classes / count, settings.box_weight * boxes / count
