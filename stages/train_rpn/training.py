"""A step of training a region proposal network (Faster R-CNN equation 1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from stages.datasets import Dataset
from stages.networks import NetworkSource
from stages.networks.head_layers import PROPOSALS, RegionProposalNetwork
from stages.train_rpn import LOG, STAGE, Settings
from stages.training.anchor_examples import AnchorExamples, anchor_losses
from stages.training.detectors import DetectorTraining, Measured, after_trunk, network_with_heads
from stages.training.losses import accuracies, hits
from stages.training.proposal_validation import own_proposals, recall_of, recalled
from stages.training.ranks import Ranks
from stages.training.state import seeded
from stages.training.validation_settings import RECALL
from stages.training.whole_images import TrainingImage


class ProposalTraining(DetectorTraining[AnchorExamples]):
    """Trains a region proposal network, new in a network that may have other heads, and the network's trunk."""

    card = STAGE

    def __init__(self, settings: Settings, source: NetworkSource, device: str, ranks: Ranks) -> None:
        """Raises BadSetting for layers that cannot be frozen, StageError for weights that cannot be read."""
        card = source.card.with_heads(settings.heads(source.heads))
        module = network_with_heads(source, card, source.classes, [PROPOSALS], settings.seed)
        head = module.get_submodule(PROPOSALS)
        assert isinstance(head, RegionProposalNetwork)
        with seeded(settings.seed, 0):
            head.reset(settings.new_layer_std)
        self.of_anchors = settings
        super().__init__(
            settings,
            module,
            card,
            source,
            source.classes,
            device,
            ranks,
            new=[PROPOSALS],
            fixed=after_trunk(module, card.trunk, PROPOSALS),
        )

    def losses(self, maps: torch.Tensor, image: TrainingImage[AnchorExamples]) -> tuple[torch.Tensor, Measured]:
        """The loss of one image's anchors, and what is measured of it."""
        logits, deltas = self.network.anchor_logits(maps)
        examples = image.examples
        classes, boxes = anchor_losses(logits, deltas, examples, self.of_anchors)
        recognised = hits(logits[examples.rows], examples.labels, len(examples.deltas))
        return classes + boxes, {"loss": classes + boxes, "class_loss": classes, "box_loss": boxes, **recognised}

    def examine(self, maps: torch.Tensor, image: TrainingImage[AnchorExamples], image_id: str) -> NDArray[np.bool_]:
        """Which of the image's objects the network's proposals recall."""
        return recalled(own_proposals(self.card.name, self.network, maps, image), image.objects)

    def examined(self, found: Mapping[str, NDArray[np.bool_]], dataset: Dataset) -> dict[str, float]:
        """The recall of the proposals."""
        return {RECALL: recall_of(found)}

    def measured(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """The losses per image, and the accuracies on positive and negative anchors."""
        positives, negatives = accuracies(sums)
        return {
            **{name: sums[name] / images for name in LOG.losses},
            "positive_accuracy": positives,
            "negative_accuracy": negatives,
        }
