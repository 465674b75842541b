"""extract with fill = "foreground": the network sees a region alone; and which objects come first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.contract.errors import BadSetting
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import Dataset
from stages.extract import STAGE, Settings
from stages.extract.features import extract_features
from stages.extract.stage import PROPOSAL, on_demand
from stages.images.preprocessing import PLAIN
from stages.images.warp import crop_masks, warp_batches
from stages.masks import mask_boxes
from stages.networks import NetworkSettings, NetworkSource
from tests.stages.region_caches import disc, region_cache

FULL = Settings(layers=("fc5",), padding=4, objects="none")
FOREGROUND = Settings(layers=("fc5",), padding=4, objects="none", fill="foreground")
SIZE = (60, 40)


REGIONS = {
    "a": [disc(20, 20, 9, SIZE), disc(45, 10, 7, SIZE)],
    "b": [],
    "c": [np.ones(SIZE[::-1], bool), disc(30, 20, 12, SIZE), disc(30, 20, 12, SIZE) & ~disc(30, 20, 5, SIZE)],
}
"""The last two of image c have the same box."""


class Photos(Dataset):
    """Three random images of 60 x 40 pixels, with a disc of class 1 and a square of class 0 in each."""

    name, classes, image_ids, images_with_crowds = "given", ("square", "disc"), tuple(REGIONS), frozenset()

    def __init__(self) -> None:
        pass

    def read_image(self, image_id: str) -> np.ndarray:
        return np.random.default_rng(ord(image_id)).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)

    def object_masks(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        square = np.zeros(SIZE[::-1], bool)
        square[3:13, 5:25] = True
        return np.array([1, 0], np.int32), np.stack([disc(40, 25, 8, SIZE), square])


@pytest.fixture
def inputs(tmp_path) -> dict:
    network = NetworkSource.from_settings(NetworkSettings("shapenet", "random"))
    dataset = Photos()
    return {
        "images": dataset,
        "masks": dataset,
        "proposals": region_cache(tmp_path / "p", REGIONS, SIZE),
        "network": network,
    }


def crops_of(image: np.ndarray, boxes: np.ndarray, given: list[np.ndarray] | None, padding: int = 4) -> torch.Tensor:
    """The input [N, 3, 16, 16] of each box, with the mask of each if given."""
    planes = torch.from_numpy(image).permute(2, 0, 1)
    mask_of = None if given is None else given.__getitem__
    return torch.cat(list(warp_batches(planes, boxes, 16, "warp", padding, PLAIN, 2, mask_of=mask_of)))


def test_what_is_outside_the_mask_is_zero_and_the_rest_as_it_was():
    """Without padding and at the crop's own size, input pixels are the image's: the mask decides pixel by pixel."""
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 26, 21], [0, 0, 16, 16], [24, 14, 40, 30]], np.float32)
    given = [np.random.default_rng(number).random((30, 40)) < 0.5 for number in range(3)]
    full, foreground = crops_of(image, boxes, None, 0), crops_of(image, boxes, given, 0)
    for box, mask, whole, alone in zip(boxes.astype(int), given, full, foreground, strict=True):
        inside = torch.from_numpy(mask[box[1] : box[3], box[0] : box[2]])
        assert torch.equal(alone[:, inside], whole[:, inside])
        assert (alone[:, ~inside] == 0).all()
        assert (whole[:, ~inside] != 0).any()


def test_context_is_outside_the_region_and_a_whole_mask_changes_nothing():
    """With 4 pixels of padding in 16, the box fills the middle; beyond it, and outside the image, there is nothing.

    The release's window is 17 pixels wide here, so the box is 8 / 17 of the input."""
    image = np.full((30, 40, 3), 255, np.uint8)
    box = np.array([[10, 10, 18, 18]], np.float32)
    filled = np.zeros((30, 40), bool)
    filled[10:18, 10:18] = True
    (crop,) = crops_of(image, box, [filled])
    inside = crop[0] != 0
    assert inside[4:11, 4:11].all()
    assert inside.sum() == 7 * 7
    everywhere = np.ones((30, 40), bool)
    for boxes in (box, np.array([[-4, -4, 8, 8]], np.float32), np.array([[30, 20, 40, 30]], np.float32)):
        assert torch.equal(crops_of(image, boxes, [everywhere]), crops_of(image, boxes, None))


def test_a_clipped_box_at_the_image_s_edge():
    """Input pixels that lie outside the image are outside every region."""
    (inside,) = crop_masks([np.ones((30, 40), bool)], (40, 30), np.array([[0, 0, 8, 8]], np.float32), 16, "warp", 4)
    assert inside[4:, 4:].all()
    assert not inside[:4].any()
    assert not inside[:, :4].any()


