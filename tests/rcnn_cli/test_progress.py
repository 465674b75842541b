"""The lines of a log that say how far a stage is."""

from __future__ import annotations

import logging

import pytest

from rcnn_cli import progress
from rcnn_cli.progress import Bar, Lines


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


def test_lines_say_who_does_the_work_and_at_once_when_that_changes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Lines("extract", 100, "images")
    with caplog.at_level(logging.INFO, "rcnn"):
        for seconds, items, workers in (
            (1, 0, 2),
            (58, 0, 2),
            (2, 0, 2),
            (10, 0, 2),
            (10, 16, 2),
            (1, 0, 3),
            (1, 0, 3),
        ):
            now[0] += seconds
            if items:
                bar.advance(items)
            bar.done_by(f"Dask, {workers} of 3 workers at work")
    assert [one.getMessage() for one in caplog.records] == [
        "extract (Dask, 2 of 3 workers at work): 0 of 100 images",  # a minute after it began
        "extract (Dask, 2 of 3 workers at work): 16 of 100 images, 0.2/s, 7 min 05 s left",
        "extract (Dask, 3 of 3 workers at work): 16 of 100 images, 0.2/s, 7 min 10 s left",
    ]


def test_a_bar_says_who_does_the_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    bar = Bar("extract", 4, "images")
    bar.advance(1)
    now[0] += 1
    bar.done_by("Dask, 2 of 2 workers at work")
    bar.close()
    assert "extract (Dask, 2 of 2 workers at work):  25%" in capsys.readouterr().err
