"""Threads that die before they begin."""

from __future__ import annotations

import threading

import pytest

from stages.contract import threads


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
