"""maps: the scale of an image, where the cells lie, what is cached, and the same on demand."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import open_dataset
from stages.datasets.photos import Photos
from stages.images.scale import image_scale, scaled_image
from stages.maps import STAGE, Settings
from stages.maps.stage import check_finite, on_demand
from stages.networks import NETWORKS, NetworkSettings, NetworkSource, PlannedNetwork
from stages.networks.architectures import empty_module
from stages.networks.feature_maps import FeatureMaps, compute_maps, network_input
from stages.networks.network import Network

SMALL = Settings(sides=(64, 96), longest=120)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict:
    """Five small scenes and a random shapenet."""
    images = open_dataset("shapes:train", work=tmp_path_factory.mktemp("maps"), options={"images": 5})
    return {"images": images, "network": NetworkSource.from_settings(NetworkSettings("shapenet", "random"))}


def contents(reader) -> dict:
    return {item: {name: values.tobytes() for name, values in reader.read(item).items()} for item in reader.item_ids}


@pytest.mark.parametrize(
    ("size", "side", "longest", "scale"),
    [
        ((500, 375), 600, 1000, 1.6),
        ((375, 500), 600, 1000, 1.6),
        ((1000, 300), 600, 1000, 1.0),  # 600 would make it 2,000 long
        ((600, 360), 600, 1000, 600 / 360),  # exactly 1,000
        ((100, 100), 50, 1000, 0.5),
    ],
)
def test_scale_by_hand(size, side, longest, scale):
    width, height = size
    assert image_scale(width, height, side, longest) == scale


def test_a_scaled_image_is_bilinear_without_antialiasing():
    """Half the size: each pixel is the mean of 2 x 2; sides are rounded; the values are not."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    halved = scaled_image(pixels, 0.5)
    np.testing.assert_allclose(halved, pixels.astype(np.float32).reshape(3, 2, 4, 2, 3).mean(axis=(1, 3)), rtol=1e-6)
    assert halved.dtype == np.float32
    assert scaled_image(pixels, 1.2).shape == (7, 10, 3)
    np.testing.assert_array_equal(scaled_image(pixels, 1.0), pixels)
    assert scaled_image(pixels[:1], 0.1).shape == (1, 1, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_margins(name):
    """No network's first cell is centred further from the image's edge than half a stride; an input of at least the
    least side has a map, and one with a margin has a cell for every begun stride."""
    card = NETWORKS[name]
    trunk = card.trunk
    assert 0 < trunk.first_centre <= trunk.stride / 2
    network = Network(card, empty_module(card, 7), 7, card.preprocessing)
    for side in (1, 7, 61, 160, 161, 250):
        image = torch.zeros((3, 2 * side, side))
        before, after = trunk.margin
        height, width = (max(length + before + after, trunk.least_side) for length in image.shape[1:])
        maps = network.maps(torch.empty((1, 3, height, width), device="meta"))
        assert min(maps.shape[2:]) >= 1
        if trunk.margin != (0, 0) and width == side + before + after:
            assert maps.shape[3] == -(-side // trunk.stride)


def test_the_input_has_its_margin_in_the_mean_colour():
    """SqueezeNet: 17 pixels before, 3 after; a strip is padded to the least side."""
    network = NetworkSource.from_settings(NetworkSettings("squeezenet1_0", "random")).load()
    image = np.full((80, 100, 3), 255, np.float32)
    padded = network_input(image, network)[0]
    assert padded.shape == (3, 100, 120)
    assert (padded[:, :17] == 0).all()
    assert (padded[:, 97:] == 0).all()
    assert (padded[:, :, :17] == 0).all()
    assert (padded[:, 17:97, 17:117] > 1).all()
    assert network_input(image[:1], network).shape == (1, 3, 64, 120)


def test_maps_are_the_trunks(inputs, run_stage):
    """At two scales, each the trunk's map of the scaled image, in float16; sizes are (width, height)."""
    reader = run_stage(STAGE, SMALL, inputs)
    network = inputs["network"].load()
    for image_id in inputs["images"].image_ids:
        pixels = inputs["images"].read_image(image_id)
        maps = FeatureMaps.of_record(reader.read(image_id))
        height, width = pixels.shape[:2]
        assert maps.image_size == (width, height)
        assert maps.scales == tuple(image_scale(width, height, side, 120) for side in (64, 96))
        for cells, scale in zip(maps.maps, maps.scales, strict=True):
            image = torch.from_numpy(scaled_image(pixels, scale)).permute(2, 0, 1)
            with torch.inference_mode():
                expected = network.maps(network.preprocessing.apply(image)[None])[0].permute(1, 2, 0)
            assert cells.dtype == np.float16
            np.testing.assert_allclose(cells, expected.numpy(), rtol=2e-3, atol=1e-3)
    assert reader.manifest["summary"]["network"] == inputs["network"].identity()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_record_and_back(mirrored):
    two = (np.arange(24, dtype=np.float16).reshape(2, 3, 4), np.ones((1, 2, 4), np.float16))
    flipped = tuple(cells + 100 for cells in two) if mirrored else ()
    maps = FeatureMaps(two, (1.0, 0.5), (30, 20), flipped)
    record = maps.record()
    assert record["cells"].shape == (16 if mirrored else 8, 4)
    assert record["map_size"].tolist() == [[3, 2], [2, 1]] * (2 if mirrored else 1)
    assert record["scale"].tolist() == [1, 0.5]
    back = FeatureMaps.of_record(record)
    assert (back.scales, back.image_size) == (maps.scales, maps.image_size)
    for first, second in zip((*back.maps, *back.mirrored), (*two, *flipped), strict=True):
        np.testing.assert_array_equal(first, second)


def test_mirrored_maps_follow_the_plain_ones(inputs, run_stage):
    """They are the trunk's of the mirrored image; the plain ones and the scales are as without them."""
    reader = run_stage(STAGE, replace(SMALL, mirrored=True), inputs, "mirrored")
    plain = on_demand(SMALL, Inputs(inputs), Execution())
    network = inputs["network"].load()
    for image_id in inputs["images"].image_ids:
        maps, alone = FeatureMaps.of_record(reader.read(image_id)), FeatureMaps.of_record(plain.read(image_id))
        assert (maps.scales, maps.image_size) == (alone.scales, alone.image_size)
        assert not alone.mirrored
        for cells, mirrored, expected, scale in zip(maps.maps, maps.mirrored, alone.maps, maps.scales, strict=True):
            np.testing.assert_array_equal(cells, expected)
            image = scaled_image(inputs["images"].read_image(image_id), scale)[:, ::-1].copy()
            batch = network.preprocessing.apply(torch.from_numpy(image).permute(2, 0, 1))[None]
            with torch.inference_mode():
                of_mirrored = network.maps(batch)[0].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(mirrored, of_mirrored, rtol=2e-3, atol=1e-3)
            assert (mirrored != cells[:, ::-1]).any()


def test_the_margin_of_a_mirrored_image_is_not_mirrored():
    """SqueezeNet's is 17 pixels before the image and 3 after it, on either side of a mirror."""
    network = NetworkSource.from_settings(NetworkSettings("squeezenet1_0", "random")).load()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 101, 3), dtype=np.uint8)
    maps = compute_maps(pixels, network, (80,), 200, "float32", mirrored=True)
    of_mirrored = compute_maps(np.ascontiguousarray(pixels[:, ::-1]), network, (80,), 200, "float32")
    np.testing.assert_array_equal(maps.mirrored[0], of_mirrored.maps[0])
    assert np.abs(maps.mirrored[0] - maps.maps[0][:, ::-1]).max() > 0.01


