"""How a stage is run, as opposed to what it computes: nothing here may change a result."""

from __future__ import annotations

import contextlib
import functools
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stages.contract.errors import StageError
from stages.contract.threads import refuse_dead_threads

if TYPE_CHECKING:
    from cache import Part, Writer
    from cache.writer import Checkpoint


@contextlib.contextmanager
def workers_deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started in this block never hear Ctrl-C: who started them hears it too, and ends them.

    They inherit the blocked signal, so that Ctrl-C finds them deaf from their first moment on, before any of their own
    code could say so.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def ending_with_their_manager() -> Iterator[None]:
    """joblib's processes end in this block, and the call that waits for them raises TerminatedWorkerError, if the
    thread that manages them dies, as it does where memory is too short for one more thread.

    joblib itself would wait for the results for ever.
    """
    from joblib.externals.loky.process_executor import TerminatedWorkerError, _ExecutorManagerThread

    before = threading.excepthook

    def end(died: threading.ExceptHookArgs) -> None:
        if not isinstance(died.thread, _ExecutorManagerThread):
            before(died)
            return
        error = TerminatedWorkerError(f"the thread that manages the processes died ({died.exc_value})")
        error.__cause__ = died.exc_value
        with contextlib.suppress(RuntimeError):  # of joining a thread that could not be started
            died.thread.terminate_broken(error)

    threading.excepthook = end
    try:
        yield
    finally:
        if threading.excepthook is end:
            threading.excepthook = before


def end_processes() -> None:
    """Ends joblib's processes, whose buffers are large and would be kept."""
    from joblib.externals.loky import get_reusable_executor

    with contextlib.suppress(RuntimeError):  # of joining a thread that could not be started: there are no processes
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


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
            "same command again, which begins this part anew"
        ) from error


Fill = Callable[["Iterable[Part]", Progress], None]


def in_processes(stage: str, fill: Fill, output: Writer, jobs: int, bar: Progress) -> None:
    """Each part of `output` made by `fill` in one of `jobs` processes of one thread, claimed when a process is free.

    `fill` is pickled once, into a file beside the parts: it may know millions of images. Raises whatever it raised,
    StageError if a process died.
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    from cache.files import temporary_name, write_atomically

    work = temporary_name(output.folder / "work")
    try:
        write_atomically(work, [pickle.dumps(fill)], durable=False)
        with ending_with_their_manager(), parallel_config(backend="loky", inner_max_num_threads=1):
            workers = Parallel(n_jobs=jobs, pre_dispatch=jobs, batch_size=1, return_as="generator_unordered")
            with workers_deaf_to_interrupts():
                filled = workers(delayed(in_this_process)(work, part) for part in output.claim())
            for items, rows in filled:
                bar.advance(items, rows)
    except TerminatedWorkerError as error:
        raise StageError(
            f"{stage}: a worker process died, most likely for lack of memory; "
            "take fewer --jobs or a smaller --batch-size"
        ) from error
    finally:
        end_processes()
        work.unlink(missing_ok=True)


def in_this_process(work: Path, part: Part) -> tuple[int, int]:
    """Makes one part in a worker process; returns how many items and rows it has."""
    from joblib.externals.loky import process_executor

    refuse_dead_threads()
    process_executor._USE_PSUTIL = False  # else loky ends a worker that grew by 300 MB: ours keep buffers on purpose
    count = Count()
    unpickled(work)([part], count)
    return count.items, count.rows


@functools.lru_cache(maxsize=1)
def unpickled(work: Path) -> Fill:
    """What this worker process is for, read once."""
    return pickle.loads(work.read_bytes())
