"""extract: its rows, its arithmetic, and that nothing but the settings decides a bit of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache import CacheError, Column, Identity, Reader, Schema, Writer
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import open_dataset
from stages.extract import STAGE, Settings
from stages.extract.features import extract_features, layer_dimensions, load_network
from stages.extract.stage import PROPOSAL, on_demand, schema
from stages.images.reading import read_image
from stages.images.warp import warp_regions
from stages.networks import NetworkSettings, NetworkSource
from stages.networks.memory import keep_large_buffers
from stages.networks.precision import arithmetic

SHAPENET = Settings(layers=("fc5", "pool4"), padding=4)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    """Five small scenes, 0 to 40 proposals each, and a random shapenet."""
    work = tmp_path_factory.mktemp("extract")
    images = open_dataset("shapes:train", work=work, options={"images": 5})
    generator = np.random.default_rng(0)
    writer = Writer(work / "p", Identity("propose", 1), images.image_ids, Schema(rows={"boxes": Column(shape=(4,))}))
    for part in writer.claim():
        counts = [40, 0, 7, 33, 12]
        corners = [generator.uniform(0, 120, (count, 2)) for count in counts]
        boxes = [np.hstack([one, one + generator.uniform(10, 80, one.shape)]).astype(np.float32) for one in corners]
        writer.write(part, [{"boxes": one} for one in boxes])
    writer.finish({})
    writer.release()
    network = NetworkSource.from_settings(NetworkSettings("shapenet", "random"))
    return {"images": images, "proposals": Reader(work / "p"), "network": network}


@pytest.fixture
def broken_image(inputs, tmp_path) -> dict:
    """The same with a text file in the place of the third image."""
    images = open_dataset("shapes:train", work=tmp_path, options={"images": 5})
    path = Path(images.image_path(images.image_ids[2]))
    path.unlink()
    path.write_text("no picture")
    return {**inputs, "images": images}


def contents(reader: Reader) -> dict:
    return {item: {name: values.tobytes() for name, values in record.items()} for item, record in reader.records()}


def test_rows_are_objects_then_proposals(inputs, run_stage):
    """fidelity.md section 2: ground truth first, then every proposal; image_size is (width, height)."""
    reader = run_stage(STAGE, SHAPENET, inputs)
    for image_id, record in reader.records():
        told = inputs["images"].record(image_id)
        proposals = inputs["proposals"].read(image_id)["boxes"]
        objects = len(told.boxes)
        assert objects > 0
        np.testing.assert_array_equal(record["boxes"], np.concatenate([told.boxes, proposals]))
        np.testing.assert_array_equal(record["is_object"], np.arange(len(record["boxes"])) < objects)
        np.testing.assert_array_equal(record["label"][:objects], told.labels)
        assert (record["label"][objects:] == PROPOSAL).all()
        np.testing.assert_array_equal(record["difficult"][:objects], told.difficult)
        assert record["image_size"].tolist() == [told.width, told.height]
        assert record["fc5"].dtype == np.float16
        assert record["pool4"].shape == (len(record["boxes"]), 1536)
    summary = reader.manifest["summary"]
    assert summary["proposals"] == 92
    assert summary["objects"] == int(reader.lengths().sum()) - 92
    assert summary["network"] == inputs["network"].identity()


def test_features_are_those_of_each_region_alone(inputs, run_stage):
    """One region at a time through the same network gives the same numbers, but for float16."""
    reader = run_stage(STAGE, SHAPENET, inputs)
    network = inputs["network"].load()
    image_id = inputs["images"].image_ids[0]
    record = reader.read(image_id)
    image = torch.from_numpy(read_image(inputs["images"].image_path(image_id))).permute(2, 0, 1)
    with torch.inference_mode():
        for row in range(0, len(record["boxes"]), 5):
            region = warp_regions(image, record["boxes"][row : row + 1], 64, "warp", 4, network.preprocessing)
            expected = network.forward(region, ["fc5", "pool4"])
            for layer, values in expected.items():
                np.testing.assert_allclose(record[layer][row], values[0].numpy(), rtol=2e-3, atol=2e-4)


def test_bits_do_not_depend_on_processes_or_parts(inputs, run_stage):
    """One process or two, parts of one image or of three: the same bytes."""
    expected = contents(run_stage(STAGE, SHAPENET, inputs, "one"))
    parallel = run_stage(STAGE, SHAPENET, inputs, "two", part_size=1, execution=Execution(jobs=2))
    assert contents(parallel) == expected
    assert contents(run_stage(STAGE, SHAPENET, inputs, "three", part_size=3)) == expected


def test_threads_before_do_not_matter(inputs, run_stage):
    """The stage takes one thread on the CPU and gives back what the caller had."""
    expected = contents(run_stage(STAGE, SHAPENET, inputs, "one"))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert contents(run_stage(STAGE, SHAPENET, inputs, "two")) == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_batch_size_changes_only_rounding(inputs, run_stage):
    """A batch of 3 and of 32 agree to float16's last digit."""
    default = run_stage(STAGE, SHAPENET, inputs, "default")
    small = run_stage(STAGE, SHAPENET, inputs, "small", execution=Execution(batch_size=3))
    for (_, first), (_, second) in zip(default.records(), small.records(), strict=True):
        np.testing.assert_allclose(first["fc5"], second["fc5"], rtol=2e-3, atol=2e-4)


