"""Runs for MLflow: on the server that MLFLOW_TRACKING_URI names, else in files, logs/mlflow in the work folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rcnn_cli.tracking import Run
from stages.contract.errors import StageError
from stages.contract.execution import StepsAfter

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Recorded

log = logging.getLogger("rcnn")

SERVER = "MLFLOW_TRACKING_URI"
FILES_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""Without it, MLflow 3 refuses to write files; a database would not bear several machines on a shared disk."""
NO_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
"""Otherwise MLflow reports to its authors how it is used."""
TAG = "rcnn.cache"
METRICS_AT_ONCE = 1000
PARAMETERS_AT_ONCE = 100
"""What MLflow takes in one request."""
LONGEST = 6000
"""Characters of a parameter's value."""


@contextlib.contextmanager
def opened(run: Run, done: int) -> Iterator[MlflowRun]:
    """The run of a training, in the experiment that has the stage's name.

    A training that is resumed goes on with its run; one that starts from the beginning gets a new one, unless nothing
    was logged in the last. Raises StageError if MLflow cannot be reached.
    """
    os.environ.setdefault(NO_TELEMETRY, "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = os.environ.get(SERVER)
    if not uri:
        os.environ.setdefault(FILES_ALLOWED, "true")
        uri = (run.logs / "mlflow").absolute().as_uri()
    try:
        client = MlflowClient(tracking_uri=uri)
        tracker = begin(client, run, done)
    except MlflowException as error:
        raise StageError(
            f"--log-to mlflow: {uri} does not answer as expected ({reason(error)}); check {SERVER}, or leave mlflow out"
        ) from error
    ended = "KILLED"
    try:
        yield tracker
        ended = "FINISHED"
    finally:
        tracker.end(ended)


def begin(client: MlflowClient, run: Run, done: int) -> MlflowRun:
    """The tracker of the run to go on with, or of a new one. Raises MlflowException."""
    from mlflow.entities import Param, RunStatus

    experiment = experiment_of(client, run.stage)
    found = client.search_runs([experiment], f"tags.`{TAG}` = '{run.name}'", order_by=["attributes.start_time DESC"])
    if found and (done or not found[0].data.metrics):
        client.update_run(found[0].info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        return MlflowRun(client, found[0].info.run_id, last_step(client, found[0]))
    made = client.create_run(experiment, run_name=run.name, tags={TAG: run.name})
    parameters = [Param(name, as_text(value)) for name, value in run.parameters.items()]
    for first in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(made.info.run_id, params=parameters[first : first + PARAMETERS_AT_ONCE])
    return MlflowRun(client, made.info.run_id, 0)


class MlflowRun:
    """Adds the steps after `last` to a run."""

    def __init__(self, client: MlflowClient, run_id: str, last: int) -> None:
        self.client = client
        self.run_id = run_id
        self.last = last

    def track(self, steps_after: StepsAfter) -> None:
        """Adds each step's values. If the server does not answer, that is said, and tried again next time."""
        from mlflow.exceptions import MlflowException

        try:
            self.add(steps_after(self.last))
        except MlflowException as error:
            log.warning("--log-to mlflow: not logged for now (%s); the training goes on", reason(error))

    def add(self, steps: Sequence[Mapping[str, float]]) -> None:
        """Adds the values of the steps after `last`, whole steps at a time. Raises MlflowException."""
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        width = max(map(len, steps), default=1)
        size = max(1, METRICS_AT_ONCE // width)
        for first in range(0, len(steps), size):
            some = steps[first : first + size]
            metrics = [
                Metric(name, value, now, self.last + number)
                for number, values in enumerate(some, 1)
                for name, value in values.items()
            ]
            self.client.log_batch(self.run_id, metrics=metrics)
            self.last += len(some)

    def end(self, status: str) -> None:
        """Says how the training ended."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_terminated(self.run_id, status)
        except MlflowException as error:
            log.warning("--log-to mlflow: %s", reason(error))


def experiment_of(client: MlflowClient, name: str) -> str:
    """The id of the experiment of this name, made if there is none. Raises MlflowException."""
    experiment = client.get_experiment_by_name(name)
    return client.create_experiment(name) if experiment is None else experiment.experiment_id


def last_step(client: MlflowClient, run: Recorded) -> int:
    """The last step logged in a run. Raises MlflowException."""
    steps = client.get_metric_history(run.info.run_id, "learning_rate") if run.data.metrics else []
    return max((metric.step for metric in steps), default=0)


def as_text(value: Any) -> str:
    """A setting's value as MLflow stores it."""
    return value[:LONGEST] if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:LONGEST]


def reason(error: Exception) -> str:
    """A library's message on one line, at most 300 characters."""
    return " ".join(str(error).split())[:300]
