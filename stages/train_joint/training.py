"""A step of joint training (Faster R-CNN section 3.2): the losses of anchors and of regions, from one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from stages.anchors import anchors_of_map
from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.datasets import Dataset
from stages.detections import Detections
from stages.images.scale import scaled_size
from stages.networks import NetworkSource, PlannedNetwork
from stages.networks.head_layers import PROPOSALS, RegionProposalNetwork
from stages.networks.weights import State
from stages.train_joint import LOG, STAGE, WARPED, Settings
from stages.train_joint.proposals import StepProposals, moved_anchors, proposals_of_step, warped_regions
from stages.training.anchor_examples import AnchorExamples, anchor_losses, draw_anchors
from stages.training.detectors import DetectorTraining, Measured, network_with_heads
from stages.training.losses import accuracies, hits
from stages.training.parameters import set_dropout
from stages.training.proposal_validation import own_proposals
from stages.training.ranks import Ranks
from stages.training.region_examples import (
    DeltaStatistics,
    RegionExamples,
    draw_regions,
    head_outputs,
    region_losses,
    region_outputs,
)
from stages.training.region_layers import folded, new_layers, reset_outputs
from stages.training.region_validation import mean_average_precision, network_detections
from stages.training.state import seeded
from stages.training.validation_settings import MAP
from stages.training.whole_images import DrawnImage, TrainingImage

ANCHOR = "anchor_"
"""Before the names of what is measured of anchors, where regions have the same."""


@dataclass(frozen=True)
class JointExamples:
    """The `anchors` drawn of an image, and the `seed` that its regions are drawn from: those depend on the weights of
    the step, and on nothing else but (seed, iteration, image)."""

    anchors: AnchorExamples
    seed: int


def joint_examples(image: TrainingImage[None], drawn: DrawnImage, settings: Settings, stride: int) -> JointExamples:
    """What is drawn of an image before its map is known."""
    anchors = draw_anchors(image, settings.proposals, stride, settings, drawn.random)
    return JointExamples(anchors, int(drawn.random.integers(2**63)))


class JointTraining(DetectorTraining[JointExamples]):
    """Trains a region proposal network, a region head for K classes and the background, and the trunk of both."""

    card = STAGE

    def __init__(self, settings: Settings, source: NetworkSource, classes: int, device: str, ranks: Ranks) -> None:
        """`classes` is K. Raises BadSetting for a head that does not fit the network or layers that cannot be frozen,
        StageError for weights that cannot be read."""
        card = source.card.with_heads(settings.heads(PlannedNetwork(source.card, False)))
        new = [PROPOSALS, *new_layers(card, source.card)]
        module = network_with_heads(source, card, classes + 1, new, settings.seed)
        head = module.get_submodule(PROPOSALS)
        assert isinstance(head, RegionProposalNetwork)
        with seeded(settings.seed, 0):
            head.reset(settings.new_layer_std)
            reset_outputs(module, card, settings)
        set_dropout(module, settings.dropout)
        self.joint = settings
        self.statistics = DeltaStatistics.fixed(classes)
        super().__init__(settings, module, card, source, classes + 1, device, ranks, new=new)

    def losses(self, maps: torch.Tensor, image: TrainingImage[JointExamples]) -> tuple[torch.Tensor, Measured]:
        """The sum of the four losses of one image, and what is measured of it."""
        logits, deltas = self.network.anchor_logits(maps)
        drawn = image.examples.anchors
        anchor_classes, anchor_boxes = anchor_losses(logits, deltas, drawn, self.joint)
        anchors = self.anchors(image)
        proposals = self.proposals(anchors, logits, deltas, image)
        regions = self.regions(proposals, image)
        scores, moves = self.region_outputs(maps, deltas, anchors, proposals, regions, image)
        classes, boxes = region_losses(scores, moves, regions, self.joint)
        loss = anchor_classes + anchor_boxes + classes + boxes
        of_anchors = hits(logits[drawn.rows], drawn.labels, len(drawn.deltas))
        return loss, {
            "loss": loss,
            "anchor_class_loss": anchor_classes,
            "anchor_box_loss": anchor_boxes,
            "class_loss": classes,
            "box_loss": boxes,
            **{f"{ANCHOR}{name}": value for name, value in of_anchors.items()},
            **hits(scores, regions.labels, len(regions.deltas)),
        }

    def anchors(self, image: TrainingImage[JointExamples]) -> Boxes:
        """All anchors of the image's map: float32 [n, 4]."""
        card = self.network.card
        head = card.check_proposals()
        return anchors_of_map(*image.map_size, card.trunk.stride, head.scales, head.ratios)

    def proposals(
        self, anchors: Boxes, logits: torch.Tensor, deltas: torch.Tensor, image: TrainingImage[JointExamples]
    ) -> StepProposals:
        """The proposals of the network as it is now. Raises StageError if its outputs are NaN or infinite."""
        scores = torch.softmax(logits.detach(), dim=1)[:, 1].cpu().numpy()
        try:
            return proposals_of_step(
                anchors, deltas.detach().cpu().numpy(), scores, image.size, image.scale, self.joint
            )
        except ValueError as error:
            raise StageError(
                f"train-joint: the outputs of the region proposal network became NaN or infinite at iteration "
                f"{len(self.log) + 1}; training diverged, lower learning_rate"
            ) from error

    def regions(self, proposals: StepProposals, image: TrainingImage[JointExamples]) -> RegionExamples:
        """The regions drawn from the image's objects and its proposals."""
        random = np.random.default_rng(image.examples.seed)
        device = image.inputs.device
        return draw_regions(proposals.boxes, image.objects, self.statistics, self.joint, random, device)

    def region_outputs(
        self,
        maps: torch.Tensor,
        deltas: torch.Tensor,
        anchors: Boxes,
        proposals: StepProposals,
        regions: RegionExamples,
        image: TrainingImage[JointExamples],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class scores [k, K + 1] and deltas [k, 4K] of the regions drawn.

        With WARPED, gradients reach the `deltas` [n, 4] of the anchors that became proposals. What a region is to be
        moved by, and its label, count as constants.
        """
        if self.joint.gradient != WARPED or not len(regions.rows):
            return region_outputs(self.network, maps, regions.boxes, image.scale)
        boxes = self.region_boxes(deltas, anchors, proposals, regions, image)
        head = self.network.card.heads.regions
        assert head is not None
        return head_outputs(self.network, warped_regions(maps, boxes, self.network.card.trunk, head.side))

    def region_boxes(
        self,
        deltas: torch.Tensor,
        anchors: Boxes,
        proposals: StepProposals,
        regions: RegionExamples,
        image: TrainingImage[JointExamples],
    ) -> torch.Tensor:
        """The boxes of the regions drawn, in pixels of the input, [k, 4]: those of proposals as the region proposal
        network predicts them, with their gradients."""
        boxes = torch.from_numpy(regions.boxes * np.float32(image.scale)).to(deltas)
        places = np.flatnonzero(regions.rows >= len(image.objects.boxes))
        chosen = proposals.anchors[regions.rows[places] - len(image.objects.boxes)]
        own = torch.from_numpy(anchors[chosen]).to(deltas)
        predicted = deltas[torch.from_numpy(chosen).to(deltas.device)]
        moved = moved_anchors(own, predicted, *scaled_size(*image.size, image.scale))
        return boxes.index_copy(0, torch.from_numpy(places).to(deltas.device), moved)

    def examine(self, maps: torch.Tensor, image: TrainingImage[JointExamples], image_id: str) -> Detections:
        """What the network detects among its own proposals, as many as are made when it is used."""
        proposals = own_proposals(self.card.name, self.network, maps, image)
        return network_detections(self.network, maps, proposals, image.size, image.scale, self.statistics, self.joint)

    def examined(self, found: Mapping[str, Detections], dataset: Dataset) -> dict[str, float]:
        """The mean average precision."""
        return {MAP: mean_average_precision(found, dataset)}

    def measured(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """The losses per image, and the accuracies on positive and negative anchors and on foreground and background
        regions."""
        of_anchors = {name.removeprefix(ANCHOR): value for name, value in sums.items() if name.startswith(ANCHOR)}
        positives, negatives = accuracies(of_anchors)
        foreground, background = accuracies(sums)
        return {
            **{name: sums[name] / images for name in LOG.losses},
            "positive_accuracy": positives,
            "negative_accuracy": negatives,
            "foreground_accuracy": foreground,
            "background_accuracy": background,
        }

    def weights(self) -> State:
        """The weights, with deltas that are not normalised."""
        return folded(super().weights(), self.statistics, self.joint)
