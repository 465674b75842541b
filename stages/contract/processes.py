"""Worker processes: sharing a stage's work among them, ending them, and reporting when one dies."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.contract.errors import StageError
from stages.contract.execution import Count, Execution, Progress
from stages.contract.threads import refuse_dead_threads

if TYPE_CHECKING:
    from joblib import Parallel

    from cache import Part, Record, Writer

WARNINGS, OF_RESOURCES = "PYTHONWARNINGS", "ignore:resource_tracker"
"""Python's list of filters, and the one for warnings that begin with this word."""

Fill = Callable[["Iterable[Part]", Progress], None]


class Processes:
    """`jobs` worker processes with one thread each, or just this process if `jobs` is 1."""

    def __init__(self, stage: str, jobs: int, parallel: Parallel | None) -> None:
        self.stage = stage
        self.jobs = jobs
        self.parallel = parallel

    def map(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yields function(*task) for each task; tasks are drawn when a process is free. One call at a time.

        Arguments are sent through a pipe: joblib would put large arrays into in-memory files (/dev/shm) and keep them
        until the last task is done. Raises what `function` or drawing a task raises, and StageError if a process died.
        """
        if self.parallel is None:
            for task in tasks:
                yield function(*task)
            return
        from joblib import delayed
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        failures: list[Exception] = []

        def calls() -> Iterator[Any]:
            try:
                for task in tasks:
                    yield delayed(in_worker)(function, *task)
            except Exception as error:  # joblib draws tasks in its own thread, where an error would hang it
                failures.append(error)

        try:
            with deaf_to_interrupts():
                results = self.parallel(calls())
            yield from results
        except TerminatedWorkerError as error:
            raise StageError(
                f"{self.stage}: a worker process died, probably because memory ran out; run again with fewer --jobs"
            ) from error
        if failures:
            raise failures[0]


@contextlib.contextmanager
def processes(stage: str, jobs: int, *, ordered: bool = True, waiting: int = 0) -> Iterator[Processes]:
    """The worker processes of a stage, which end with the block.

    Results come in the order of the tasks if `ordered`, else as they are completed. `waiting` tasks are drawn before a
    process is free, which helps if they are short.
    """
    if jobs == 1:
        yield Processes(stage, 1, None)
        return
    from joblib import Parallel, parallel_config

    with ending_with_their_manager(), unwarned_of_semaphores():
        try:
            with parallel_config(backend="loky", inner_max_num_threads=1):
                parallel = Parallel(
                    n_jobs=jobs,
                    pre_dispatch=jobs + waiting,
                    batch_size=1,
                    max_nbytes=None,
                    return_as="generator" if ordered else "generator_unordered",
                )
            with parallel:
                yield Processes(stage, jobs, parallel)
        finally:
            end_processes()


def in_worker(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in a worker process."""
    from joblib.externals.loky import process_executor

    refuse_dead_threads()
    process_executor._USE_PSUTIL = False  # else loky ends a worker that grew by 300 MB: ours keep buffers on purpose
    return function(*arguments)


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C: their parent receives it too, and ends them.

    They inherit the blocked signal, so they ignore it from the start, before any of their own code runs.
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
    """Within the block, if the thread that manages joblib's processes dies, as it does for lack of memory for another
    thread, the processes end and the call that waits for them raises TerminatedWorkerError.

    joblib itself would wait forever.
    """
    from joblib.externals.loky.process_executor import TerminatedWorkerError, _ExecutorManagerThread

    before = threading.excepthook

    def end(died: threading.ExceptHookArgs) -> None:
        if not isinstance(died.thread, _ExecutorManagerThread):
            before(died)
            return
        error = TerminatedWorkerError(f"the thread that manages the processes died ({died.exc_value})")
        error.__cause__ = died.exc_value
        with contextlib.suppress(RuntimeError):  # from joining a thread that could not be started
            died.thread.terminate_broken(error)

    threading.excepthook = end
    try:
        yield
    finally:
        if threading.excepthook is end:
            threading.excepthook = before


@contextlib.contextmanager
def unwarned_of_semaphores() -> Iterator[None]:
    """joblib's resource tracker, a process that is started in this block, does not warn of the semaphores that it
    removes if Ctrl-C comes while the others are starting."""
    before = os.environ.get(WARNINGS)
    os.environ[WARNINGS] = ",".join(filter(None, [before, OF_RESOURCES]))
    try:
        yield
    finally:
        if before is None:
            del os.environ[WARNINGS]
        else:
            os.environ[WARNINGS] = before


def end_processes() -> None:
    """Ends joblib's processes, which would otherwise keep their large buffers."""
    from joblib.externals.loky import get_reusable_executor

    with contextlib.suppress(RuntimeError):  # from joining a thread that could not be started: there are no processes
        get_reusable_executor(reuse=True, kill_workers=True).shutdown(wait=True, kill_workers=True)


def fill_in_processes(stage: str, fill: Fill, output: Writer, jobs: int, bar: Progress) -> None:
    """Makes each part of `output` with `fill` in one of `jobs` processes, claiming parts as processes become free.

    `fill` is pickled once, into a file next to the parts, since it may know millions of images. Raises as
    `Processes.map`.
    """
    from cache.files import temporary_name, write_atomically

    work = temporary_name(output.folder / "work")
    try:
        write_atomically(work, [pickle.dumps(fill)], durable=False)
        with processes(stage, jobs, ordered=False) as workers:
            for items, rows in workers.map(fill_part, ((work, part) for part in output.claim())):
                bar.advance(items, rows)
    finally:
        work.unlink(missing_ok=True)


def fill_output(stage: str, fill: Fill, output: Writer, execution: Execution, bar: Progress) -> None:
    """Makes each part of `output` with `fill`: in this process with one job and on CUDA, where one process feeds the
    device, else as `fill_in_processes`."""
    if execution.jobs == 1 or execution.device.startswith("cuda"):
        fill(output.claim(), bar)
    else:
        fill_in_processes(stage, fill, output, execution.jobs, bar)


def fill_part(work: Path, part: Part) -> tuple[int, int]:
    """Makes one part in a worker process; returns its numbers of items and rows."""
    count = Count()
    unpickled(work)([part], count)
    return count.items, count.rows


def fit_classes(
    stage: str,
    examples_of: Callable[[str], Any],
    fit: Callable[[Any], Record],
    report: Callable[[str, Record], None],
    output: Writer,
    execution: Execution,
) -> None:
    """Fits a model for each class, the items of `output`: all parts that this process can claim, each in one of
    `execution.jobs` processes.

    `examples_of` collects the examples of a class here; `fit`, which must be picklable, makes of them the class's
    record, with their number as `examples`; `report` says what there is to say of it. Raises as `Processes.map`.
    """
    with (
        processes(stage, execution.jobs) as workers,
        execution.progress(stage, output.remaining_items, "classes") as bar,
    ):
        tasks = ((fit, part, [examples_of(name) for name in part.item_ids]) for part in output.claim())
        for part, records in workers.map(fit_part, tasks):
            for name, record in zip(part.item_ids, records, strict=True):
                report(name, record)
            output.write(part, records)
            bar.advance(len(records), sum(int(record["examples"]) for record in records))


def fit_part(fit: Callable[[Any], Record], part: Part, examples: Sequence[Any]) -> tuple[Part, list[Record]]:
    """The records of a part's classes, on one thread: the bits of a product may depend on the number of threads."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        return part, [fit(of_class) for of_class in examples]


@functools.lru_cache(maxsize=1)
def unpickled(work: Path) -> Fill:
    """The `fill` function of this worker process, read once."""
    return pickle.loads(work.read_bytes())
