"""The loop that trains every network, on a small one: what is resumed, frozen, logged and refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cache import Column, Identity, Reader, Writer
from stages.contract.card import LogColumns, Stage
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.networks.weights import cached_state
from stages.training.log import plot_log, read_log
from stages.training.loop import Trainer, network_schema, train
from stages.training.optimiser import make_optimiser
from stages.training.parameters import freeze, parameter_groups
from stages.training.schedule import one_cycle, tenth_after, tenth_every, warmed_up

COLUMNS = LogColumns("iteration", losses=("loss", "box_loss"), accuracies=())
STEPS = 5


class Fitting(Trainer[torch.Tensor]):
    """Fits two layers to noise that dropout and the step's generator vary; the second layer may be frozen."""

    card = Stage("train-toy", "", 1, object, "network", (), "", log=COLUMNS)

    def __init__(self, optimiser: Callable[..., torch.optim.Optimizer], frozen: tuple[str, ...] = ()) -> None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2))
        freeze(module, frozen, "train-toy.frozen")
        groups = parameter_groups(module, (), new_rate=10.0, bias_rate=2.0, weight_decay=0.1)
        super().__init__(module, optimiser(groups), steps=STEPS, schedule=lambda step: 0.1 / step, seed=3, device="cpu")

    def update(self, batch: torch.Tensor, generator: torch.Generator) -> dict[str, float]:
        loss = (self.module(batch) - torch.randn((len(batch), 2), generator=generator)).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"box_loss": float(loss.detach()) / 2, "loss": float(loss.detach())}


class Noise:
    """Batches that are functions of the step's number; `poison` is the step that has an infinite one."""

    regions_per_step = 8

    def __init__(self, poison: int = 0) -> None:
        self.poison = poison

    def batches(self, first: int, last: int) -> Iterator[torch.Tensor]:
        for step in range(first, last + 1):
            batch = torch.randn((8, 4), generator=torch.Generator().manual_seed(step))
            yield batch * (math.inf if step == self.poison else 1)

    def record(self) -> dict[str, np.ndarray]:
        return {"examples": np.array(8)}


class Killed(Exception):
    """Stands for a SIGKILL between two steps."""


def killed_after(steps: int) -> Execution:
    @contextlib.contextmanager
    def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        assert (label, total, unit) == ("train-toy", STEPS, "iterations")

        class Bar:
            left = steps

            def advance(self, items: int = 1, rows: int = 0) -> None:
                self.left -= items
                if not self.left:
                    raise Killed

        yield Bar()

    return Execution(progress=progress)


def trained(
    folder: Path, begin: Callable[[], Fitting], execution: Execution | None = None, poison: int = 0, seconds: float = 0
) -> Reader:
    schema = network_schema(begin().module, COLUMNS, {"examples": Column("int64")})
    writer = Writer(folder, Identity("train-toy", 1), ["network"], schema)
    try:
        train(begin, lambda: Noise(poison), writer, execution or Execution(), checkpoint_seconds=seconds)
    finally:
        writer.release()
    writer.finish({})
    return Reader(folder)


def sgd(momentum: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda groups: make_optimiser("sgd", groups, learning_rate=1.0, momentum=momentum)


@pytest.mark.parametrize("frozen", [(), ("2",)], ids=["all learn", "a frozen layer"])
@pytest.mark.parametrize(
    "optimiser",
    [sgd(0.9), sgd(0.0), lambda groups: make_optimiser("adamw", groups, learning_rate=1.0)],
    ids=["sgd", "plain", "adamw"],
)
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, optimiser, frozen):
    def begin() -> Fitting:
        return Fitting(optimiser, frozen)

    whole = trained(tmp_path / "whole", begin).read("network")
    for _ in range(2):
        with pytest.raises(Killed):
            trained(tmp_path / "killed", begin, killed_after(2))
    resumed = trained(tmp_path / "killed", begin).read("network")
    assert {name: values.tobytes() for name, values in resumed.items()} == {
        name: values.tobytes() for name, values in whole.items()
    }
    assert whole["examples"] == 8
    before, after = begin().module.state_dict(), cached_state(Reader(tmp_path / "killed"))
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    assert unchanged == ({"2.weight", "2.bias"} if frozen else set())


