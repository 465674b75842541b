"""Training Fast R-CNN: which regions are drawn, the targets, the loss, and the stage itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.boxes import decode_deltas
from stages.contract.execution import Execution
from stages.datasets import open_dataset
from stages.matching.windows import UNUSED
from stages.networks import DELTAS, NetworkSource
from stages.networks.network import Network
from stages.networks.source import NetworkSettings
from stages.train_fast import Settings
from stages.train_fast.training import RegionHeadTraining
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks
from stages.training.region_examples import (
    DeltaStatistics,
    RegionExamples,
    draw_regions,
    foreground_deltas,
    labelled_regions,
    region_losses,
    region_outputs,
)
from stages.training.whole_images import WholeImages
from tests.in_process import rcnn
from tests.pipeline import torchrun
from tests.stages.annotated_objects import objects

SMALL: dict[str, Any] = {"iterations": 4, "images_per_batch": 2, "sides": (64,), "longest": 120, "frozen": ("none",)}
RECIPE = """
[datasets.train]
source = "shapes:train"
images = 6
[datasets.test]
source = "shapes:test"
images = 3
[network]
name = "shapenet"
weights = "random"
[propose]
method = "edge-boxes"
max_boxes = 60
[train-fast]
iterations = 3
images_per_batch = 2
sides = [64]
longest = 120
frozen = ["none"]
"""
DETECTOR = """
[maps]
sides = [64]
longest = 120
[extract]
method = "roi-pool"
layers = ["softmax", "deltas"]
[detect]
score = "softmax"
regression = "network"
cap = "image"
[eval]
"""


def test_labels_by_hand() -> None:
    """The object itself, IoU 0.5, 0.2, 0.05 and 0 with it: foreground twice, background once, then neither."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [0, 0, 1, 5], [20, 20, 30, 30]], np.float32)
    there = objects([[0, 0, 10, 10]], [1])
    assert labelled_regions(boxes, there, 3, Settings()).tolist() == [1, 1, 3, UNUSED, UNUSED]
    assert labelled_regions(boxes, there, 3, Settings(background_least=0.0)).tolist() == [1, 1, 3, 3, 3]


def test_a_region_is_moved_onto_the_nearest_object_of_its_class() -> None:
    there = objects([[0, 0, 10, 10], [0, 0, 10, 12]], [2, 0])
    proposals = np.array([[0, 0, 10, 11]], np.float32)
    labels, deltas = foreground_deltas(proposals, there, 3, Settings())
    assert labels.tolist() == [2, 0, 0]  # the two objects themselves; 11/12 with the second
    assert deltas[:2].tolist() == [[0] * 4] * 2
    assert deltas[2].tolist() == pytest.approx([0, 0.5 / 11, 0, math.log(12 / 11)])


def test_statistics_by_hand() -> None:
    """Class 0 has shifts 0.2 and 0.4; mirrored images add -0.2 and -0.4. Class 1 has no region."""
    images = [
        (np.array([0, 0], np.int32), np.array([[0.2, 0.1, 0.0, 0.3], [0.4, 0.1, 0.0, 0.5]])),
        (np.zeros(0, np.int32), np.zeros((0, 4))),
    ]
    plain = DeltaStatistics.of(images, 2, False)
    assert plain.means.tolist() == [pytest.approx([0.3, 0.1, 0.0, 0.4]), [0] * 4]
    assert plain.stds.tolist() == [pytest.approx([0.1, 1, 1, 0.1]), [1] * 4]
    mirrored = DeltaStatistics.of(images, 2, True)
    assert mirrored.means[0].tolist() == pytest.approx([0, 0.1, 0.0, 0.4])
    assert mirrored.stds[0, 0] == pytest.approx(math.sqrt(0.1))


