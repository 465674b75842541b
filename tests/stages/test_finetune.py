"""finetune: which windows are drawn, how fast each weight learns, and that nothing else decides a bit of the result."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from cache import Column, Identity, Reader, Schema, Writer
from stages.boxes import covered_share, iou_matrix
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.datasets import open_dataset, open_detection
from stages.extract import Settings as ExtractSettings
from stages.extract.features import extract_features
from stages.finetune import STAGE, Settings
from stages.finetune.network import classifier_name, replace_classifier
from stages.finetune.reading import WindowSampler
from stages.finetune.stage import find_windows, labels_in_image
from stages.finetune.training import Batch, FineTuning
from stages.finetune.windows import Draw, Windows, draw_batch, joined_windows, moved_windows
from stages.images.reading import read_image
from stages.images.warp import warp_regions
from stages.matching.windows import UNUSED, window_labels
from stages.networks import CAFFE, NETWORKS, SOFTMAX, NetworkCard, NetworkSettings, NetworkSource
from stages.networks.architectures import build
from stages.networks.precision import arithmetic
from stages.networks.weights import COLUMNS
from stages.training.image_memory import ImageMemory
from stages.training.parameters import parameter_groups, set_dropout, training_mode
from stages.training.ranks import Ranks
from tests.stages.given_datasets import GivenDataset

QUICK = Settings(iterations=6, batch_size=16, padding=4, learning_rate=0.01, step=4, checkpoint_seconds=0)
CPU = Execution()


def network_of(name: str = "shapenet", **more: Any) -> NetworkSource:
    return NetworkSource.from_settings(NetworkSettings(name, "random", **more))


def trainer_of(settings: Settings, classes: int = 3, **more: Any) -> FineTuning:
    return FineTuning(settings, network_of(**more), classes, "cpu", Ranks())


# Windows


def test_labels_by_hand():
    """An object is itself; exactly half of it is positive, a hair less is background; nothing is background."""
    objects = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    labels = np.array([1, 0], np.int32)
    boxes = np.array(
        [[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 5], [20, 0, 30, 4.99], [0, 0, 20, 10], [50, 50, 60, 60]],
        np.float32,
    )
    assert iou_matrix(boxes, objects)[2, 0] == iou_matrix(boxes, objects)[4, 0] == 0.5
    assert window_labels(boxes, objects, labels, 3, 0.5, 0.5).tolist() == [1, 0, 1, 3, 1, 3]


def test_the_best_class_decides_and_of_equals_the_first():
    objects = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10]], np.float32)
    assert window_labels(objects, objects, np.array([2, 1, 0], np.int32), 3, 0.5, 0.5).tolist() == [0, 1, 0]


def test_windows_between_the_thresholds_are_not_used():
    objects, labels = np.array([[0, 0, 10, 10]], np.float32), np.array([0], np.int32)
    boxes = np.array([[0, 0, 10, 7], [0, 0, 10, 6.99], [0, 0, 10, 3], [0, 0, 10, 2.99]], np.float32)
    found = window_labels(boxes, objects, labels, 1, 0.7, 0.3)
    assert found.tolist() == [0, UNUSED, UNUSED, 1]
    windows = joined_windows([(boxes, found), (boxes[:0], found[:0]), (boxes[3:], found[3:])], 1)
    assert windows.images.tolist() == [0, 0, 2]
    assert windows.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(windows.boxes, boxes[[0, 3, 3]])


def test_unused_windows_and_what_is_nearest_to_an_unused_object():
    """A cat and, unused, a difficult dog beside it; a crowd would be the same."""
    objects = np.array([[0, 0, 10, 10], [10, 0, 20, 10]], np.float32)
    proposals = [
        [2, 0, 12, 10],  # 8 / 12 of the cat, 2 / 18 of the dog
        [8, 0, 18, 10],  # the dog's
        [4, 0, 14, 10],  # 6 / 14 of the cat: background
        [6, 0, 16, 10],  # 6 / 14 of the dog: background
        [9, 0, 19, 10],  # unused itself
        [50, 50, 60, 60],
    ]
    boxes = np.concatenate([objects, np.array(proposals, np.float32)])
    unused = np.isin(np.arange(8), (1, 6))
    found = window_labels(boxes, objects, np.array([0, 1], np.int32), 2, 0.5, 0.5, unused)
    assert found.tolist() == [0, UNUSED, 0, UNUSED, 2, 2, UNUSED, 2]


def test_an_image_without_objects_is_background():
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    assert window_labels(boxes, boxes[:0], np.array([], np.int32), 4, 0.5, 0.5).tolist() == [4]
    assert window_labels(boxes[:0], boxes, np.array([1], np.int32), 4, 0.5, 0.5).tolist() == []


def windows_of(positive: int, negative: int, classes: int = 3) -> Windows:
    """Positive windows in image 0, background in images 0, 1, 1, 1, 2, 2, ..."""
    labels = np.concatenate([np.arange(positive) % classes, np.full(negative, classes)]).astype(np.int32)
    boxes = np.zeros((len(labels), 4), np.float32)
    return Windows(np.zeros(len(labels), np.int32), boxes, labels, classes)


@pytest.mark.parametrize(("size", "positives"), [(128, 32), (24, 6), (16, 4)])
def test_a_batch_is_a_quarter_positive_exactly(size, positives):
    """32 + 96 of 128, and 6 + 18 of O-Net's 24; where there are only three positive windows they come again."""
    for windows in (windows_of(1000, 5000), windows_of(3, 7)):
        for iteration in range(1, 20):
            draw = draw_batch(windows, Settings(batch_size=size), iteration)
            labels = windows.labels[draw.windows]
            assert (labels[:positives] < 3).all()
            assert (labels[positives:] == 3).all()
            assert len(draw.windows) == len(draw.mirrored) == size
    assert set(draw.windows.tolist()) == set(range(10)) or size == 16


