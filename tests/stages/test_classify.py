"""classify: the class vector of an image from its views, the errors, and class scores of several networks averaged."""

from __future__ import annotations

import csv
import json
import logging
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stages.classify import CROPS, SCALES, SCORES, STAGE, Settings, check, crop_side, scales_of
from stages.classify.errors import best_classes, ranks, share_interval
from stages.classify.report import format_table, write_results
from stages.classify.stage import Task, read_names, warn_of_chance
from stages.classify.views import crop_vector, dense_vector, five_crops
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.settings import build_settings, with_network
from stages.datasets import open_classification
from stages.networks import BACKGROUND, NETWORKS, NetworkSettings, NetworkSource, PlannedNetwork
from stages.networks.dense_reading import dense_outputs, windows_of
from stages.networks.feature_maps import compute_maps, planes_of

SHAPENET = PlannedNetwork(NETWORKS["shapenet"], trained=False)
DENSE = Settings(sides=(72, 90))
NAMES = ("a", "b", "c")


def random_source(classes: int = 3, seed: int = 0) -> NetworkSource:
    """ShapeNet with random weights, and these classes as its outputs."""
    settings = NetworkSettings(name="shapenet", weights="random", classes=classes, seed=seed)
    return NetworkSource.from_settings(settings)


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image of noise, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Any:
    """Two images of each of three classes, of different sizes."""
    folder = tmp_path_factory.mktemp("noise")
    for label, name in enumerate(NAMES):
        (folder / name).mkdir()
        for number in range(2):
            seed = 2 * label + number
            Image.fromarray(textured(70 + 10 * label, 90 + number, seed)).save(folder / name / f"{number}.png")
    return open_classification(f"folder:{folder}", work=folder)


# Errors


def test_ranks_by_hand() -> None:
    """Best, second, and third of three; of equal scores the earlier class comes first; class 1 does not compete."""
    scores = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.2, 0.4], [0.4, 0.2, 0.4]])
    labels = np.array([0, 1, 2, 0, 2])
    everything, some = np.ones(3, bool), np.array([True, False, True])
    assert ranks(scores, labels, everything).tolist() == [0, 1, 2, 0, 1]
    assert ranks(scores[[0, 2]], labels[[0, 2]], some).tolist() == [0, 1]
    assert best_classes(scores[3], everything, 5).tolist() == [0, 2, 1]
    assert best_classes(scores[0], some, 1).tolist() == [0]


def test_ranks_agree_with_the_best_classes() -> None:
    draw = np.random.default_rng(1)
    scores = draw.integers(0, 4, (50, 6)).astype(np.float32)
    labels, competing = draw.integers(0, 5, 50), np.array([1, 1, 1, 1, 1, 0], bool)
    best = [best_classes(row, competing, 6).tolist() for row in scores]
    assert ranks(scores, labels, competing).tolist() == [
        order.index(label) for order, label in zip(best, labels.tolist(), strict=True)
    ]


def test_intervals_of_shares() -> None:
    """Wilson's interval for 10 of 100 is 5.5 to 17.4 %."""
    np.testing.assert_allclose(share_interval(10, 100), (0.0552, 0.1744), atol=1e-4)
    assert share_interval(0, 20)[0] == 0
    assert share_interval(20, 20)[1] == 1


# Views


def test_five_crops_by_hand() -> None:
    rows, columns = np.mgrid[:7, :10]
    image = np.stack([rows, columns, rows], axis=2).astype(np.float32)
    first = [crop[0, 0, :2].tolist() for crop in five_crops(image, 4)]
    assert first == [[0, 0], [0, 6], [3, 0], [3, 6], [1, 3]]
    assert {crop.shape for crop in five_crops(image, 4)} == {(4, 4, 3)}


def test_crops_are_averaged() -> None:
    """An image of the input's size has one crop, five times; the vector is the mean of the image and its mirror."""
    network = random_source().load()
    image = textured(64, 64)
    batch = np.stack([image, image[:, ::-1]]).transpose(0, 3, 1, 2)
    inputs = network.preprocessing.apply(torch.from_numpy(batch.copy()))
    with torch.inference_mode():
        outputs = network.forward(inputs, ["softmax", "fc6"])
    for settings, layer in ((Settings(method=CROPS, side=64), "softmax"), (None, "fc6")):
        chosen = settings or Settings(method=CROPS, side=64, outputs=SCORES)
        vector, views = crop_vector(image, network, chosen)
        np.testing.assert_allclose(vector, outputs[layer].mean(dim=0).numpy(), atol=1e-5)
        assert views == 10
        plain, views = crop_vector(image, network, replace(chosen, flips=False))
        np.testing.assert_allclose(plain, outputs[layer][0].numpy(), atol=1e-5)
        assert views == 5