@given(st.integers(0, 2**32 - 1))
def test_folding_undoes_the_normalisation(seed: int) -> None:
    random = np.random.default_rng(seed)
    statistics = DeltaStatistics(random.normal(size=(3, 4)), random.uniform(0.1, 2, (3, 4)))
    deltas, labels = random.normal(size=(5, 4)), random.integers(0, 3, 5).astype(np.int32)
    normalised = statistics.normalised(deltas, labels)
    outputs = np.zeros((5, 12))
    for row, label in enumerate(labels):
        outputs[row, 4 * label : 4 * label + 4] = normalised[row]
    layer = torch.nn.Linear(5, 12).double()
    layer.weight.data, layer.bias.data = torch.from_numpy(outputs.T.copy()), torch.zeros(12, dtype=torch.float64)
    weight, bias = statistics.folded(layer.weight, layer.bias)
    folded = (torch.eye(5, dtype=torch.float64) @ weight.T + bias).numpy()
    for row, label in enumerate(labels):
        assert np.allclose(folded[row, 4 * label : 4 * label + 4], deltas[row])


def test_the_loss_by_hand() -> None:
    """Three regions, one foreground of class 1 of two: equal scores cost log 3 each, a difference of 2 costs 1.5; the
    deltas of the other class cost nothing."""
    examples = RegionExamples(
        np.arange(3), np.zeros((3, 4), np.float32), torch.tensor([1, 2, 2]), torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    )
    deltas = torch.zeros(3, 8)
    deltas[0, :4] = 100
    scores = torch.zeros(3, 3)
    assert [loss.item() for loss in region_losses(scores, deltas, examples, Settings())] == pytest.approx(
        [math.log(3), 0.5]
    )
    assert region_losses(scores, deltas, examples, Settings(box_weight=3.0))[1].item() == pytest.approx(1.5)


def test_the_regions_drawn_and_where_their_targets_lead() -> None:
    random = np.random.default_rng(0)
    there = objects([[10, 10, 50, 40], [60, 20, 90, 90]], [0, 1])
    corners = np.repeat(there.boxes, 40, axis=0) + random.normal(0, 6, (80, 4)).astype(np.float32)
    statistics = DeltaStatistics(np.full((2, 4), 0.1), np.full((2, 4), 0.3))
    drawn = draw_regions(corners, there, statistics, Settings(), np.random.default_rng(1), "cpu")
    labels = drawn.labels.numpy()
    count = len(drawn.deltas)
    assert count == 16
    assert len(labels) <= 64
    assert (labels[:count] < 2).all()
    assert (labels[count:] == 2).all()
    deltas = drawn.deltas.numpy() * 0.3 + 0.1
    assert np.allclose(decode_deltas(drawn.boxes[:count], deltas, short=0), there.boxes[labels[:count]], atol=1e-3)
    again = draw_regions(corners, there, statistics, Settings(), np.random.default_rng(1), "cpu")
    assert np.array_equal(again.boxes, drawn.boxes)


def test_an_image_without_regions_has_no_loss() -> None:
    nothing, statistics = np.zeros((0, 4), np.float32), DeltaStatistics.fixed(3)
    drawn = draw_regions(nothing, objects([], []), statistics, Settings(), np.random.default_rng(0), "cpu")
    training = RegionHeadTraining(Settings(**SMALL), network_source(), statistics, "cpu", Ranks())
    scores, deltas = region_outputs(training.network, torch.zeros(1, 96, 8, 8), drawn.boxes, 1.0)
    assert (scores.shape, deltas.shape) == ((0, 4), (0, 12))
    assert [loss.item() for loss in region_losses(scores, deltas, drawn, Settings())] == [0, 0]


def network_source() -> NetworkSource:
    return NetworkSource.from_settings(NetworkSettings("shapenet", "random", classes=7))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_dataset(["shapes:train"], work=tmp_path_factory.mktemp("data"), options={"images": 6})


def sampler(dataset: Any, settings: Settings) -> WholeImages[RegionExamples]:
    statistics = DeltaStatistics.fixed(len(dataset.classes))
    grid = np.array([[x, y, x + 60, y + 60] for x in range(0, 200, 20) for y in range(0, 150, 20)], np.float32)
    return WholeImages(
        settings,
        dataset,
        ImageMemory(dataset, 10**8),
        network_source(),
        lambda image, drawn: draw_regions(grid, image.objects, statistics, settings, drawn.random, "cpu"),
        Execution(),
        Ranks(),
        regions_per_step=1,
        counts={},
    )