def test_all_windows_of_the_set_are_drawn_equally_often():
    """Each of 40 positive and 160 background windows about 32 * 2000 / 40 = 1600 (96 * 2000 / 160 = 1200) times."""
    windows = windows_of(40, 160)
    counts = np.zeros(200)
    mirrored = 0
    for iteration in range(1, 2001):
        draw = draw_batch(windows, Settings(), iteration)
        np.add.at(counts, draw.windows, 1)
        mirrored += int(draw.mirrored.sum())
    assert counts.sum() == 128 * 2000
    assert np.abs(counts[:40] - 1600).max() < 5 * np.sqrt(1600)
    assert np.abs(counts[40:] - 1200).max() < 5 * np.sqrt(1200)
    assert abs(mirrored - 64 * 2000) < 5 * np.sqrt(32 * 2000)


def test_a_batch_is_a_function_of_seed_and_iteration():
    windows = windows_of(50, 300)
    first, again = draw_batch(windows, Settings(), 7), draw_batch(windows, Settings(), 7)
    assert np.array_equal(first.windows, again.windows)
    assert np.array_equal(first.mirrored, again.mirrored)
    for other in (draw_batch(windows, Settings(), 8), draw_batch(windows, Settings(seed=1), 7)):
        assert not np.array_equal(first.windows, other.windows)
    assert not draw_batch(windows, Settings(mirror=False), 7).mirrored.any()


def test_ranks_share_a_batch_between_them():
    draw = draw_batch(windows_of(50, 300), Settings(batch_size=25), 1)
    shares = [draw.share(rank, 3) for rank in range(3)]
    assert [len(share.windows) for share in shares] == [9, 8, 8]
    assert sorted(np.concatenate([share.windows for share in shares])) == sorted(draw.windows)


# Rates


def test_the_rate_falls_tenfold_after_each_step():
    """The release: 0.001, a tenth of it from iteration 20,001 on, a hundredth from 40,001 on."""
    rates = [trainer_of(Settings()).schedule(step) for step in (1, 20_000, 20_001, 40_000, 40_001, 60_001)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6])


@pytest.mark.parametrize(
    ("name", "classifier"), [("alexnet", "classifier.6"), ("squeezenet1_0", "classifier.1"), ("shapenet", "fc6")]
)
def test_parameter_groups_by_hand(name, classifier):
    """Old weights x1, old biases x2, new weights x10, new biases x20; biases do not decay; no weight twice."""
    card = NETWORKS[name]
    with torch.device("meta"):
        module = build(card, 5)
        assert classifier_name(card, module) == classifier
        replace_classifier(module, classifier, 21, 0.01)
        assert module(torch.zeros((2, 3, card.input_size, card.input_size))).shape == (2, 21)
    rates = {name: getattr(Settings(), name) for name in ("bias_rate", "weight_decay")}
    groups = parameter_groups(module, [classifier], new_rate=Settings().new_layer_rate, **rates)
    assert [(group["rate"], group["weight_decay"]) for group in groups] == [(1, 5e-4), (2, 0), (10, 5e-4), (20, 0)]
    names = {id(weight): name for name, weight in module.named_parameters()}
    found = [[names.pop(id(weight)) for weight in group["params"]] for group in groups]
    assert not names
    assert found[2:] == [[f"{classifier}.weight"], [f"{classifier}.bias"]]
    assert all(name.endswith(".bias") for name in found[1])
    assert not any(name.endswith(".bias") for name in found[0])