@pytest.mark.parametrize("fine", [True, False])
def test_the_maximum_over_windows_and_the_mean_over_scales(fine: bool) -> None:
    """Against the definition, from the maps' own windows."""
    network = random_source().load()
    image, settings = textured(80, 120), replace(DENSE, fine=fine)
    vector, count = dense_vector(image, network, settings, "x")
    maps, windows = compute_maps(image, network, (72, 90), 2000, "float32", True), windows_of(network.card)
    maxima, views = [], 0
    with torch.inference_mode():
        for cells in (*maps.maps, *maps.mirrored):
            every = dense_outputs(network, planes_of(cells, "cpu")[None], ["softmax"], windows.cells)["softmax"]
            scores = every.every(1 if fine else windows.step).numpy()
            views += len(scores)
            maxima.append(scores.max(axis=0))
    assert len(maxima) == 4
    np.testing.assert_allclose(vector, np.mean(maxima, axis=0), atol=1e-6)
    assert count == views


@pytest.mark.parametrize("upright", [False, True])
def test_images_are_stretched_to_a_longer_side(upright: bool) -> None:
    """The paper's scales have sides of their own: the vector is that of the image stretched beforehand."""
    network = random_source().load()
    image = textured(120, 80) if upright else textured(80, 120)
    vector, views = dense_vector(image, network, replace(DENSE, longer_sides=(72, 100)), "x")
    sizes = [(72, 72), (90, 100)] if upright else [(72, 72), (100, 90)]
    stretched = [cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) for size in sizes]
    alone = [
        dense_vector(values, network, Settings(sides=(min(size),)), "x")  # type: ignore[arg-type]
        for values, size in zip(stretched, sizes, strict=True)
    ]
    np.testing.assert_allclose(vector, np.mean([each for each, _ in alone], axis=0), atol=1e-5)
    assert views == sum(count for _, count in alone)