def training(dataset: Any, settings: Settings) -> RegionHeadTraining:
    return RegionHeadTraining(settings, network_source(), DeltaStatistics.fixed(len(dataset.classes)), "cpu", Ranks())


def test_the_loss_starts_at_the_logarithm_of_the_classes(dataset: Any) -> None:
    settings = Settings(**SMALL)
    (batch,) = sampler(dataset, settings).batches(1, 1)
    measured = training(dataset, settings).step(batch)
    assert measured["class_loss"] == pytest.approx(math.log(len(dataset.classes) + 1), abs=0.2)
    assert measured["loss"] == pytest.approx(measured["class_loss"] + measured["box_loss"])


@pytest.mark.parametrize("pooling", ["max", "align", "warp"])
def test_a_training_that_resumes_is_bit_for_bit_the_same(dataset: Any, pooling: str) -> None:
    settings = Settings(**SMALL, pooling=pooling)
    whole = training(dataset, settings)
    for batch in sampler(dataset, settings).batches(1, 4):
        whole.step(batch)
    halves = [training(dataset, settings) for _ in range(2)]
    for batch in sampler(dataset, settings).batches(1, 2):
        halves[0].step(batch)
    halves[1].restore(halves[0].state())
    for batch in sampler(dataset, settings).batches(3, 4):
        halves[1].step(batch)
    one, other = whole.weights(), halves[1].weights()
    assert all(torch.equal(one[name], other[name]) for name in one)
    before = network_source().module().state_dict()
    assert not torch.equal(one["conv1.0.weight"], before["conv1.0.weight"])
    assert not torch.equal(one["fc5.weight"], before["fc5.weight"])


@pytest.mark.parametrize("pooling", ["max", "align", "warp"])
def test_bfloat16_has_nearly_the_same_losses(dataset: Any, pooling: str) -> None:
    rows = []
    for precision in ("float32", "bfloat16"):
        settings = Settings(**SMALL, pooling=pooling, precision=precision)
        (batch,) = sampler(dataset, settings).batches(1, 1)
        rows.append(training(dataset, settings).step(batch))
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=0.02)
    assert rows[0]["loss"] != rows[1]["loss"]