def test_the_new_layer_is_small_and_the_others_are_the_old_ones():
    source = network_of("alexnet", classes=5, seed=3)
    trainer = FineTuning(Settings(), source, 20, "cpu", Ranks())
    old, new = source.load().module.state_dict(), trainer.module.state_dict()
    assert new["classifier.6.weight"].shape == (21, 4096)
    assert abs(float(new["classifier.6.weight"].std()) - 0.01) < 1e-4
    assert abs(float(new["classifier.6.weight"].mean())) < 1e-4
    assert not new["classifier.6.bias"].any()
    assert all(torch.equal(old[name], new[name]) for name in old if not name.startswith("classifier.6"))
    other = FineTuning(replace(Settings(), seed=1), source, 20, "cpu", Ranks()).module.state_dict()
    assert not torch.equal(other["classifier.6.weight"], new["classifier.6.weight"])


def test_equal_biases_keep_squeezenets_last_rectifier_open_and_the_probabilities_as_they_are():
    """The first step's loss is that of the same scores without rectifier; with biases 0 the rectifier cuts them."""
    source = network_of("squeezenet1_0", classes=5)
    size = source.card.input_size
    inputs = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0))
    settings = replace(Settings(), batch_size=2, positive_fraction=0.5, dropout=0.0, new_layer_std=2.0)
    losses = {}
    for bias in (0.0, 500.0):
        trainer = FineTuning(replace(settings, new_layer_bias=bias), source, 3, "cpu", Ranks())
        conv10 = trainer.module.get_submodule("classifier.1")
        assert (conv10.get_parameter("bias") == bias).all()
        scores = conv10(trainer.module.get_submodule("features")(inputs)).mean(dim=(2, 3)).detach()
        lowest = scores.argmin(dim=1)  # below 0 without bias
        expected = float(nn.functional.cross_entropy(scores, lowest))
        losses[bias] = trainer.step(Batch(inputs, lowest))["loss"], expected
    assert losses[500.0][0] == pytest.approx(losses[500.0][1], rel=1e-5)
    assert losses[500.0][0] == pytest.approx(losses[0.0][1], rel=1e-4)
    assert losses[0.0][0] != pytest.approx(losses[0.0][1], rel=1e-3)


def test_dropout_is_on_and_statistics_stand():
    module = build(NETWORKS["alexnet"], 3)
    set_dropout(module, 0.25)
    assert [part.p for part in module.modules() if isinstance(part, nn.Dropout)] == [0.25, 0.25]
    small = build(NETWORKS["shapenet"], 3)
    training_mode(small)
    assert small.get_submodule("dropout").training
    assert not small.get_submodule("conv1.1").training
    trainer = trainer_of(replace(QUICK, dropout=0.9))
    before = trainer.module.get_buffer("conv1.1.running_mean").clone()
    batch = random_batch()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    losses = [trainer.step(batch)["loss"] for _ in range(2)]
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers are left alone
    assert torch.equal(trainer.module.get_buffer("conv1.1.running_mean"), before)
    assert losses[0] != trainer_of(replace(QUICK, dropout=0.0)).step(batch)["loss"]


