"""pretrain: what its views show, that it learns, and that a run that was killed ends in the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from stages.contract.errors import BadImage, StageError
from stages.contract.execution import Execution, Progress
from stages.datasets import open_classification
from stages.networks import NETWORKS, NetworkSource
from stages.pretrain import STAGE, Settings
from stages.pretrain.stage import read_examples, squeezed
from stages.pretrain.training import PreTraining, batches
from stages.pretrain.views import (
    UNUSED,
    WHOLE,
    cut_views,
    jitter_colours,
    occlude,
    overlap_with_image,
    random_views,
    random_windows,
    view_labels,
)
from stages.training.state import seeded

QUICK = Settings(epochs=3, batch_size=16, held_out=4, threads=1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_overlap_by_hand():
    """The whole image 1; its right half 1/2; twice its size 1/4; shifted by its width 0; a quarter beyond the edge."""
    windows = torch.tensor([[*WHOLE], [0.5, 0, 0.5, 1], [0, 0, 2, 2], [2, 0, 1, 1], [0.5, 0, 1, 1]])
    np.testing.assert_allclose(overlap_with_image(windows).numpy(), [1, 0.5, 0.25, 0, 3 / 5], atol=1e-6)


def test_labels_follow_the_overlap():
    """From object_iou on the class, below background_iou the background, in between unused."""
    windows = torch.tensor([[*WHOLE], [0.5, 0, 0.5, 1], [0, 0, 2, 2], [0, 0, 1.6, 1.6]])
    labels = view_labels(torch.tensor([3, 4, 5, 6]), windows, 9, Settings())
    assert labels.tolist() == [3, 4, 9, UNUSED]


def test_windows_cover_and_miss():
    """About the asked share of windows misses its image, the others mostly cover it; all depend on the seed alone."""
    settings = Settings(background=0.3)
    overlap = overlap_with_image(random_windows(4000, settings, generator()))
    assert 0.15 < float((overlap < 0.3).float().mean()) < 0.35
    assert 0.6 < float((overlap >= 0.5).float().mean()) < 0.9
    assert torch.equal(random_windows(9, settings, generator(4)), random_windows(9, settings, generator(4)))
    assert not torch.equal(random_windows(9, settings, generator(4)), random_windows(9, settings, generator(5)))


def test_whole_window_is_the_image_and_its_mirror():
    images = torch.randn((2, 3, 8, 8), generator=generator())
    views = cut_views(images, torch.tensor([WHOLE, WHOLE]), torch.tensor([1.0, -1.0]), mirror_border=False)
    torch.testing.assert_close(views[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(views[1], images[1].flip(-1), atol=1e-5, rtol=0)


def test_window_of_a_quarter_and_beyond():
    """The lower right quarter of an image of two colours; beyond the border it is zero or goes on mirrored."""
    image = torch.zeros((1, 1, 8, 8))
    image[..., 4:] = 1
    quarter = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert cut_views(image, quarter, torch.ones(1), mirror_border=False)[..., 1:7, 1:7].min() == 1
    beyond = torch.tensor([[2.0, 0.0, 1.0, 1.0]])
    assert cut_views(image, beyond, torch.ones(1), mirror_border=False)[..., 1:].max() == 0
    assert cut_views(image, beyond, torch.ones(1), mirror_border=True)[..., :3].min() == 1


def test_colours_and_occlusion():
    """Strength 0 changes nothing; a share of 1 hides a rectangle in every view, at most half of each side."""
    views = torch.zeros((5, 3, 20, 20))
    assert torch.equal(jitter_colours(views, 0.0, generator()), views)
    assert torch.equal(occlude(views, 0.0, generator()), views)
    assert len(jitter_colours(views, 0.5, generator())[:, :, 0, 0].unique()) == 15
    hidden = (occlude(views, 1.0, generator()) != 0).all(dim=1)
    assert hidden.any(dim=(1, 2)).all()
    assert int(hidden.any(dim=1).sum(dim=1).max()) <= 10


def test_views_are_as_asked():
    images, labels = torch.randn((32, 3, 16, 16)), torch.arange(32) % 3
    views, shown = random_views(images, labels, 3, Settings(), generator())
    assert views.shape == images.shape
    assert set(shown.tolist()) <= {0, 1, 2, 3, UNUSED}
    again, _ = random_views(images, labels, 3, Settings(), generator())
    assert torch.equal(views, again)


def test_the_rate_may_rise_first():
    settings = Settings(epochs=5, learning_rate=0.1, steps=(0.6,), warm_up=2)
    schedule = PreTraining(settings, NETWORKS["shapenet"], 3, "cpu").schedule
    assert [schedule(epoch) for epoch in range(1, 6)] == pytest.approx([0.05, 0.1, 0.1, 0.01, 0.01])


def test_learning_rate_falls_tenfold_after_each_step():
    settings = Settings(epochs=10, learning_rate=1.0, steps=(0.6, 0.9))
    schedule = PreTraining(settings, NETWORKS["shapenet"], 2, "cpu").schedule
    rates = [round(schedule(epoch), 6) for epoch in range(1, 11)]
    assert rates == [1.0] * 6 + [0.1] * 3 + [0.01]


def test_batches_hold_everything_but_a_last_one_alone():
    assert [len(indices) for indices in batches(9, 4, generator())] == [4, 4]
    found = torch.cat(list(batches(10, 4, generator())))
    assert sorted(found.tolist()) == list(range(10))


def test_seeded_leaves_the_callers_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(0, 1):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    """Two easy classes of 40 images: a bright disc, a dark one."""
    folder = tmp_path_factory.mktemp("discs")
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    draw = np.random.default_rng(0)
    for name, value in (("bright", 230), ("dark", 20)):
        (folder / name).mkdir()
        for number in range(40):
            pixels = draw.integers(90, 160, (48, 48, 3)).astype(np.uint8)
            pixels[x**2 + y**2 < draw.uniform(0.4, 0.8)] = value
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return {"images": open_classification(f"folder:{folder}", work=folder)}


class Killed(Exception):
    """Stands for a SIGKILL between two epochs."""


@contextlib.contextmanager
def killed_after_one(label: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    class Bar:
        def advance(self, items: int = 1, rows: int = 0) -> None:
            raise Killed

    yield Bar()


def test_it_learns_and_resumes_to_the_same_bits(inputs, run_stage):
    """Bright from dark in three epochs; killed after each epoch and resumed, the cache is the same."""
    whole = run_stage(STAGE, QUICK, inputs, "whole")
    summary = whole.manifest["summary"]
    assert summary["accuracy"] >= 0.9
    assert summary["class_names"] == ["bright", "dark", "background"]
    record = whole.read("network")
    assert record["log/epoch"].tolist() == [1, 2, 3]
    assert record["log/loss"][-1] < record["log/loss"][0]
    for _ in range(3):
        with pytest.raises(Killed):
            run_stage(STAGE, QUICK, inputs, "killed", execution=Execution(progress=killed_after_one))
    resumed = run_stage(STAGE, QUICK, inputs, "killed").read("network")
    assert {name: values.tobytes() for name, values in resumed.items()} == {
        name: values.tobytes() for name, values in record.items()
    }
    check_network(NetworkSource.from_reader(whole), inputs)


def check_network(source: NetworkSource, inputs: dict) -> None:
    """The cached network, loaded as another stage would, tells the classes."""
    network = source.load()
    assert source.layers["fc6"] == 3
    examples, _ = read_examples(inputs["images"], 64, 4, Execution())
    with torch.inference_mode():
        scores = network.forward(network.preprocessing.apply(examples.images), ["fc6"])["fc6"]
    assert float((scores.argmax(1) == examples.labels).float().mean()) >= 0.9


def test_seed_changes_the_network(inputs, run_stage):
    quick = replace(QUICK, epochs=1)
    first = run_stage(STAGE, quick, inputs, "a").read("network")["weights/fc6.weight"]
    again = run_stage(STAGE, quick, inputs, "b").read("network")["weights/fc6.weight"]
    other = run_stage(STAGE, replace(quick, seed=1), inputs, "c").read("network")["weights/fc6.weight"]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_training_that_diverges_ends_in_a_sentence(inputs, run_stage):
    told = "pretrain: the loss became NaN or infinite at epoch 1; training diverged, lower learning_rate"
    with pytest.raises(StageError, match=told):
        run_stage(STAGE, replace(QUICK, learning_rate=1e30), inputs, "diverged")


def test_held_out_images_are_every_nth_of_each_class(inputs):
    """80 images, one in four held out, and squeezed to the network's input."""
    training, held_out = read_examples(inputs["images"], 64, 4, Execution())
    assert (len(training), len(held_out)) == (60, 20)
    assert held_out.labels.tolist() == [0] * 10 + [1] * 10
    assert training.images.shape == (60, 3, 64, 64)
    assert training.images.dtype == torch.uint8


def test_images_are_squeezed_whatever_their_shape():
    image = np.zeros((10, 30, 3), np.uint8)
    image[..., 1] = 77
    squeezed_image = squeezed(image, 16)
    assert squeezed_image.shape == (3, 16, 16)
    assert (squeezed_image == np.array([0, 77, 0])[:, None, None]).all()


def test_too_few_images_and_bad_images(inputs, tmp_path):
    with pytest.raises(StageError, match=r"held out; give every class at least 100 images"):
        read_examples(inputs["images"], 64, 100, Execution())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "0.png").write_text("no picture")
    dataset = open_classification(f"folder:{tmp_path}", work=tmp_path)
    with pytest.raises(BadImage, match=r"0\.png"):
        read_examples(dataset, 16, 2, Execution())
    training, held_out = read_examples(dataset, 16, 2, Execution(skip_bad_images=True))
    assert (len(training), len(held_out)) == (3, 4)
