"""The anchors that a region proposal network is trained on, and its loss (Faster R-CNN sections 3.1.2 and 3.1.3).

Symbols: n anchors of an image's map, k drawn, p of them positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.anchors import anchors_of_map, inside
from stages.boxes import Boxes, covered_share, exceeds, iou_matrix, reaches
from stages.images.scale import scaled_size
from stages.matching.anchors import NEGATIVE, POSITIVE, UNUSED, anchor_deltas, anchor_labels
from stages.matching.examples import CROWD_OVERLAP
from stages.networks.heads import ProposalHead
from stages.training.anchor_settings import RELEASE, AnchorTraining
from stages.training.losses import smooth_l1
from stages.training.sampling import draw_examples
from stages.training.whole_images import Objects, TrainingImage

RPN_SIGMA = 3.0
"""Of the smooth L1 loss in the release (models/pascal_voc/*/rpn: sigma 3), which the paper does not mention."""


@dataclass(frozen=True)
class AnchorExamples:
    """The anchors drawn: `rows` int64 [k] among all n of the map, the p positive ones first, whose `deltas` float32
    [p, 4] move them onto their objects. `locations` is the number of cells."""

    rows: torch.Tensor
    deltas: torch.Tensor
    locations: int

    @property
    def labels(self) -> torch.Tensor:
        """1 for positive, 0 for negative anchors: int64 [k]."""
        labels = torch.zeros(len(self.rows), dtype=torch.int64, device=self.rows.device)
        labels[: len(self.deltas)] = 1
        return labels


def labelled_anchors(anchors: Boxes, objects: Objects, scale: float, settings: AnchorTraining) -> NDArray[np.int8]:
    """`anchor_labels` of `anchors` [n, 4] in pixels of the network's input, given an image's objects: int8 [n].

    Negatives that touch an object that is not used, or lie inside a crowd, are UNUSED.
    """
    boxes = (objects.boxes * np.float32(scale)).astype(np.float32)
    labels = anchor_labels(
        anchors,
        boxes[~objects.unused],
        settings.positive_overlap,
        settings.negative_overlap,
        settings.best_of_object,
        untouched_objects=False,
    )
    passed_over = iou_matrix(anchors, boxes[objects.unused]).max(axis=1, initial=0.0)
    in_crowd = covered_share(anchors, boxes[objects.crowds]).max(axis=1, initial=0.0)
    left_out = reaches(passed_over, settings.negative_overlap) | exceeds(in_crowd, CROWD_OVERLAP)
    return np.where((labels == NEGATIVE) & left_out, np.int8(UNUSED), labels)


def draw_anchors(
    image: TrainingImage[None], head: ProposalHead, stride: int, settings: AnchorTraining, random: np.random.Generator
) -> AnchorExamples:
    """The anchors of one image to train on: those inside the image (or `border` pixels outside), labelled, at most half
    of them positive."""
    width, height = scaled_size(*image.size, image.scale)
    anchors = anchors_of_map(*image.map_size, stride, head.scales, head.ratios)
    candidates = np.flatnonzero(inside(anchors, width, height, settings.border))
    labels = labelled_anchors(anchors[candidates], image.objects, image.scale, settings)
    most = round(settings.anchors_per_image * settings.positive_anchors)
    drawn = draw_examples(labels == POSITIVE, labels == NEGATIVE, settings.anchors_per_image, most, random)
    positive = candidates[drawn[labels[drawn] == POSITIVE]]
    targets = anchor_deltas(anchors[positive], (image.objects.used * np.float32(image.scale)).astype(np.float32))
    device = image.inputs.device
    return AnchorExamples(
        torch.from_numpy(candidates[drawn]).to(device),
        torch.from_numpy(targets.astype(np.float32)).to(device),
        image.map_size[0] * image.map_size[1],
    )


def anchor_losses(
    logits: torch.Tensor, deltas: torch.Tensor, examples: AnchorExamples, settings: AnchorTraining
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the classification loss, lambda times the box loss) of one image, scalars: Faster R-CNN equation 1.

    `logits` [n, 2] and `deltas` [n, 4] are the network's outputs for all anchors. PAPER divides by N_cls, the size of a
    full batch of anchors, and N_reg, the number of locations; RELEASE both by the number of anchors drawn.
    """
    drawn = logits[examples.rows]
    classes = torch.nn.functional.cross_entropy(drawn, examples.labels, reduction="sum")
    moved = smooth_l1(deltas[examples.rows[: len(examples.deltas)]] - examples.deltas, RPN_SIGMA).sum()
    count = max(len(examples.rows), 1)
    if settings.normalisation == RELEASE:
        return classes / count, settings.balance * moved / count
    return classes / settings.anchors_per_image, settings.balance * moved / max(examples.locations, 1)
