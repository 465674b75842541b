"""Progress with rate and remaining time: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from stages.contract.execution import Progress

log = logging.getLogger("rcnn")

QUIET_SECONDS = 2.0
LINE_SECONDS = 15.0
SLOW = 0.1  # items per second


class Bar:
    """A tqdm bar that appears after two seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        from tqdm import tqdm

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

    def close(self) -> None:
        """Removes the bar."""
        self.bar.close()


class Lines:
    """A log line every 15 seconds; `done` items were finished before and do not count towards the rate."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self.items = self.rows = 0
        self.started = self.logged = time.monotonic()

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Records that `items` more are done, with `rows` regions in total."""
        self.items += items
        self.rows += rows
        now = time.monotonic()
        if now - self.logged < LINE_SECONDS:
            return
        self.logged = now
        rate = self.items / (now - self.started)
        regions = f", {self.rows / (now - self.started):,.0f} regions/s" if self.rows else ""
        if not self.total:
            log.info("%s: %d %s, %s%s", self.label, self.items, self.unit, rate_text(rate), regions)
            return
        log.info(
            "%s: %d of %d %s, %s%s, %s left",
            self.label,
            self.done + self.items,
            self.total,
            self.unit,
            rate_text(rate),
            regions,
            remaining(self.total - self.done - self.items, rate),
        )

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
def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """The progress display of one stage with `total` items (0: nobody knows), of which `done` were finished before."""
    shown: Bar | Lines = (Bar if sys.stderr.isatty() else Lines)(label, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()
