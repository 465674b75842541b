"""Training a region proposal network: which anchors are drawn, the loss, and the stage itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from stages.contract.execution import Execution
from stages.datasets import open_dataset
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.matching.anchors import NEGATIVE, POSITIVE, UNUSED
from stages.networks import NetworkSource
from stages.networks.source import NetworkSettings
from stages.train_rpn import Settings
from stages.train_rpn.training import ProposalTraining
from stages.training.anchor_examples import AnchorExamples, anchor_losses, draw_anchors, labelled_anchors
from stages.training.augmentation import mirrored_boxes
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks
from stages.training.whole_images import MapSizes, Objects, WholeImages, drawn_images
from tests.in_process import rcnn
from tests.pipeline import torchrun

SMALL: dict[str, Any] = {
    "iterations": 4,
    "images_per_batch": 2,
    "sides": (64,),
    "longest": 120,
    "scales": (2.0, 4.0),
    "hidden": 8,
}
RECIPE = """
[datasets.train]
source = "shapes:train"
images = 6
[network]
name = "shapenet"
weights = "random"
[train-rpn]
iterations = 3
images_per_batch = 2
sides = [64]
longest = 120
scales = [2.0, 4.0]
hidden = 8
frozen = ["none"]
"""


def objects(boxes: list[list[float]], unused: list[bool], crowds: list[bool]) -> Objects:
    count = len(boxes)
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(count, np.int32),
        np.array(crowds, bool),
        np.array(unused, bool),
    )


def test_negatives_on_unused_objects_are_left_out() -> None:
    anchors = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32)
    there = objects([[0, 0, 5, 5], [10, 0, 15, 5], [19, 0, 26, 5]], [False, True, True], [False, False, True])
    # At scale 2: the object is the first anchor, the ignored one the second; the crowd covers the third anchor.
    assert labelled_anchors(anchors, there, 2.0, Settings()).tolist() == [POSITIVE, UNUSED, UNUSED, NEGATIVE]


def test_the_loss_by_hand() -> None:
    """Two anchors, one positive; equal scores cost log 2 each; a difference of 1 costs 1 - 1/18 with sigma 3."""
    logits, deltas = torch.zeros(6, 2), torch.zeros(6, 4)
    examples = AnchorExamples(torch.tensor([4, 1]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), locations=3)
    paper = anchor_losses(logits, deltas, examples, Settings())
    assert paper[0].item() == pytest.approx(2 * math.log(2) / 256)
    assert paper[1].item() == pytest.approx(10 * (1 - 1 / 18) / 3)
    release = anchor_losses(logits, deltas, examples, Settings(normalisation="release", balance=1.0))
    assert [loss.item() for loss in release] == pytest.approx([math.log(2), (1 - 1 / 18) / 2])


def test_every_epoch_takes_each_image_once_and_depends_on_nothing_else() -> None:
    settings = Settings(images_per_batch=2)
    epochs = [
        [one.position for step in range(5 * e + 1, 5 * e + 6) for one in drawn_images(settings, 10, step)]
        for e in (0, 1)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    first, again = drawn_images(settings, 10, 7), drawn_images(settings, 10, 7)
    assert [(one.position, one.mirrored, one.random.random()) for one in first] == [
        (one.position, one.mirrored, one.random.random()) for one in again
    ]


def test_mirrored_boxes() -> None:
    boxes = np.array([[2, 3, 10, 20]], np.float32)
    assert mirrored_boxes(boxes, 100).tolist() == [[90, 3, 98, 20]]
    assert mirrored_boxes(mirrored_boxes(boxes, 100), 100).tolist() == boxes.tolist()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, NetworkSource]:
    dataset = open_dataset(["shapes:train"], work=tmp_path_factory.mktemp("data"), options={"images": 6})
    return dataset, NetworkSource.from_settings(NetworkSettings("shapenet", "random", classes=4))


def sampler(made: tuple[Any, NetworkSource], settings: Settings) -> WholeImages[AnchorExamples]:
    dataset, source = made
    return WholeImages(
        settings,
        dataset,
        ImageMemory(dataset, 10**8),
        source,
        lambda image, drawn: draw_anchors(image, settings.head, 8, settings, drawn.random),
        Execution(),
        Ranks(),
        regions_per_step=1,
        counts={},
    )


def test_the_map_is_as_large_as_was_expected(made: tuple[Any, NetworkSource]) -> None:
    settings = Settings(**SMALL)
    batches = sampler(made, settings)
    network = made[1].load()
    for image in batches.batch(1):
        assert network.maps(image.inputs).shape[2:][::-1] == image.map_size
        assert len(image.examples.rows) <= settings.anchors_per_image
        assert 0 < len(image.examples.deltas) <= settings.anchors_per_image // 2
    assert MapSizes(made[1].card).of(64, 80) == (8, 10)


def test_a_training_that_resumes_is_bit_for_bit_the_same(made: tuple[Any, NetworkSource]) -> None:
    settings = Settings(**SMALL)
    whole = ProposalTraining(settings, made[1], "cpu", Ranks())
    for batch in sampler(made, settings).batches(1, 4):
        whole.step(batch)
    halves = [ProposalTraining(settings, made[1], "cpu", Ranks()) for _ in range(2)]
    for batch in sampler(made, settings).batches(1, 2):
        halves[0].step(batch)
    halves[1].restore(halves[0].state())
    for batch in sampler(made, settings).batches(3, 4):
        halves[1].step(batch)
    one, other = whole.module.state_dict(), halves[1].module.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["conv1.0.weight"], made[1].module().state_dict()["conv1.0.weight"])


def test_a_frozen_trunk_and_all_other_layers_stay_as_they_are(made: tuple[Any, NetworkSource]) -> None:
    settings = Settings(**SMALL, frozen=("trunk",))
    training = ProposalTraining(settings, made[1], "cpu", Ranks())
    before = {name: tensor.clone() for name, tensor in training.module.state_dict().items()}
    for batch in sampler(made, settings).batches(1, 2):
        training.step(batch)
    changed = {name for name, tensor in training.module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {
        f"rpn.{layer}.{kind}" for layer in ("conv", "cls_score", "bbox_pred") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train-rpn.frozen=['conv9']", "frozen: the network has no weights in 'conv9'"),
        ("train-rpn.frozen=['rpn']", "'rpn', which is new in this training"),
        ("train-rpn.scales=[]", "scales and ratios must each name one or more numbers"),
        ("train-rpn.sides=[200]", "a shorter side of 200 pixels, more than longest = 120"),
        ("train-rpn.frozen=['none','conv1']", "names layers beside 'none'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_runs(change: str, message: str, tmp_path: Path) -> None:
    recipe = tmp_path / "rpn.toml"
    recipe.write_text(RECIPE)
    ended = rcnn("run", recipe, "--set", change, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_the_command(tmp_path: Path) -> None:
    recipe = tmp_path / "rpn.toml"
    recipe.write_text(RECIPE)
    rcnn("train-rpn", recipe, work=tmp_path / "work")
    (folder,) = (tmp_path / "work" / "caches" / "train-rpn").iterdir()
    with h5py.File(folder / "data.h5") as file:
        assert file["weights/rpn.cls_score.weight"].shape == (1, 12, 8, 1, 1)
    summary = json.loads((folder / "manifest.json").read_text())["summary"]
    assert summary["heads"] == {
        "proposals": {"scales": [2.0, 4.0], "ratios": [0.5, 1.0, 2.0], "hidden": 8, "cells_scale": 1.0}
    }
    assert summary["objects"] > 0
    assert "everything is complete" in rcnn("run", recipe, work=tmp_path / "work").stdout


FROZEN = """
[maps]
sides = [64]
longest = 120
mirrored = true
dtype = "float32"
cache = true
inputs = { network = "network" }
split = "train"
"""


def test_cached_maps_of_a_frozen_trunk_train_the_same_network(tmp_path: Path) -> None:
    recipe = tmp_path / "rpn.toml"
    recipe.write_text(RECIPE.replace('frozen = ["none"]', 'frozen = ["trunk"]') + FROZEN)
    trained = []
    for place, words in (("pixels", ()), ("maps", ("--set", "train-rpn.inputs.maps=maps"))):
        rcnn("run", recipe, *words, work=tmp_path / place)
        (folder,) = (tmp_path / place / "caches" / "train-rpn").iterdir()
        with h5py.File(folder / "data.h5") as file:
            trained.append(file["weights/rpn.conv.weight"][:])
    assert np.allclose(trained[0], trained[1], atol=1e-6)
    assert np.abs(trained[0]).max() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["maps.mirrored=false"], "mirror = true needs the maps of mirrored images"),
        (["maps.sides=[80]"], "are not those of the maps"),
        (["train-rpn.frozen=['none']"], "inputs.maps is for a trunk that stays as it is"),
    ],
)
def test_maps_that_a_training_cannot_use_are_refused(changes: list[str], message: str, tmp_path: Path) -> None:
    recipe = tmp_path / "rpn.toml"
    recipe.write_text(RECIPE.replace('frozen = ["none"]', 'frozen = ["trunk"]') + FROZEN)
    words = [word for change in [*changes, "train-rpn.inputs.maps=maps"] for word in ("--set", change)]
    ended = rcnn("run", recipe, *words, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_an_image_that_maps_skipped_is_named(tmp_path: Path) -> None:
    draw_shapes(tmp_path / "voc", ShapesSettings(train=4, val=1, test=1))
    broken = tmp_path / "voc/JPEGImages/train_00002.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    recipe = tmp_path / "rpn.toml"
    text = RECIPE.replace('frozen = ["none"]', 'frozen = ["trunk"]') + FROZEN
    recipe.write_text(text.replace('"shapes:train"\nimages = 6', f'"voc:{tmp_path}/voc:train"'))
    words = ("--set", "train-rpn.inputs.maps=maps", "--skip-bad-images")
    ended = rcnn("run", recipe, *words, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert "train-rpn: there are no maps of image 'train_00002', which maps skipped as unreadable (it " in ended.stderr


def test_two_processes_train_the_same_network(tmp_path: Path) -> None:
    recipe = tmp_path / "rpn.toml"
    recipe.write_text(RECIPE)
    rcnn("train-rpn", recipe, work=tmp_path / "one")
    done = torchrun("train-rpn", recipe, work=tmp_path / "two")
    assert done.returncode == 0, done.stderr
    losses = []
    for place in ("one", "two"):
        (folder,) = (tmp_path / place / "caches" / "train-rpn").iterdir()
        with h5py.File(folder / "data.h5") as file:
            losses.append(file["log/loss"][:])
    assert np.allclose(losses[0], losses[1], atol=1e-5)