def random_batch(count: int = 16, background: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % (background + 1)
    return Batch(torch.randn((count, 3, 64, 64), generator=generator), labels)


def test_two_steps_by_hand():
    """v = 0.9 v + gradient of the mean loss + decay w, w -= rate v, each group with its own rate and decay."""
    settings = replace(QUICK, dropout=0.0, step=1, weight_decay=0.1)
    trainer = trainer_of(settings)
    byhand = copy.deepcopy(trainer.module)
    momentum = {name: torch.zeros_like(weight) for name, weight in byhand.named_parameters()}
    batch = random_batch()
    for rate in (0.01, 0.001):
        byhand.zero_grad()
        expected = nn.functional.cross_entropy(byhand(batch.inputs), batch.labels)
        expected.backward()
        result = trainer.step(batch)
        assert result["loss"] == pytest.approx(float(expected.detach()), rel=1e-6)
        assert result["learning_rate"] == pytest.approx(rate)
        with torch.no_grad():
            for name, weight in byhand.named_parameters():
                own = rate * (10 if name.startswith("fc6") else 1) * (2 if name.endswith("bias") else 1)
                decay = 0.0 if name.endswith("bias") else 0.1
                assert weight.grad is not None
                momentum[name] = 0.9 * momentum[name] + weight.grad + decay * weight
                weight.sub_(own * momentum[name])
    for (name, found), wanted in zip(trainer.module.named_parameters(), byhand.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7, msg=name)


def test_accuracies_are_of_positive_windows_and_of_background():
    """Of eight windows of class 0 and eight of background, a network that says background: 0 and 1."""
    trainer = trainer_of(replace(QUICK, dropout=0.0))
    with torch.no_grad():
        trainer.module.get_parameter("fc6.weight").zero_()
        trainer.module.get_parameter("fc6.bias").copy_(torch.tensor([0.0, 0.0, 0.0, 4.0]))
    result = trainer.step(Batch(random_batch().inputs, torch.arange(16) % 2 * 3))
    assert (result["positive_accuracy"], result["background_accuracy"]) == (0, 1)
    odds = np.exp(4) / (np.exp(4) + 3)
    assert result["loss"] == pytest.approx(-(np.log(odds) + np.log((1 - odds) / 3)) / 2, rel=1e-5)


def test_bfloat16_trains_weights_of_float32():
    trainer = trainer_of(replace(QUICK, precision="bfloat16", dropout=0.0))
    result, plain = trainer.step(random_batch()), trainer_of(replace(QUICK, dropout=0.0)).step(random_batch())
    assert {weight.dtype for weight in trainer.module.parameters()} == {torch.float32}
    assert result["loss"] != plain["loss"]
    assert result["loss"] == pytest.approx(plain["loss"], rel=0.02)


# Reading


def never_moved(position: int, boxes: np.ndarray) -> np.ndarray:
    """In place of `labels_in_image`, where windows are not moved."""
    raise AssertionError


@pytest.fixture
def picture(tmp_path) -> SimpleNamespace:
    """A dataset of one random image of 60 x 50 pixels."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)).save(tmp_path / "a.png")
    return SimpleNamespace(image_ids=("a",), read_image=lambda image_id: read_image(tmp_path / f"{image_id}.png"))


def test_a_mirrored_window_has_its_left_overhang_on_the_right(picture):
    """fidelity.md section 1: the left border of the mirrored window is the right overhang."""
    windows = Windows(np.zeros(1, np.int32), np.array([[0, 10, 30, 40]], np.float32), np.array([2], np.int32), 3)
    settings, memory = replace(QUICK, padding=8), ImageMemory(picture, 10**6)
    reader = WindowSampler(settings, memory, windows, network_of(), CPU, Ranks(), never_moved)
    with ThreadPoolExecutor(1) as threads:
        batch = reader.batch(Draw(np.array([0, 0]), np.array([False, True])), threads)
    plain, mirrored = batch.inputs
    assert batch.labels.tolist() == [2, 2]
    empty = (plain == 0).all(dim=(0, 1))
    assert empty.nonzero().flatten().tolist() == list(range(8))
    assert (mirrored == 0).all(dim=(0, 1)).nonzero().flatten().tolist() == list(range(56, 64))
    torch.testing.assert_close(mirrored, plain.flip(-1), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Any]:
    """Five small scenes, sliding boxes and shifted objects as proposals, and a random shapenet."""
    work = tmp_path_factory.mktemp("finetune")
    images = open_dataset("shapes:train", work=work, options={"images": 5})
    return {"images": images, "proposals": proposals_of(images, work / "p"), "network": network_of()}


def proposals_of(images: Any, folder: Path, boxes: int = 40) -> Reader:
    """A finished cache of random boxes, half of them near an object."""
    generator = np.random.default_rng(0)
    writer = Writer(folder, Identity("propose", 1), images.image_ids, Schema(rows={"boxes": Column(shape=(4,))}))
    for part in writer.claim():
        records = []
        for image_id in part.item_ids:
            objects = images.record(image_id).boxes
            near = objects[generator.integers(len(objects), size=boxes // 2)]
            corners = generator.uniform(0, 120, (boxes - len(near), 2))
            far = np.hstack([corners, corners + generator.uniform(10, 80, corners.shape)])
            records.append({"boxes": np.vstack([near + generator.uniform(-8, 8, near.shape), far]).astype(np.float32)})
        writer.write(part, records)
    writer.finish({})
    writer.release()
    return Reader(folder)


def test_windows_are_objects_first_then_proposals_difficult_ones_included(inputs):
    """fidelity.md section 2: no object is left out."""
    images = inputs["images"]
    records = {
        one: replace(images.record(one), difficult=np.ones(len(images.record(one).boxes), bool))
        for one in images.image_ids
    }
    difficult: Any = SimpleNamespace(
        image_ids=images.image_ids, classes=images.classes, name="shapes", record=records.__getitem__
    )
    memory = ImageMemory(difficult, 0)
    windows = find_windows(QUICK, difficult, inputs["proposals"], memory, CPU)
    for position, image_id in enumerate(images.image_ids):
        own = windows.images == position
        objects = records[image_id]
        expected = np.concatenate([objects.boxes, inputs["proposals"].read(image_id)["boxes"]])
        np.testing.assert_array_equal(windows.boxes[own], expected)
        np.testing.assert_array_equal(windows.labels[own][: len(objects.labels)], objects.labels)


def test_windows_of_difficult_objects_and_crowds(inputs):
    """Ignored, difficult objects are no windows, and neither are crowds ever; the background stays clear of both."""
    images = inputs["images"]
    first = images.record(images.image_ids[0])
    flags = np.arange(len(first.labels)) == 0
    for changed, settings in (
        (replace(first, difficult=flags), replace(QUICK, difficult="ignore")),
        (replace(first, difficult=flags, stated_crowds=flags), QUICK),
    ):
        one: Any = SimpleNamespace(
            image_ids=images.image_ids[:1],
            classes=images.classes,
            name="s",
            record={first.image_id: changed}.__getitem__,
        )
        windows = find_windows(settings, one, inputs["proposals"], ImageMemory(one, 0), CPU)
        assert not np.any(np.all(windows.boxes == first.boxes[0], axis=1))
        background = windows.boxes[windows.negative]
        assert len(background)
        assert iou_matrix(background, first.boxes).max() < 0.5
        if changed.stated_crowds is not None:
            assert covered_share(background, first.boxes[:1]).max() <= 0.7


def test_an_image_that_is_not_exhaustive_gives_no_background(inputs):
    images = inputs["images"]
    records = {name: images.record(name) for name in images.image_ids}
    records[images.image_ids[0]] = replace(records[images.image_ids[0]], exhaustive=False)
    partly: Any = SimpleNamespace(
        image_ids=images.image_ids, classes=images.classes, name="shapes", record=records.__getitem__
    )
    before = find_windows(QUICK, images, inputs["proposals"], ImageMemory(images, 0), CPU)
    windows = find_windows(QUICK, partly, inputs["proposals"], ImageMemory(partly, 0), CPU)
    assert (before.images[before.negative] == 0).any()
    kept = (before.images != 0) | (before.labels != before.background)
    np.testing.assert_array_equal(windows.boxes, before.boxes[kept])
    np.testing.assert_array_equal(windows.labels, before.labels[kept])


def read_all(inputs: dict[str, Any], settings: Settings, limit: int, execution: Execution) -> list[Batch]:
    memory = ImageMemory(inputs["images"], limit)
    windows = find_windows(settings, inputs["images"], inputs["proposals"], memory, CPU)
    label = partial(labels_in_image, settings, inputs["images"])
    reader = WindowSampler(settings, memory, windows, inputs["network"], execution, Ranks(), label)
    batches = list(reader.batches(1, 5))
    assert memory.bytes == sum(one.nbytes for one in memory.held.values()) <= limit
    return batches


def test_batches_do_not_depend_on_threads_or_memory(inputs):
    expected = read_all(inputs, QUICK, 10**9, CPU)
    for limit, jobs in ((0, 3), (400_000, 1)):
        for one, other in zip(expected, read_all(inputs, QUICK, limit, Execution(jobs=jobs)), strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.labels, other.labels)


def test_windows_are_warped_as_for_extraction(inputs):
    """The crop of each window is that of `stages.images.warp`, whatever else is in the batch."""
    memory = ImageMemory(inputs["images"], 0)
    windows = find_windows(QUICK, inputs["images"], inputs["proposals"], memory, CPU)
    (batch,) = WindowSampler(QUICK, memory, windows, inputs["network"], CPU, Ranks(), never_moved).batches(3, 3)
    draw = draw_batch(windows, QUICK, 3)
    assert draw.mirrored.any()
    assert not draw.mirrored.all()
    for row, (window, mirrored) in enumerate(zip(draw.windows, draw.mirrored, strict=True)):
        image = inputs["images"].read_image(inputs["images"].image_ids[windows.images[window]])
        planes, box = torch.from_numpy(image).permute(2, 0, 1), windows.boxes[[window]]
        preprocessing = inputs["network"].preprocessing
        assert torch.equal(
            batch.inputs[row], warp_regions(planes, box, 64, "warp", 4, preprocessing, bool(mirrored))[0]
        )
        assert batch.labels[row] == windows.labels[window]


def test_moved_windows_by_hand():
    """A fifth of the width to the right; twice as high, beyond the edge; out of the image, so left as it was."""
    boxes = np.array([[10, 20, 30, 40], [10, 20, 30, 40], [10, 20, 30, 40]], np.float32)
    moves = np.array([[0.2, 0, 0, 0], [0, 0, 0, 1.0], [4, 0, 0, 0]])
    assert moved_windows(boxes, moves, 60, 45).tolist() == [[14, 20, 34, 40], [10, 10, 30, 45], [10, 20, 30, 40]]


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
def test_moved_windows_lie_in_the_image(seed, jitter):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 40, (20, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 20, (20, 2))]).astype(np.float32)
    moved = moved_windows(boxes, jitter * random.uniform(-1, 1, (20, 4)), 60, 60)
    assert (moved >= 0).all()
    assert (moved <= 60).all()
    assert (moved[:, 2:] > moved[:, :2]).all()


JITTERED = replace(QUICK, window_jitter=0.4, colour_jitter=0.8)


def test_windows_are_moved_only_where_their_label_stays(inputs):
    """Most are; the label of every window, moved or not, is that of the rule."""
    memory = ImageMemory(inputs["images"], 10**9)
    windows = find_windows(JITTERED, inputs["images"], inputs["proposals"], memory, CPU)
    label = partial(labels_in_image, JITTERED, inputs["images"])
    reader = WindowSampler(JITTERED, memory, windows, inputs["network"], CPU, Ranks(), label)
    moved = kept = 0
    for iteration in range(1, 6):
        draw = draw_batch(windows, JITTERED, iteration)
        images = windows.images[draw.windows]
        boxes = reader.boxes(draw, {int(image): memory.read(int(image)) for image in images})
        for image, box, label_drawn in zip(images, boxes, windows.labels[draw.windows], strict=True):
            assert label(int(image), box[None])[0] == label_drawn
        same = (boxes == windows.boxes[draw.windows]).all(axis=1)
        moved, kept = moved + int((~same).sum()), kept + int(same.sum())
    assert moved > kept > 0


def test_colours_change_inside_the_image_alone(inputs):
    """The mean colour around it stays, and so do the windows' places."""
    padded, around = replace(QUICK, padding=16), 0
    coloured = replace(padded, colour_jitter=0.8)
    for plain, other in zip(read_all(inputs, padded, 0, CPU), read_all(inputs, coloured, 0, CPU), strict=True):
        assert torch.equal(plain.labels, other.labels)
        outside = (plain.inputs == 0).all(dim=1, keepdim=True).expand_as(plain.inputs)
        around += int(outside.sum())
        assert (other.inputs[outside] == 0).all()
        assert not torch.equal(plain.inputs, other.inputs)
    assert around


def test_ranks_share_what_is_jittered():
    draw = draw_batch(windows_of(50, 300), JITTERED, 3)
    shares = [draw.share(rank, 2) for rank in range(2)]
    assert draw.moves is not None
    assert draw.colours is not None
    np.testing.assert_array_equal(shares[1].moves, draw.moves[1::2])
    assert shares[1].colours == draw.colours[1::2]
    assert draw_batch(windows_of(50, 300), QUICK, 3).moves is None


# The stage


class Killed(Exception):
    """Stands for a SIGKILL between two iterations."""


@contextlib.contextmanager
def killed_after_two(label, total, unit, done=0):
    class Bar:
        left = 2

        def advance(self, items=1, rows=0):
            self.left -= unit == "iterations"
            if not self.left:
                raise Killed

    yield Bar()


def test_jittered_with_adamw_it_resumes_to_the_same_bits(inputs, run_stage):
    """The rate rises to its value in two iterations and falls along half a cosine, to 0 after the last."""
    cycle: dict[str, Any] = {
        "optimiser": "adamw",
        "schedule": "one-cycle",
        "warm_up": 2,
        "step": 20_000,
        "learning_rate": 0.001,
    }
    settings = replace(JITTERED, **cycle)
    whole = run_stage(STAGE, settings, inputs, "jittered whole", execution=Execution(jobs=2)).read("network")
    for _ in range(3):
        with pytest.raises(Killed):
            run_stage(STAGE, settings, inputs, "jittered", execution=Execution(progress=killed_after_two))
    resumed = run_stage(STAGE, settings, inputs, "jittered").read("network")
    assert {name: values.tobytes() for name, values in resumed.items()} == {
        name: values.tobytes() for name, values in whole.items()
    }
    rates = whole["log/learning_rate"]
    assert rates[:2].tolist() == pytest.approx([0.0005, 0.001])
    assert rates[2:].tolist() == pytest.approx([0.0005 * (1 + math.cos(math.pi * k / 5)) for k in (1, 2, 3, 4)])


def test_it_learns_and_resumes_to_the_same_bits(inputs, run_stage):
    """Killed after every second iteration and resumed: the same bytes, and a log of all iterations."""
    whole = run_stage(STAGE, QUICK, inputs, "whole", execution=Execution(jobs=2))
    record = whole.read("network")
    assert record["log/iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert record["log/loss"][-1] < record["log/loss"][0]
    for _ in range(3):
        with pytest.raises(Killed):
            run_stage(STAGE, QUICK, inputs, "killed", execution=Execution(progress=killed_after_two))
    resumed = run_stage(STAGE, QUICK, inputs, "killed")
    assert {name: values.tobytes() for name, values in resumed.read("network").items()} == {
        name: values.tobytes() for name, values in record.items()
    }
    lines = (resumed.folder / "training.csv").read_text().splitlines()
    assert lines[0] == "iteration,learning_rate,loss,positive_accuracy,background_accuracy,seconds"
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "0.01"], ["2", "0.01"], ["3", "0.01"], ["4", "0.01"],
                                                           ["5", "0.001"], ["6", "0.001"]]  # fmt: skip


