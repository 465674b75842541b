"""The log of a training: what the file says, and what the curves show."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.contract.card import LogColumns
from stages.training.log import FILE, plot_log, points_in_words, running_means, write_log
from tests.plotted import drawn, texts_of

__all__ = ["drawn"]

COLUMNS = LogColumns("iteration", losses=("loss",), accuracies=("positive_accuracy", "background_accuracy"))
LOG = {
    "iteration": np.arange(1, 1_200_001, 400_000, dtype=np.int32),
    "learning_rate": [0.01, 0.01, 0.001],
    "loss": np.array([2.3, 1.1234567, 0.5], np.float32),
    "positive_accuracy": [0, 0.25, 1],
    "background_accuracy": [1, 0.5, 1],
    "seconds": [0.1, 0.1, 0.1],
}


def test_the_file_has_a_line_for_each_step(tmp_path):
    write_log(tmp_path, LOG)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert lines[0] == "iteration,learning_rate,loss,positive_accuracy,background_accuracy,seconds"
    assert lines[1:] == ["1,0.01,2.3,0,1,0.1", "400001,0.01,1.12346,0.25,0.5,0.1", "800001,0.001,0.5,1,1,0.1"]


def test_running_means_by_hand():
    """Seven values in three stretches: of 3, 2 and 2."""
    means, places = running_means([1, 2, 3, 4, 6, 8, 8], 3)
    assert means.tolist() == [2, 5, 8]
    assert places.tolist() == [1, 3.5, 5.5]
    means, places = running_means([5, 6], 10)
    assert (means.tolist(), places.tolist()) == ([5, 6], [0, 1])


def test_curves_are_drawn(tmp_path):
    plot_log(LOG, COLUMNS, tmp_path / "new" / "training.png")
    pixels = np.asarray(Image.open(tmp_path / "new" / "training.png").convert("RGB"))
    assert pixels.shape[0] > 600
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_what_a_point_stands_for():
    assert points_in_words({"epoch": [1]}) == "a single epoch"
    assert points_in_words({"epoch": list(range(100))}) == "one point per epoch"
    assert points_in_words({"iteration": list(range(101))}) == "each point averages a few iterations"


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_epochs_are_counted_in_whole_numbers(epochs, tmp_path, drawn):
    """A single one has its own tick alone, and the axis says so; a constant rate is a number, not a power."""
    log = {"epoch": np.arange(1, epochs + 1), "loss": np.ones(epochs), "accuracy": np.ones(epochs)}
    columns = LogColumns("epoch", losses=("loss",), accuracies=("accuracy",))
    plot_log({**log, "learning_rate": np.full(epochs, 0.01)}, columns, tmp_path / "training.png")
    (figure,) = drawn
    ax = figure.axes[-1]
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert all(tick == round(tick) for tick in ticks)
    assert ticks == [1] if epochs == 1 else len(ticks) >= 2
    words = {text for text, _ in texts_of(figure)}
    assert ("epoch (a single epoch)" in words) == (epochs == 1)
    assert "0.01" in words