@pytest.mark.parametrize("name", ["shapenet", "squeezenet1_0"])
def test_an_image_of_the_inputs_size_is_one_window(name: str) -> None:
    """The network's own output: no margin is added, as `maps` does for SqueezeNet."""
    network = NetworkSource.from_settings(NetworkSettings(name=name, weights="random", classes=3)).load()
    size = network.input_size
    image = textured(size, size)
    vector, count = dense_vector(image, network, Settings(sides=(size,), flips=False), "x")
    assert count == 1
    inputs = network.preprocessing.apply(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    with torch.inference_mode():
        np.testing.assert_allclose(vector, network.forward(inputs, ["softmax"])["softmax"][0].numpy(), atol=1e-5)


def test_coarse_windows_are_some_of_the_fine_ones() -> None:
    """So no class can score higher."""
    network = random_source().load()
    fine, many = dense_vector(textured(80, 120), network, replace(DENSE, outputs=SCORES), "x")
    coarse, few = dense_vector(textured(80, 120), network, replace(DENSE, outputs=SCORES, fine=False), "x")
    assert few < many
    assert (coarse <= fine + 1e-6).all()
    assert (coarse < fine - 1e-6).any()


def test_a_mirrored_image_has_the_same_vector() -> None:
    network = random_source().load()
    image = textured(80, 120)
    vector, _ = dense_vector(image, network, DENSE, "x")
    mirrored, _ = dense_vector(np.ascontiguousarray(image[:, ::-1]), network, DENSE, "x")
    np.testing.assert_allclose(vector, mirrored, atol=1e-5)
    alone, _ = dense_vector(image, network, replace(DENSE, flips=False), "x")
    assert np.abs(alone - vector).max() > 1e-6


def test_scales_at_which_no_window_fits_are_left_out() -> None:
    network = random_source().load()
    image = textured(64, 256)
    both, _ = dense_vector(image, network, replace(DENSE, sides=(72, 90), longest=400), "x")
    one, _ = dense_vector(image, network, replace(DENSE, sides=(72,), longest=400), "x")
    assert np.abs(both - one).max() > 1e-6
    with pytest.raises(
        StageError, match=r"image 'x' is so long that no window of 64 pixels fits .* raise classify\.longest"
    ):
        dense_vector(image, network, replace(DENSE, longest=100), "x")


# Settings


def test_the_papers_scales_are_those_of_its_networks() -> None:
    assert scales_of(NETWORKS["overfeat-accurate"]) == scales_of(NETWORKS["overfeat-fast"]) == SCALES
    assert scales_of(NETWORKS["shapenet"]) == (71, 81, 92, 113, 123, 134)
    assert with_network(build_settings(Settings, {}), NETWORKS["shapenet"]).sides == (71, 81, 92, 113, 123, 134)
    assert crop_side(Settings(method=CROPS), NETWORKS["overfeat-accurate"]) == 256
    assert crop_side(Settings(method=CROPS), NETWORKS["shapenet"]) == 74


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(sides=(60, 90)), r"no window of shapenet fits into an image of 60 pixels; name sides of at least 64"),
        (Settings(sides=(90,), longest=80), "more than longest = 80"),
        (replace(DENSE, longer_sides=(80,)), "must have one number for each scale"),
        (replace(DENSE, longer_sides=(72, 80)), "none may be less than the shorter side of its scale"),
        (replace(DENSE, longer_sides=(72, 3000)), "3000 pixels, more than longest = 2000"),
        (Settings(method=CROPS, longer_sides=(72, 90)), "longer_sides is for method = 'dense'"),
        (Settings(method=CROPS, side=63), "side = 63 is less than the 64 pixels of shapenet's input"),
    ],
)
def test_views_that_cannot_be_are_refused(settings: Settings, message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        check(settings, SHAPENET, {})


def test_sound_settings_pass() -> None:
    check(Settings(sides=(64, 80)), SHAPENET, {})
    check(Settings(method=CROPS), SHAPENET, {})
    for name in ("overfeat-fast", "overfeat-accurate"):
        check(Settings(), PlannedNetwork(NETWORKS[name], trained=False), {})


# The stage


def test_a_run_and_what_it_writes(dataset, run_stage, tmp_path: Path) -> None:
    inputs = {"images": dataset, "network": random_source()}
    reader = run_stage(STAGE, DENSE, inputs)
    summary = reader.manifest["summary"]
    vectors = np.array([reader.read(image_id)["scores"] for image_id in dataset.image_ids])
    right = vectors.argmax(axis=1) == dataset.labels
    assert summary["top_1_error"] == pytest.approx(1 - right.mean())
    assert (summary["top_5_error"], summary["images"], summary["networks"]) == (0, 6, 1)
    assert summary["classes"]["b"] == {
        "images": 2,
        "top_1_error": 1 - right[dataset.labels == 1].mean(),
        "top_5_error": 0,
    }
    assert summary["class_names"] == list(NAMES)
    written = write_results(reader, tmp_path / "deep" / "results")
    assert json.loads(written[0].read_text()) == summary
    classes, images = (list(csv.reader(path.read_text().splitlines())) for path in written[1:])
    assert classes[0] == ["class", "images", "top_1_error", "top_5_error"]
    assert [row[0] for row in classes[1:]] == [*NAMES, "all"]
    assert len(images) == 7
    best = [NAMES[label] for label in vectors.argmax(axis=1)]
    assert [row[3] for row in images[1:]] == best
    assert [row[2] == "1" for row in images[1:]] == right.tolist()
    assert {len(row) for row in images} == {13}
    lines = format_table({"classify": summary, "again": summary}).splitlines()
    assert lines[0].split() == ["classify", "again"]
    assert lines[2].startswith("top-1 error")
    assert "[" in lines[2]


def test_parts_and_other_processes_change_nothing(dataset, run_stage) -> None:
    """A process is sent the task, pickled."""
    source = random_source()
    whole = run_stage(STAGE, DENSE, {"images": dataset, "network": source}, "whole")
    split = run_stage(STAGE, DENSE, {"images": dataset, "network": source}, "split", part_size=2)
    sent = pickle.loads(pickle.dumps(Task(DENSE, dataset, source, NAMES, None, Execution(), {})))
    for image_id, record in whole.records():
        for other in (split.read(image_id), sent.record(image_id)):
            assert {name: values.tobytes() for name, values in record.items()} == {
                name: values.tobytes() for name, values in other.items()
            }


def test_networks_are_averaged_one_after_another(dataset, run_stage) -> None:
    settings = Settings(method=CROPS)
    sources = [random_source(seed=seed) for seed in range(3)]
    alone = [
        run_stage(STAGE, settings, {"images": dataset, "network": source}, f"{n}") for n, source in enumerate(sources)
    ]
    second = run_stage(STAGE, settings, {"images": dataset, "network": sources[1], "with": alone[0]}, "second")
    third = run_stage(STAGE, settings, {"images": dataset, "network": sources[2], "with": second}, "third")
    assert third.manifest["summary"]["networks"] == 3
    for image_id in dataset.image_ids:
        every = [reader.read(image_id)["scores"] for reader in alone]
        np.testing.assert_allclose(third.read(image_id)["scores"], np.mean(every, axis=0), atol=1e-6)


def test_scores_of_other_images_or_classes_are_not_averaged(dataset, run_stage, tmp_path: Path) -> None:
    settings, first = Settings(method=CROPS), {"images": dataset, "network": random_source()}
    fewer = run_stage(STAGE, settings, {**first, "images": dataset.subset([0, 2, 4])}, "fewer")
    with pytest.raises(StageError, match=r"are of 3 other images; give both tables the same split"):
        run_stage(STAGE, settings, {**first, "with": fewer}, "refused")
    (tmp_path / "names").write_text("c\nb\na\n")
    turned = run_stage(STAGE, replace(settings, class_file=str(tmp_path / "names")), first, "turned")
    with pytest.raises(StageError, match="are of other classes, or in another order"):
        run_stage(STAGE, settings, {**first, "with": turned}, "refused too")


def test_the_class_file_names_the_outputs(dataset, run_stage, tmp_path: Path) -> None:
    """With the outputs in reverse, an image's label is another output; and what it says is in the key."""
    (tmp_path / "names").write_text("c\nb\n a \n\n")
    settings = Settings(method=CROPS, class_file=str(tmp_path / "names"))
    reader = run_stage(STAGE, settings, {"images": dataset, "network": random_source()})
    assert [int(reader.read(image_id)["label"]) for image_id in dataset.image_ids] == [2, 2, 1, 1, 0, 0]
    assert reader.manifest["summary"]["class_names"] == ["c", "b", "a"]
    identity = STAGE.function("identity")
    assert identity is not None
    before = identity(settings, {})
    assert before != identity(Settings(), {}) == {}
    (tmp_path / "names").write_text("c\nb\nd\n")
    assert identity(settings, {}) != before


def test_a_background_does_not_compete(dataset, run_stage, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(f"a\nb\nc\n{BACKGROUND}\n")
    settings = Settings(method=CROPS, class_file=str(tmp_path / "names"))
    reader = run_stage(STAGE, settings, {"images": dataset, "network": random_source(4)})
    vectors = np.array([reader.read(image_id)["scores"] for image_id in dataset.image_ids])
    assert vectors.shape == (6, 4)
    wrong = vectors[:, :3].argmax(axis=1) != dataset.labels
    assert reader.manifest["summary"]["top_1_error"] == pytest.approx(wrong.mean())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", "shapenet has 3 outputs, but .* has 2 classes"),
        ("a\nb\nd\n", r"does not have the class 'c' of noise0; rename the folders"),
        ("a\nb\nb\n", "line 3 repeats 'b'"),
        ("a\n\nb\n", "line 2 is empty"),
    ],
)
def test_class_files_that_do_not_fit(dataset, run_stage, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(StageError, match=message):
        run_stage(
            STAGE,
            Settings(method=CROPS, class_file=str(tmp_path / "names")),
            {"images": dataset, "network": random_source()},
        )


def test_class_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(StageError, match="is not UTF-8 text"):
        read_names(str(tmp_path / "names"))
    with pytest.raises(StageError, match=r"no such file of class names; correct classify\.class_file"):
        read_names(str(tmp_path / "none"))


def test_bad_images(tmp_path: Path, run_stage) -> None:
    folder = tmp_path / "images"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(textured(80, 80)).save(folder / name / "1.png")
    (folder / "a" / "0.png").write_text("no picture")
    inputs = {"images": open_classification(f"folder:{folder}", work=tmp_path), "network": random_source(2)}
    settings = Settings(method=CROPS)
    with pytest.raises(BadImage, match=r"0\.png"):
        run_stage(STAGE, settings, inputs, "stopped")
    reader = run_stage(STAGE, settings, inputs, "skipped", execution=Execution(skip_bad_images=True))
    assert reader.manifest["summary"]["images"] == 2
    assert reader.manifest["summary"]["classes"]["a"]["images"] == 1
    assert list(reader.manifest["skipped"]) == ["a/0.png"]
    rows = list(csv.reader(write_results(reader, tmp_path / "results")[2].read_text().splitlines()))
    assert [row[0] for row in rows] == ["image", "a/1.png", "b/1.png"]
    Image.fromarray(textured(80, 80)).save(folder / "a" / "0.png")
    repaired = {**inputs, "images": open_classification(f"folder:{folder}", work=tmp_path), "with": reader}
    with pytest.raises(StageError, match=r"image 'a/0\.png' was skipped in the scores to average with"):
        run_stage(STAGE, settings, repaired, "averaged")


def test_errors_at_the_level_of_chance_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    uniform = np.arange(200) % 20
    warn_of_chance(np.minimum(uniform, 3), 20)
    warn_of_chance(uniform[:50], 20)
    warn_of_chance(np.zeros(200, int), 4)
    assert not caplog.text
    warn_of_chance(uniform, 20)
    assert "no better than chance" in caplog.text
