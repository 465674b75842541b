"""Progress with rate and remaining time: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

log = logging.getLogger("rcnn")

QUIET_SECONDS = 2.0
LINE_SECONDS = 15.0
SILENT_SECONDS = 60.0  # then a line even if nothing is done, where others do the work
SLOW = 0.1  # items per second


class Bar:
    """A tqdm bar that appears after two seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        from tqdm import tqdm

        self.label = label
        self.rows = 0
        self.started = time.monotonic()
        named = {"desc": label, "total": total or None, "initial": done, "unit": f" {unit}"}
        self.bar = tqdm(**named, delay=QUIET_SECONDS, dynamic_ncols=True, leave=False)

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Records that `items` more are done, with `rows` regions in total."""
        self.rows += rows
        if self.rows:
            self.bar.set_postfix_str(f"{self.rows / (time.monotonic() - self.started):,.0f} regions/s", refresh=False)
        self.bar.update(items)

    def done_by(self, whom: str) -> None:
        """Shows who does the work, e.g. "Dask, 2 of 3 workers at work", and the time that it has taken."""
        self.bar.set_description_str(f"{self.label} ({whom})", refresh=time.monotonic() - self.started > QUIET_SECONDS)

    def close(self) -> None:
        """Removes the bar."""
        self.bar.close()


class Lines:
    """A log line every 15 seconds; `done` items were finished before and do not count towards the rate."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self.items = self.rows = 0
        self.whom = ""
        self.started = self.logged = time.monotonic()

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Records that `items` more are done, with `rows` regions in total."""
        self.items += items
        self.rows += rows
        if time.monotonic() - self.logged >= LINE_SECONDS:
            self.log()

    def done_by(self, whom: str) -> None:
        """Says who does the work, e.g. "Dask, 2 of 3 workers at work": in the lines, and at once if it has changed."""
        changed, self.whom = bool(self.whom) and whom != self.whom, whom
        if changed or time.monotonic() - self.logged >= SILENT_SECONDS:
            self.log()

    def log(self) -> None:
        """Logs a line."""
        now = self.logged = time.monotonic()
        rate = self.items / (now - self.started) if self.items else 0.0
        label = f"{self.label} ({self.whom})" if self.whom else self.label
        count = f"{self.done + self.items} of {self.total}" if self.total else f"{self.items}"
        parts = [f"{label}: {count} {self.unit}"]
        if rate:
            parts.append(rate_text(rate))
        if self.rows:
            parts.append(f"{self.rows / (now - self.started):,.0f} regions/s")
        if rate and self.total:
            parts.append(f"{remaining(self.total - self.done - self.items, rate)} left")
        log.info("%s", ", ".join(parts))

    def close(self) -> None:
        """Nothing to clean up."""


def rate_text(rate: float) -> str:
    """A rate in items per second as text: "2.5/s"; below SLOW as seconds per item: "12 s each"."""
    return f"{rate:.1f}/s" if rate >= SLOW else f"{1 / rate:.0f} s each"


def remaining(items: int, rate: float) -> str:
    """The time that `items` take at `rate` per second, as text: "3 min 05 s"."""
    minutes, seconds = divmod(round(items / rate), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


@contextlib.contextmanager
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Bar | Lines]:
    """The progress display of one stage with `total` items (0: nobody knows), of which `done` were finished before."""
    shown: Bar | Lines = (Bar if sys.stderr.isatty() else Lines)(label, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()
