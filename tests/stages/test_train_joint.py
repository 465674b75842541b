"""Joint training of proposals and regions: the proposals of a step, the loss, the gradients that reach the region
proposal network through boxes, and the stage itself."""

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
from torch.autograd import gradcheck
from torch.func import functional_call

from stages.boxes import clip_boxes, decode_deltas, iou_matrix
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.datasets import open_dataset
from stages.networks import NetworkSource
from stages.networks.source import NetworkSettings
from stages.train_joint import LOG, Settings
from stages.train_joint.proposals import moved_anchors, proposals_of_step, warped_regions
from stages.train_joint.training import JointExamples, JointTraining, joint_examples
from stages.training.image_memory import ImageMemory
from stages.training.losses import smooth_l1
from stages.training.ranks import Ranks
from stages.training.whole_images import TrainingImage, WholeImages
from tests.in_process import rcnn
from tests.pipeline import torchrun

GRADIENTS = {"approximate": "max", "warped": "warp"}
"""Each gradient with a pooling that it works with."""
SMALL: dict[str, Any] = {
    "iterations": 4,
    "images_per_batch": 2,
    "sides": (64,),
    "longest": 120,
    "scales": (2.0, 4.0),
    "proposal_hidden": 8,
    "frozen": ("none",),
}
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
[train-joint]
iterations = 3
images_per_batch = 2
sides = [64]
longest = 120
scales = [2.0, 4.0]
proposal_hidden = 8
frozen = ["none"]
dropout = 0.0
"""
DETECTOR = """
[maps]
sides = [64]
longest = 120
[propose]
method = "rpn"
max_boxes = 50
[extract]
method = "roi-pool"
layers = ["softmax", "deltas"]
[detect]
score = "softmax"
regression = "network"
cap = "image"
[eval]
"""


def small(gradient: str, **values: Any) -> Settings:
    """A short training with a gradient."""
    return Settings(**{**SMALL, "gradient": gradient, "pooling": GRADIENTS[gradient], **values})


box_numbers = st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4)


@given(st.lists(box_numbers, min_size=1, max_size=5))
def test_boxes_with_gradients_are_those_of_proposals(deltas: list[list[float]]) -> None:
    moves = np.array(deltas, np.float64)
    anchors = np.tile(np.array([10, 20, 58, 44], np.float32), (len(moves), 1))
    moved = moved_anchors(torch.from_numpy(anchors).double(), torch.from_numpy(moves), 100, 60).numpy()
    assert np.allclose(moved, clip_boxes(decode_deltas(anchors, moves, short=0), 100, 60), atol=1e-3)


def test_a_box_of_infinite_length_fills_the_image_and_has_finite_gradients() -> None:
    deltas = torch.tensor([[0.0, 0.0, 200.0, 0.0]], requires_grad=True)
    moved = moved_anchors(torch.tensor([[10.0, 10.0, 20.0, 20.0]]), deltas, 50, 40)
    assert moved.tolist() == [[0, 10, 50, 20]]
    moved.sum().backward()
    assert deltas.grad is not None
    assert deltas.grad.isfinite().all()


def test_proposals_by_hand() -> None:
    """At scale 2, an image of 50 x 40 pixels: the second anchor is suppressed by the third, which scores higher; the
    fourth is moved to the right by its width, and clipped; the last is less than 16 pixels wide."""
    anchors = np.array(
        [[0, 0, 40, 40], [40, 40, 80, 80], [40, 38, 80, 78], [50, 0, 90, 40], [0, 40, 30, 80]], np.float32
    )
    deltas = np.zeros((5, 4), np.float32)
    deltas[3, 0] = 0.75
    scores = np.array([0.3, 0.5, 0.6, 0.2, 0.9], np.float32)
    settings = Settings()
    proposals = proposals_of_step(anchors, deltas, scores, (50, 40), 2.0, settings)
    assert proposals.anchors.tolist() == [2, 0]
    assert proposals.boxes.tolist() == [[20, 19, 40, 39], [0, 0, 20, 20]]
    every = Settings(suppression_iou=1.0, least_side=8.0, max_boxes=4)
    assert proposals_of_step(anchors, deltas, scores, (50, 40), 2.0, every).anchors.tolist() == [4, 2, 1, 0]
    first = Settings(before_suppression=2, least_side=1.0)
    assert proposals_of_step(anchors, deltas, scores, (50, 40), 2.0, first).anchors.tolist() == [4, 2]


def network_source() -> NetworkSource:
    return NetworkSource.from_settings(NetworkSettings("shapenet", "random", classes=7))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_dataset(["shapes:train"], work=tmp_path_factory.mktemp("data"), options={"images": 6})


def sampler(dataset: Any, settings: Settings) -> WholeImages[JointExamples]:
    return WholeImages(
        settings,
        dataset,
        ImageMemory(dataset, 10**8),
        network_source(),
        lambda image, drawn: joint_examples(image, drawn, settings, 8),
        Execution(),
        Ranks(),
        regions_per_step=1,
        counts={},
    )


def training(dataset: Any, settings: Settings) -> JointTraining:
    return JointTraining(settings, network_source(), len(dataset.classes), "cpu", Ranks())


def first_image(dataset: Any, settings: Settings) -> TrainingImage[JointExamples]:
    return sampler(dataset, settings).batch(1)[0]


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_losses_of_a_network_of_zeros(dataset: Any, gradient: str) -> None:
    """All anchors score alike and stay where they are, so the proposals are anchors, at most one object each: the class
    losses are log 2 and log 11, the box losses those of the targets themselves."""
    settings = small(gradient, normalisation="release", balance=1.0, suppression_iou=1.0)
    trained = training(dataset, settings)
    with torch.no_grad():
        for name, weight in trained.module.named_parameters():
            if name.startswith(("rpn.", "fc6", "regions.")):
                weight.zero_()
    image = first_image(dataset, settings)
    maps = trained.maps(image.inputs)
    loss, measured = trained.losses(maps, image)
    assert measured["anchor_class_loss"].item() == pytest.approx(math.log(2))
    assert measured["class_loss"].item() == pytest.approx(math.log(11))
    drawn = image.examples.anchors
    moves = smooth_l1(drawn.deltas, 3.0).sum() / len(drawn.rows)
    assert measured["anchor_box_loss"].item() == pytest.approx(moves.item())
    anchors = trained.anchors(image)
    proposals = trained.proposals(anchors, torch.zeros(len(anchors), 2), torch.zeros(len(anchors), 4), image)
    moved = clip_boxes(clip_boxes(anchors[proposals.anchors], *inputs_of(image)) / image.scale, *image.size)
    assert np.allclose(proposals.boxes, moved, atol=1e-4)
    regions = trained.regions(proposals, image)
    assert measured["box_loss"].item() == pytest.approx((smooth_l1(regions.deltas).sum() / len(regions.rows)).item())
    parts = ("anchor_class_loss", "anchor_box_loss", "class_loss", "box_loss")
    assert loss.item() == pytest.approx(sum(measured[name].item() for name in parts))


def inputs_of(image: TrainingImage[JointExamples]) -> tuple[int, int]:
    width, height = (round(side * image.scale) for side in image.size)
    return width, height


def test_regions_are_drawn_from_the_objects_and_the_proposals_of_the_step(dataset: Any) -> None:
    settings = Settings(**SMALL, least_side=1.0)
    trained, image = training(dataset, settings), first_image(dataset, settings)
    anchors = trained.anchors(image)
    logits, deltas = trained.network.anchor_logits(trained.maps(image.inputs))
    proposals = trained.proposals(anchors, logits, deltas, image)
    regions = trained.regions(proposals, image)
    every = np.concatenate([image.objects.boxes, proposals.boxes])
    assert np.array_equal(regions.boxes, every[regions.rows])
    labels = regions.labels.numpy()
    overlaps = iou_matrix(regions.boxes, image.objects.boxes).max(axis=1)
    assert (overlaps[labels < 10] >= 0.5).all()
    assert (overlaps[labels == 10] < 0.5).all()
    assert (regions.rows < len(image.objects.boxes)).any()
    assert (regions.rows >= len(image.objects.boxes)).any()
    again = trained.regions(proposals, image)
    assert np.array_equal(regions.rows, again.rows)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_which_gradients_reach_the_region_proposal_network_from_regions(dataset: Any, gradient: str) -> None:
    settings = small(gradient)
    trained, image = training(dataset, settings), first_image(dataset, settings)
    _, measured = trained.losses(trained.maps(image.inputs), image)
    (measured["class_loss"] + measured["box_loss"]).backward()
    reached = {
        name
        for name, weight in trained.module.named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
    }
    assert {"conv1.0.weight", "fc5.weight", "regions.bbox_pred.weight"} <= reached
    of_proposals = {name for name in reached if name.startswith("rpn.")}
    moved = {f"rpn.{layer}.{kind}" for layer in ("conv", "bbox_pred") for kind in ("weight", "bias")}
    assert of_proposals == (moved if gradient == "warped" else set())


def test_both_gradients_have_the_same_losses(dataset: Any) -> None:
    """Up to rounding: the one takes boxes from float64, the other from float32."""
    losses = []
    for settings in (Settings(**SMALL, pooling="warp"), small("warped")):
        trained, image = training(dataset, settings), first_image(dataset, settings)
        with torch.no_grad():
            weight = trained.module.get_parameter("rpn.bbox_pred.weight")
            weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
            _, measured = trained.losses(trained.maps(image.inputs), image)
        losses.append([measured[name].item() for name in LOG.losses])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_gradient_through_the_boxes_is_that_of_the_loss(dataset: Any) -> None:
    """The class loss of the regions drawn, as a function of the biases that move the proposals, in double precision."""
    settings = small("warped", regions_per_image=12)
    trained, image = training(dataset, settings), first_image(dataset, settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in ("rpn.bbox_pred", "rpn.cls_score", "fc6"):
            trained.module.get_parameter(f"{name}.weight").normal_(0, 0.5, generator=generator)
        maps = trained.maps(image.inputs)
        anchors = trained.anchors(image)
        logits, deltas = trained.network.anchor_logits(maps)
    proposals = trained.proposals(anchors, logits, deltas, image)
    regions = trained.regions(proposals, image)
    proposed = regions.rows >= len(image.objects.boxes)
    assert proposed.any()
    trained.module.double().eval()
    network, proposer = trained.network, trained.module.get_submodule("rpn")

    def class_loss(bias: torch.Tensor) -> torch.Tensor:
        _, moves = functional_call(proposer, {"bbox_pred.bias": bias}, (maps.double(),))
        boxes = trained.region_boxes(moves, anchors, proposals, regions, image)
        pooled = warped_regions(maps, boxes, network.card.trunk, 4)
        assert pooled.dtype == torch.float64
        return torch.nn.functional.cross_entropy(network.head(pooled, ["fc6"])["fc6"], regions.labels)

    bias = trained.module.get_parameter("rpn.bbox_pred.bias").detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(class_loss(bias), bias)
    assert gradient.abs().max() > 1e-3
    assert gradcheck(class_loss, (bias,))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_training_that_resumes_is_bit_for_bit_the_same(dataset: Any, gradient: str) -> None:
    settings = small(gradient)
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


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_which_layers_are_tuned(dataset: Any, gradient: str) -> None:
    settings = small(gradient, frozen=("trunk",))
    trained = training(dataset, settings)
    before = {name: tensor.clone() for name, tensor in trained.module.state_dict().items()}
    for batch in sampler(dataset, settings).batches(1, 2):
        trained.step(batch)
    after = trained.module.state_dict()
    tuned = {name.rpartition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert tuned == {"fc5", "fc6", "regions.bbox_pred", "rpn.conv", "rpn.cls_score", "rpn.bbox_pred"}


def test_what_is_logged(dataset: Any) -> None:
    settings = Settings(**SMALL, normalisation="release")
    trained = training(dataset, settings)
    (batch,) = sampler(dataset, settings).batches(1, 1)
    row = trained.step(batch)
    assert row["anchor_class_loss"] == pytest.approx(math.log(2), abs=0.1)
    assert row["class_loss"] == pytest.approx(math.log(11), abs=0.2)
    parts = ("anchor_class_loss", "anchor_box_loss", "class_loss", "box_loss")
    assert row["loss"] == pytest.approx(sum(row[name] for name in parts))
    names = ("positive_accuracy", "negative_accuracy", "foreground_accuracy", "background_accuracy")
    assert all(0 <= row[name] <= 1 for name in names)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_bfloat16_has_nearly_the_same_losses(dataset: Any, gradient: str) -> None:
    rows = []
    for precision in ("float32", "bfloat16"):
        settings = small(gradient, precision=precision)
        (batch,) = sampler(dataset, settings).batches(1, 1)
        rows.append(training(dataset, settings).step(batch))
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=0.02)
    assert rows[0]["loss"] != rows[1]["loss"]


def test_a_training_that_diverges_ends_with_a_sentence(dataset: Any) -> None:
    settings = Settings(**SMALL)
    trained = training(dataset, settings)
    with torch.no_grad():
        trained.module.get_parameter("rpn.bbox_pred.bias").fill_(math.inf)
    (batch,) = sampler(dataset, settings).batches(1, 1)
    with pytest.raises(StageError, match="NaN or infinite at iteration 1; training diverged, lower learning_rate"):
        trained.step(batch)


def summary_of(work: Path) -> dict[str, Any]:
    (folder,) = (work / "caches" / "train-joint").iterdir()
    return dict(json.loads((folder / "manifest.json").read_text())["summary"])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_commands(gradient: str, tmp_path: Path) -> None:
    """From images to detections; the network says how its regions are pooled."""
    recipe, work = tmp_path / "joint.toml", tmp_path / "work"
    recipe.write_text(RECIPE + f'gradient = "{gradient}"\npooling = "{GRADIENTS[gradient]}"\n' + DETECTOR)
    rcnn("run", recipe, work=work)
    summary = summary_of(work)
    pooling = GRADIENTS[gradient]
    assert summary["heads"]["regions"] == {"pooling": pooling, "side": 4, "hidden": [], "scale": 1.0}
    assert summary["heads"]["proposals"]["scales"] == [2.0, 4.0]
    assert summary["class_names"][-1] == "background"
    assert summary["objects"] > 0
    (extracted,) = (work / "caches" / "extract").iterdir()
    assert json.loads((extracted / "manifest.json").read_text())["settings"]["pooling"] == pooling
    assert "everything is complete" in rcnn("run", recipe, work=work).stdout
    photo = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00001.jpg"))
    rcnn("predict", recipe, photo, "-o", tmp_path / "out", work=work)
    assert json.loads((tmp_path / "out" / "test_00001.json").read_text())["detections"] is not None


def test_new_fully_connected_layers(tmp_path: Path) -> None:
    recipe = tmp_path / "joint.toml"
    recipe.write_text(RECIPE + "hidden = [8, 6]\nside = 3\ncells_scale = 0.1\nproposal_cells_scale = 0.5\n" + DETECTOR)
    rcnn("run", recipe, work=tmp_path / "work")
    heads = summary_of(tmp_path / "work")["heads"]
    assert heads["regions"] == {"pooling": "max", "side": 3, "hidden": [8, 6], "scale": 0.1}
    assert heads["proposals"]["cells_scale"] == 0.5


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
    recipe = tmp_path / "joint.toml"
    recipe.write_text(RECIPE.replace('frozen = ["none"]', 'frozen = ["trunk"]') + FROZEN)
    trained = []
    for place, words in (("pixels", ()), ("maps", ("--set", "train-joint.inputs.maps=maps"))):
        rcnn("run", recipe, *words, work=tmp_path / place)
        (folder,) = (tmp_path / place / "caches" / "train-joint").iterdir()
        with h5py.File(folder / "data.h5") as file:
            trained.append(file["weights/rpn.conv.weight"][:])
    assert np.allclose(trained[0], trained[1], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["gradient='warped'", "pooling='align'"], "gradient = 'warped' needs pooling = 'warp'"),
        (["side=6"], "side = 6: fc5 of shapenet takes 4 x 4 cells"),
        (["frozen=['conv9']"], "frozen: the network has no weights in 'conv9'"),
        (["frozen=['trunk','rpn']"], "'rpn', which is new in this training"),
        (["frozen=['fc6']"], "'fc6', which is new in this training"),
        (["scales=[]"], "scales and ratios must each name one or more numbers"),
        (["background_overlap=0.6"], "a region cannot be both background and foreground"),
        (["cells_scale=0.1"], "cells_scale is for new fully connected layers"),
        (["sides=[200]"], "a shorter side of 200 pixels, more than longest = 120"),
        (["delta_normalisation='set'"], "unknown setting 'delta_normalisation'"),
        (["suppression_iou=0"], "suppression_iou = 0.0 must be more than 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_runs(
    changes: list[str], message: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "joint.toml"
    recipe.write_text(RECIPE)
    words = [word for change in changes for word in ("--set", f"train-joint.{change}")]
    ended = rcnn("run", recipe, *words, work=tmp_path / "work", check=False)
    assert ended.returncode == 2
    assert message in ended.stderr


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_two_processes_train_the_same_network(gradient: str, tmp_path: Path) -> None:
    recipe = tmp_path / "joint.toml"
    recipe.write_text(RECIPE + f'gradient = "{gradient}"\npooling = "{GRADIENTS[gradient]}"\n')
    losses = []
    for place in ("one", "two"):
        if place == "one":
            rcnn("train-joint", recipe, work=tmp_path / place)
        else:
            done = torchrun("train-joint", recipe, work=tmp_path / place)
            assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / place / "caches" / "train-joint").iterdir()
        with h5py.File(folder / "data.h5") as file:
            losses.append(file["log/loss"][:])
    assert np.allclose(losses[0], losses[1], atol=1e-5)
