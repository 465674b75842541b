"""How a stage is run, as opposed to what it computes: nothing here may change the result."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from stages.contract.errors import BadImage, StageError

if TYPE_CHECKING:
    from cache.writer import Checkpoint


log = logging.getLogger("stages")


class Progress(Protocol):
    """Reports the progress of a stage."""

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Reports `items` more done (images, classes, epochs), with `rows` in them (regions), for the rate."""


class OpenProgress(Protocol):
    """Opens the progress of a stage with `total` items, of which an earlier process did `done`."""

    def __call__(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Progress]:
        """A context manager around the stage's work."""


class SilentProgress:
    """Progress that is not reported."""

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Does nothing."""


class Count(SilentProgress):
    """Progress that is only added up."""

    def __init__(self) -> None:
        self.items = self.rows = 0

    def advance(self, items: int = 1, rows: int = 0) -> None:
        self.items += items
        self.rows += rows


@contextlib.contextmanager
def silent(label: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """The default progress, for tests and library use."""
    yield SilentProgress()


StepsAfter = Callable[[int], Sequence[Mapping[str, float]]]
"""The values of the steps of a training after the one with this number, in order, each by name ("train/loss")."""


class Tracker(Protocol):
    """Shows a training while it runs, outside of its cache: in TensorBoard, say."""

    def track(self, steps_after: StepsAfter) -> None:
        """Takes over the steps that it does not have yet."""


class OpenTracker(Protocol):
    """Begins to track a training of which earlier processes did `done` steps."""

    def __call__(self, done: int) -> AbstractContextManager[Tracker]:
        """A context manager around the training."""


class NoTracker:
    """Tracks nothing."""

    def track(self, steps_after: StepsAfter) -> None:
        """Does nothing."""


@contextlib.contextmanager
def untracked(done: int) -> Iterator[Tracker]:
    """The default: a training that is logged in its cache alone."""
    yield NoTracker()


@dataclass(frozen=True)
class Execution:
    """Where a stage runs, and with how many processes.

    `device` is resolved ("cpu", "cuda", "cuda:1"); `jobs` is the number of processes (or threads, where a stage says
    so); `batch_size` None leaves it to the stage; `progress(label, total, unit, done)` opens a progress bar. This is
    number `rank` of `ranks` processes started by torchrun; the first one writes. `tracking(done)` is where a training
    is shown besides.
    """

    device: str = "cpu"
    jobs: int = 1
    batch_size: int | None = None
    skip_bad_images: bool = False
    progress: OpenProgress = silent
    rank: int = 0
    ranks: int = 1
    tracking: OpenTracker = untracked

    def skip(self, error: BadImage) -> str:
        """Why a bad image is skipped, with a warning. Raises `error` if bad images are not skipped."""
        if not self.skip_bad_images:
            raise error
        log.warning("%s: skipped, it %s", error.path, error.reason)
        return error.reason

    @property
    def in_worker(self) -> Execution:
        """The same for a worker process: one job, silent, picklable."""
        return replace(self, jobs=1, progress=silent, tracking=untracked)


@contextlib.contextmanager
def restoring(checkpoint: Checkpoint) -> Iterator[None]:
    """Turns errors in a block that restores from the checkpoint into a StageError: the checkpoint is from another
    training or another version of the program."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise StageError(
            f"{checkpoint.path}: this checkpoint does not fit what is to be trained ({error}); delete it and run the "
            "same command again, to start this part over"
        ) from error
