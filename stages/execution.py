"""How a stage is run, as opposed to what it computes: nothing here may change a result."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


def leave_interrupts_to_parent() -> None:
    """A worker process of joblib ignores Ctrl-C: the process that started it hears it too, and ends the worker."""
    if multiprocessing.current_process().name.startswith("LokyProcess"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Progress(Protocol):
    """What a stage tells while it works."""

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """`items` more are done (images, classes, epochs); `rows` counts what they hold (regions), for the rate."""


class SilentProgress:
    """Says nothing."""

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Nothing to say."""


@contextlib.contextmanager
def silent(label: str, total: int, unit: str) -> Iterator[Progress]:
    """The progress of tests and of library use."""
    yield SilentProgress()


@dataclass(frozen=True)
class Execution:
    """Where and how wide a stage runs.

    `device` is resolved ("cpu", "cuda", "cuda:1"); `jobs` counts processes (or threads, where a stage says so);
    `batch_size` None leaves it to the stage; `progress(label, total, unit)` opens a progress bar. Of several processes
    that torchrun started this is number `rank` of `ranks`; the first writes.
    """

    device: str = "cpu"
    jobs: int = 1
    batch_size: int | None = None
    skip_bad_images: bool = False
    progress: Callable[[str, int, str], AbstractContextManager[Progress]] = silent
    rank: int = 0
    ranks: int = 1
