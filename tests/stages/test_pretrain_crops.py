"""pretrain on random crops, as OverFeat section 3.1: which crops, the schedule, and the same bits after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.settings import build_settings
from stages.datasets import open_classification
from stages.images.colours import ColourChange
from stages.networks import NETWORKS, NetworkSource, PlannedNetwork
from stages.pretrain import CROPS, STAGE, Settings, planned
from stages.pretrain.crops import CENTRE, Crop, CroppedImages, Extent, cut, part, resized_part, scaled_pixels
from stages.pretrain.stage import cropped_folds
from stages.pretrain.training import PreTraining, draw_weights
from stages.training.image_memory import ImageMemory
from tests.stages.test_pretrain import Killed, killed_after_one

SIDE = 70
QUICK = Settings(epochs=3, batch_size=16, held_out=4, views=CROPS, side=SIDE, step_epochs=(1, 2), step_factor=0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose red is the row and whose green is the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_crops_by_hand() -> None:
    """Of 10 x 6 pixels, with sides of 4: seven columns and three rows to begin at."""
    image = numbered(6, 10)
    assert cut(image, (0.0, 0.0), 4, False)[:2, 0, 0].tolist() == [0, 0]
    assert cut(image, (1.0, 1.0), 4, False)[:2, 0, 0].tolist() == [2, 6]
    assert cut(image, (0.5, 0.4), 4, False)[:2, 0, 0].tolist() == [1, 3]
    assert cut(image, (0.5, 0.4), 4, True)[1].tolist() == [[6, 5, 4, 3]] * 4
    assert cut(image, CENTRE, 6, False).shape == (3, 6, 6)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (200, 90), (70, 70)])
def test_the_shorter_side_is_scaled_to_the_asked_length(height: int, width: int) -> None:
    scaled = scaled_pixels(SIDE, np.full((height, width, 3), 77, np.uint8))
    assert min(scaled.shape[:2]) == SIDE
    assert scaled.shape[0] / scaled.shape[1] == pytest.approx(height / width, rel=0.02)
    assert (scaled == 77).all()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two classes of 40 images, 60 x 48, bright on the left or on the right."""
    folder = tmp_path_factory.mktemp("halves")
    draw = np.random.default_rng(0)
    for name, value in (("bright", 220), ("dark", 30)):
        (folder / name).mkdir()
        for number in range(40):
            pixels = draw.integers(0, 60, (48, 60, 3)) + value - 30
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return open_classification(f"folder:{folder}", work=folder)


def cropped(dataset, threads: int = 1, **jitter: float) -> CroppedImages:
    """Every image of the dataset, not scaled, in crops of 40 pixels."""
    return CroppedImages(ImageMemory(dataset, 10**7), np.arange(80), dataset.labels, 40, threads, **jitter)


def test_crops_of_another_extent_by_hand() -> None:
    """A quarter of 40 x 20 pixels, twice as wide as it is high: 20 x 10 of them; all of it cannot be wider."""
    image = numbered(20, 40)
    quarter = part(image, (1.0, 0.0), 20, 10)
    assert quarter[0, 0].tolist() == [0, 20, 0]
    shown = resized_part(image, (1.0, 0.0), Extent(0.25, 2.0), 10)
    assert np.array_equal(shown, cv2.resize(np.ascontiguousarray(quarter), (10, 10), interpolation=cv2.INTER_LINEAR))
    whole = resized_part(image, (0.3, 0.3), Extent(1.0, 8.0), 20)
    assert shown.shape == (10, 10, 3)
    assert whole[:, :, 1].min() <= 1
    assert whole[:, :, 1].max() >= 38
    crop = Crop(0, (1.0, 0.0), True, Extent(0.25, 2.0), ColourChange((("brightness", 2.0),)))
    assert np.array_equal(crop.of(image, 10).numpy(), 2 * shown[:, ::-1].transpose(2, 0, 1))


