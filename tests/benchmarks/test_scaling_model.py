"""The model of docs/scaling.md on numbers that can be worked out in the head."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scaling import Run, plot, print_model
from benchmarks.scaling_model import (
    Costs,
    break_even_workers,
    first_bottleneck,
    paid_seconds,
    stage_times,
    total_bytes,
    total_seconds,
)

COSTS = Costs(
    propose=1.0,
    extract=10.0,
    pass_=0.1,
    image_bytes=1e5,
    proposal_bytes=1e5,
    feature_bytes=8e5,
    images_per_part=4,
    part=0.02,
    looks=2,
    own_looks=4,
    look_rate=1e4,
    storage_rate=1e8,
    storage_bytes=1e12,
    machine_rate=1e7,
    cores=10,
)


def test_each_resource_by_hand():
    """1,000 images on 20 workers, which are two machines."""
    times = stage_times(1000, 20, COSTS)
    assert times["propose"]["propose's processors"] == 1000 * 1 / 20
    assert times["propose"]["storage bandwidth"] == 1000 * 2e5 / 1e8
    assert times["propose"]["machines' network"] == 1000 * 2e5 / 2e7
    assert times["extract"]["the network's forward pass"] == 1000 * 10 / 20
    assert times["extract"]["storage bandwidth"] == 1000 * 1e6 / 1e8
    assert times["extract"]["machines' network"] == 1000 * 1e6 / 2e7
    # 250 parts: 20 workers look at each twice, and at their own, 250 in all, 4 times
    assert times["extract"]["parts and metadata"] == 250 * 0.02 / 20 + (250 * 2 * 20 + 250 * 4) / 1e4
    assert times["train-svm"]["train-svm's one process"] == 100
    assert times["train-svm"]["storage bandwidth"] == 8
    assert times["train-svm"]["machines' network"] == 80
    assert total_seconds(times) == 50 + 500 + 100
    assert paid_seconds(1000, 20, times) == (550 * 20 + 100) / 1000
    assert first_bottleneck(1000, times, COSTS) == "the network's forward pass"


def test_arrays_broadcast_to_a_table():
    images, workers = np.array([[1000], [10_000]]), np.array([[1, 20, 400]])
    times = stage_times(images, workers, COSTS)
    assert total_seconds(times).shape == (2, 3)
    assert total_seconds(times)[0, 1] == 650
    assert total_bytes(images, COSTS).tolist() == [[9e8], [9e9]]
    assert first_bottleneck(images, times, COSTS)[:, 0].tolist() == ["the network's forward pass"] * 2


@pytest.mark.parametrize(
    ("changes", "workers", "expected"),
    [
        ({}, 1, "the network's forward pass"),
        ({}, 400, "train-svm's one process"),  # 100 s, and 400 workers need 25 s for the network
        ({"propose": 20.0}, 10, "propose's processors"),
        ({"storage_rate": 1e6}, 400, "storage bandwidth"),
        ({"machine_rate": 1e6}, 20, "machines' network"),
        ({"look_rate": 1e2}, 400, "parts and metadata"),
        ({"storage_bytes": 8e8}, 1, "disk space"),  # 1,000 images are 9e8 bytes
        ({"storage_bytes": 9e8}, 1, "the network's forward pass"),
    ],
)
def test_the_first_bottleneck(changes, workers, expected):
    costs = replace(COSTS, **changes)
    assert first_bottleneck(1000, stage_times(1000, workers, costs), costs) == expected


def test_more_workers_never_pay_less_and_time_has_a_floor():
    workers = np.array([1, 10, 100, 1000, 10_000])
    times = stage_times(1_000_000, workers, replace(COSTS, looks=0.0))
    assert np.all(np.diff(total_seconds(times)) <= 0)
    assert np.all(np.diff(paid_seconds(1_000_000, workers, times)) >= -1e-9)
    assert total_seconds(times)[-1] >= 1_000_000 * COSTS.pass_


def test_the_table_and_the_plot(tmp_path, capsys):
    print_model(COSTS, price=0.1)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + 4 * 4
    # 10,000 images, 10 workers: 1,000 + 10,000 + 1,000 s; (11,000 x 10 + 1,000) / 10,000 core-seconds an image
    assert lines[3] == "| 10,000 | 0.01 | 10 | 3.3 | 11.1 | 3 | the network's forward pass |"
    plot(tmp_path / "p.png", [Run("--jobs", 1, 10, 20, 30), Run("--jobs", 2, 6, 10, 32)], COSTS)
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_when_computing_again_is_faster_than_reading():
    # storage gives 125 images a second, a worker computes a tenth of one
    assert break_even_workers(COSTS) == 1250
