"""Validation while training: it changes nothing, stops where it should, and a killed training decides the same."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cache import Identity, Reader, Record, Writer
from stages.boxes import decode_deltas
from stages.contract.card import LogColumns, Stage
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.detect import Settings as DetectSettings
from stages.detect.trace import detect_image
from stages.detections.candidates import Scored
from stages.networks.weights import COLUMNS
from stages.training.log import plot_log, read_log, read_validations
from stages.training.loop import Trainer, network_schema, train
from stages.training.optimiser import make_optimiser
from stages.training.parameters import parameter_groups, training_mode
from stages.training.region_validation import best_detections
from stages.training.validation import Validation, best_row, validation_summary
from tests.in_process import rcnn

COLUMNS_OF_LOG = LogColumns("iteration", losses=("loss",), accuracies=(), validated=("mAP",))
STEPS = 8
LOSSES = {2: 0.9, 4: 0.5, 6: 0.7, 8: 0.6}
"""By step: the lowest after step 4."""


class Fitting(Trainer[torch.Tensor]):
    """Fits two layers, with dropout, to noise."""

    card = Stage("train-toy", "", 1, object, "network", (), "", log=COLUMNS_OF_LOG)

    def __init__(self) -> None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2))
        groups = parameter_groups(module, (), new_rate=1.0, bias_rate=2.0, weight_decay=0.1)
        optimiser = make_optimiser("adamw", groups, learning_rate=0.1)
        super().__init__(module, optimiser, steps=STEPS, schedule=lambda step: 0.1, seed=3, device="cpu")

    def update(self, batch: torch.Tensor, generator: torch.Generator) -> dict[str, float]:
        loss = (self.module(batch) - torch.randn((len(batch), 2), generator=generator)).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss": float(loss.detach())}


class Noise:
    regions_per_step = 1

    def batches(self, first: int, last: int) -> Iterator[torch.Tensor]:
        for step in range(first, last + 1):
            yield torch.randn((8, 4), generator=torch.Generator().manual_seed(step))

    def record(self) -> Record:
        return {}


def measure(trainer: Fitting, losses: Mapping[int, float] = LOSSES) -> dict[str, float]:
    """What a validation might do to the state of the process."""
    trainer.module.eval()
    torch.manual_seed(99)
    torch.rand(5)
    with torch.no_grad():
        trainer.module(torch.zeros(1, 4))
    training_mode(trainer.module)
    return {"loss": losses[len(trainer.log)], "mAP": 1 - losses[len(trainer.log)]}


def trained(
    folder: Path,
    validation: Validation[Any] | None,
    execution: Execution | None = None,
    begin: Callable[[], Fitting] = Fitting,
) -> Reader:
    schema = network_schema(begin().module, COLUMNS_OF_LOG, validated=validation is not None)
    writer = Writer(folder, Identity("train-toy", 1), ["network"], schema)
    try:
        train(begin, Noise, writer, execution or Execution(), validation=validation)
    finally:
        writer.release()
    writer.finish({})
    return Reader(folder)


def bytes_of(reader: Reader, prefix: str = "") -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in reader.read("network").items() if name.startswith(prefix)}


class Killed(Exception):
    """Stands for a SIGKILL after a checkpoint."""


@contextlib.contextmanager
def killed_after_a_step(label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
    class Bar:
        def advance(self, items: int = 1, rows: int = 0) -> None:
            raise Killed

    yield Bar()


def test_a_training_that_is_validated_is_the_same_training(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", None)
    watched = trained(tmp_path / "watched", Validation(measure, every=2))
    assert bytes_of(plain).items() < bytes_of(watched).items()
    assert plain.schema.tables.keys() == {"log"}
    assert read_validations(plain, "network") == {}
    validations = read_validations(watched, "network")
    assert validations["iteration"].tolist() == [2, 4, 6, 8]
    assert validations["loss"].tolist() == pytest.approx([0.9, 0.5, 0.7, 0.6])


def test_it_stops_and_keeps_the_best_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The loss is lowest after step 4: with a patience of 1 the training ends after 6, with the weights of 4."""
    caplog.set_level(logging.INFO, "stages.train_toy")
    reader = trained(tmp_path / "stopped", Validation(measure, every=2, patience=1))
    assert len(read_log(reader, "network")["loss"]) == 6

    class Shorter(Fitting):
        def __init__(self) -> None:
            super().__init__()
            self.steps = 4

    four = trained(tmp_path / "four", None, begin=Shorter)
    assert bytes_of(reader, COLUMNS) == bytes_of(four, COLUMNS)
    assert "iteration 2, on the validation set: loss 0.900, mAP 10.0 %" in caplog.messages
    assert (
        "stopped after iteration 6 of 8, as the loss on the validation set was no better in 1 validation; the network "
        "of iteration 4 is kept: its loss is 0.5 there" in caplog.messages
    )


