"""Training OverFeat: which windows are drawn, the targets, the losses, the stage, and the detector that it makes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cache
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import open_dataset
from stages.detect.scoring import NetworkEdges, network_regression
from stages.extract import Settings as ExtractSettings
from stages.extract.features import dense_features
from stages.extract.stage import on_demand
from stages.maps import Settings as MapsSettings
from stages.maps.stage import on_demand as maps_on_demand
from stages.matching.windows import UNUSED
from stages.networks import EDGES, SOFTMAX, NetworkSource
from stages.networks.dense_reading import dense_outputs, map_windows, windows_of
from stages.networks.feature_maps import FeatureMaps, compute_maps
from stages.networks.source import NetworkSettings
from stages.train_overfeat import STAGE, Settings
from stages.train_overfeat.examples import (
    WindowExamples,
    chosen_negatives,
    draw_windows,
    edge_loss,
    encode_edges,
    labelled_windows,
    regressed_windows,
    windows_of_image,
)
from stages.train_overfeat.training import WindowTraining
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks
from stages.training.whole_image_stage import trained_card
from stages.training.whole_images import DrawnImage, TrainingImage, WholeImages, drawn_images
from tests.in_process import rcnn
from tests.pipeline import torchrun
from tests.stages.annotated_objects import objects

SMALL: dict[str, Any] = {
    "iterations": 4,
    "images_per_batch": 2,
    "sides": (64, 100),
    "longest": 160,
    "border": 16,
    "box_hidden": (8,),
}
NEW_LAYERS: dict[str, Any] = {"hidden": (8, 6), "pool": 2, "side": 3}
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
[train-overfeat]
iterations = 3
images_per_batch = 2
sides = [64, 100]
longest = 160
border = 16
box_hidden = [8]
"""
CONTEXT = [
    f"train-overfeat.{setting}" for setting in ("context=true", "hidden=[8]", "pool=2", "side=3", "cells_scale=0.5")
]
DETECTOR = """
[maps]
sides = [64, 100]
longest = 160
border = 16
[extract]
method = "dense"
layers = ["softmax", "edges"]
[detect]
score = "softmax"
regression = "network"
cap = "image"
[eval]
"""


def test_labels_by_hand() -> None:
    """IoU 0.5, 0.4, 0.2 and 0 with an object: its class, not used, background twice; never those of an ignored one."""
    windows = np.array([[0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 2], [20, 20, 30, 30]], np.float32)
    there = objects([[0, 0, 10, 10]], [1])
    assert labelled_windows(windows, there, 3, Settings()).tolist() == [1, UNUSED, 3, 3]
    ignored = objects([[0, 0, 10, 10]], [1], [True])
    assert labelled_windows(windows, ignored, 3, Settings()).tolist() == [UNUSED, UNUSED, 3, 3]


def test_which_windows_are_regressed_by_either_reading() -> None:
    """A small object in a large window: all of its own area, a quarter of the union. Half of an object: 1/2, 1/3."""
    windows = np.array([[0, 0, 20, 20], [5, 0, 15, 10], [40, 40, 50, 50]], np.float32)
    there = objects([[0, 0, 10, 10]], [1])
    of_object = regressed_windows(windows, there, Settings())
    assert [rows.tolist() for rows in of_object] == [[0, 1], [0, 0]]
    of_union = regressed_windows(windows, there, Settings(overlap_of="union", box_overlap=0.3))
    assert [rows.tolist() for rows in of_union] == [[1], [0]]
    assert len(regressed_windows(windows, objects([], []), Settings())[0]) == 0


def test_a_window_learns_the_object_with_the_highest_iou_of_those_that_fit() -> None:
    windows = np.array([[0, 0, 20, 20]], np.float32)
    there = objects([[0, 0, 5, 5], [0, 0, 18, 18], [0, 0, 60, 20]], [0, 1, 2])
    assert regressed_windows(windows, there, Settings())[1].tolist() == [1]  # of the third only a third is inside
    unused = objects([[0, 0, 5, 5], [0, 0, 18, 18]], [0, 1], [False, True])
    assert regressed_windows(windows, unused, Settings())[1].tolist() == [0]


