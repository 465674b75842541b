"""How a stage is run, as opposed to what it computes: nothing here may change a result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from stages.contract.errors import StageError

if TYPE_CHECKING:
    from cache.writer import Checkpoint


class Progress(Protocol):
    """What a stage tells while it works."""

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """`items` more are done (images, classes, epochs); `rows` counts what they hold (regions), for the rate."""


class OpenProgress(Protocol):
    """Opens the progress of a stage: `total` items in all, of which an earlier process did `done`."""

    def __call__(self, label: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Progress]:
        """A block in which the stage works."""


class SilentProgress:
    """Says nothing."""

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Nothing to say."""


class Count(SilentProgress):
    """A progress that is told to nobody, but added up."""

    def __init__(self) -> None:
        self.items = self.rows = 0

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Adds."""
        self.items += items
        self.rows += rows


@contextlib.contextmanager
def silent(label: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """The progress of tests and of library use."""
    yield SilentProgress()


@dataclass(frozen=True)
class Execution:
    """Where and how wide a stage runs.

    `device` is resolved ("cpu", "cuda", "cuda:1"); `jobs` counts processes (or threads, where a stage says so);
    `batch_size` None leaves it to the stage; `progress(label, total, unit, done)` opens a progress bar. Of several
    processes that torchrun started this is number `rank` of `ranks`; the first writes.
    """

    device: str = "cpu"
    jobs: int = 1
    batch_size: int | None = None
    skip_bad_images: bool = False
    progress: OpenProgress = silent
    rank: int = 0
    ranks: int = 1

    @property
    def in_worker(self) -> Execution:
        """The same for one of several processes: one job, silent, picklable."""
        return replace(self, jobs=1, progress=silent)


@contextlib.contextmanager
def restoring(checkpoint: Checkpoint) -> Iterator[None]:
    """What does not fit in a block that restores from the checkpoint is a StageError: it is of another training, or of
    another version of the program."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise StageError(
            f"{checkpoint.path}: this checkpoint does not fit what is to be trained ({error}); delete it and run the "
            "same command again, to start this part over"
        ) from error