class Bar:
    """A progress bar that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    @contextlib.contextmanager
    def opened(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
        self.told.append((label, total, unit))
        yield self

    def advance(self, items=1, rows=0):
        self.told.append((items, rows))


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_counts_images_and_regions(inputs, run_stage, jobs):
    """Whoever fills the cache, the bar ends where it should."""
    bar = Bar()
    reader = run_stage(STAGE, SHAPENET, inputs, execution=Execution(jobs=jobs, progress=bar.opened))
    assert bar.told[0] == ("extract", 5, "images")
    assert np.sum(bar.told[1:], axis=0).tolist() == [5, reader.lengths().sum()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_image_stops_the_run(broken_image, run_stage, jobs):
    """Also when another process meets it: the sentence names the file."""
    with pytest.raises(BadImage, match=r"train_00002\.jpg: is not an image"):
        run_stage(STAGE, SHAPENET, broken_image, execution=Execution(jobs=jobs))


def test_bad_image_can_be_skipped(broken_image, inputs, run_stage):
    """It leaves a record of length zero and its reason; the other images are not touched."""
    skipped = run_stage(STAGE, SHAPENET, broken_image, "skipped", execution=Execution(skip_bad_images=True))
    bad = broken_image["images"].image_ids[2]
    assert list(skipped.manifest["skipped"]) == [bad]
    assert len(skipped.read(bad)["boxes"]) == 0
    assert skipped.read(bad)["fc5"].shape == (0, 256)
    whole = contents(run_stage(STAGE, SHAPENET, inputs, "whole"))
    found = contents(skipped)
    assert all(found[image_id] == whole[image_id] for image_id in whole if image_id != bad)


def test_failed_write_shows(inputs, run_stage, monkeypatch):
    """Parts are written behind the network's back, but an error does not stay there."""

    def fail(*_):
        raise CacheError("the disk is full")

    monkeypatch.setattr(Writer, "write", fail)
    with pytest.raises(CacheError, match="the disk is full"):
        run_stage(STAGE, SHAPENET, inputs, part_size=2)


class LoudNetwork:
    """A stand-in whose features are far too large."""

    input_size, dtype, device, layers = 64, torch.float32, torch.device("cpu"), {"fc5": 2}

    def __init__(self, network):
        self.preprocessing = network.preprocessing

    def forward(self, batch, layers):
        return {name: torch.full((len(batch), 2), 1e5) for name in layers}


def test_overflow_names_the_layer_and_the_way_out(inputs):
    """100,000 is beyond float16; stored as float32 it is itself."""
    image = np.zeros((50, 50, 3), np.uint8)
    box = np.array([[0, 0, 20, 20]], np.float32)
    network: Any = LoudNetwork(inputs["network"].load())
    settings = Settings(layers=("fc5",), padding=4)
    with pytest.raises(StageError, match=r"layer 'fc5'.*set extract.dtype = \"float32\""):
        extract_features(image, box, network, settings)
    stored = extract_features(image, box, network, replace(settings, dtype="float32"))
    assert stored["fc5"].tolist() == [[1e5, 1e5]]
    assert stored["fc5"].dtype == np.float32


def test_no_box_gives_no_row(inputs):
    """[0, D] of the stored type."""
    features = extract_features(
        np.zeros((9, 9, 3), np.uint8), np.zeros((0, 4), np.float32), inputs["network"].load(), SHAPENET
    )
    assert {name: (values.shape, values.dtype.name) for name, values in features.items()} == {
        "fc5": ((0, 256), "float16"),
        "pool4": ((0, 1536), "float16"),
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2)])
@pytest.mark.parametrize("mode", ["warp", "square", "square-masked"])
def test_thin_images_and_boxes_outside(inputs, shape, mode):
    """The least image and boxes beyond it still have finite features."""
    boxes = np.array([[0, 0, 1, 1], [0, 0, 300, 300], [500, 500, 600, 600], [0, 0, 0, 0]], np.float32)
    image = np.full((*shape, 3), 200, np.uint8)
    features = extract_features(image, boxes, inputs["network"].load(), replace(SHAPENET, mode=mode))
    assert np.isfinite(features["fc5"].astype(np.float32)).all()