def test_overflow_in_a_mirrored_map_counts():
    fine, infinite = np.zeros((1, 2, 4), np.float16), np.full((1, 2, 4), np.inf, np.float16)
    with pytest.raises(StageError, match=r"exceed the range of float16"):
        check_finite(FeatureMaps((fine,), (1.0,), (16, 8), (infinite,)), "float16")


def test_an_image_that_two_read_is_convolved_once(inputs, monkeypatch):
    """Also after pickling. The names of photos come to stand for others: that counts as another image."""
    calls = []
    maps_of = Network.maps

    def counted(network, batch):
        calls.append(batch.shape)
        return maps_of(network, batch)

    monkeypatch.setattr(Network, "maps", counted)
    demand = on_demand(SMALL, Inputs(inputs), Execution())
    first, second = inputs["images"].image_ids[:2]
    for reader in (demand, pickle.loads(pickle.dumps(demand))):
        calls.clear()
        for image_id in (first, first, second, first):
            reader.read(image_id, ["map_size"])
        assert len(calls) == 2 * len(SMALL.sides)
    photos = Photos()
    demand = on_demand(SMALL, Inputs({**inputs, "images": photos}), Execution())
    records = []
    for colour in (0, 255):
        photos.show("photo", np.full((64, 64, 3), colour, np.uint8))
        records.append(demand.read("photo")["cells"])
    assert (records[0] != records[1]).any()


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, mirrored=True)])
def test_bits_depend_on_nothing_else(inputs, run_stage, settings):
    """Processes, parts, and computing on demand, also in another process."""
    expected = contents(run_stage(STAGE, settings, inputs, "one"))
    assert contents(run_stage(STAGE, settings, inputs, "two", part_size=1, execution=Execution(jobs=2))) == expected
    demand = on_demand(settings, Inputs(inputs), Execution())
    assert contents(demand) == expected
    assert contents(pickle.loads(pickle.dumps(demand))) == expected


