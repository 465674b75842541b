"""A step of pre-training: one epoch over the training images, each in a random view."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from cache import Record
from stages.networks import NetworkCard
from stages.networks.architectures import build
from stages.pretrain import STAGE, Settings
from stages.pretrain.crops import CroppedImages
from stages.pretrain.views import UNUSED, random_views
from stages.training.loop import Trainer
from stages.training.optimiser import make_optimiser
from stages.training.schedule import falling_after, one_cycle, warmed_up
from stages.training.settings import ONE_CYCLE
from stages.training.state import seeded


@dataclass(frozen=True)
class Examples:
    """RGB images uint8 [n, 3, S, S] and their classes int64 [n]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, indices: torch.Tensor) -> Examples:
        """The examples at `indices`, int64 [n]."""
        return Examples(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Folds:
    """The training and the held-out images, which are the same in every epoch: both in memory, or both read as they are
    cropped."""

    training: Examples | CroppedImages
    held_out: Examples | CroppedImages
    regions_per_step = 0  # views of whole images

    def batches(self, first: int, last: int) -> Iterator[Folds]:
        """The same folds for each epoch from `first` to `last`; each epoch draws its own order and views."""
        return itertools.repeat(self, last - first + 1)

    def record(self) -> Record:
        """Nothing is stored besides the network and the log."""
        return {}


class PreTraining(Trainer[Folds]):
    """Trains a network for `objects` classes, and the background where the settings say so, on `device`."""

    card = STAGE

    def __init__(self, settings: Settings, card: NetworkCard, objects: int, device: str) -> None:
        self.settings = settings
        self.preprocessing = card.preprocessing
        self.background = objects
        with seeded(settings.seed, 0, device):
            module = build(card, objects + settings.has_background)
            if settings.initial_std is not None:
                draw_weights(module, settings.initial_std)
        module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        group = {"params": list(module.parameters()), "rate": 1.0, "weight_decay": settings.weight_decay}
        optimiser = make_optimiser(
            settings.optimiser, [group], learning_rate=settings.learning_rate, momentum=settings.momentum
        )
        super().__init__(
            module,
            optimiser,
            steps=settings.epochs,
            schedule=schedule_of(settings),
            seed=settings.seed,
            device=device,
        )

    def update(self, batch: Folds, generator: torch.Generator) -> Mapping[str, float]:
        """One epoch; returns its loss, the accuracy on its views and, afterwards, on the held-out images."""
        loss, accuracy = self.passed(batch.training, generator)
        return {"loss": loss, "accuracy": accuracy, "held_out": self.accuracy(batch.held_out)}

    def passed(self, training: Examples | CroppedImages, generator: torch.Generator) -> tuple[float, float]:
        """Mean loss and accuracy over the views that one epoch uses."""
        self.module.train()
        losses = right = used = 0.0
        for views, labels in self.views(training, generator):
            targets = labels.to(self.device)
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

    def views(
        self, training: Examples | CroppedImages, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The views of one epoch as batches float32 [N, 3, S, S], preprocessed, and their labels int64 [N]."""
        if isinstance(training, CroppedImages):
            for pixels, labels in training.random_batches(self.settings.batch_size, generator):
                yield self.prepared(pixels).contiguous(memory_format=torch.channels_last), labels
            return
        for indices in batches(len(training), self.settings.batch_size, generator):
            batch = training.chosen(indices)
            pixels = self.prepared(batch.images)
            yield random_views(pixels, batch.labels, self.background, self.settings, generator)

    def prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images uint8 [N, 3, S, S], preprocessed, on the device: float32 of the same shape."""
        return self.preprocessing.apply(pixels.to(self.device))

    @torch.inference_mode()
    def accuracy(self, examples: Examples | CroppedImages) -> float:
        """The share of examples classified correctly from the whole image, or from the crop in its middle; the
        background, if there is one, among the classes."""
        self.module.eval()
        right = 0
        for pixels, labels in whole_views(examples, self.settings.batch_size):
            scores = self.module(self.prepared(pixels).contiguous(memory_format=torch.channels_last))
            right += int((scores.argmax(1).cpu() == labels).sum())
        return right / max(len(examples), 1)


def schedule_of(settings: Settings) -> Callable[[int], float]:
    """The learning rate as a function of the epoch."""
    if settings.schedule == ONE_CYCLE:
        return partial(one_cycle, settings.learning_rate, settings.epochs, settings.warm_up)
    last_epochs = settings.step_epochs or [share * settings.epochs for share in settings.steps]
    return warmed_up(
        partial(falling_after, settings.learning_rate, settings.step_factor, last_epochs), settings.warm_up
    )


def whole_views(examples: Examples | CroppedImages, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What the accuracy is measured on, in order: batches uint8 [N, 3, S, S] of up to `size`, and labels int64 [N]."""
    if isinstance(examples, CroppedImages):
        yield from examples.central_batches(size)
        return
    for first in range(0, len(examples), size):
        batch = examples.chosen(torch.arange(first, min(first + size, len(examples))))
        yield batch.images, batch.labels


def draw_weights(module: nn.Module, std: float) -> None:
    """Draws the weights of all convolutions and linear layers from N(0, `std`), and sets their biases to 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices int64 [n <= size] of `count` examples in random order; a batch of one is dropped (it has no variance)."""
    for indices in torch.randperm(count, generator=generator).split(size):
        if len(indices) > 1:
            yield indices