def similarity(source: NetworkSource, layer: str, padding: int, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Cosine between float32 and bfloat16 features of each box."""
    found = []
    for precision in ("float32", "bfloat16"):
        settings = Settings(layers=(layer,), padding=padding, precision=precision, dtype="float32")
        with arithmetic(settings.precision, "cpu"):
            network = load_network(source, settings, "cpu")
            found.append(extract_features(image, boxes, network, settings)[layer].astype(np.float64))
    norms = np.linalg.norm(found, axis=2)
    return (found[0] * found[1]).sum(axis=1) / norms.prod(axis=0)


def test_bfloat16_turns_features_by_little(inputs):
    """bfloat16 keeps 8 bits: cosines stay above 0.999 on a random shapenet (and are not exactly 1)."""
    image_id = inputs["images"].image_ids[0]
    image = inputs["images"].read_image(image_id)
    boxes = inputs["proposals"].read(image_id)["boxes"]
    cosines = similarity(inputs["network"], "fc5", 4, image, boxes)
    assert cosines.min() > 0.999
    assert cosines.min() < 1 - 1e-9


@pytest.mark.skipif(not os.environ.get("RCNN_SQUEEZENET"), reason="RCNN_SQUEEZENET names no weights")
def test_bfloat16_on_the_real_squeezenet(inputs):
    """The same with real weights, on the layer that the recipe uses."""
    settings = NetworkSettings("squeezenet1_0", os.environ["RCNN_SQUEEZENET"], preprocessing="caffe")
    image_id = inputs["images"].image_ids[0]
    image = inputs["images"].read_image(image_id)
    boxes = inputs["proposals"].read(image_id)["boxes"][:16]
    cosines = similarity(NetworkSource.from_settings(settings), "fire9_2x2", 16, image, boxes)
    assert cosines.min() > 0.995


def test_settings_that_do_not_fit_the_network(inputs):
    """Each is one sentence with the way out."""
    network = inputs["network"]
    with pytest.raises(BadSetting, match="shapenet has no layer 'fc7'"):
        layer_dimensions(Settings(), network)
    with pytest.raises(BadSetting, match="name one or more layers of shapenet, each once"):
        layer_dimensions(Settings(layers=()), network)
    with pytest.raises(BadSetting, match="name one or more layers of shapenet, each once"):
        layer_dimensions(Settings(layers=("fc5", "fc5")), network)
    with pytest.raises(BadSetting, match=r"padding = 32 leaves no room .* set it to 31 or less"):
        layer_dimensions(Settings(layers=("fc5",), padding=32), network)
    for precision in ("float16", "tf32"):
        with pytest.raises(BadSetting, match="needs --device cuda"):
            load_network(network, replace(SHAPENET, precision=precision), "cpu")


def test_large_buffers_are_kept_where_glibc_is(monkeypatch):
    """glibc is told and agrees; another C library is left alone."""
    if platform.libc_ver()[0] == "glibc":
        assert keep_large_buffers()
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_large_buffers()


@pytest.mark.parametrize("skip", [False, True])
def test_on_demand_is_what_the_cache_holds(inputs, broken_image, run_stage, skip):
    """Also from another process (pickled), in any order, and for an image that is skipped."""
    chosen, execution = (broken_image if skip else inputs), Execution(skip_bad_images=skip)
    expected = contents(run_stage(STAGE, SHAPENET, chosen, execution=execution))
    source = pickle.loads(pickle.dumps(on_demand(SHAPENET, Inputs(chosen), execution)))
    assert source.schema == schema(SHAPENET, Inputs(chosen))
    for image_id in reversed(source.item_ids):
        found = source.read(image_id)
        assert {name: values.tobytes() for name, values in found.items()} == expected[image_id]
    assert list(source.read(source.item_ids[0], ["fc5"])) == ["fc5"]
    assert list(source.manifest["skipped"]) == ([source.item_ids[2]] if skip else [])


def test_on_demand_stops_at_a_bad_image(broken_image):
    source = on_demand(SHAPENET, Inputs(broken_image), Execution())
    with pytest.raises(BadImage, match=r"train_00002\.jpg: is not an image"):
        source.read(source.item_ids[2])
