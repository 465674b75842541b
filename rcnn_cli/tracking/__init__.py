"""`--log-to`: trainings in TensorBoard, MLflow and Weights & Biases, beside the log in their caches.

Everything stays on this machine, in logs/ in the work folder, unless the environment names a server
(MLFLOW_TRACKING_URI, WANDB_MODE). What is logged changes no result: it is no setting of a stage, and no part of a key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stages.contract.card import Stage
from stages.contract.errors import StageError
from stages.contract.execution import Execution, StepsAfter, Tracker
from stages.contract.settings import all_of

LOGS = "logs"
"""The folder in the work folder."""
VARIABLE = "RCNN_LOG_TO"
"""The environment's --log-to."""


@dataclass(frozen=True)
class Run:
    """A training as its trackers show it: the `name` of its cache's folder, among those of the same `stage`, with its
    settings as `parameters`. Files go to the folder `logs`."""

    logs: Path
    stage: str
    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """Where a training can be logged to: the module with its `opened(run, done)`, and the package it needs, which is
    also the name of the extra."""

    module: str
    package: str

    def opened(self, run: Run, done: int) -> AbstractContextManager[Tracker]:
        """The tracker of a training that resumes after `done` steps."""
        open_tracker: Callable[[Run, int], AbstractContextManager[Tracker]] = import_module(self.module).opened
        return open_tracker(run, done)


TRACKERS = {
    "tensorboard": Kind("rcnn_cli.tracking.tensorboard", "tensorboard"),
    "mlflow": Kind("rcnn_cli.tracking.mlflow", "mlflow"),
    "wandb": Kind("rcnn_cli.tracking.wandb", "wandb"),
}


def parse_trackers(text: str) -> tuple[str, ...]:
    """The trackers in "tensorboard,mlflow", each once. Raises StageError for an unknown one."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in TRACKERS:
            raise StageError(f"'{name}' must be one of {', '.join(TRACKERS)}; separate several by commas")
    return names


def check_installed(names: Sequence[str]) -> None:
    """Raises StageError, naming the extra to install, where the package of a tracker is missing."""
    for name in names:
        if find_spec(TRACKERS[name].package) is None:
            raise StageError(
                f"--log-to {name}: needs the package {TRACKERS[name].package}, which is not installed; "
                f"`pip install 'rcnn[{name}]'`, or in a checkout `pip install -e '.[{name}]'`"
            )


def tracked(
    execution: Execution, names: Sequence[str], work: Path, cache: Path, stage: Stage, settings: Any
) -> Execution:
    """The execution of a stage, which makes the `cache`, with the trackers of the training if it is one."""
    if not names or stage.log is None:
        return execution
    run = Run(work / LOGS, stage.name, cache.name, all_of(settings))

    @contextlib.contextmanager
    def tracking(done: int) -> Iterator[Tracker]:
        check_installed(names)
        with contextlib.ExitStack() as stack:
            yield Together([stack.enter_context(TRACKERS[name].opened(run, done)) for name in names])

    return replace(execution, tracking=tracking)


class Together:
    """Several trackers of the same training."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def track(self, steps_after: StepsAfter) -> None:
        """Passes the steps on to each."""
        for tracker in self.trackers:
            tracker.track(steps_after)