def test_a_mask_of_another_scale_is_that_of_the_pixels_in_which_it_lies():
    """Twice as large, each of its pixels counts where the image's centre falls; half as large, for two pixels."""
    coarse = np.random.default_rng(1).random((6, 8)) < 0.5
    box = np.array([[0, 0, 16, 12]], np.float32)
    as_image = coarse.repeat(2, axis=0).repeat(2, axis=1)
    finer = as_image.repeat(3, axis=0).repeat(3, axis=1)
    shown = [crop_masks([mask], (16, 12), box, 16, "warp", 0) for mask in (coarse, as_image, finer)]
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(shown[1], shown[2])


def test_full_features_are_those_without_masks(inputs, run_stage, tmp_path):
    """Bit for bit, whether or not the proposals have masks."""
    bare = {**inputs, "proposals": region_cache(tmp_path / "bare", REGIONS, SIZE, with_masks=False)}
    with_masks, without = run_stage(STAGE, FULL, inputs, "full"), run_stage(STAGE, FULL, bare, "bare-full")
    for (_, first), (_, second) in zip(with_masks.records(), without.records(), strict=True):
        assert first["fc5"].tobytes() == second["fc5"].tobytes()


def test_regions_of_one_box_and_different_masks_stay_apart(inputs, run_stage):
    """The full window is the same; the foreground is not."""
    boxes, full = (
        run_stage(STAGE, FULL, inputs, "full").read("c", ["boxes", "fc5"])[name] for name in ("boxes", "fc5")
    )
    foreground = run_stage(STAGE, FOREGROUND, inputs, "fg").read("c")["fc5"]
    assert boxes[1].tolist() == boxes[2].tolist()
    assert full[1].tobytes() == full[2].tobytes()
    assert (foreground[1] != foreground[2]).any()
    np.testing.assert_array_equal(foreground[0], full[0])  # its mask is the whole image


def test_foreground_features_are_those_of_the_masked_regions(inputs, run_stage):
    """Also in two processes, and computed as they are read."""
    reader = run_stage(STAGE, FOREGROUND, inputs, "fg")
    parallel = run_stage(STAGE, FOREGROUND, inputs, "two", part_size=1, execution=Execution(jobs=2))
    computed = on_demand(FOREGROUND, Inputs(inputs), Execution())
    network = inputs["network"].load()
    for image_id, record in reader.records():
        image = inputs["images"].read_image(image_id)
        expected = extract_features(image, record["boxes"], network, FOREGROUND, mask_of=REGIONS[image_id].__getitem__)
        np.testing.assert_allclose(record["fc5"], expected["fc5"], rtol=2e-3, atol=2e-4)
        assert record["fc5"].tobytes() == parallel.read(image_id)["fc5"].tobytes()
        assert record["fc5"].tobytes() == computed.record(image_id)["fc5"].tobytes()
        assert not record["is_object"].any()


@pytest.mark.parametrize("fill", ["full", "foreground"])
def test_masks_of_objects_come_first(inputs, run_stage, fill):
    """With the boxes around them; both fills have the same rows."""
    settings = Settings(layers=("fc5",), padding=4, objects="masks", fill=fill)
    reader = run_stage(STAGE, settings, inputs)
    for image_id, record in reader.records():
        assert record["boxes"][:2].tolist() == [[32, 17, 49, 34], [5, 3, 25, 13]]
        assert record["is_object"].tolist() == [True, True, *[False] * len(REGIONS[image_id])]
        assert record["label"].tolist() == [1, 0, *[PROPOSAL] * len(REGIONS[image_id])]
        given = [*inputs["masks"].object_masks(image_id)[1], *REGIONS[image_id]]
        expected = extract_features(
            inputs["images"].read_image(image_id),
            record["boxes"],
            inputs["network"].load(),
            settings,
            mask_of=given.__getitem__ if fill == "foreground" else None,
        )
        np.testing.assert_allclose(record["fc5"], expected["fc5"], rtol=2e-3, atol=2e-4)
    assert reader.manifest["summary"]["objects"] == 6


def test_proposals_without_masks_are_refused(inputs, run_stage, tmp_path):
    bare = {**inputs, "proposals": region_cache(tmp_path / "bare", REGIONS, SIZE, with_masks=False)}
    with pytest.raises(BadSetting, match=r"fill = 'foreground' needs proposals with masks.*set propose.masks = true"):
        run_stage(STAGE, FOREGROUND, bare)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fill": "foreground"}, "needs the masks of objects too; set objects = 'masks', or 'none'"),
        ({"fill": "foreground", "method": "roi-pool", "objects": "none"}, "or set method = 'warp'"),
        ({"objects": "none", "method": "dense"}, "dense windows come without objects; leave it out"),
    ],
)
def test_settings_that_do_not_fit_each_other(settings, message):
    with pytest.raises(BadSetting, match=message):
        Settings(**settings)


def test_an_empty_mask_has_no_box():
    assert mask_boxes(np.zeros((0, 4, 5), bool)).shape == (0, 4)
    with pytest.raises(ValueError, match="without pixels"):
        mask_boxes(np.zeros((1, 4, 5), bool))
