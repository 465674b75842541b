"""A step of fine-tuning: gradient descent on the mean cross entropy of a batch of windows (R-CNN section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from stages.finetune import STAGE, Settings
from stages.finetune.network import freeze_parts, replace_classifier
from stages.finetune.windows import VALIDATED
from stages.networks import NetworkSource
from stages.networks.architectures import classifier_name
from stages.training.loop import Trainer
from stages.training.optimiser import make_optimiser
from stages.training.parameters import parameter_groups, set_dropout, training_mode
from stages.training.ranks import Ranks
from stages.training.schedule import schedule_of
from stages.training.state import seeded


@dataclass(frozen=True)
class Batch:
    """Preprocessed windows float32 [b, 3, S, S] and their labels int64 [b], on the device."""

    inputs: torch.Tensor
    labels: torch.Tensor


class FineTuning(Trainer[Batch]):
    """Fine-tunes a network for K classes and the background on `device`, together with the other `ranks`."""

    card = STAGE
    remedy = "learning_rate or new_layer_rate"

    def __init__(self, settings: Settings, source: NetworkSource, classes: int, device: str, ranks: Ranks) -> None:
        """Raises BadSetting for a network without a classifier or layers that cannot be frozen, StageError for weights
        that cannot be read."""
        self.settings = settings
        self.background = classes
        module = source.module().requires_grad_(True)
        classifier = classifier_name(source.card, module)
        with seeded(settings.seed, 0):
            replace_classifier(module, classifier, classes + 1, settings.new_layer_std, settings.new_layer_bias)
        freeze_parts(module, classifier, settings.frozen, "finetune.frozen")
        set_dropout(module, settings.dropout)
        module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        training_mode(module)
        groups = parameter_groups(
            module,
            [classifier],
            new_rate=settings.new_layer_rate,
            bias_rate=settings.bias_rate,
            weight_decay=settings.weight_decay,
        )
        super().__init__(
            module,
            make_optimiser(
                settings.optimiser, groups, learning_rate=settings.learning_rate, momentum=settings.momentum
            ),
            steps=settings.iterations,
            schedule=schedule_of(
                settings.schedule, settings.learning_rate, settings.iterations, settings.step, settings.warm_up
            ),
            seed=settings.seed,
            device=device,
            ranks=ranks,
        )
        self.shared = ranks.share(module, device)

    def update(self, batch: Batch, generator: torch.Generator) -> Mapping[str, float]:
        """One step on this rank's share of a batch; the gradient is that of the mean loss over the whole batch.

        Returns the loss and the accuracies on positive and background windows, all before the step.
        """
        scores = self.scores(batch.inputs)
        losses = nn.functional.cross_entropy(scores, batch.labels, reduction="sum")
        self.optimiser.zero_grad(set_to_none=True)
        (losses * (self.ranks.count / self.settings.batch_size)).backward()  # gradients are averaged over the ranks
        self.optimiser.step()
        return self.measured(self.counted(losses.detach(), scores.detach(), batch.labels), self.settings.batch_size)

    @torch.no_grad()
    def validated(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The loss and the accuracies on the windows of a validation set. Dropout is off; nothing of the training
        changes."""
        total = torch.zeros(5, dtype=torch.float64, device=self.device)
        self.module.eval()
        try:
            for batch in batches:
                with self.arithmetic():
                    scores = self.module(batch.inputs).to(torch.float32)
                losses = nn.functional.cross_entropy(scores, batch.labels, reduction="sum")
                total += self.counted(losses, scores, batch.labels)
        finally:
            training_mode(self.module)
        return self.measured(total, VALIDATED)

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Class scores float32 [b, K + 1], computed at `settings.precision`."""
        with self.arithmetic():
            return self.shared(inputs).to(torch.float32)

    def arithmetic(self) -> torch.autocast:
        """The context of the setting `precision`."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def counted(self, losses: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The summed `losses`, a scalar, and how many windows with an object are recognised, how many there are, and
        the same of the background, from `scores` [b, K + 1] and `labels` [b]: float64 [5]."""
        right, positive = scores.argmax(1) == labels, labels != self.background
        sums = [losses, (right & positive).sum(), positive.sum(), (right & ~positive).sum(), (~positive).sum()]
        return torch.stack([value.double() for value in sums])

    def measured(self, counted: torch.Tensor, windows: int) -> dict[str, float]:
        """Loss and accuracies of that many `windows`, those of all ranks, from what this one has `counted` [5]."""
        loss, true_positives, positives, true_negatives, negatives = self.ranks.total(counted)
        return {
            "loss": loss / windows,
            "positive_accuracy": true_positives / max(positives, 1),
            "background_accuracy": true_negatives / max(negatives, 1),
        }
