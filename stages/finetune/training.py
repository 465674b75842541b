"""Training: one iteration after the other, each a function of the state before it, its windows and its number alone."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cache import Record
from stages.finetune import Settings
from stages.finetune.network import (
    classifier_name,
    learning_rate,
    parameter_groups,
    replace_classifier,
    set_dropout,
    training_mode,
)
from stages.finetune.ranks import Ranks
from stages.networks import NetworkSource
from stages.training.state import check_loss, restore_training, seeded, training_state

LOG_COLUMNS = {
    "iteration": "int32",
    "learning_rate": "float32",
    "loss": "float32",
    "positive_accuracy": "float32",
    "background_accuracy": "float32",
}


@dataclass(frozen=True)
class Batch:
    """Preprocessed windows float32 [b, 3, S, S] and their labels int64 [b], on the device."""

    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class IterationResult:
    """Mean loss over the whole batch, and the shares of its positive and background windows that were classified right,
    before the step."""

    iteration: int
    learning_rate: float
    loss: float
    positive_accuracy: float
    background_accuracy: float


class Trainer:
    """The network being trained for K classes and the background on `device`, perhaps by several `ranks` at once."""

    def __init__(self, settings: Settings, source: NetworkSource, classes: int, device: str, ranks: Ranks) -> None:
        """Raises BadSetting for a network without a classifier, StageError for weights that cannot be read."""
        self.settings = settings
        self.card = source.card
        self.background = classes
        self.device = device
        self.ranks = ranks
        module = source.module().requires_grad_(True)
        classifier = classifier_name(self.card, module)
        with seeded(settings.seed, 0):
            replace_classifier(module, classifier, classes + 1, settings.new_layer_std, settings.new_layer_bias)
        set_dropout(module, settings.dropout)
        self.module: nn.Module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        training_mode(self.module)
        self.optimiser = torch.optim.SGD(
            parameter_groups(self.module, classifier, settings), lr=settings.learning_rate, momentum=settings.momentum
        )
        self.shared = ranks.share(self.module, device)
        self.log: list[IterationResult] = []
        self.seconds: list[float] = []

    def step(self, batch: Batch) -> IterationResult:
        """One step of SGD on this rank's share of a batch: the gradient is that of the whole batch's mean loss.

        Raises StageError where the loss is no finite number.
        """
        iteration, started = len(self.log) + 1, time.monotonic()
        rate = learning_rate(self.settings, iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        with seeded(self.settings.seed * self.ranks.count + self.ranks.rank, iteration, self.device):
            scores = self.scores(batch.inputs)
        losses = nn.functional.cross_entropy(scores, batch.labels, reduction="sum")
        self.optimiser.zero_grad(set_to_none=True)
        (losses * (self.ranks.count / self.settings.batch_size)).backward()  # gradients are averaged over the ranks
        self.optimiser.step()
        result = IterationResult(iteration, rate, *self.measured(losses.detach(), scores.detach(), batch.labels))
        check_loss("finetune", result.loss, f"iteration {iteration}", "learning_rate or new_layer_rate")
        self.log.append(result)
        self.seconds.append(time.monotonic() - started)
        return result

    def scores(self, inputs: torch.Tensor) -> torch.Tensor:
        """Class scores float32 [b, K + 1], computed in the settings' precision."""
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return self.shared(inputs).to(torch.float32)

    def measured(self, losses: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> tuple[float, float, float]:
        """Loss and accuracies of the whole batch, all ranks' shares together."""
        right, positive = scores.argmax(1) == labels, labels != self.background
        sums = [losses, (right & positive).sum(), positive.sum(), (right & ~positive).sum(), (~positive).sum()]
        loss, found, positives, refused, negatives = self.ranks.total(torch.stack([one.double() for one in sums]))
        return loss / self.settings.batch_size, found / max(positives, 1), refused / max(negatives, 1)

    def state(self) -> Record:
        """All that the next iteration depends on, as arrays, and the seconds of those before."""
        seconds = np.array(self.seconds, np.float32)
        return {**training_state(self.module, self.optimiser), **self.log_record("log_"), "seconds": seconds}

    def restore(self, state: Record) -> None:
        """Goes on from what `state` gave."""
        restore_training(self.module, self.optimiser, state)
        columns = [state[f"log_{name}"].tolist() for name in LOG_COLUMNS]
        self.log = [IterationResult(*row) for row in zip(*columns, strict=True)]
        if len(self.log) > self.settings.iterations:
            raise ValueError(f"it is of {len(self.log)} iterations")
        self.seconds = state["seconds"].tolist()

    def log_record(self, prefix: str) -> Record:
        """The log so far as columns."""
        return {
            prefix + name: np.array([getattr(result, name) for result in self.log], dtype)
            for name, dtype in LOG_COLUMNS.items()
        }
