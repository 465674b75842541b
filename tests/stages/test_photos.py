"""Photographs in a dataset's place: the stages read them as they read a dataset's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.contract.card import Stage
from stages.contract.catalogue import catalogue
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs, ItemReader
from stages.datasets import BadDataset, Photos
from stages.extract import Settings as ExtractSettings
from stages.extract.stage import on_demand as features_on_demand
from stages.networks import NetworkSource
from stages.networks.cards import NETWORKS
from stages.propose import Settings as ProposeSettings
from stages.propose.selection import rows_by_size
from stages.propose.sliding_window import sliding_windows
from stages.propose.stage import on_demand as proposals_on_demand

WINDOWS = ProposeSettings(method="sliding-window", max_boxes=9, seed=5)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def test_a_photo_is_its_pixels_and_has_no_objects() -> None:
    photos = Photos()
    assert (photos.image_ids, len(photos)) == ((), 0)
    photos.show("a", PIXELS, Path("folder/a.jpg"))
    assert photos.image_ids == ("a",)
    np.testing.assert_array_equal(photos.read_image("a"), PIXELS)
    assert (photos.image_size("a"), photos.image_path("a")) == ((60, 40), Path("folder/a.jpg"))
    record = photos.record("a")
    assert (record.width, record.height, record.boxes.shape, len(record.labels)) == (60, 40, (0, 4), 0)
    assert photos.classes == ()


def test_a_photo_takes_the_place_of_the_one_before() -> None:
    photos = Photos()
    for name in "ab":
        photos.show(name, PIXELS)
    assert photos.image_ids == ("b",)
    with pytest.raises(BadDataset, match="photos: has no image 'a'"):
        photos.read_image("a")


@pytest.mark.parametrize(
    "stage", [stage for stage in catalogue().values() if stage.follows_split], ids=lambda stage: stage.name
)
def test_what_follows_a_split_follows_photos(stage: Stage) -> None:
    assert stage.function("on_demand") is not None


def test_proposals_and_features_of_photos_that_come_one_by_one() -> None:
    """What is opened before the first photo is shown reads each; its pixels seed the proposals' order."""
    photos = Photos()
    proposals = proposals_on_demand(WINDOWS, Inputs({"images": photos}), Execution())
    network = NetworkSource("shapenet", "random", NETWORKS["shapenet"].preprocessing, 10)
    given = Inputs({"images": photos, "proposals": proposals, "network": network})
    features = features_on_demand(ExtractSettings(layers=("pool4",), padding=0), given, Execution())
    for reader in (proposals, features):
        assert isinstance(reader, ItemReader)
        assert reader.item_ids == ()
    windows = sliding_windows(60, 40, WINDOWS.scales, WINDOWS.aspects, WINDOWS.stride)
    for name in "ab":
        photos.show(name, PIXELS)
        assert features.item_ids == (name,)
        record = features.read(name)
        np.testing.assert_array_equal(record["boxes"], windows[rows_by_size(windows, "60 x 40", 5)[:9]])
        assert record["pool4"].shape == (9, network.layers["pool4"])
        assert record["image_size"].tolist() == [60, 40]
        assert not record["is_object"].any()
