"""A step of training OverFeat's classifier and regressor (sections 4.3 and 5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stages.networks import EDGES, NetworkSource, PlannedNetwork
from stages.networks.dense_reading import Dense, LowerScale, dense_outputs, windows_of
from stages.networks.head_layers import PROPOSALS
from stages.train_overfeat import LOG, STAGE, Settings
from stages.train_overfeat.examples import WindowExamples, chosen_negatives, edge_loss
from stages.train_overfeat.layers import new_layers, reset_outputs
from stages.training.detectors import DetectorTraining, Measured, network_with_heads
from stages.training.losses import accuracies, hits
from stages.training.parameters import set_dropout
from stages.training.ranks import Ranks
from stages.training.state import seeded
from stages.training.whole_images import TrainingImage


class WindowTraining(DetectorTraining[WindowExamples]):
    """Trains the window head of a network, and its trunk unless that is frozen, for K classes and the background."""

    card = STAGE

    def __init__(self, settings: Settings, source: NetworkSource, classes: int, device: str, ranks: Ranks) -> None:
        """`classes` is K. Raises BadSetting for a head that does not fit the network or layers that cannot be frozen,
        StageError for weights that cannot be read."""
        card = source.card.with_heads(settings.heads(PlannedNetwork(source.card, False)))
        new = new_layers(card)
        module = network_with_heads(source, card, classes + 1, new, settings.seed)
        with seeded(settings.seed, 0):
            reset_outputs(module, card, settings.new_classes_std, settings.new_boxes_std)
        set_dropout(module, settings.dropout)
        self.of_windows = settings
        self.cells = windows_of(card).cells
        self.background = classes
        fixed = [PROPOSALS] if card.heads.proposals is not None else []
        super().__init__(settings, module, card, source, classes + 1, device, ranks, new=new, fixed=fixed)

    def losses(self, maps: torch.Tensor, image: TrainingImage[WindowExamples]) -> tuple[torch.Tensor, Measured]:
        """The loss of one image's windows, and what is measured of it."""
        examples, settings = image.examples, self.of_windows
        if not len(examples.positives) + len(examples.candidates) + len(examples.box_windows):
            nothing = maps.new_zeros(())
            return nothing, {**dict.fromkeys(LOG.losses, nothing), **hits(maps.new_zeros((0, 1)), examples.labels, 0)}
        start = self.network.card.head.start
        windows = dense_outputs(self.network, maps, [start], self.cells, self.lower_scale(maps, image))[start]
        with torch.no_grad():
            background = torch.softmax(self.scores(windows, examples.candidates), dim=1)[:, self.background]
        negatives = examples.candidates[chosen_negatives(background, examples.negatives, settings.offending)]
        scores = self.scores(windows, torch.cat([examples.positives, negatives]))
        labels = torch.cat([examples.labels, examples.labels.new_full((len(negatives),), self.background)])
        classes = torch.nn.functional.cross_entropy(scores, labels, reduction="sum") / max(len(labels), 1)
        edges = self.outputs(windows, examples.box_windows, EDGES)
        boxes = settings.box_weight * edge_loss(edges, examples.edges, examples.box_labels)
        recognised = hits(scores, labels, len(examples.positives))
        return classes + boxes, {"loss": classes + boxes, "class_loss": classes, "box_loss": boxes, **recognised}

    def lower_scale(self, maps: torch.Tensor, image: TrainingImage[WindowExamples]) -> LowerScale | None:
        """Where the context of an image's windows comes from; None without context."""
        if image.lower is None:
            return None
        below = image.lower.inputs if image.is_map else self.maps(image.lower.inputs)
        margin = self.network.card.trunk.margin[0] + self.of_windows.border
        scales = (image.scale, image.lower.scale)
        return windows_of(self.network.card).lower_scale((maps, below), scales, 0, margin)

    def scores(self, windows: Dense, places: torch.Tensor) -> torch.Tensor:
        """Class scores [n, K + 1] of the windows at `places` int64 [n, 2]."""
        return self.outputs(windows, places, self.network.card.check_classifier())

    def outputs(self, windows: Dense, places: torch.Tensor, layer: str) -> torch.Tensor:
        """The output of a layer, float32 [n, D], for the windows at `places` int64 [n, 2]."""
        cells = windows.of(places[:, 0], places[:, 1])
        return self.network.head(cells, [layer])[layer].to(torch.float32)

    def measured(self, sums: Mapping[str, float], images: int) -> dict[str, float]:
        """The losses per image, and the accuracies on windows with objects and on background."""
        objects, background = accuracies(sums)
        return {
            **{name: sums[name] / images for name in LOG.losses},
            "object_accuracy": objects,
            "background_accuracy": background,
        }
