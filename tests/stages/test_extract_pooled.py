"""extract with method = "roi-pool": the same rows as by warping, the network's own numbers, and maps cached or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import Column, Identity, Reader, Schema, Writer
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import build_settings, with_network
from stages.datasets import open_dataset
from stages.extract import STAGE, Settings
from stages.extract.features import pooled_features
from stages.extract.stage import PROPOSAL, on_demand
from stages.maps import STAGE as MAPS
from stages.maps import Settings as MapsSettings
from stages.maps.stage import on_demand as maps_on_demand
from stages.networks import NETWORKS, NetworkSettings, NetworkSource, PlannedNetwork
from stages.networks.feature_maps import FeatureMaps, compute_maps
from stages.networks.heads import Heads, RegionHead
from stages.networks.roi_pooling import corner_cells
from stages.networks.truncated_svd import decomposed, with_truncated_layers
from stages.networks.weights import NETWORK, weight_columns, weight_record

POOLED = Settings(method="roi-pool", layers=("pool4", "fc5"))
SCALES = MapsSettings(sides=(80, 160), longest=240)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict:
    """Four small scenes, 0 to 40 proposals each, and a random shapenet."""
    work = tmp_path_factory.mktemp("pooled")
    images = open_dataset("shapes:train", work=work, options={"images": 4})
    generator = np.random.default_rng(0)
    writer = Writer(work / "p", Identity("propose", 1), images.image_ids, Schema(rows={"boxes": Column(shape=(4,))}))
    for part in writer.claim():
        corners = [generator.uniform(0, 120, (count, 2)) for count in (40, 0, 7, 33)]
        boxes = [np.hstack([first, first + generator.uniform(10, 80, first.shape)]) for first in corners]
        writer.write(part, [{"boxes": rows.astype(np.float32)} for rows in boxes])
    writer.finish({})
    writer.release()
    network = NetworkSource.from_settings(NetworkSettings("shapenet", "random"))
    return {"images": images, "proposals": Reader(work / "p"), "network": network}


@pytest.fixture
def inputs(given) -> dict:
    """The same with maps that are computed as they are read."""
    return {**given, "maps": maps_on_demand(SCALES, Inputs(given), Execution())}


def contents(reader) -> dict:
    return {item: {name: values.tobytes() for name, values in reader.read(item).items()} for item in reader.item_ids}


def test_rows_are_those_of_warped_regions(inputs, run_stage):
    """Boxes, labels, flags and sizes; only the features differ."""
    pooled = run_stage(STAGE, POOLED, inputs, "pooled")
    warped = run_stage(STAGE, Settings(layers=POOLED.layers, padding=4), inputs, "warped")
    assert pooled.schema == warped.schema
    for image_id in pooled.item_ids:
        first, second = pooled.read(image_id), warped.read(image_id)
        for name in ("boxes", "is_object", "label", "difficult", "image_size"):
            np.testing.assert_array_equal(first[name], second[name])
    assert (pooled.read(pooled.item_ids[0])["label"] == PROPOSAL).sum() == 40
    assert pooled.manifest["summary"] == warped.manifest["summary"]


def test_features_are_the_heads_of_each_region(inputs):
    """Maximum over the cells of each bin by hand, on the map whose scale suits the box, then the head on it."""
    network = inputs["network"].load()
    image_id = inputs["images"].image_ids[0]
    maps = FeatureMaps.of_record(inputs["maps"].read(image_id))
    boxes = np.array([[0, 0, 32, 32], [8, 16, 72, 80], [0, 0, 128, 128]], np.float32)  # areas near 64 x 64 or not
    features = pooled_features(maps, boxes, network, POOLED)
    for row, box in enumerate(boxes):
        areas = [(box[2] - box[0]) * (box[3] - box[1]) * scale**2 for scale in maps.scales]
        level = int(np.abs(np.array(areas) - 64**2).argmin())
        x1, y1, x2, y2 = corner_cells(box[None], np.array([maps.scales[level]]), 8)[0]
        cells = torch.from_numpy(maps.maps[level].astype(np.float32)).permute(2, 0, 1)[:, y1 : y2 + 1, x1 : x2 + 1]
        region = torch.nn.functional.adaptive_max_pool2d(cells[None], 4)
        np.testing.assert_allclose(features["pool4"][row], region.flatten(), rtol=1e-3, atol=1e-3)
        with torch.inference_mode():
            expected = network.head(region, ["fc5"])["fc5"][0]
        np.testing.assert_allclose(features["fc5"][row], expected, rtol=2e-2, atol=5e-3)


def test_the_whole_map_gives_what_the_forward_pass_gives():
    """An image of the network's own size, and a box whose first and last pixels lie in its first and last cells."""
    network = NetworkSource.from_settings(NetworkSettings("shapenet", "random")).load()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    maps = compute_maps(pixels, network, (64,), 64, "float32")
    whole = np.array([[0, 0, 60, 60]], np.float32)  # its last pixel, 59, is nearest to cell 7 of 0 to 7
    features = pooled_features(maps, whole, network, replace(POOLED, dtype="float32"))
    image = network.preprocessing.apply(torch.from_numpy(pixels).permute(2, 0, 1))[None]
    with torch.inference_mode():
        expected = network.forward(image, POOLED.layers)
    for layer, values in expected.items():
        np.testing.assert_allclose(features[layer], values.numpy(), rtol=1e-5, atol=1e-6)