def test_extents_are_those_of_googlenet(dataset) -> None:
    every = cropped(dataset, area=0.08)
    extents = [extent for seed in range(10) for extent in every.random_extents(generator(seed)) if extent is not None]
    areas, shapes = (np.array([getattr(extent, name) for extent in extents]) for name in ("area", "shape"))
    assert len(extents) == 800
    assert [areas.min(), areas.mean(), areas.max()] == pytest.approx([0.08, 0.54, 1], abs=0.03)
    assert [shapes.min(), np.median(shapes), shapes.max()] == pytest.approx([3 / 4, 1, 4 / 3], abs=0.03)


def test_jittered_crops_are_decided_by_the_generator_alone(dataset) -> None:
    batches = list(cropped(dataset, area=0.3, colours=0.5).random_batches(32, generator()))
    for threads in (1, 3):
        again = cropped(dataset, threads, area=0.3, colours=0.5).random_batches(32, generator())
        assert all(torch.equal(first[0], second[0]) for first, second in zip(batches, again, strict=True))
    plain = list(cropped(dataset).random_batches(32, generator()))
    assert all(torch.equal(first[1], second[1]) for first, second in zip(batches, plain, strict=True))
    assert not torch.equal(batches[0][0], plain[0][0])


def test_every_image_gives_one_crop_an_epoch_that_the_generator_alone_decides(dataset) -> None:
    batches = list(cropped(dataset).random_batches(32, generator()))
    assert [len(labels) for _, labels in batches] == [32, 32, 16]
    assert all(pixels.shape[1:] == (3, 40, 40) and pixels.dtype == torch.uint8 for pixels, _ in batches)
    labels = torch.cat([labels for _, labels in batches])
    assert labels.bincount().tolist() == [40, 40]
    means = torch.cat([pixels.float().mean(dim=(1, 2, 3)) for pixels, _ in batches])
    assert torch.equal(means > 128, labels == 0)  # each crop with its own label
    for threads in (1, 3):
        again = cropped(dataset, threads).random_batches(32, generator())
        assert all(torch.equal(first[0], second[0]) for first, second in zip(batches, again, strict=True))
    other = next(iter(cropped(dataset).random_batches(32, generator(1))))
    assert not torch.equal(other[0], batches[0][0])


def test_a_last_batch_of_one_is_dropped_but_not_in_measuring(dataset) -> None:
    assert [len(labels) for _, labels in cropped(dataset).random_batches(79, generator())] == [79]
    assert [len(labels) for _, labels in cropped(dataset).central_batches(79)] == [79, 1]
    pixels, _ = next(cropped(dataset).central_batches(2))
    whole = dataset.read_image(dataset.image_ids[1])
    assert np.array_equal(pixels[1].numpy(), whole[4:44, 10:50].transpose(2, 0, 1))


def test_the_rate_is_halved_after_these_epochs() -> None:
    settings = Settings(epochs=6, learning_rate=1.0, step_epochs=(2, 4, 5), step_factor=0.5)
    schedule = PreTraining(settings, NETWORKS["shapenet"], 2, "cpu").schedule
    assert [schedule(epoch) for epoch in range(1, 7)] == [1, 1, 0.5, 0.5, 0.25, 0.125]


def test_initial_weights_have_the_asked_deviation() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 200, 5), torch.nn.BatchNorm2d(200), torch.nn.Linear(300, 200))
    draw_weights(module, 0.01)
    state = module.state_dict()
    for name in ("0", "2"):
        assert float(state[f"{name}.weight"].std()) == pytest.approx(0.01, rel=0.02)
        assert abs(float(state[f"{name}.weight"].mean())) < 3e-4
        assert not state[f"{name}.bias"].any()
    assert state["1.weight"].unique().tolist() == [1]


def test_a_training_begins_with_them() -> None:
    first, again = (
        PreTraining(Settings(initial_std=0.01), NETWORKS["shapenet"], 2, "cpu").module.state_dict() for _ in range(2)
    )
    assert torch.equal(first["fc6.weight"], again["fc6.weight"])
    assert float(first["fc5.weight"].std()) == pytest.approx(0.01, rel=0.02)


