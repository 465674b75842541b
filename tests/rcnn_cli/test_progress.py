"""The lines of a log that say how far a stage is."""

from __future__ import annotations

import logging

import pytest

from rcnn_cli import progress
from rcnn_cli.progress import Lines


def lines_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, shown: tuple[object, ...], seconds: float,
    advances: list[tuple[int, int]],
) -> list[str]:  # fmt: skip
    """What is logged where each of the `advances` (items, rows) takes so many seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Lines(*shown)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "rcnn"):
        for items, rows in advances:
            now[0] += seconds
            bar.advance(items, rows)
    return [one.getMessage() for one in caplog.records]


def test_a_slow_stage_tells_the_time_of_each_item_and_counts_what_was_done_before(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on from the first of 7 epochs: the next one that is done is the second, and five are left."""
    told = lines_of(caplog, monkeypatch, ("pretrain", 7, "epochs", 1), 50, [(1, 0), (1, 0)])
    assert told == [
        "pretrain: 2 of 7 epochs, 50 s each, 4 min 10 s left",
        "pretrain: 3 of 7 epochs, 50 s each, 3 min 20 s left",
    ]


def test_a_quick_stage_tells_its_rates(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    told = lines_of(caplog, monkeypatch, ("extract", 100, "images"), 10, [(20, 4000), (20, 4000)])
    assert told == ["extract: 40 of 100 images, 2.0/s, 400 regions/s, 30 s left"]