@given(st.integers(0, 2**32 - 1))
def test_edges_lead_back_to_the_boxes(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(-50, 100, (5, 2))
    windows, boxes = (
        np.hstack([corners, corners + random.uniform(10, 90, (5, 2))]).astype(np.float32) for _ in range(2)
    )
    edges = encode_edges(windows, boxes)
    np.testing.assert_allclose(encode_edges(windows, windows), np.tile([0, 0, 1, 1], (5, 1)), atol=1e-6)
    shared = NetworkEdges(("a", "b"), per_class=False)
    np.testing.assert_allclose(shared.predict(windows, edges, 1), boxes, atol=1e-3)
    own = NetworkEdges(("a", "b"), per_class=True)
    both = np.hstack([np.zeros((5, 4)), edges])
    np.testing.assert_allclose(own.predict(windows, both, 1), boxes, atol=1e-3)
    np.testing.assert_allclose(own.chosen([1], ("b",)).predict(windows, both, 0), boxes, atol=1e-3)
    np.testing.assert_allclose(shared.chosen([1], ("b",)).predict(windows, edges, 0), boxes, atol=1e-3)


def test_edges_that_cross_give_an_empty_box() -> None:
    windows = np.array([[0, 0, 10, 10]], np.float32)
    moved = NetworkEdges(("a",), per_class=False).predict(windows, np.array([[0.5, 0.2, 0.4, 0.9]]), 0)
    assert moved.tolist() == [[5, 2, 5, 9]]


def test_what_the_network_predicts_is_known_by_its_features() -> None:
    names = ("a", "b", "background")
    assert network_regression(names, {EDGES: 4}) == NetworkEdges(("a", "b"), per_class=False)
    assert network_regression(names, {EDGES: 8}) == NetworkEdges(("a", "b"), per_class=True)


def test_the_most_offending_negatives_and_the_first_of_the_others() -> None:
    background = torch.tensor([0.9, 0.1, 0.8, 0.3, 0.7])
    assert chosen_negatives(background, 4, 0.5).tolist() == [1, 3, 0, 2]
    assert chosen_negatives(background, 3, 0.0).tolist() == [0, 1, 2]
    assert chosen_negatives(background, 3, 1.0).tolist() == [1, 3, 4]
    assert chosen_negatives(background[:0], 0, 0.5).tolist() == []


def test_the_box_loss_by_hand() -> None:
    """Two windows, off by 2 in one edge and by 1 in two: (4 + 2) / 2; per class, only the window's own class counts."""
    targets = torch.zeros(2, 4)
    shared = torch.tensor([[2.0, 0, 0, 0], [0, 1, 1, 0]])
    labels = torch.tensor([1, 0])
    assert edge_loss(shared, targets, labels).item() == 3
    per_class = torch.cat([torch.full((2, 4), 9.0), shared], dim=1)
    assert edge_loss(per_class, targets, torch.tensor([1, 1])).item() == 3
    assert edge_loss(shared[:0], targets[:0], labels[:0]).item() == 0


def test_the_windows_drawn() -> None:
    """A grid over one object: at most a quarter positive, all of its class; the rest background, in random order."""
    grid = np.array([[x, y, x + 40, y + 40] for y in range(0, 120, 4) for x in range(0, 160, 4)], np.float32)
    places = np.mgrid[0:30, 0:40].reshape(2, -1).T
    settings = Settings(windows_per_image=16, candidates=50, box_windows=7, overlap_of="union")
    there = objects([[40, 40, 80, 80]], [2])
    drawn = draw_windows(grid, places, there, 3, settings, np.random.default_rng(0), "cpu")
    assert (len(drawn.positives), len(drawn.candidates), drawn.negatives, len(drawn.box_windows)) == (4, 50, 12, 7)
    assert drawn.labels.tolist() == [2] * 4
    rows = {place: row for row, place in enumerate(map(tuple, places.tolist()))}
    labels = labelled_windows(grid, there, 3, settings)
    assert {int(labels[rows[tuple(place)]]) for place in drawn.candidates.tolist()} == {3}
    assert drawn.candidates.tolist() != sorted(drawn.candidates.tolist())
    for place, edges in zip(drawn.box_windows.tolist(), drawn.edges.numpy(), strict=True):
        window = grid[rows[tuple(place)]]
        np.testing.assert_allclose(window[[0, 1, 0, 1]] + edges * 40, [40, 40, 80, 80], atol=1e-3)


def network_source() -> NetworkSource:
    return NetworkSource.from_settings(NetworkSettings("shapenet", "random", classes=7))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_dataset(["shapes:train"], work=tmp_path_factory.mktemp("data"), options={"images": 6})


def sampler(dataset: Any, settings: Settings, source: NetworkSource | None = None) -> WholeImages[WindowExamples]:
    source = source or network_source()
    card = trained_card(STAGE, settings, source)

    def find(image: TrainingImage[None], drawn: DrawnImage) -> WindowExamples:
        return windows_of_image(image, card, len(dataset.classes), settings, drawn.random)

    return WholeImages(
        settings,
        dataset,
        ImageMemory(dataset, 10**8),
        source,
        find,
        Execution(),
        Ranks(),
        regions_per_step=1,
        counts={},
    )


def training(dataset: Any, settings: Settings) -> WindowTraining:
    return WindowTraining(settings, network_source(), len(dataset.classes), "cpu", Ranks())


@pytest.mark.parametrize("mirror", [False, True])
def test_the_edges_of_a_window_lead_to_an_object_of_the_image_as_it_was_drawn(dataset: Any, mirror: bool) -> None:
    """SqueezeNet's margin, 17 pixels before the image and 3 after it, is the same for mirrored images."""
    source = NetworkSource.from_settings(NetworkSettings("squeezenet1_0", "random", classes=7))
    new: dict[str, Any] = {
        "hidden": (8,),
        "pool": 2,
        "side": 2,
        "overlap_of": "union",
        "box_overlap": 0.2,
        "mirror": mirror,
    }
    settings = Settings(**{**SMALL, **new, "images_per_batch": 6, "sides": (100,), "longest": 200})
    windows = windows_of(trained_card(STAGE, settings, source))
    seen = 0
    for image in sampler(dataset, settings, source).batch(2):
        placed = image.examples.box_windows.numpy() * 16 + 9.5 - 17 - 16
        for (y, x), edges in zip(placed, image.examples.edges.numpy(), strict=True):
            box = (np.array([x, y, x, y]) + edges * windows.pixels) / image.scale
            assert np.abs(image.objects.boxes - box).max(axis=1).min() < 0.01
            seen += 1
    assert seen


@pytest.mark.parametrize("more", [{}, {"per_class": True}, NEW_LAYERS, {**NEW_LAYERS, "context": True}])
def test_the_loss_starts_at_the_logarithm_of_the_classes(dataset: Any, more: dict[str, Any]) -> None:
    settings = Settings(**SMALL, **more)
    (batch,) = sampler(dataset, settings).batches(1, 1)
    measured = training(dataset, settings).step(batch)
    assert measured["class_loss"] == pytest.approx(math.log(len(dataset.classes) + 1), abs=0.3)
    assert measured["loss"] == pytest.approx(measured["class_loss"] + measured["box_loss"])


def test_edges_begin_as_those_of_the_window(dataset: Any) -> None:
    settings = Settings(**SMALL, new_boxes_std=1e-9)
    network = training(dataset, settings).network
    with torch.inference_mode():
        edges = network.head(torch.rand(3, 96, 4, 4), [EDGES])[EDGES]
    assert torch.allclose(edges, torch.tensor([0.0, 0, 1, 1]).expand(3, 4), atol=1e-5)


@pytest.mark.parametrize("more", [{}, {**NEW_LAYERS, "context": True}])
def test_a_training_that_resumes_is_bit_for_bit_the_same(dataset: Any, more: dict[str, Any]) -> None:
    settings = Settings(**{**SMALL, "frozen": ("none",)}, **more)
    whole = training(dataset, settings)
    for batch in sampler(dataset, settings).batches(1, 4):
        whole.step(batch)
    halves = [training(dataset, settings) for _ in range(2)]
    for batch in sampler(dataset, settings).batches(1, 2):
        halves[0].step(batch)
    halves[1].restore(halves[0].state())
    for batch in sampler(dataset, settings).batches(3, 4):
        halves[1].step(batch)
    first, second = whole.weights(), halves[1].weights()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], network_source().module().state_dict()["conv1.0.weight"])