def changed(training: RegionHeadTraining, dataset: Any, settings: Settings) -> set[str]:
    before = {name: tensor.clone() for name, tensor in training.module.state_dict().items()}
    for batch in sampler(dataset, settings).batches(1, 2):
        training.step(batch)
    after = training.module.state_dict()
    return {name.rpartition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def test_which_layers_are_tuned(dataset: Any) -> None:
    fully_connected = Settings(**{**SMALL, "frozen": ("trunk",)})
    assert changed(training(dataset, fully_connected), dataset, fully_connected) == {"fc5", "fc6", "regions.bbox_pred"}
    first = Settings(**{**SMALL, "frozen": ("conv1",)})
    tuned = changed(training(dataset, first), dataset, first)
    assert "conv2.0" in tuned
    assert not any(name.startswith("conv1") for name in tuned)


def test_classification_alone_leaves_regions_where_they_are(dataset: Any) -> None:
    settings = Settings(**SMALL, box_weight=0.0)
    trained = training(dataset, settings)
    for batch in sampler(dataset, settings).batches(1, 2):
        trained.step(batch)
    weights = trained.weights()
    trained.module.load_state_dict(weights)
    network = Network(trained.network.card, trained.module, len(dataset.classes) + 1, network_source().preprocessing)
    with torch.inference_mode():
        assert not network.head(torch.randn(3, 96, 4, 4), [DELTAS])[DELTAS].any()


def cache_of(work: Path, stage: str, label: str = "train.") -> Path:
    (folder,) = (work / "caches" / stage).glob(f"*{label}*")
    return folder


def test_the_commands(tmp_path: Path) -> None:
    recipe = tmp_path / "fast.toml"
    recipe.write_text(RECIPE + DETECTOR)
    rcnn("run", recipe, work=tmp_path / "work")
    folder = cache_of(tmp_path / "work", "train-fast")
    summary = json.loads((folder / "manifest.json").read_text())["summary"]
    assert summary["heads"] == {"regions": {"pooling": "max", "side": 4, "hidden": [], "scale": 1.0}}
    assert summary["class_names"][-1] == "background"
    assert summary["objects"] > 0
    with h5py.File(folder / "data.h5") as file:
        assert file["weights/fc6.weight"].shape == (1, 11, 256)
        assert file["weights/regions.bbox_pred.weight"].shape == (1, 40, 256)
        assert file["delta_stds"].shape == (1, 10, 4)
        assert (file["delta_means"][0, :, 0] == 0).all()  # mirrored images
    assert "everything is complete" in rcnn("run", recipe, work=tmp_path / "work").stdout
    photo = next((tmp_path / "work" / "datasets").glob("shapes-v1-*/JPEGImages/test_00001.jpg"))
    assert "photo" not in rcnn("predict", recipe, photo, "-o", tmp_path / "out", work=tmp_path / "work").stderr
    assert json.loads((tmp_path / "out" / "test_00001.json").read_text())["detections"] is not None


def test_steps_of_alternating_training(tmp_path: Path) -> None:
    """Faster R-CNN section 3.2: the fourth step trains new outputs on the third's trunk, which it leaves as it is; the
    region proposal network is carried along, and so is fc5 of the second step."""
    recipe = tmp_path / "four.toml"
    anchors = "iterations = 2\nsides = [64]\nlongest = 120\nscales = [2.0, 4.0]\nhidden = 8\n"
    recipe.write_text(
        RECIPE
        + f"""
[rpn2]
stage = "train-rpn"
inputs = {{ network = "train-fast" }}
frozen = ["trunk"]
{anchors}
[fast2]
stage = "train-fast"
iterations = 2
sides = [64]
longest = 120
frozen = ["trunk"]
inputs = {{ network = "rpn2" }}
"""
    )
    work = tmp_path / "work"
    rcnn("run", recipe, work=work)
    first, last = cache_of(work, "train-fast", "four-train."), cache_of(work, "train-fast", "fast2")
    between = cache_of(work, "train-rpn", "rpn2")
    heads = [json.loads((folder / "manifest.json").read_text())["summary"]["heads"] for folder in (between, last)]
    assert heads[0] == heads[1]
    assert set(heads[0]) == {"proposals", "regions"}
    with (
        h5py.File(first / "data.h5") as one,
        h5py.File(between / "data.h5") as two,
        h5py.File(last / "data.h5") as four,
    ):
        for name in ("conv1.0.weight", "conv4.0.weight"):
            assert np.array_equal(one[f"weights/{name}"][:], four[f"weights/{name}"][:])
        assert np.array_equal(two["weights/rpn.conv.weight"][:], four["weights/rpn.conv.weight"][:])
        assert np.array_equal(one["weights/regions.bbox_pred.weight"][:], two["weights/regions.bbox_pred.weight"][:])
        moved = np.abs(one["weights/fc5.weight"][:] - four["weights/fc5.weight"][:]).max()
        assert 0 < moved < 0.05
        assert not np.array_equal(one["weights/fc6.weight"][:], four["weights/fc6.weight"][:])


def test_stage_wise_training_trains_the_deltas_alone(tmp_path: Path) -> None:
    recipe = tmp_path / "wise.toml"
    second = """
[boxes]
stage = "train-fast"
outputs = "boxes"
iterations = 2
sides = [64]
longest = 120
frozen = ["none"]
inputs = { network = "train-fast" }
"""
    recipe.write_text(RECIPE + "box_weight = 0.0\n" + second)
    rcnn("run", recipe, work=tmp_path / "work")
    first, last = (cache_of(tmp_path / "work", "train-fast", label) for label in ("wise-train.", "wise-boxes"))
    with h5py.File(first / "data.h5") as one, h5py.File(last / "data.h5") as two:
        before, after = one["weights"], two["weights"]
        names = [name for name in before if not np.array_equal(before[name][:], after[name][:])]
        assert names == ["regions.bbox_pred.bias", "regions.bbox_pred.weight"]
        assert not one["weights/regions.bbox_pred.weight"][:].any()
        assert np.allclose(two["log/loss"][:], two["log/box_loss"][:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train-fast.side=6", "side = 6: fc5 of shapenet takes 4 x 4 cells"),
        ("network.name='squeezenet1_0'", "hidden = []: squeezenet1_0 has no fully connected layer"),
        ("train-fast.frozen=['conv9']", "frozen: the network has no weights in 'conv9'"),
        ("train-fast.frozen=['regions']", "'regions.bbox_pred', which is new in this training"),
        ("train-fast.frozen=['trunk','fc5','fc6']", "'fc6', which is new in this training"),
        ("train-fast.background_least=0.5", "background_least = 0.5 leaves no region"),
        ("train-fast.background_overlap=0.6", "a region cannot be both background and foreground"),
        ("train-fast.cells_scale=0.1", "cells_scale is for new fully connected layers"),
        ("train-fast.outputs='boxes'", "outputs = 'boxes' needs a network that train-fast has trained"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_runs(change: str, message: str, tmp_path: Path) -> None:
    recipe = tmp_path / "fast.toml"
    recipe.write_text(RECIPE)
    ended = rcnn("run", recipe, "--set", change, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_own_layers_that_were_replaced_cannot_be_trained_again(tmp_path: Path) -> None:
    recipe = tmp_path / "fast.toml"
    second = '[again]\nstage = "train-fast"\ninputs = { network = "train-fast" }\n'
    recipe.write_text(RECIPE + "hidden = [16, 8]\n" + second)
    ended = rcnn("run", recipe, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert "were replaced by new fully connected ones, of 16 and 8; set hidden = [16, 8]" in ended.stderr


def test_two_processes_train_the_same_network_on_the_same_crops(tmp_path: Path) -> None:
    """And measure the same on a validation set, here the training set as it is."""
    recipe = tmp_path / "fast.toml"
    jitter = "crop_jitter = 0.5\nscale_jitter = 0.3\ncolour_jitter = 0.5\n"
    recipe.write_text(RECIPE + "dropout = 0.0\n" + jitter + 'inputs = { validation = "train" }\n')
    measured = []
    for place in ("one", "two"):
        rcnn("propose", recipe, work=tmp_path / place)
        if place == "one":
            rcnn("train-fast", recipe, work=tmp_path / place)
        else:
            done = torchrun("train-fast", recipe, work=tmp_path / place)
            assert done.returncode == 0, done.stderr
        with h5py.File(cache_of(tmp_path / place, "train-fast") / "data.h5") as file:
            measured.append([file[name][:] for name in ("log/loss", "validation/loss", "validation/mAP")])
    for one, two in zip(*measured, strict=True):
        assert np.allclose(one, two, atol=1e-5)


def test_new_fully_connected_layers_have_the_rate_of_new_layers_and_are_taken_over_later(dataset: Any) -> None:
    settings = Settings(**SMALL, hidden=(8, 6), side=3, cells_scale=0.1, new_layer_rate=5.0)
    trained = training(dataset, settings)
    rates = {id(weight): group["rate"] for group in trained.optimiser.param_groups for weight in group["params"]}
    named = {name: rates[id(weight)] for name, weight in trained.module.named_parameters()}
    assert {name for name, rate in named.items() if rate in (5.0, 10.0)} == {
        name for name in named if name.startswith("regions.")
    }
    (batch,) = sampler(dataset, settings).batches(1, 1)
    assert trained.step(batch)["class_loss"] == pytest.approx(math.log(len(dataset.classes) + 1), abs=0.2)