def test_coinciding_boxes_have_equal_features(inputs):
    network = inputs["network"].load()
    maps = FeatureMaps.of_record(inputs["maps"].read(inputs["images"].image_ids[0]))
    boxes = np.array([[20, 20, 60, 60], [90, 0, 120, 50], [20.25, 20, 60, 60.25]], np.float32)
    features = pooled_features(maps, boxes, network, POOLED, batch_size=1)
    np.testing.assert_array_equal(features["fc5"][0], features["fc5"][2])
    assert (features["fc5"][0] != features["fc5"][1]).any()


@pytest.mark.parametrize("name", ["squeezenet1_0", "efficientnet_lite0"])
def test_networks_without_fully_connected_layers(name):
    """Their heads start from the trunk's own map."""
    network = NetworkSource.from_settings(NetworkSettings(name, "random")).load()
    pixels = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    maps = compute_maps(pixels, network, (160,), 300, "float16")
    settings = Settings(method="roi-pool", layers=(network.card.default_layer,), pooling="align")
    features = pooled_features(maps, np.array([[0, 0, 90, 80], [10, 5, 149, 119]], np.float32), network, settings)
    values = features[network.card.default_layer].astype(np.float32)
    assert values.shape == (2, network.layers[network.card.default_layer])
    assert np.isfinite(values).all()


def test_bits_do_not_depend_on_processes_or_on_where_maps_come_from(inputs, given, run_stage):
    """One process or two, maps cached or computed as they are read, features on demand: the same bytes."""
    expected = contents(run_stage(STAGE, POOLED, inputs, "one"))
    parallel = run_stage(STAGE, POOLED, inputs, "two", part_size=1, execution=Execution(jobs=2))
    assert contents(parallel) == expected
    cached = {**given, "maps": run_stage(MAPS, SCALES, given, "maps")}
    assert contents(run_stage(STAGE, POOLED, cached, "cached")) == expected
    assert contents(on_demand(POOLED, Inputs(inputs), Execution())) == expected


def test_mirrored_maps_change_nothing(inputs, given):
    """Regions are pooled from the plain maps, whether there are others or not."""
    mirrored = maps_on_demand(replace(SCALES, mirrored=True), Inputs(given), Execution())
    expected, found = (
        on_demand(POOLED, Inputs({**inputs, "maps": maps}), Execution()) for maps in (inputs["maps"], mirrored)
    )
    assert contents(found) == contents(expected)