def test_frozen_parts_keep_their_weights_and_all_others_learn(inputs, run_stage):
    """Killed and resumed, too: nothing is remembered of what does not learn."""
    settings = replace(QUICK, frozen=("conv1", "conv2.0"))
    with pytest.raises(Killed):
        run_stage(STAGE, settings, inputs, "killed", execution=Execution(progress=killed_after_two))
    tuned = NetworkSource.from_reader(run_stage(STAGE, settings, inputs, "killed")).load().module.state_dict()
    before = inputs["network"].load().module.state_dict()
    same = {name for name in tuned if not name.startswith("fc6.") and torch.equal(tuned[name], before[name])}
    statistics = {name for name in tuned if "running" in name or "num_batches" in name}
    assert same - statistics == {name for name in tuned if name.startswith(("conv1.", "conv2.0."))} - statistics


def test_what_it_leaves_is_a_network_with_its_classes_and_preprocessing(inputs, run_stage):
    """The weights come back as a network of K + 1 classes, background last, for the input that it was trained on."""
    source = replace(inputs["network"], preprocessing=replace(CAFFE, mean=(1.0, 2.0, 3.0)))
    reader = run_stage(STAGE, replace(QUICK, iterations=1), {**inputs, "network": source})
    summary = reader.manifest["summary"]
    assert summary["class_names"] == [*inputs["images"].classes, "background"]
    assert summary["positive_windows"] + summary["background_windows"] == 5 * 40 + sum(
        len(inputs["images"].record(one).boxes) for one in inputs["images"].image_ids
    )
    tuned = NetworkSource.from_reader(reader)
    assert tuned.class_names == tuple(summary["class_names"])
    assert tuned.preprocessing.as_json() == source.preprocessing.as_json()
    assert tuned.layers["fc6"] == tuned.layers[SOFTMAX] == len(inputs["images"].classes) + 1
    record = reader.read("network")
    for name, tensor in tuned.load().module.state_dict().items():
        np.testing.assert_array_equal(tensor, record[COLUMNS + name])


