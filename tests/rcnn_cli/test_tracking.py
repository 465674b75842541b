"""`--log-to`: trainings in TensorBoard, MLflow and W&B, read back with the libraries' own readers."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cache import Reader
from rcnn_cli import tracking
from rcnn_cli.main import main
from rcnn_cli.tracking import Run
from stages.training.log import read_log
from tests.in_process import rcnn

PARAMETERS = {"iterations": 3, "sides": [64], "optimiser": "sgd"}
RECIPE = """
[datasets.train]
source = "shapes:train"
images = 4
[network]
name = "shapenet"
weights = "random"
[train-rpn]
iterations = 3
sides = [64]
longest = 120
scales = [2.0, 4.0]
hidden = 8
checkpoint_seconds = 0
"""
STEPS = [{"learning_rate": 0.1, "train/loss": 1.0 / number} for number in range(1, 6)]


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs the package {package}")


class Stopped(Exception):
    """Stands for Ctrl-C."""


def steps_after(steps: list[dict[str, float]], step: int) -> list[dict[str, float]]:
    return steps[step:]


def track(name: str, logs: Path, done: int, last: int, stopped: bool = False) -> None:
    """Tracks a training that has a checkpoint after `done` steps, until the step `last`."""
    run = Run(logs, "train-toy", "toy.0123456789ab", PARAMETERS)
    with tracking.TRACKERS[name].opened(run, done) as tracker:
        for step in range(done + 1, last + 1):
            tracker.track(partial(steps_after, STEPS[:step]))
        if stopped:
            raise Stopped


def interrupted_and_resumed(name: str, logs: Path) -> None:
    """Stopped after step 4, of which the checkpoint has 2; then to the end."""
    with pytest.raises(Stopped):
        track(name, logs, 0, 4, stopped=True)
    if name == "wandb":
        time.sleep(1.1)  # it names folders by the second
    track(name, logs, 2, 5)


def events_of(logs: Path, stage: str = "train-toy") -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (logs / "tensorboard" / stage).iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


@needs("tensorboard")
def test_tensorboard(tmp_path: Path) -> None:
    interrupted_and_resumed("tensorboard", tmp_path)
    events = events_of(tmp_path)
    assert sorted(events.Tags()["scalars"]) == ["learning_rate", "train/loss"]
    losses = events.Scalars("train/loss")
    assert [loss.step for loss in losses] == [1, 2, 3, 4, 5]
    assert [loss.value for loss in losses] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    (text,) = events.Tensors("settings/text_summary")
    assert b"| sides | `[64]` |" in text.tensor_proto.string_val[0]
    track("tensorboard", tmp_path, 0, 2)  # begun again
    assert [loss.step for loss in events_of(tmp_path).Scalars("train/loss")] == [1, 2]


@needs("mlflow")
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    interrupted_and_resumed("mlflow", tmp_path)
    from mlflow import MlflowClient
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

    assert MLFLOW_DISABLE_TELEMETRY.get()

    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("train-toy")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "toy.0123456789ab"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"iterations": "3", "sides": "[64]", "optimiser": "sgd"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5]
    assert [metric.value for metric in history] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    track("mlflow", tmp_path, 0, 2)  # begun again
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(len(client.get_metric_history(run.info.run_id, "train/loss")) for run in runs) == [2, 5]


@needs("mlflow")
def test_a_server_of_mlflow_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://here")
    with pytest.raises(Exception, match="--log-to mlflow: nonsense://here does not answer as expected"):
        track("mlflow", tmp_path, 0, 1)


def records_of(folder: Path) -> list[Any]:
    """W&B's messages in the file of an offline run, in LevelDB's log format after 7 bytes of its own. These are small
    enough for one block, so that each is whole."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    (path,) = folder.glob("*.wandb")
    content, place, records = path.read_bytes(), 7, []
    assert len(content) < 32768
    while place < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        assert kind == 1, "a whole record"
        records.append(messages.Record.FromString(content[place + 7 : place + 7 + length]))
        place += 7 + length
    return records


def history_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of an offline run, once its end has been written, which W&B's own process does a little later."""
    end = time.monotonic() + 20
    while "exit" not in [record.WhichOneof("record_type") for record in records_of(folder)]:
        assert time.monotonic() < end, "W&B has not written the end of the run"
        time.sleep(0.05)
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records_of(folder)
        if record.WhichOneof("record_type") == "history"
    ]


@needs("wandb")
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    interrupted_and_resumed("wandb", tmp_path)
    from wandb.env import error_reporting_enabled

    assert not error_reporting_enabled()
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1, "one run, whose id the folders end in"
    rows = [row for folder in folders for row in history_of(folder)]
    assert [row["_step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["train/loss"] for row in rows] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]


@needs("tensorboard")
def test_a_training_is_logged_as_in_its_cache(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    validated = ("--set", "train-rpn.inputs.validation=train", "--validate-every", 2)
    rcnn("train-rpn", tmp_path / "r.toml", *validated, "--log-to", "tensorboard", work=tmp_path / "work")
    (cache,) = (tmp_path / "work/caches/train-rpn").iterdir()
    assert (tmp_path / "work/logs/tensorboard/train-rpn" / cache.name).is_dir()
    events, log = events_of(tmp_path / "work/logs", "train-rpn"), read_log(Reader(cache), "network")
    for tag, column in (("train/loss", "loss"), ("train/positive_accuracy", "positive_accuracy")):
        assert [scalar.value for scalar in events.Scalars(tag)] == log[column].tolist()
    assert len(events.Scalars("learning_rate")) == 3
    assert [scalar.step for scalar in events.Scalars("validation/recall")] == [2, 3]


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    (tmp_path / "r.toml").write_text(RECIPE)
    done = rcnn("run", tmp_path / "r.toml", "--log-to", "mlflow", work=tmp_path / "work", check=False)
    assert done.returncode == 2
    assert "--log-to mlflow: needs the package mlflow, which is not installed; `pip install 'rcnn[mlflow]'`" in (
        " ".join(done.stderr.split())
    )
    assert not (tmp_path / "work/caches").exists()


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "recipes/shapes.toml", "--log-to", "tensorboard,comet"])
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert "'comet' must be one of tensorboard, mlflow, wandb; separate several by commas" in said


def test_jobs_of_trainings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.toml").write_text(RECIPE + '[maps]\ninputs = { network = "network" }\nsides = [64]\nlongest = 120\n')
    (tmp_path / "cluster.toml").write_text('[default]\ntime = "01:00:00"\n')
    monkeypatch.setenv("RCNN_LOG_TO", "tensorboard,wandb")
    monkeypatch.chdir(tmp_path)
    printed = rcnn("submit", "r.toml", "--dry-run", work=tmp_path / "work").stdout
    logging = {line.split("--only ")[1].split()[0]: "--log-to tensorboard,wandb" in line
               for line in printed.splitlines() if line.startswith("exec ")}  # fmt: skip
    assert logging == {"train-rpn": True, "maps@train": False}
