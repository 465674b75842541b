"""Event files for TensorBoard: logs/tensorboard/STAGE/NAME in the work folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cache.files import cannot
from rcnn_cli.tracking import Run
from stages.contract.errors import StageError
from stages.contract.execution import StepsAfter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@contextlib.contextmanager
def opened(run: Run, done: int) -> Iterator[EventFile]:
    """The event file of a training. One that starts from the beginning hides what is there of an earlier one."""
    folder = run.logs / "tensorboard" / run.stage / run.name
    with writing(folder):
        tracker = begin(folder, run, done)
    try:
        yield tracker
    finally:
        tracker.writer.close()


def begin(folder: Path, run: Run, done: int) -> EventFile:
    """The tracker of a further event file in the folder."""
    from torch.utils.tensorboard import SummaryWriter

    if done:
        return EventFile(folder, SummaryWriter(str(folder)), last_step(folder))
    tracker = EventFile(folder, SummaryWriter(str(folder), purge_step=0), 0)
    tracker.writer.add_text("settings", as_table(run.parameters), 0)
    return tracker


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns errors of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise StageError(f"{folder}: " + cannot("be written to", error, "free space, or leave out --log-to")) from error


class EventFile:
    """Writes the steps after `last` to an event file in the folder."""

    def __init__(self, folder: Path, writer: SummaryWriter, last: int) -> None:
        self.folder = folder
        self.writer = writer
        self.last = last

    def track(self, steps_after: StepsAfter) -> None:
        """Writes each step's values, and flushes. Raises StageError."""
        with writing(self.folder):
            for values in steps_after(self.last):
                self.last += 1
                for name, value in values.items():
                    self.writer.add_scalar(name, value, self.last)
            self.writer.flush()


def last_step(folder: Path) -> int:
    """The last step in the folder's event files, 0 if there is none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return 0
    events = EventAccumulator(str(folder), size_guidance={"scalars": 1})  # the last is always among those kept
    events.Reload()
    return max((events.Scalars(tag)[-1].step for tag in events.Tags()["scalars"]), default=0)


def as_table(parameters: Mapping[str, object]) -> str:
    """The settings as a table in Markdown."""
    rows = [f"| {name} | `{json.dumps(value, ensure_ascii=False)}` |" for name, value in parameters.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])