@pytest.mark.parametrize("patience", [0, 1, 2, 9])
def test_killed_after_every_step_it_comes_to_the_same_bits(tmp_path: Path, patience: int) -> None:
    validation: Validation[Fitting] = Validation(measure, every=2, patience=patience, stop_on="mAP")
    whole = trained(tmp_path / "whole", validation)
    steps = len(read_log(whole, "network")["loss"])
    assert steps == {0: 8, 1: 6, 2: 8, 9: 8}[patience]
    for _ in range(steps):
        with pytest.raises(Killed):
            trained(tmp_path / "killed", validation, Execution(progress=killed_after_a_step))
    assert bytes_of(trained(tmp_path / "killed", validation)) == bytes_of(whole)


def test_nearly_equal_losses_are_the_same_after_a_kill(tmp_path: Path) -> None:
    """In float32 no loss is better than the first, and the training ends after step 6."""
    losses = {step: 0.5 - step * 1e-12 for step in LOSSES}
    validation: Validation[Fitting] = Validation(lambda trainer: measure(trainer, losses), every=2, patience=2)
    whole = trained(tmp_path / "whole", validation)
    assert len(read_log(whole, "network")["loss"]) == 6
    for _ in range(6):
        with pytest.raises(Killed):
            trained(tmp_path / "killed", validation, Execution(progress=killed_after_a_step))
    assert bytes_of(trained(tmp_path / "killed", validation)) == bytes_of(whole)


def test_a_loss_that_is_not_finite_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="train-toy: the loss became NaN or infinite on the validation set after it"):
        trained(tmp_path / "cache", Validation(lambda trainer: measure(trainer, {2: math.nan}), every=2))


def test_the_table_has_empty_cells_where_nothing_was_measured(tmp_path: Path) -> None:
    validation: Validation[Fitting] = Validation(lambda trainer: measure(trainer, {3: 1, 6: 2, 8: 3}), every=3)
    reader = trained(tmp_path / "cache", validation)
    with (reader.folder / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["validation_loss"] for row in rows] == ["", "", "1", "", "", "2", "", "3"]
    assert list(rows[0])[-3:] == ["validation_loss", "validation_mAP", "seconds"]
    log, validations = read_log(reader, "network"), read_validations(reader, "network")
    plot_log(log, COLUMNS_OF_LOG, tmp_path / "training.png", validations)
    assert (tmp_path / "training.png").stat().st_size > 5000


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 4))
def test_it_is_over_at_the_first_validation_that_uses_up_the_patience(values: list[float], patience: int) -> None:
    """Against counting one by one."""
    validation: Validation[Any] = Validation(lambda trainer: {}, every=1, patience=patience, stop_on="mAP")
    rows = [{"mAP": value} for value in values]
    best, best_at, stale, over = -1.0, -1, 0, False
    for number, value in enumerate(values):
        stale = 0 if value > best else stale + 1
        best, best_at = (value, number) if value > best else (best, best_at)
        over = stale >= patience
    assert best_row(rows, "mAP") == best_at
    assert validation.is_over(rows) == over


def test_the_first_of_equals_is_the_best() -> None:
    assert best_row([{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.0}], "loss") == 1


@given(st.integers(0, 2**32 - 1))
def test_detections_are_those_of_the_detect_stage(seed: int) -> None:
    """`detect` with cap = "image", on the same probabilities and deltas."""
    random = np.random.default_rng(seed)
    count, classes = int(random.integers(0, 200)), 3
    corners = random.uniform(0, 80, (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(5, 60, (count, 2))]).astype(np.float32)
    scores = random.dirichlet(np.ones(classes + 1), count).astype(np.float32).reshape(count, classes + 1)
    deltas = random.normal(0, 0.3, (count, classes, 4))

    def regress(moved: Any, rows: Any, label: int) -> Any:
        return decode_deltas(moved, deltas[rows, label], short=0)

    found = best_detections(boxes, scores[:, :-1], deltas, (100, 90))
    scored = Scored(
        boxes, ("a", "b", "c"), np.ones(classes, bool), lambda block: scores[:, :-1][:, block], regress, (100, 90)
    )
    wanted = detect_image(scored, DetectSettings(cap="image", score="softmax", regression="network")).detections
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.labels, wanted.labels)


