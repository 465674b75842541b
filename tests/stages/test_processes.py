"""Worker processes: what comes back in which order, what goes wrong where, and that they end whatever happens."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from joblib.externals.loky.backend.queues import Queue

from cache import Column, Identity, Part, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Progress, SilentProgress
from stages.contract.processes import end_processes, fill_in_processes, processes

SCHEMA = Schema(item="image", per_item={"n": Column("int32")})


class Numbers:
    """Fills parts with the images' numbers."""

    def __init__(self, output: Writer) -> None:
        self.output = output

    def __call__(self, parts: Iterable[Part], bar: Progress) -> None:
        for part in parts:
            self.output.write(part, [{"n": np.array(int(one), np.int32)} for one in part.item_ids])


def test_no_room_for_the_thread_that_feeds_the_processes_ends_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `ulimit -v`: the thread that manages the processes dies of it, and joblib waited for ever."""

    def refused(queue: Queue) -> None:
        raise RuntimeError("can't start new thread")

    writer = Writer(tmp_path, Identity("numbers", 1, {}, {}, {}), ("1", "2", "3"), SCHEMA, part_size=1)
    end_processes()
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "_start_thread", refused)
        with pytest.raises(StageError, match=r"numbers: a worker process died, probably because memory ran out"):
            fill_in_processes("numbers", Numbers(writer), writer, 2, SilentProgress())
    writer.release()
    again = Writer(tmp_path, Identity("numbers", 1, {}, {}, {}), ("1", "2", "3"), SCHEMA)
    fill_in_processes("numbers", Numbers(again), again, 2, SilentProgress())
    assert not again.unfinished()


def slow_square(number: int) -> int:
    time.sleep(0.05 if number == 0 else 0)
    return number * number


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    with processes("numbers", jobs, waiting=2) as workers:
        assert list(workers.map(slow_square, ((number,) for number in range(6)))) == [0, 1, 4, 9, 16, 25]
        assert list(workers.map(slow_square, [(7,)])) == [49]


def test_unordered_results_are_all_there() -> None:
    with processes("numbers", 2, ordered=False) as workers:
        assert sorted(workers.map(slow_square, ((number,) for number in range(6)))) == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_while_tasks_are_drawn_comes_after_the_results_before_it(jobs: int) -> None:
    def tasks() -> Iterator[tuple[int]]:
        yield from ((number,) for number in range(5))
        raise OSError("the disk is gone")

    with processes("numbers", jobs) as workers:
        results = workers.map(slow_square, tasks())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(OSError, match="the disk is gone"):
            next(results)


def kill_self(*arguments: Any) -> None:
    """What the kernel does to a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_a_sentence_and_no_other_is_left() -> None:
    with (
        pytest.raises(StageError, match=r"^numbers: a worker process died, probably because memory ran out; run again"),
        processes("numbers", 2) as workers,
    ):
        list(workers.map(kill_self, [(0,)] * 4))
    assert not workers_left()


def test_processes_end_with_the_block() -> None:
    with processes("numbers", 2) as workers:
        own = set(workers.map(pid, [()] * 8))
        assert own
        assert own <= {child.pid for child in workers_left()}
    assert not workers_left()


def pid() -> int:
    return os.getpid()


def workers_left() -> list[psutil.Process]:
    """Loky's workers among this process's children; others (its trackers of resources) stay."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "popen_loky" in " ".join(child.cmdline()) and child.is_running()]


def test_large_arrays_go_to_processes_without_files_in_memory() -> None:
    """joblib keeps such files to the end: of an SVM's training all rounds of all classes, tens of gigabytes."""
    with processes("numbers", 2) as workers:
        assert list(workers.map(type, [(np.zeros(300_000),)] * 3)) == [np.ndarray] * 3


def test_the_tracker_of_semaphores_is_quiet_and_the_callers_filters_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error::SyntaxWarning")
    with processes("stage", 2) as workers:
        (inside,) = set(workers.map(os.getenv, [("PYTHONWARNINGS",)] * 2))
    assert inside == "error::SyntaxWarning,ignore:resource_tracker"
    assert os.environ["PYTHONWARNINGS"] == "error::SyntaxWarning"
    monkeypatch.delenv("PYTHONWARNINGS")
    with processes("stage", 2) as workers:
        assert list(workers.map(abs, [(-1,)])) == [1]
    assert "PYTHONWARNINGS" not in os.environ