def test_truncated_layers_in_one_process_or_two_and_on_demand(inputs, run_stage):
    """The same bytes everywhere, and other features than the whole layer's; what precedes it is untouched."""
    settings = replace(POOLED, truncated_svd=("fc5:8",))
    cut = run_stage(STAGE, settings, inputs, "cut")
    parallel = run_stage(STAGE, settings, inputs, "parallel", part_size=1, execution=Execution(jobs=2))
    assert contents(parallel) == contents(cut)
    for jobs in (1, 2):
        assert contents(on_demand(settings, Inputs(inputs), Execution(jobs=jobs))) == contents(cut)
    plain = run_stage(STAGE, POOLED, inputs, "plain")
    image_id = cut.item_ids[0]
    near, exact = (reader.read(image_id) for reader in (cut, plain))
    np.testing.assert_array_equal(near["pool4"], exact["pool4"])
    assert (near["fc5"] != exact["fc5"]).any(axis=1).all()
    with torch.inference_mode():
        network = inputs["network"].load()
        of_layer = with_truncated_layers(network, decomposed(network, {"fc5": 8}))
        regions = torch.from_numpy(near["pool4"].astype(np.float32)).reshape(-1, 96, 4, 4)
        expected = of_layer.head(regions, ["fc5"])["fc5"]
    np.testing.assert_allclose(near["fc5"], expected, rtol=2e-2, atol=5e-3)


@pytest.fixture
def stored(given, tmp_path):
    """stored(name, ...): the given network in a cache, with the tensors named changed."""

    def write(name, *changed):
        state = given["network"].module().state_dict()
        for tensor in changed:
            state[tensor] = state[tensor] + 1
        writer = Writer(
            tmp_path / name, Identity("finetune", 1, {"name": name}), [NETWORK], Schema(per_item=weight_columns(state))
        )
        for part in writer.claim():
            writer.write(part, [weight_record(state)])
        writer.finish({}, lambda reader: {"network": "shapenet", "classes": 10})
        writer.release()
        return NetworkSource.from_reader(Reader(tmp_path / name))

    return write


@pytest.mark.parametrize("kept", [True, False])
def test_maps_of_another_trunk_are_refused(given, stored, run_stage, kept):
    """A network with the same trunk and another head reads them, whether they are cached or not."""
    maps = run_stage(MAPS, SCALES, given, "maps") if kept else maps_on_demand(SCALES, Inputs(given), Execution())
    same = {**given, "maps": maps, "network": stored("head", "fc5.bias")}
    record = run_stage(STAGE, POOLED, same, "same").read(given["images"].image_ids[0])
    expected = on_demand(POOLED, Inputs({**given, "maps": maps}), Execution()).read(given["images"].image_ids[0])
    np.testing.assert_array_equal(record["pool4"], expected["pool4"])
    assert (record["fc5"] != expected["fc5"]).any()
    with pytest.raises(BadSetting, match="extract: its maps are those of another network; give the same network"):
        run_stage(STAGE, POOLED, {**same, "network": stored("trunk", "conv4.0.weight")}, "other")


def test_maps_that_do_not_record_their_trunk(given, stored, run_stage):
    """Those of an earlier version are read with the very network that they are of."""
    maps = run_stage(MAPS, SCALES, given, "maps")
    del maps.manifest["summary"]["trunk"]
    run_stage(STAGE, POOLED, {**given, "maps": maps}, "same")
    with pytest.raises(BadSetting, match=r"an earlier version.*run maps again with --force"):
        run_stage(STAGE, POOLED, {**given, "maps": maps, "network": stored("head", "fc5.bias")}, "other")


