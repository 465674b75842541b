"""The log of a training: what the file says, and what the curves show."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stages.training.log import FILE, plot_log, running_means, write_log

LOG = {
    "iteration": np.arange(1, 1_200_001, 400_000, dtype=np.int32),
    "learning_rate": [0.01, 0.01, 0.001],
    "loss": np.float32([2.3, 1.1234567, 0.5]),
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
    plot_log(LOG, tmp_path / "new" / "training.png")
    pixels = np.asarray(Image.open(tmp_path / "new" / "training.png").convert("RGB"))
    assert pixels.shape[0] > 600
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
