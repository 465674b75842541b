"""The loop that trains every network: claim, restore, step, checkpoint, log, write.

A step (an iteration, an epoch) is a function of the weights and the optimiser's state before it, of its batch and of
(seed, step); its batch is one of (seed, step). So a training that goes on from a checkpoint ends in the same bits as
one that was never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Generic, Protocol, TypeVar

import torch
from torch import nn

from cache import Column, Part, Record, Schema, Writer
from cache.writer import Checkpoint
from stages.contract.card import LogColumns, Stage
from stages.contract.errors import StageError
from stages.contract.execution import Execution, restoring
from stages.networks.memory import keep_large_buffers
from stages.networks.weights import weight_columns, weight_record
from stages.training.log import TABLE, TrainingLog
from stages.training.ranks import Ranks
from stages.training.state import restore_training, seeded, training_state

Batch = TypeVar("Batch")
DrawnBatch = TypeVar("DrawnBatch", covariant=True)


class Trainer(ABC, Generic[Batch]):
    """A network being trained by `steps` steps; a stage's own trainer says what one step is.

    `optimiser` has the parameters of `module` that are not frozen; the rate of a step, `schedule(step)` counted from 1,
    is multiplied by each of its groups' `rate`. `remedy` names the settings to lower if the training diverges.
    """

    card: ClassVar[Stage]
    remedy: ClassVar[str] = "learning_rate"

    def __init__(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        steps: int,
        schedule: Callable[[int], float],
        seed: int,
        device: str,
        ranks: Ranks | None = None,
    ) -> None:
        assert self.card.log is not None, f"{self.card.name} does not say which columns its log has"
        self.module = module
        self.optimiser = optimiser
        self.steps = steps
        self.schedule = schedule
        self.device = device
        self.ranks = ranks or Ranks()
        self.seed = seed * self.ranks.count + self.ranks.rank
        self.log = TrainingLog(self.card.log)

    @abstractmethod
    def update(self, batch: Batch, generator: torch.Generator) -> Mapping[str, float]:
        """Changes the weights by one batch, or this rank's share of it; returns the whole batch's losses and accuracies
        by the names that the card's log has for them. PyTorch's own random numbers are those of this step, too."""

    def step(self, batch: Batch) -> dict[str, float]:
        """The next step; returns its row of the log. Raises StageError where a loss is not a finite number."""
        step, started = len(self.log) + 1, time.monotonic()
        rate = self.schedule(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        with seeded(self.seed, step, self.device) as generator:
            measured = self.update(batch, generator)
        self.check_losses(measured, step)
        return self.log.add(rate, measured, time.monotonic() - started)

    def check_losses(self, measured: Mapping[str, float], step: int) -> None:
        """Raises StageError for a loss that is NaN or infinite: what follows would train on nothing."""
        for name in self.log.columns.losses:
            if not math.isfinite(measured[name]):
                raise StageError(
                    f"{self.card.name}: the {name.replace('_', ' ')} became NaN or infinite at {self.log.columns.step} "
                    f"{step}; training diverged: lower {self.remedy}"
                )

    def state(self) -> Record:
        """All that the next step depends on, as arrays, and the log of those before."""
        return {**training_state(self.module, self.optimiser), **self.log.state()}

    def restore(self, state: Record) -> None:
        """Goes on from what `state` gave. Raises LookupError, ValueError or RuntimeError for another training's."""
        restore_training(self.module, self.optimiser, state)
        self.log.restore(state)
        if len(self.log) > self.steps:
            raise ValueError(f"it is of {len(self.log)} {self.log.columns.step}s")


class Sampler(Protocol[DrawnBatch]):
    """What the batches of a training are drawn from."""

    @property
    def regions_per_step(self) -> int:
        """How many regions a step sees, of all ranks together: what the progress bar counts per second."""

    def batches(self, first: int, last: int) -> Iterator[DrawnBatch]:
        """The batches of the steps `first` to `last`, this rank's share of each: functions of (seed, step) alone."""

    def record(self) -> Record:
        """What the cache keeps of the examples, beside the network and the log."""


def network_schema(network: nn.Module, log: LogColumns, examples: Mapping[str, Column] | None = None) -> Schema:
    """The cache of a training: the network's tensors by their names, the sampler's record of the `examples`, the log.

    The network may be on the meta device.
    """
    columns = {**weight_columns(network.state_dict()), **(examples or {})}
    table = {name: Column(dtype) for name, dtype in log.dtypes.items()}
    return Schema("network", per_item=columns, tables={TABLE: table})


def train(
    make_trainer: Callable[[], Trainer[Batch]],
    make_sampler: Callable[[], Sampler[Batch]],
    output: Writer,
    execution: Execution,
    ranks: Ranks | None = None,
    *,
    checkpoint_seconds: float = 0.0,
) -> None:
    """Trains the network of each part that can be claimed and writes its weights, the log and the sampler's record.

    A checkpoint there is restored before the sampler is made, and one is saved each `checkpoint_seconds`. Of several
    `ranks` the first claims and writes.
    """
    ranks = ranks or Ranks()
    keep_large_buffers()
    for part in ranks.claimed(output):
        trainer = make_trainer()
        resume(trainer, output.checkpoint(part))
        sampler = make_sampler()
        run_steps(trainer, sampler, output, part, execution, checkpoint_seconds)
        if ranks.leads:
            weights = weight_record(trainer.module.state_dict())
            output.write(part, [{**weights, **sampler.record(), **trainer.log.record()}])


def resume(trainer: Trainer[Batch], checkpoint: Checkpoint) -> None:
    """Restores the checkpoint if there is one. Raises StageError for another training's, and where ranks differ."""
    saved = checkpoint.load()
    if saved is not None:
        with restoring(checkpoint):
            trainer.restore(saved)
        logger_of(trainer).info("going on after %s %d of %d", trainer.log.columns.step, len(trainer.log), trainer.steps)
    trainer.ranks.check_agreement(trainer.card.name, len(trainer.log))


def run_steps(
    trainer: Trainer[Batch],
    sampler: Sampler[Batch],
    output: Writer,
    part: Part,
    execution: Execution,
    checkpoint_seconds: float,
) -> None:
    """The steps that are left, with a checkpoint and a line on how they went each `checkpoint_seconds`."""
    log, steps = trainer.log, trainer.steps
    described, saved_at = len(log), time.monotonic()
    with execution.progress(trainer.card.name, steps, f"{log.columns.step}s", len(log)) as bar:
        for batch in sampler.batches(len(log) + 1, steps):
            trainer.step(batch)
            if trainer.ranks.leads and time.monotonic() - saved_at >= checkpoint_seconds:
                output.checkpoint(part).save(trainer.state())
                describe(trainer, output, described)
                described, saved_at = len(log), time.monotonic()
            bar.advance(1, sampler.regions_per_step)
    if trainer.ranks.leads:
        describe(trainer, output, described)


def describe(trainer: Trainer[Batch], output: Writer, first: int) -> None:
    """Writes the log file, and says how the steps from `first` (counted from 0) on went."""
    trainer.log.write(output.folder)
    if len(trainer.log) > first:
        logger_of(trainer).info("%s", trainer.log.sentence(first, trainer.steps))


def logger_of(trainer: Trainer[Batch]) -> logging.Logger:
    """The logger of the trainer's stage."""
    return logging.getLogger(f"stages.{trainer.card.name.replace('-', '_')}")
