"""Threads that die before they begin, for want of memory."""

from __future__ import annotations

import functools
import threading

SECONDS = 60
"""How long a thread may take to start, in seconds; on a loaded machine it can take several."""


class Beginning(threading.Event):
    """What `Thread.start` waits for: MemoryError where it has not come after SECONDS."""

    def wait(self, timeout: float | None = None) -> bool:
        """As of any event."""
        if timeout is not None:
            return super().wait(timeout)
        for _ in range(SECONDS):  # not at once: a process that was stopped meanwhile goes on counting
            if super().wait(1):
                return True
        raise MemoryError("can't start new thread: it died before it began")


def refuse_dead_threads() -> None:
    """From now on `Thread.start` raises MemoryError for a thread that dies before it begins.

    Under a limit of memory the system may grant a thread, and Python fail to set it up; CPython's `start` then waits
    for ever.
    """
    original = threading.Thread.start
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def start(thread: threading.Thread) -> None:
        thread._started.__class__ = Beginning  # type: ignore[attr-defined]
        original(thread)

    threading.Thread.start = start  # type: ignore[assignment]
