"""Processes of joblib's: that they end, whatever happens to what manages them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from joblib.externals.loky.backend.queues import Queue

from cache import Column, Identity, Part, Schema, Writer
from stages.contract import threads
from stages.contract.errors import StageError
from stages.contract.execution import Progress, SilentProgress, end_processes, in_processes

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
        with pytest.raises(StageError, match=r"numbers: a worker process died, most likely for lack of memory"):
            in_processes("numbers", Numbers(writer), writer, 2, SilentProgress())
    writer.release()
    again = Writer(tmp_path, Identity("numbers", 1, {}, {}, {}), ("1", "2", "3"), SCHEMA)
    in_processes("numbers", Numbers(again), again, 2, SilentProgress())
    assert not again.unfinished()


def test_a_thread_that_dies_before_it_begins_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system grants a thread under `ulimit -v` and Python has no memory to set it up."""
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)  # put back what the next line replaces
    threads.refuse_dead_threads()
    monkeypatch.setattr(threads, "SECONDS", 1)
    living = threading.Thread(target=lambda: None)
    living.start()
    living.join(60)
    for name in ("_start_new_thread", "_start_joinable_thread"):  # until Python 3.12, and from then on
        monkeypatch.setattr(threading, name, lambda *_, **__: None, raising=False)
    with pytest.raises(MemoryError, match="can't start new thread"):
        threading.Thread(target=lambda: None).start()
