"""The loop that trains every network: claim, restore, step, checkpoint, log, write.

A step (an iteration or an epoch) depends only on the weights and optimiser state before it, on its batch, and on
(seed, step); its batch depends only on (seed, step). So a training that resumes from a checkpoint is bit-for-bit
identical to one that was never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import nn

from cache import Column, Part, Record, Schema, Writer
from cache.writer import Checkpoint
from stages.contract.card import LogColumns, Stage
from stages.contract.errors import StageError
from stages.contract.execution import Execution, restoring, untracked
from stages.networks.memory import keep_large_buffers
from stages.networks.weights import State, recorded_state, weight_columns, weight_record
from stages.plurals import number_of
from stages.training.log import TABLE, VALIDATIONS, TrainingLog
from stages.training.ranks import Ranks
from stages.training.state import restore_training, seeded, training_state
from stages.training.validation import Validation, best_row
from stages.training.validation_settings import LOSS

BEST = "best/"
"""Before the names of the best weights in a checkpoint."""

Batch = TypeVar("Batch")
DrawnBatch = TypeVar("DrawnBatch", covariant=True)


class Trainer(ABC, Generic[Batch]):
    """Trains a network for `steps` steps; each stage's subclass defines what a step is.

    `optimiser` holds the parameters of `module` that are not frozen; the learning rate of a group in a step is
    `schedule(step)`, with steps counted from 1, times the group's `rate`. `remedy` names the settings to lower if
    training diverges.
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
        self.best: State | None = None

    @abstractmethod
    def update(self, batch: Batch, generator: torch.Generator) -> Mapping[str, float]:
        """Updates the weights from one batch, or this rank's share of it; returns the losses and accuracies of the
        whole batch, named as in the card's log. PyTorch's global generator is seeded for the step, too."""

    def weights(self) -> State:
        """The state dict of the trained network, as it is written to the cache."""
        return self.module.state_dict()

    def step(self, batch: Batch) -> dict[str, float]:
        """Takes the next step and returns its log row. Raises StageError if a loss is NaN or infinite."""
        step, started = len(self.log) + 1, time.monotonic()
        rate = self.schedule(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        with seeded(self.seed, step, self.device) as generator:
            measured = self.update(batch, generator)
        self.check_losses(measured, f"at {self.log.columns.step} {step}")
        return self.log.add(rate, measured, time.monotonic() - started)

    def keep(self) -> None:
        """Keeps the weights as the best so far."""
        self.best = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def take_best(self) -> None:
        """Goes back to the best weights, if some were kept."""
        if self.best is not None:
            self.module.load_state_dict(self.best)

    def check_losses(self, measured: Mapping[str, float], when: str) -> None:
        """Raises StageError if a loss is NaN or infinite, from which training cannot recover."""
        for name in self.log.columns.losses:
            if not math.isfinite(measured[name]):
                raise StageError(
                    f"{self.card.name}: the {name.replace('_', ' ')} became NaN or infinite {when}; "
                    f"training diverged, lower {self.remedy}"
                )

    def state(self) -> Record:
        """Everything the next step depends on, as arrays, the log so far, and the best weights if they are kept."""
        best = {f"{BEST}{name}": values for name, values in weight_record(self.best or {}).items()}
        return {**training_state(self.module, self.optimiser), **self.log.state(), **best}

    def restore(self, state: Record) -> None:
        """The inverse of `state`. Raises LookupError, ValueError or RuntimeError if it is from another training."""
        restore_training(self.module, self.optimiser, state)
        self.log.restore(state)
        best = {name.removeprefix(BEST): values for name, values in state.items() if name.startswith(BEST)}
        self.best = recorded_state(best) or None
        if len(self.log) > self.steps:
            raise ValueError(f"it has {len(self.log)} {self.log.columns.step}s")


class Sampler(Protocol[DrawnBatch]):
    """Draws the batches of a training."""

    @property
    def regions_per_step(self) -> int:
        """Regions per step, over all ranks: what the progress bar counts per second."""

    def batches(self, first: int, last: int) -> Iterator[DrawnBatch]:
        """This rank's share of the batches of steps `first` to `last`; they depend on (seed, step) alone."""

    def record(self) -> Record:
        """What the cache stores about the examples, besides the network and the log."""


def network_schema(
    network: nn.Module, log: LogColumns, examples: Mapping[str, Column] | None = None, *, validated: bool = False
) -> Schema:
    """The schema of a training stage's cache: the network's tensors by name, the sampler's `examples`, the log, and
    what was measured on a validation set if it is `validated`.

    The network may be on the meta device.
    """
    columns = {**weight_columns(network.state_dict()), **(examples or {})}
    tables = {TABLE: log.dtypes, **({VALIDATIONS: log.validation_dtypes} if validated else {})}
    typed = {table: {name: Column(dtype) for name, dtype in dtypes.items()} for table, dtypes in tables.items()}
    return Schema("network", per_item=columns, tables=typed)


def train(
    make_trainer: Callable[[], Trainer[Batch]],
    make_sampler: Callable[[], Sampler[Batch]],
    output: Writer,
    execution: Execution,
    ranks: Ranks | None = None,
    *,
    checkpoint_seconds: float = 0.0,
    validation: Validation[Any] | None = None,
) -> None:
    """Trains the network of each part it can claim, and writes the weights, the log and the sampler's record.

    An existing checkpoint is restored before the sampler is made; a new one is saved every `checkpoint_seconds`. With
    several `ranks`, the first one claims and writes. With a `validation`, the network is measured while it is trained;
    the weights written are the best if it has a patience.
    """
    ranks = ranks or Ranks()
    keep_large_buffers()
    for part in ranks.claimed(output):
        trainer = make_trainer()
        trainer.log.validated = validation is not None
        resume(trainer, output.checkpoint(part))
        sampler = make_sampler()
        run_steps(trainer, sampler, output, part, execution, checkpoint_seconds, validation)
        trainer.take_best()
        if ranks.leads:
            weights = weight_record(trainer.weights())
            output.write(part, [{**weights, **sampler.record(), **trainer.log.record()}])


def resume(trainer: Trainer[Batch], checkpoint: Checkpoint) -> None:
    """Restores the checkpoint, if any. Raises StageError if it is from another training or the ranks disagree on it."""
    saved = checkpoint.load()
    if saved is not None:
        with restoring(checkpoint):
            trainer.restore(saved)
        logger_of(trainer).info("resuming after %s %d of %d", trainer.log.columns.step, len(trainer.log), trainer.steps)
    trainer.ranks.check_agreement(trainer.card.name, len(trainer.log))


def run_steps(
    trainer: Trainer[Batch],
    sampler: Sampler[Batch],
    output: Writer,
    part: Part,
    execution: Execution,
    checkpoint_seconds: float,
    validation: Validation[Any] | None = None,
) -> None:
    """Runs the remaining steps, unless the `validation` ends them, with a checkpoint and a log line every
    `checkpoint_seconds`."""
    log, steps = trainer.log, trainer.steps
    described, saved_at = len(log), time.monotonic()
    tracking = execution.tracking if trainer.ranks.leads else untracked
    progress = execution.progress(trainer.card.name, steps, f"{log.columns.step}s", len(log))
    with tracking(len(log)) as tracker, progress as bar:
        last = len(log) if is_over(trainer, validation) else steps
        for batch in sampler.batches(len(log) + 1, last):
            trainer.step(batch)
            validate(trainer, validation)
            if trainer.ranks.leads and time.monotonic() - saved_at >= checkpoint_seconds:
                output.checkpoint(part).save(trainer.state())
                describe(trainer, output, described)
                tracker.track(log.after)
                described, saved_at = len(log), time.monotonic()
            bar.advance(1, sampler.regions_per_step)
            if is_over(trainer, validation):
                break
        tracker.track(log.after)
    if trainer.ranks.leads:
        describe(trainer, output, described)
        tell_end(trainer, validation)


def validate(trainer: Trainer[Batch], validation: Validation[Any] | None) -> None:
    """Measures the network on the validation set if that is due after this step; keeps the best weights if they are
    wanted. Raises StageError if a loss is NaN or infinite there."""
    log = trainer.log
    if validation is None or not validation.is_due(len(log), trainer.steps):
        return
    measured = validation.measure(trainer)
    trainer.check_losses(measured, f"on the validation set after {log.columns.step} {len(log)}")
    log.add_validation(measured)
    if trainer.ranks.leads:
        logger_of(trainer).info("%s", log.validation_sentence())
    if validation.patience and validation.is_best(log.validations):
        trainer.keep()


def is_over(trainer: Trainer[Batch], validation: Validation[Any] | None) -> bool:
    """Whether the validations so far end the training."""
    return validation is not None and validation.is_over(trainer.log.validations)


def tell_end(trainer: Trainer[Batch], validation: Validation[Any] | None) -> None:
    """Says which weights are kept, and whether the training was stopped."""
    if validation is None or not validation.patience:
        return
    log, step = trainer.log, trainer.log.columns.step
    best = log.validations[best_row(log.validations, validation.stop_on)]
    stopped = (
        f"stopped after {step} {len(log)} of {trainer.steps}, as the {validation.stop_on} on the validation set was no "
        f"better in {number_of(validation.patience, 'validation')}; "
        if is_over(trainer, validation)
        else ""
    )
    value = best[validation.stop_on]
    shown = f"{value:.4g}" if validation.stop_on == LOSS else f"{100 * value:.1f} %"
    logger_of(trainer).info(
        "%sthe network of %s %d is kept: its %s is %s there", stopped, step, best[step], validation.stop_on, shown
    )


def describe(trainer: Trainer[Batch], output: Writer, first: int) -> None:
    """Writes the log file, and logs a line on the steps from row `first` on."""
    trainer.log.write(output.folder)
    if len(trainer.log) > first:
        logger_of(trainer).info("%s", trainer.log.sentence(first, trainer.steps))


def logger_of(trainer: Trainer[Batch]) -> logging.Logger:
    """The logger of the trainer's stage."""
    return logging.getLogger(f"stages.{trainer.card.name.replace('-', '_')}")
