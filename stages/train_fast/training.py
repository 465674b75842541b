"""A step of training Fast R-CNN (section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stages.contract.inputs import ItemReader
from stages.datasets import Dataset
from stages.detections import Detections
from stages.networks import NetworkSource, PlannedNetwork
from stages.networks.head_layers import PROPOSALS
from stages.networks.weights import State
from stages.train_fast import BOXES_ALONE, LOG, STAGE, Settings
from stages.training.detectors import DetectorTraining, Measured, after_trunk, network_with_heads
from stages.training.losses import accuracies, hits
from stages.training.parameters import set_dropout
from stages.training.ranks import Ranks
from stages.training.region_examples import DeltaStatistics, RegionExamples, region_losses, region_outputs
from stages.training.region_layers import BOX_LAYER, folded, new_layers, reset_outputs
from stages.training.region_validation import mean_average_precision, network_detections
from stages.training.state import seeded
from stages.training.validation_settings import MAP
from stages.training.whole_images import TrainingImage


class RegionHeadTraining(DetectorTraining[RegionExamples]):
    """Trains the region head of a network, and its trunk, for K classes and the background."""

    card = STAGE

    def __init__(
        self,
        settings: Settings,
        source: NetworkSource,
        statistics: DeltaStatistics,
        device: str,
        ranks: Ranks,
        validated: ItemReader | None = None,
    ) -> None:
        """`statistics` are those of the deltas, `validated` the proposals of a validation set. Raises BadSetting for a
        head that does not fit the network or layers that cannot be frozen, StageError for weights that cannot be
        read."""
        card = source.card.with_heads(settings.heads(PlannedNetwork(source.card, False)))
        classes = len(statistics.means) + 1
        deltas_alone = settings.outputs == BOXES_ALONE
        new = new_layers(card, source.card, deltas_alone)
        module = network_with_heads(source, card, classes, new, settings.seed)
        with seeded(settings.seed, 0):
            reset_outputs(module, card, settings, deltas_alone)
        fixed = [PROPOSALS] if card.heads.proposals is not None else []
        if deltas_alone:
            fixed = [*card.trunk.parts, *after_trunk(module, card.trunk, BOX_LAYER)]
        set_dropout(module, settings.dropout)
        self.of_regions = settings
        self.proposals = validated
        self.statistics = statistics
        super().__init__(
            settings,
            module,
            card,
            source,
            classes,
            device,
            ranks,
            new=new,
            fixed=fixed,
        )

    def losses(self, maps: torch.Tensor, image: TrainingImage[RegionExamples]) -> tuple[torch.Tensor, Measured]:
        """The loss of one image's regions, and what is measured of it."""
        examples = image.examples
        scores, deltas = region_outputs(self.network, maps, examples.boxes, image.scale)
        classes, boxes = region_losses(scores, deltas, examples, self.of_regions)
        loss = boxes if self.of_regions.outputs == BOXES_ALONE else classes + boxes
        recognised = hits(scores, examples.labels, len(examples.deltas))
        return loss, {"loss": loss, "class_loss": classes, "box_loss": boxes, **recognised}

    def examine(self, maps: torch.Tensor, image: TrainingImage[RegionExamples], image_id: str) -> Detections:
        """What the network detects among the image's proposals."""
        assert self.proposals is not None
        boxes = self.proposals.read(image_id, ["boxes"])["boxes"]
        return network_detections(self.network, maps, boxes, image.size, image.scale, self.statistics, self.of_regions)

    def examined(self, found: Mapping[str, Detections], dataset: Dataset) -> dict[str, float]:
        """The mean average precision."""
        return {MAP: mean_average_precision(found, dataset)}

    def measured(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """The losses per image, and the accuracies on foreground and background regions."""
        foreground, background = accuracies(sums)
        return {
            **{name: sums[name] / images for name in LOG.losses},
            "foreground_accuracy": foreground,
            "background_accuracy": background,
        }

    def weights(self) -> State:
        """The weights, with deltas that are not normalised."""
        return folded(super().weights(), self.statistics, self.of_regions)