def test_it_learns_without_a_background_and_resumes_to_the_same_bits(dataset, run_stage) -> None:
    inputs = {"images": dataset}
    whole = run_stage(STAGE, QUICK, inputs, "whole")
    summary = whole.manifest["summary"]
    assert summary["class_names"] == ["bright", "dark"]
    assert summary["accuracy"] == 1
    assert NetworkSource.from_reader(whole).layers["fc6"] == 2
    record = whole.read("network")
    np.testing.assert_allclose(record["log/learning_rate"], [0.02, 0.01, 0.005])
    for _ in range(3):
        with pytest.raises(Killed):
            run_stage(STAGE, QUICK, inputs, "killed", execution=Execution(progress=killed_after_one))
    resumed = run_stage(STAGE, QUICK, inputs, "killed").read("network")
    assert {name: values.tobytes() for name, values in resumed.items()} == {
        name: values.tobytes() for name, values in record.items()
    }


def test_with_all_of_it_and_adamw_it_resumes_to_the_same_bits(dataset, run_stage) -> None:
    """The rate rises in one epoch of three, then falls along half a cosine."""
    cycle: dict[str, Any] = {"optimiser": "adamw", "schedule": "one-cycle", "warm_up": 1, "learning_rate": 0.002}
    jittered = Settings(
        **cycle, epochs=3, batch_size=16, held_out=4, views=CROPS, side=SIDE, crop_area=0.3, crop_colour_jitter=0.3
    )
    inputs = {"images": dataset}
    record = run_stage(STAGE, jittered, inputs, "jittered whole").read("network")
    np.testing.assert_allclose(record["log/learning_rate"], [0.002, 0.0015, 0.0005])
    for _ in range(3):
        with pytest.raises(Killed):
            run_stage(STAGE, jittered, inputs, "jittered", execution=Execution(progress=killed_after_one))
    resumed = run_stage(STAGE, jittered, inputs, "jittered").read("network")
    assert {name: values.tobytes() for name, values in resumed.items()} == {
        name: values.tobytes() for name, values in record.items()
    }


def test_a_recipe_knows_whether_there_is_a_background() -> None:
    plain = PlannedNetwork(NETWORKS["shapenet"], trained=False)
    assert planned(Settings(), plain).trained
    assert not planned(QUICK, plain).trained


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(BadSetting, match=r"side = 220 is less than the 224 pixels of alexnet's input"):
        build_settings(Settings, {"network": "alexnet", "views": "crops", "side": 220})
    with pytest.raises(BadSetting, match=r"'occlusion' is a setting of views = 'windows', and views is 'crops'"):
        build_settings(Settings, {"views": "crops", "occlusion": 0.1})
    with pytest.raises(BadSetting, match=r"'side' is a setting of views = 'crops'"):
        build_settings(Settings, {"side": 300})
    for name, value in (("crop_area", 0.08), ("crop_colour_jitter", 0.5)):
        with pytest.raises(BadSetting, match=f"{name} = {value} is for views = 'crops', and views is 'windows'"):
            build_settings(Settings, {name: value})
    with pytest.raises(BadSetting, match=r"steps = \[0\.5\] is for schedule = 'steps', and schedule is 'one-cycle'"):
        build_settings(Settings, {"schedule": "one-cycle", "steps": [0.5]})
    with pytest.raises(BadSetting, match=r"warm_up = 7 leaves nothing of epochs = 7 for the descent"):
        build_settings(Settings, {"schedule": "one-cycle", "warm_up": 7})


def test_bad_images_and_too_few(dataset, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"give every class at least 50 images"):
        cropped_folds(Settings(views=CROPS, held_out=50), dataset, 64, Execution())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (80, 90)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "0.png").write_text("no picture")
    damaged = open_classification(f"folder:{tmp_path}", work=tmp_path)
    settings = Settings(views=CROPS, held_out=2)
    training, _ = cropped_folds(settings, damaged, 64, Execution())
    with pytest.raises(BadImage, match=r"0\.png"):
        list(training.random_batches(8, generator()))
    training, held_out = cropped_folds(settings, damaged, 64, Execution(skip_bad_images=True))
    assert (len(training), len(held_out)) == (3, 4)
    assert [len(labels) for _, labels in training.random_batches(8, generator())] == [3]
