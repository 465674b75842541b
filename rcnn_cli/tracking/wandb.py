"""Runs for Weights & Biases: kept on this machine, logs/wandb in the work folder, for `wandb sync`, unless WANDB_MODE
says otherwise."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.files import read_json, write_json
from rcnn_cli.tracking import Run
from stages.contract.errors import StageError
from stages.contract.execution import StepsAfter

MODE, PROJECT = "WANDB_MODE", "WANDB_PROJECT"
REPORTS = "WANDB_ERROR_REPORTING"
"""Unless this is false, W&B sends its errors to its authors."""
STATES = "rcnn"
"""The folder beside the runs that has, for each training, its run's id and the last step logged."""


@contextlib.contextmanager
def opened(run: Run, done: int) -> Iterator[WandbRun]:
    """The run of a training, with the stage as its job type. A training that is resumed goes on with its run, in a
    further folder that `wandb sync` appends; one that starts from the beginning gets a new one. Raises StageError."""
    os.environ.setdefault(REPORTS, "false")
    import wandb

    run.logs.mkdir(parents=True, exist_ok=True)
    state = run.logs / "wandb" / STATES / run.stage / f"{run.name}.json"
    before = read_state(state)
    run_id, last = (before["id"], before["steps"]) if before and (done or not before["steps"]) else (new_id(), 0)
    try:
        started = wandb.init(
            project=None if PROJECT in os.environ else "rcnn",
            id=run_id,
            name=run.name,
            job_type=run.stage,
            config=dict(run.parameters),
            dir=str(run.logs),
            mode=None if MODE in os.environ else "offline",
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
        )
    except wandb.Error as error:
        raise StageError(f"--log-to wandb: W&B does not start ({error}); check {MODE}, or leave wandb out") from error
    tracker = WandbRun(started, state, last)
    tracker.remember()
    ended = 1
    try:
        yield tracker
        ended = 0
    finally:
        started.finish(exit_code=ended)


class WandbRun:
    """Adds the steps after `last` to a run, and remembers in the file `state` how far it got."""

    def __init__(self, run: Any, state: Path, last: int) -> None:
        self.run = run
        self.state = state
        self.last = last

    def track(self, steps_after: StepsAfter) -> None:
        """Adds each step's values."""
        for values in steps_after(self.last):
            self.last += 1
            self.run.log(dict(values), step=self.last)
        self.remember()

    def remember(self) -> None:
        """Writes the run's id and the last step."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.state, {"id": self.run.id, "steps": self.last}, durable=False)


def read_state(path: Path) -> Any:
    """What was remembered of a training, None if nothing was."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None


def new_id() -> str:
    """An id that no other run has."""
    return uuid.uuid4().hex[:12]