def test_thin_images(inputs):
    """A row of pixels, a column and a single pixel have maps."""
    network = inputs["network"].load()
    for shape in ((1, 1), (1, 3000), (2000, 1)):
        maps = compute_maps(np.zeros((*shape, 3), np.uint8), network, (240,), 400, "float32", mirrored=True)
        assert np.isfinite(maps.maps[0]).all()
        assert maps.maps[0].size
        assert maps.mirrored[0].shape == maps.maps[0].shape


def test_overflow_names_the_way_out(inputs):
    class Loud(Network):
        def maps(self, batch):
            return super().maps(batch) + 1e5

    demand = on_demand(SMALL, Inputs(inputs), Execution())
    network = inputs["network"].load()
    loud = Loud(network.card, network.module, network.classes, network.preprocessing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.maps.stage.loaded", lambda *_: loud)
        with pytest.raises(StageError, match=r'exceed the range of float16.*set maps.dtype = "float32"'):
            demand.record(inputs["images"].image_ids[0])
        stored = on_demand(replace(SMALL, dtype="float32"), Inputs(inputs), Execution())
        assert stored.record(inputs["images"].image_ids[0])["cells"].min() >= 1e5


def test_bad_images(inputs, run_stage, tmp_path):
    """One stops the run, or leaves a record without cells and its reason."""
    images = open_dataset("shapes:train", work=tmp_path, options={"images": 5})
    path = Path(images.image_path(images.image_ids[2]))
    path.unlink()
    path.write_text("no picture")
    broken = {**inputs, "images": images}
    with pytest.raises(BadImage, match=r"train_00002\.jpg: is not an image"):
        run_stage(STAGE, SMALL, broken)
    reader = run_stage(STAGE, SMALL, broken, "skipped", part_size=2, execution=Execution(skip_bad_images=True))
    assert list(reader.manifest["skipped"]) == [images.image_ids[2]]
    empty = FeatureMaps.of_record(reader.read(images.image_ids[2]))
    assert empty.image_size == (0, 0)
    assert all(cells.size == 0 for cells in empty.maps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(sides=()), r"sides = \[\] must name one or more"),
        (Settings(sides=(480, 1200)), "1200 pixels, more than longest = 1000; raise longest"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    assert STAGE.check is not None
    with pytest.raises(BadSetting, match=message):
        STAGE.check(settings, PlannedNetwork(NETWORKS["shapenet"], True), {})
