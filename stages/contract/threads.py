"""Detecting threads that die before they start, for lack of memory."""

from __future__ import annotations

import functools
import threading

SECONDS = 60
"""How long a thread may take to start; on a loaded machine it can take several seconds."""


class Beginning(threading.Event):
    """The event that `Thread.start` waits for, which raises MemoryError if it has not occurred after SECONDS."""

    def wait(self, timeout: float | None = None) -> bool:
        """As `Event.wait`, except that an unlimited wait ends after SECONDS with MemoryError."""
        if timeout is not None:
            return super().wait(timeout)
        for _ in range(SECONDS):  # one by one, so that time during which the process was stopped does not count
            if super().wait(1):
                return True
        raise MemoryError("can't start new thread: it died before it started")


def refuse_dead_threads() -> None:
    """Makes `Thread.start` raise MemoryError for a thread that dies before it starts.

    Under a memory limit, the system may grant a thread that Python then fails to set up; CPython's `start` would wait
    for it forever.
    """
    original = threading.Thread.start
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def start(thread: threading.Thread) -> None:
        thread._started.__class__ = Beginning  # type: ignore[attr-defined]
        original(thread)

    threading.Thread.start = start  # type: ignore[assignment]