def test_the_trunk_stays_as_it_is_by_default(dataset: Any) -> None:
    settings = Settings(**SMALL)
    trained = training(dataset, settings)
    before = {name: tensor.clone() for name, tensor in trained.module.state_dict().items()}
    for batch in sampler(dataset, settings).batches(1, 2):
        trained.step(batch)
    after = trained.module.state_dict()
    tuned = {name.rpartition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert tuned == {"fc5", "fc6", "windows.boxes.0", "windows.box_pred"}


def test_an_image_smaller_than_a_window_has_no_loss(dataset: Any) -> None:
    settings = Settings(**{**SMALL, "sides": (20,), "longest": 30, "border": 0})
    (batch,) = sampler(dataset, settings).batches(1, 1)
    measured = training(dataset, settings).step(batch)
    assert measured["loss"] == 0


@pytest.mark.parametrize("mirror", [False, True])
def test_windows_are_trained_with_the_context_that_they_are_read_with(dataset: Any, mirror: bool) -> None:
    """The cells of a training image's windows are the features of `extract` of the same image at the same scales."""
    more: dict[str, Any] = {**NEW_LAYERS, "context": True, "images_per_batch": 6, "mirror": mirror}
    settings = Settings(**{**SMALL, **more})
    trained = training(dataset, settings)
    card = trained.network.card
    seen = set()
    for image, drawn in zip(sampler(dataset, settings).batch(1), drawn_images(settings, 6, 1), strict=True):
        with torch.no_grad():
            maps = trained.maps(image.inputs)
            lower = trained.lower_scale(maps, image)
            windows = dense_outputs(trained.network, maps, ["roi_pool"], 6, lower)["roi_pool"]
        pixels = dataset.read_image(dataset.image_ids[drawn.position])
        read = compute_maps(pixels, trained.network, settings.sides, settings.longest, "float32", True, 16)
        if drawn.mirrored:
            read = replace(read, maps=read.mirrored)
        features = dense_features(read, trained.network, ExtractSettings(method="dense", layers=("roi_pool",)), 16)
        levels = map_windows(read, card, 16, fine=True)[1]
        expected = features["roi_pool"][levels == drawn.level]
        np.testing.assert_allclose(windows.every(), expected, atol=2e-3 * float(expected.max()))
        seen.add((drawn.level, drawn.mirrored))
    assert len(seen) == (4 if mirror else 2)


def test_dense_features_are_those_of_the_network_on_each_map(dataset: Any) -> None:
    source = network_source()
    given_maps = MapsSettings(sides=(64, 100), longest=160, border=16, dtype="float32")
    inputs: dict[str, Any] = {"images": dataset, "network": source}
    inputs["maps"] = maps_on_demand(given_maps, Inputs(inputs), Execution())
    settings = ExtractSettings(method="dense", layers=("fc5", SOFTMAX), dtype="float32")
    features = on_demand(settings, Inputs(inputs), Execution())
    image_id = dataset.image_ids[0]
    record, maps = features.read(image_id), FeatureMaps.of_record(inputs["maps"].read(image_id))
    assert not record["is_object"].any()
    assert np.bincount(record["level"]).tolist() == [(cells.shape[0] - 7) * (cells.shape[1] - 7) for cells in maps.maps]
    first = record["boxes"][0] * np.float32(maps.scales[0])
    np.testing.assert_allclose(first, [-16, -16, 48, 48], atol=1e-4)
    network = source.load()
    with torch.inference_mode():
        cells = torch.from_numpy(maps.maps[1]).permute(2, 0, 1)[None]
        expected = dense_outputs(network, cells, ["fc5", SOFTMAX], 8)
    for layer, values in expected.items():
        np.testing.assert_allclose(record[layer][record["level"] == 1], values.every(), rtol=1e-4, atol=1e-5)
    coarse = on_demand(ExtractSettings(**{**vars(settings), "fine": False}), Inputs(inputs), Execution()).read(image_id)
    assert set(map(tuple, coarse["boxes"].tolist())) < set(map(tuple, record["boxes"].tolist()))


def cache_of(work: Path, stage: str) -> Path:
    (folder,) = (work / "caches" / stage).iterdir()
    return folder


def test_the_commands(tmp_path: Path) -> None:
    """A whole run, nothing to do the second time; a photo through the same graph; the steps of one image."""
    recipe, work = tmp_path / "overfeat.toml", tmp_path / "work"
    recipe.write_text(RECIPE + DETECTOR)
    rcnn("run", recipe, work=work)
    folder = cache_of(work, "train-overfeat")
    summary = json.loads((folder / "manifest.json").read_text())["summary"]
    assert summary["heads"] == {
        "windows": {"box_hidden": [8], "per_class": False, "hidden": [], "pool": 1, "side": 0, "scale": 1.0}
    }
    assert summary["class_names"][-1] == "background"
    with h5py.File(folder / "data.h5") as file:
        assert file["weights/fc6.weight"].shape == (1, 11, 256)
        assert file["weights/windows.box_pred.weight"].shape == (1, 4, 8)
    assert "everything is complete" in rcnn("run", recipe, work=work).stdout
    photo = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00001.jpg"))
    rcnn("predict", recipe, photo, "-o", tmp_path / "out", work=work)
    assert json.loads((tmp_path / "out" / "test_00001.json").read_text())["detections"] is not None
    told = rcnn("explain", recipe, "test_00001", "-o", tmp_path / "explained", work=work).stdout
    assert " windows; " in told
    assert "proposal" not in told
    rcnn("report", recipe, "-o", tmp_path / "report", work=work)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Recall of the windows" in page
    printed = rcnn("recall", recipe, "--json", "-o", tmp_path / "recall", work=work).stdout
    (measured,) = json.loads(printed)
    every = next(row for row in measured["recall"] if (row["proposals"], row["group"]) == (None, "all"))
    with cache.open(cache_of(work, "extract")) as features:
        windows = [record["boxes"] for _, record in features.records(["boxes"])]
    assert measured["ranked"]
    assert measured["boxes_per_image"]["all"] == np.mean([len(boxes) for boxes in windows])
    assert measured["boxes_per_image"]["300"] <= 300
    assert 0 <= every["recall"]["0.7"] <= every["recall"]["0.5"] <= 1
    done = rcnn("units", recipe, "-o", tmp_path / "units", work=work, check=False)
    assert (done.returncode, "the regions of [extract] are cut out of maps" in done.stderr) == (2, True)
    done = rcnn("figures", recipe, "--only", "proposals", "-o", tmp_path / "figures", work=work, check=False)
    assert done.returncode == 1
    assert "not drawn: " in done.stdout
    assert "has no proposals to draw: [extract] takes every window of the network" in done.stdout
    drawing = ("figures", recipe, "--only", "windows", "--precision", 0, "-o", tmp_path)
    drawn = rcnn(*drawing, "--image", "test_00001", "--image", "test_00000", work=work).stdout
    assert "overfeat-windows.png (detect@test, 2 chosen images)" in drawn
    assert np.asarray(Image.open(tmp_path / "overfeat-windows.png")).shape[1] == 12 + 4 * 262  # two scales, two steps


def test_a_run_with_context(tmp_path: Path) -> None:
    """The window of the next lower scale enters both first layers; a photo goes through the same graph."""
    recipe, work = tmp_path / "overfeat.toml", tmp_path / "work"
    recipe.write_text(RECIPE + DETECTOR)
    words = [word for change in CONTEXT for word in ("--set", change)]
    rcnn("run", recipe, *words, work=work)
    folder = cache_of(work, "train-overfeat")
    assert json.loads((folder / "manifest.json").read_text())["summary"]["heads"]["windows"]["context"]
    with h5py.File(folder / "data.h5") as file:
        assert file["weights/windows.hidden.fc6.weight"].shape == (1, 8, 2 * 96 * 9)
        assert file["weights/windows.boxes.0.weight"].shape == (1, 8, 2 * 96 * 9)
    photo = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00001.jpg"))
    rcnn("predict", recipe, *words, photo, "-o", tmp_path / "out", work=work)
    predicted = json.loads((tmp_path / "out" / "test_00001.json").read_text())["detections"]
    with cache.open(cache_of(work, "detect")) as detections:
        assert len(predicted) <= len(detections.read("test_00001")["boxes"])


@pytest.mark.parametrize("words", [(), [word for change in CONTEXT for word in ("--set", change)]])
def test_cached_maps_of_a_frozen_trunk_train_the_same_network(words: Sequence[str], tmp_path: Path) -> None:
    """In float32, from pixels and from maps that are kept."""
    maps = """
[maps-train]
stage = "maps"
sides = [64, 100]
longest = 160
border = 16
mirrored = true
cache = true
dtype = "float32"
inputs = { network = "network" }
"""
    recipe = tmp_path / "overfeat.toml"
    recipe.write_text(RECIPE + maps)
    losses = []
    for place, more in (("pixels", ()), ("maps", ("--set", "train-overfeat.inputs.maps=maps-train"))):
        rcnn("run", recipe, *words, *more, work=tmp_path / place)
        with h5py.File(cache_of(tmp_path / place, "train-overfeat") / "data.h5") as file:
            losses.append(file["log/loss"][:])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_two_processes_train_the_same_network(tmp_path: Path) -> None:
    recipe = tmp_path / "overfeat.toml"
    recipe.write_text(RECIPE + "dropout = 0.0\n")
    losses = []
    for place in ("one", "two"):
        if place == "one":
            rcnn("train-overfeat", recipe, work=tmp_path / place)
        else:
            done = torchrun("train-overfeat", recipe, work=tmp_path / place)
            assert done.returncode == 0, done.stderr
        with h5py.File(cache_of(tmp_path / place, "train-overfeat") / "data.h5") as file:
            losses.append(file["log/loss"][:])
    assert np.allclose(losses[0], losses[1], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train-overfeat.frozen=['conv9']"], "frozen: the network has no weights in 'conv9'"),
        (["train-overfeat.frozen=['windows']"], "'windows', which is new in this training"),
        (["train-overfeat.background_overlap=0.6"], "a window cannot be both background and an object"),
        (["train-overfeat.sides=[30,100]"], "a shorter side of 30 pixels has no window, which is 64 pixels wide"),
        (["train-overfeat.scale_jitter=0.9"], "64 pixels wide; lower scale_jitter = 0.9, or raise border"),
        (["maps.border=0", "maps.sides=[100,60]"], "a shorter side of 60 pixels has no window"),
        (["train-overfeat.positive_fraction=0.001"], "the classifier would see no objects"),
        (["train-overfeat.windows_per_image=2"], "positive_fraction = 0.25 of windows_per_image = 2 is no window"),
        (["train-overfeat.hidden=[8]"], "new fully connected layers need pool; set it"),
        (["train-overfeat.side=3"], "side = 3 is for new fully connected layers"),
        (["train-overfeat.context=true"], "context = true doubles what the first layers take; set hidden"),
        (["network.name='zf'"], "layer 'pool5' of zf cannot be read densely"),
        (["network.name='resnet50'"], "layers of resnet50 after its trunk pad their input"),
        (["detect.suppression='merge'", "detect.merge_threshold=1e39"], "merge_threshold"),
        (["extract.layers=['softmax', 'deltas']"], "shapenet has no layer 'deltas'"),
        (["extract.layers=['softmax', 'conv1']"], "shapenet has no layer 'conv1'"),
        (["extract.layers=['softmax']"], "regression = 'network': its layer"),
        (["detect.score='svm'"], "svm"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_runs(
    changes: list[str], message: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "overfeat.toml"
    recipe.write_text(RECIPE + DETECTOR)
    words = [word for change in changes for word in ("--set", change)]
    ended = rcnn("run", recipe, *words, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_maps_with_a_border_are_not_pooled_from(tmp_path: Path) -> None:
    recipe, work = tmp_path / "overfeat.toml", tmp_path / "work"
    pooled = DETECTOR.replace('method = "dense"', 'method = "roi-pool"').replace('"edges"', '"fc5"')
    recipe.write_text(RECIPE + "[propose]\n" + pooled.replace('regression = "network"', 'regression = "ridge"'))
    ended = rcnn("run", recipe, work=work, check=False)
    assert ended.returncode == 2
    assert "its maps have border = 16" in ended.stderr


@pytest.mark.parametrize("stage", ["train-svm", "train-bbox"])
def test_dense_windows_are_nothing_to_train_svms_or_box_regressors_on(stage: str, tmp_path: Path) -> None:
    recipe = tmp_path / "overfeat.toml"
    recipe.write_text(RECIPE + DETECTOR + f"[{stage}]\nlayer = 'softmax'\n")
    ended = rcnn("run", recipe, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert f"[{stage}] its features are those of dense windows" in ended.stderr


@pytest.mark.parametrize("method", ["warp", "roi-pool"])
def test_a_network_that_takes_context_is_read_densely(method: str, tmp_path: Path) -> None:
    recipe = tmp_path / "overfeat.toml"
    regions = DETECTOR.replace('method = "dense"', f'method = "{method}"').replace(', "edges"', "")
    recipe.write_text(RECIPE + "[propose]\n" + regions)
    words = [word for change in CONTEXT for word in ("--set", change)]
    ended = rcnn("run", recipe, *words, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert "this shapenet sees each window at the next lower scale, too; set method = 'dense'" in ended.stderr


def test_edges_belong_to_dense_windows(tmp_path: Path) -> None:
    recipe = tmp_path / "overfeat.toml"
    recipe.write_text(RECIPE + "[propose]\n" + DETECTOR.replace('method = "dense"', 'method = "roi-pool"'))
    ended = rcnn("run", recipe, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert "box edges belong to the windows of a network" in ended.stderr
    assert "set method = 'dense'" in ended.stderr


def test_a_training_in_which_no_window_fits_an_object_says_so(tmp_path: Path) -> None:
    recipe, few = tmp_path / "overfeat.toml", ("--set", "train-overfeat.positive_overlap=1.0")
    recipe.write_text(RECIPE)
    ended = rcnn("train-overfeat", recipe, *few, work=tmp_path / "work")
    assert "recognised no window with an object in the whole training" in ended.stderr
    assert "(positive_overlap = 1.0), lower it" in ended.stderr