def test_softmax_features_are_those_of_the_forward_pass_in_float32(inputs):
    """The cached layer is the softmax of the module's own output, and sums to one."""
    network = inputs["network"].load()
    image_id = inputs["images"].image_ids[0]
    pixels = inputs["images"].read_image(image_id)
    boxes = inputs["proposals"].read(image_id)["boxes"]
    settings = ExtractSettings(layers=("fc5", SOFTMAX), padding=4)
    with arithmetic(settings.precision, "cpu"):
        features = extract_features(pixels, boxes, network, settings)
    assert (features["fc5"].dtype, features[SOFTMAX].dtype) == (np.float16, np.float32)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    with torch.inference_mode():
        scores = network.module(warp_regions(planes, boxes, 64, "warp", 4, network.preprocessing))
    np.testing.assert_allclose(features[SOFTMAX], torch.softmax(scores, 1).numpy(), atol=1e-6)
    np.testing.assert_allclose(features[SOFTMAX].sum(axis=1), 1, atol=1e-5)


# Bad input


def refused(inputs: dict[str, Any], run_stage, settings: Settings = QUICK, **more: Any) -> str:
    """The one sentence that the stage ends in."""
    with pytest.raises(StageError) as error:
        run_stage(STAGE, settings, inputs, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_objects_and_no_background(inputs, run_stage, tmp_path):
    images = inputs["images"]
    none = {
        one: replace(
            images.record(one),
            boxes=np.zeros((0, 4), np.float32),
            labels=np.array([], np.int32),
            difficult=np.zeros(0, bool),
        )
        for one in images.image_ids
    }
    empty = GivenDataset(image_ids=images.image_ids, classes=images.classes, name="empty", record=none.__getitem__)
    told = refused({**inputs, "images": empty}, run_stage)
    assert "none of the 5 images of empty has a positive window, since none has an object to train on" in told
    assert "annotate objects" in told
    nothing = proposals_of(images, tmp_path / "none", boxes=0)
    assert "has a background window" in refused({**inputs, "proposals": nothing}, run_stage, name="b")


def test_proposals_of_other_images(inputs, run_stage, tmp_path):
    others = open_dataset("shapes:test", work=tmp_path, options={"images": 2})
    told = refused({**inputs, "proposals": proposals_of(others, tmp_path / "others")}, run_stage)
    assert "were made from other images than" in told
    assert str(tmp_path / "others") in told


def test_a_network_without_a_classifier():
    shapenet = NETWORKS["shapenet"]
    layers = {name: shapenet.layers[name] for name in ("conv4", "pool4", "fc5")}
    head = replace(shapenet.head, outputs={})
    card = NetworkCard("headless", 64, shapenet.preprocessing, layers, "fc5", shapenet.trunk, head)
    assert tuple(card.layers) == ("conv4", "pool4", "fc5")
    with pytest.raises(BadSetting, match="headless has no classification layer to replace"):
        classifier_name(card, build(shapenet, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": 32}, "leaves no room for the region in shapenet's input of 64 pixels; set it to 31 or less"),
        ({"precision": "tf32"}, "needs --device cuda"),
        ({"frozen": ("conv9",)}, "frozen: the network has no weights in 'conv9'; it has conv1, conv1.0"),
        ({"frozen": ("conv1", "fc6")}, "'fc6' contains the new classification layer, which must be trained"),
        ({"learning_rate": 1e30}, "NaN or infinite at iteration 2; training diverged, lower learning_rate or new_"),
    ],
)
def test_settings_that_cannot_be(inputs, run_stage, change, message):
    assert message in refused(inputs, run_stage, replace(QUICK, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background_overlap": 0.6}, "background_overlap = 0.6 is greater than positive_overlap = 0.5"),
        ({"batch_size": 2, "positive_fraction": 0.1}, "leaves no positive window"),
        ({"schedule": "one-cycle"}, "step = 4 is for schedule = 'steps', and schedule is 'one-cycle'; leave it out"),
        ({"optimiser": "adamw", "momentum": 0.5}, "momentum = 0.5 is for optimiser = 'sgd', and optimiser is 'adamw'"),
        ({"schedule": "one-cycle", "step": 20_000, "warm_up": 6}, "warm_up = 6 leaves nothing of iterations = 6"),
    ],
)
def test_settings_that_do_not_fit_each_other(change, message):
    with pytest.raises(BadSetting, match=message):
        replace(QUICK, **change)


def test_more_processes_than_windows(inputs, run_stage):
    told = refused(inputs, run_stage, execution=Execution(rank=1, ranks=17))
    assert "batch_size = 16 is smaller than the number of processes, 17" in told


def test_bad_images_end_the_training_or_are_left_out_on_request(inputs, run_stage, tmp_path, caplog):
    images = open_detection("shapes:train", work=tmp_path, options={"images": 5})
    path = Path(images.image_path(images.image_ids[2]))
    path.write_text("no picture")
    bad = {**inputs, "images": images}
    with pytest.raises(BadImage, match=path.name):
        run_stage(STAGE, replace(QUICK, iterations=40), bad, "stopped")
    caplog.set_level(logging.WARNING, "stages.finetune")
    whole = run_stage(STAGE, QUICK, bad, "skipping", execution=Execution(skip_bad_images=True))
    assert f"{path}: skipped" in caplog.text
    windows = whole.manifest["summary"]["positive_windows"] + whole.manifest["summary"]["background_windows"]
    assert windows == 4 * 40 + sum(
        len(images.record(one).boxes) for one in images.image_ids if one != images.image_ids[2]
    )


def test_a_class_that_no_window_shows_is_told(inputs, caplog):
    images = inputs["images"]
    more: Any = SimpleNamespace(
        image_ids=images.image_ids, classes=(*images.classes, "unicorn"), name="s", record=images.record
    )
    caplog.set_level(logging.WARNING, "stages.finetune")
    find_windows(QUICK, more, inputs["proposals"], ImageMemory(more, 0), CPU)
    assert "unicorn: the network cannot learn these classes" in caplog.text