@pytest.mark.parametrize("kept", [True, False])
def test_a_bad_image_is_skipped_with_its_maps(given, run_stage, tmp_path, kept):
    images = open_dataset("shapes:train", work=tmp_path, options={"images": 4})
    path = Path(images.image_path(images.image_ids[2]))
    path.unlink()
    path.write_text("no picture")
    broken, skipping = {**given, "images": images}, Execution(skip_bad_images=True)
    with pytest.raises(BadImage, match=r"train_00002\.jpg: is not an image"):
        run_stage(STAGE, POOLED, {**broken, "maps": maps_on_demand(SCALES, Inputs(broken), Execution())}, "stopped")
    demand = maps_on_demand(SCALES, Inputs(broken), skipping)
    broken["maps"] = run_stage(MAPS, SCALES, broken, "maps", execution=skipping) if kept else demand
    reader = run_stage(STAGE, POOLED, broken, "skipped", execution=skipping)
    assert list(reader.manifest["skipped"]) == [images.image_ids[2]]
    assert reader.read(images.image_ids[2])["fc5"].shape == (0, 256)
    assert reader.read(images.image_ids[2])["image_size"].tolist() == [0, 0]


def test_overflow_names_the_layer(inputs):
    network = inputs["network"].load()
    loud = FeatureMaps((np.full((10, 10, 96), 1e5, np.float32),), (1.0,), (80, 80))
    box = np.array([[0, 0, 40, 40]], np.float32)
    with pytest.raises(StageError, match=r"layer 'pool4'.*set extract.dtype = \"float32\""):
        pooled_features(loud, box, network, POOLED)


DETECTOR = Heads(None, RegionHead("align", 3, (20,), 0.5))


def test_deltas_of_a_detector_keep_their_digits(inputs, run_stage):
    """In float32, whatever `dtype` is; the regions are pooled to the size that its head takes."""
    own = inputs["network"]
    detector = NetworkSource("shapenet", "random", own.preprocessing, 4, heads=DETECTOR)
    settings = Settings(method="roi-pool", layers=("fc6", "softmax", "deltas"), pooling="align")
    maps = maps_on_demand(SCALES, Inputs({**inputs, "network": detector}), Execution())
    reader = run_stage(STAGE, settings, {**inputs, "network": detector, "maps": maps})
    columns = {name: (column.dtype, column.shape) for name, column in reader.schema.rows.items()}
    assert columns["deltas"] == ("float32", (12,))
    assert columns["softmax"] == ("float32", (4,))
    assert columns["fc6"] == ("float16", (20,))
    record = reader.read(reader.item_ids[0])
    with torch.inference_mode():
        hidden = torch.from_numpy(record["fc6"].astype(np.float32))
        expected = detector.module().get_submodule("regions.bbox_pred")(hidden)
    np.testing.assert_allclose(record["deltas"], expected, atol=2e-3)


def test_a_detectors_regions_are_pooled_as_in_its_training():
    """By default; another pooling is refused, and so are deltas of warped regions."""
    assert STAGE.check is not None
    card = NETWORKS["shapenet"].with_heads(DETECTOR)
    left_out = build_settings(Settings, {"method": "roi-pool", "layers": ["deltas"]})
    assert with_network(left_out, card).pooling == "align"
    assert with_network(left_out, NETWORKS["shapenet"]).pooling == "max"
    STAGE.check(with_network(left_out, card), PlannedNetwork(card, True), {})
    other = Settings(method="roi-pool", layers=("deltas",), pooling="max")
    with pytest.raises(BadSetting, match=r"pooling = 'max': this shapenet was trained on regions pooled by 'align'"):
        STAGE.check(other, PlannedNetwork(card, True), {})
    with pytest.raises(BadSetting, match=r"'deltas'\]: box deltas move regions that are pooled from the map"):
        STAGE.check(Settings(layers=("softmax", "deltas"), padding=4), PlannedNetwork(card, True), {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(method="roi-pool", layers=("conv4",)), "'conv4' is not computed from 'pool4'; choose a later layer"),
        (Settings(method="roi-pool", layers=("fc7",)), "shapenet has no layer 'fc7'"),
    ],
)
def test_layers_that_the_head_does_not_compute(settings, message):
    assert STAGE.check is not None
    with pytest.raises(BadSetting, match=message):
        STAGE.check(settings, PlannedNetwork(NETWORKS["shapenet"], True), {})