RECIPE = """
[datasets.train]
source = "shapes:train"
images = 6
[datasets.val]
source = "shapes:val"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 40
[train-fast]
iterations = 4
sides = [64]
longest = 120
frozen = ["none"]
checkpoint_seconds = 0
[train-rpn]
iterations = 4
sides = [64]
longest = 120
scales = [2.0, 4.0]
hidden = 8
frozen = ["none"]
[train-joint]
iterations = 2
sides = [64]
longest = 120
scales = [2.0, 4.0]
proposal_hidden = 8
max_boxes = 50
frozen = ["none"]
[train-overfeat]
iterations = 2
sides = [100]
longest = 120
box_hidden = [8]
hidden = [16]
pool = 2
side = 4
[finetune]
iterations = 2
batch_size = 8
padding = 4
"""
VALIDATED = {
    "train-fast": {"loss", "class_loss", "box_loss", "foreground_accuracy", "background_accuracy", "mAP"},
    "train-rpn": {"loss", "class_loss", "box_loss", "positive_accuracy", "negative_accuracy", "recall"},
    "train-overfeat": {"loss", "class_loss", "box_loss", "object_accuracy", "background_accuracy"},
    "finetune": {"loss", "positive_accuracy", "background_accuracy"},
}


def cache_of(work: Path, stage: str) -> Path:
    (folder,) = (work / "caches" / stage).iterdir()
    return folder


def run(tmp_path: Path, stage: str, *words: object, place: str = "work") -> Path:
    """The cache of a stage of RECIPE, validated on val."""
    (tmp_path / "r.toml").write_text(RECIPE)
    reads = "train-fast", "finetune"
    for split in ("train", "val") if stage in reads else ():
        rcnn("propose", tmp_path / "r.toml", "--split", split, *named(stage), work=tmp_path / place)
    rcnn(stage, tmp_path / "r.toml", *named(stage), *words, work=tmp_path / place)
    return cache_of(tmp_path / place, stage)


def named(stage: str) -> tuple[str, str]:
    return "--set", f"{stage}.inputs.validation=val"


@pytest.mark.parametrize("stage", VALIDATED)
def test_what_is_measured(tmp_path: Path, stage: str) -> None:
    folder = run(tmp_path, stage, "--validate-every", 2)
    with h5py.File(folder / "data.h5") as file:
        validations = {name: file[f"validation/{name}"][:] for name in file["validation"] if name != "offsets"}
    assert set(validations) == {"iteration", *VALIDATED[stage]}
    assert validations["iteration"].tolist()[0] == 2
    assert all(np.isfinite(values).all() for values in validations.values())
    summary = json.loads((folder / "manifest.json").read_text())["summary"]
    assert summary["validation"]["loss"] == pytest.approx(float(validations["loss"][-1]))
    assert "last_iteration" not in summary


def test_joint_training_detects_among_its_own_proposals(tmp_path: Path) -> None:
    folder = run(tmp_path, "train-joint", "--patience", 1, "--stop-on", "mAP")
    summary = json.loads((folder / "manifest.json").read_text())["summary"]
    assert summary["validation"]["mAP"] >= 0
    assert summary["last_iteration"] <= 2


def test_a_detector_that_is_validated_gets_the_same_bits(tmp_path: Path) -> None:
    """With dropout, and random regions among its own proposals."""
    watched = run(tmp_path, "train-joint", "--validate-every", 1)
    rcnn("train-joint", tmp_path / "r.toml", work=tmp_path / "plain")
    with (
        h5py.File(watched / "data.h5") as one,
        h5py.File(cache_of(tmp_path / "plain", "train-joint") / "data.h5") as two,
    ):
        assert "validation" not in two
        for group in ("weights", "log"):
            assert {name: one[group][name][:].tobytes() for name in one[group]} == {
                name: two[group][name][:].tobytes() for name in two[group]
            }


def test_without_a_validation_set_its_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)

    def refused(*words: object) -> str:
        done = rcnn("run", tmp_path / "r.toml", *words, work=tmp_path / "work", check=False)
        assert done.returncode == 2
        return done.stderr

    assert "patience = 3 needs a validation set; name a dataset in inputs.validation" in refused(
        "--set", "train-fast.patience=3"
    )
    assert "stop_on = 'mAP' is for early stopping; set patience" in refused("--set", "train-fast.stop_on=mAP")
    assert "inputs.validation_proposals = 'propose' is not read without inputs.validation" in refused(
        "--set", "train-fast.inputs.validation_proposals=propose"
    )
    assert "patience = 3 needs a validation set" in refused(
        *("--set", "train-fast.patience=3", "--set", "train-fast.inputs.validation=none")
    )
    assert "works on the dataset 'vel', which the recipe does not have, did you mean 'val'?" in refused(
        "--set", "train-rpn.inputs.validation=vel"
    )


def test_a_summary_says_which_weights_are_kept(tmp_path: Path) -> None:
    reader = trained(tmp_path / "cache", Validation(measure, every=2, patience=1))
    settings: Any = SimpleNamespace(patience=1, stop_on="loss")
    assert validation_summary(reader, settings) == {
        "validation": {"iteration": 4, "loss": 0.5, "mAP": 0.5},
        "last_iteration": 6,
    }