def test_the_log_has_every_column_in_the_cards_order(tmp_path, caplog):
    caplog.set_level(logging.INFO, "stages.train_toy")
    reader = trained(tmp_path / "cache", lambda: Fitting(sgd(0.9)), seconds=1e9)
    log = read_log(reader, "network")
    assert list(log) == ["iteration", "learning_rate", "loss", "box_loss"]
    np.testing.assert_allclose(log["learning_rate"], [0.1 / step for step in range(1, 6)], rtol=1e-6)
    np.testing.assert_array_equal(log["box_loss"], log["loss"] / 2)
    lines = (tmp_path / "cache/training.csv").read_text().splitlines()
    assert lines[0] == "iteration,learning_rate,loss,box_loss,seconds"
    assert len(lines) == 6
    loss = float(np.mean(log["loss"]))
    assert caplog.messages == [f"iteration 5 of 5: loss {loss:.3f}, box loss {loss / 2:.3f}"]
    plot_log(log, COLUMNS, tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 5000


def test_a_loss_that_is_not_finite_ends_the_training_in_a_sentence(tmp_path):
    expected = "train-toy: the loss became NaN or infinite at iteration 3; training diverged, lower learning_rate"
    with pytest.raises(StageError) as error:
        trained(tmp_path / "cache", lambda: Fitting(sgd(0.9)), poison=3)
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"weights/0.weight": None}, "0.weight"),
        ({"log/loss": None}, "log/loss"),
        ({"optimiser/1.weight/momentum_buffer": np.zeros(3, np.float32)}, "'1.weight'"),
        ({"optimiser/0.weight/momentum_buffer": np.zeros((3, 5), np.float32)}, r"'0.weight' of shape \[3, 5\]"),
        ({name: np.zeros(9) for name in ("log/iteration", "log/learning_rate", "log/loss", "log/box_loss")}, "9 iter"),
    ],
    ids=["a tensor is missing", "a column is missing", "of a frozen weight", "another shape", "more iterations"],
)
def test_a_checkpoint_of_another_training(tmp_path, changed, reason):
    with pytest.raises(Killed):
        trained(tmp_path / "cache", lambda: Fitting(sgd(0.9)), killed_after(2))
    (path,) = (tmp_path / "cache").glob("checkpoint-*.npz")
    with np.load(io.BytesIO(path.read_bytes()[32:])) as arrays:
        saved = {**arrays, **changed}
    file = io.BytesIO()
    np.savez(file, **{name: values for name, values in saved.items() if values is not None})
    path.write_bytes(hashlib.sha256(file.getvalue()).digest() + file.getvalue())
    with pytest.raises(StageError, match=rf"does not fit what is to be trained(?s:.*){reason}"):
        trained(tmp_path / "cache", lambda: Fitting(sgd(0.9)))


def test_freezing_a_layer_that_is_not_there():
    with pytest.raises(BadSetting, match=r"train-toy\.frozen: the network has no weights in '1'; it has 0, 2"):
        Fitting(sgd(0.9), ("1",))


def test_rates_fall_tenfold():
    """Every 3 steps, and after 2.5 and 4 of them."""
    np.testing.assert_allclose([tenth_every(2, 3, step) for step in range(1, 8)], [2, 2, 2, 0.2, 0.2, 0.2, 0.02])
    np.testing.assert_allclose([tenth_after(1, (2.5, 4), step) for step in range(1, 6)], [1, 1, 0.1, 0.1, 0.01])


def test_one_cycle_by_hand():
    """Up in 2 steps, then down through cosines of 36, 72, 108 and 144 degrees; without warm-up, down from the start."""
    rates = [one_cycle(2, 6, 2, step) for step in range(1, 7)]
    np.testing.assert_allclose(rates, [1, 2, 1.809017, 1.309017, 0.690983, 0.190983], rtol=1e-6)
    np.testing.assert_allclose([one_cycle(2, 2, 0, step) for step in (1, 2)], [1.5, 0.5], rtol=1e-6)
    assert 0 < one_cycle(1, 900, 100, 900) < 1e-5


def test_a_warm_up_scales_the_first_steps():
    def schedule(step: int) -> float:
        return tenth_every(4, 3, step)

    np.testing.assert_allclose([warmed_up(schedule, 4)(step) for step in range(1, 6)], [1, 2, 3, 0.4, 0.4])
    assert [warmed_up(schedule, 0)(step) for step in range(1, 4)] == [4, 4, 4]
