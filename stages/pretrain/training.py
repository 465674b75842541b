"""Training: one epoch after the other, each a function of the state before it and its number alone.

All random numbers of an epoch come from (seed, epoch), so a run that goes on from the state after an epoch gives the
same bits as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cache import Record
from stages.networks import NetworkCard
from stages.networks.architectures import build
from stages.pretrain import Settings
from stages.pretrain.views import UNUSED, random_views
from stages.training.state import check_loss, restore_training, seeded, training_state

LOG_COLUMNS = {
    "epoch": "int32",
    "learning_rate": "float32",
    "loss": "float32",
    "accuracy": "float32",
    "held_out": "float32",
}


@dataclass(frozen=True)
class Examples:
    """Images uint8 [n, 3, S, S], RGB, and their classes int64 [n]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, indices: torch.Tensor) -> Examples:
        """Some of them."""
        return Examples(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class EpochResult:
    """Mean loss and accuracy over the views of an epoch, and afterwards the accuracy on the images held out."""

    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    held_out: float


class Trainer:
    """The network being trained for `objects` classes and the background, on `device`."""

    def __init__(self, settings: Settings, card: NetworkCard, objects: int, device: str) -> None:
        self.settings = settings
        self.card = card
        self.background = objects
        self.device = device
        with seeded(settings.seed, 0, device):
            module = build(card, objects + 1)
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.SGD(
            self.module.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.log: list[EpochResult] = []
        self.seconds: list[float] = []

    def train_epoch(self, training: Examples, held_out: Examples) -> EpochResult:
        """One pass through the training examples, in an order of its own. Raises StageError where it diverges."""
        epoch, started = len(self.log) + 1, time.monotonic()
        rate = learning_rate(self.settings, epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with seeded(self.settings.seed, epoch, self.device) as generator:
            loss, accuracy = self.passed(training, generator)
        check_loss("pretrain", loss, f"epoch {epoch}", "learning_rate")
        result = EpochResult(epoch, rate, loss, accuracy, self.accuracy(held_out))
        self.log.append(result)
        self.seconds.append(time.monotonic() - started)
        return result

    def passed(self, training: Examples, generator: torch.Generator) -> tuple[float, float]:
        """Mean loss and accuracy over the used views of one pass."""
        self.module.train()
        losses = right = used = 0.0
        for indices in batches(len(training), self.settings.batch_size, generator):
            batch = training.chosen(indices)
            views, targets = random_views(self.prepared(batch), batch.labels, self.background, self.settings, generator)
            targets = targets.to(self.device)
            scores = self.module(views)
            loss = nn.functional.cross_entropy(scores, targets, ignore_index=UNUSED)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            count = int((targets != UNUSED).sum())
            losses += float(loss.detach()) * count
            right += float((scores.detach().argmax(1) == targets).sum())
            used += count
        return losses / max(used, 1), right / max(used, 1)

    def prepared(self, batch: Examples) -> torch.Tensor:
        """The batch's images as the network's input."""
        return self.card.preprocessing.apply(batch.images.to(self.device))

    @torch.inference_mode()
    def accuracy(self, examples: Examples) -> float:
        """The share of examples whose class, out of all and the background, is found from the whole image."""
        self.module.eval()
        right = 0
        for first in range(0, len(examples), self.settings.batch_size):
            batch = examples.chosen(torch.arange(first, min(first + self.settings.batch_size, len(examples))))
            scores = self.module(self.prepared(batch).contiguous(memory_format=torch.channels_last))
            right += int((scores.argmax(1).cpu() == batch.labels).sum())
        return right / max(len(examples), 1)

    def state(self) -> Record:
        """All that the next epoch depends on, as arrays, and the seconds of those before."""
        seconds = np.array(self.seconds, np.float32)
        return {**training_state(self.module, self.optimiser), **self.log_record("log_"), "seconds": seconds}

    def restore(self, state: Record) -> None:
        """Goes on from what `state` gave."""
        restore_training(self.module, self.optimiser, state)
        columns = [state[f"log_{name}"].tolist() for name in LOG_COLUMNS]
        self.log = [EpochResult(*row) for row in zip(*columns, strict=True)]
        if len(self.log) > self.settings.epochs:
            raise ValueError(f"it is of {len(self.log)} epochs")
        self.seconds = state.get("seconds", np.zeros(len(self.log))).tolist()  # older versions did not keep them

    def log_record(self, prefix: str) -> Record:
        """The log so far as columns."""
        return {
            prefix + name: np.array([getattr(result, name) for result in self.log], dtype)
            for name, dtype in LOG_COLUMNS.items()
        }


def learning_rate(settings: Settings, epoch: int) -> float:
    """The rate of an epoch, counted from 1: a tenth after each step."""
    passed = sum(epoch > step * settings.epochs for step in settings.steps)
    return settings.learning_rate * 0.1**passed


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices of `count` examples in random order, `size` at a time; a last one alone would have no variance."""
    for indices in torch.randperm(count, generator=generator).split(size):
        if len(indices) > 1:
            yield indices
