"""Augmentation of whole images: crops, scales and colours worked by hand, beside torchvision, and the same in every
process and after every kill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from stages.boxes import covered_share
from stages.contract.errors import BadSetting
from stages.contract.execution import Execution
from stages.contract.settings import identity_of
from stages.datasets import open_dataset
from stages.images.colours import CONTRAST, HUE, RANGES, ColourChange, drawn_colours, recoloured
from stages.images.preprocessing import PREPROCESSINGS
from stages.maps import Settings as MapsSettings
from stages.networks import NetworkSource
from stages.networks.source import NetworkSettings
from stages.train_rpn import Settings
from stages.train_rpn.training import ProposalTraining
from stages.training.anchor_examples import draw_anchors
from stages.training.augmentation import Crop, View, drawn_crop, random_crop
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks
from stages.training.whole_images import Objects, WholeImages, augmented, check_maps_settings, drawn_images
from tests.stages.annotated_objects import objects

SSD_STRENGTH = 0.5
"""The colour_jitter at which the ranges are those of torchvision's RandomPhotometricDistort."""
JITTERS: dict[str, Any] = {"scale_jitter": 0.3, "crop_jitter": 0.6, "colour_jitter": 0.5}
SMALL: dict[str, Any] = {
    **{"iterations": 4, "images_per_batch": 2, "sides": (64,), "longest": 120, "scales": (2.0, 4.0), "hidden": 8},
    **{"frozen": ("none",), **JITTERS},
}
seeds = st.integers(0, 2**32 - 1)
spans = st.tuples(st.integers(0, 80), st.integers(1, 80))
"""The first pixel of a box along an axis, and its length."""
placed_boxes = st.lists(st.tuples(spans, spans), max_size=6).map(
    lambda pairs: np.array([[x, y, x + w, y + h] for (x, w), (y, h) in pairs], np.float32).reshape(-1, 4)
)


def test_boxes_in_a_crop_by_hand() -> None:
    """Of 40 x 30 pixels from (10, 5) on: one inside, one cut in half, one outside."""
    crop = Crop(10, 5, 40, 30)
    boxes = np.array([[12, 7, 20, 15], [0, 10, 20, 20], [60, 5, 70, 30]], np.float32)
    assert crop.boxes(boxes)[:2].tolist() == [[2, 2, 10, 10], [0, 5, 10, 15]]
    assert crop.visible(boxes).tolist() == [1, 0.5, 0]
    mirrored = View(100, True, crop)
    assert mirrored.boxes(boxes)[:2].tolist() == [[30, 2, 38, 10], [30, 5, 40, 15]]
    assert mirrored.regions(boxes, 0.5).tolist() == mirrored.boxes(boxes)[:2].tolist()
    assert mirrored.regions(boxes, 0.51).tolist() == [[30, 2, 38, 10]]
    assert mirrored.regions(boxes, 0).tolist() == mirrored.boxes(boxes)[:2].tolist()
    assert View(100).regions(boxes, 1).tolist() == boxes.tolist()


def test_what_a_crop_leaves_of_objects() -> None:
    """A whole one, one of which a quarter is seen, one of which less is, which is unused, a difficult one, which stays
    unused, half a crowd, which stays a crowd, and one that is out of sight."""
    boxes: list[list[float]] = [
        [10, 10, 20, 20],
        [0, 0, 20, 20],
        [0, 10, 12, 20],
        [15, 15, 25, 25],
        [5, 10, 15, 20],
        [90, 90, 95, 95],
    ]
    there = objects(boxes, [0, 1, 2, 3, 4, 5], [False, False, False, True, True, False])
    crowds = np.array([False, False, False, False, True, False])
    there = Objects(there.boxes, there.labels, crowds, there.unused)
    seen = there.seen(View(100, False, Crop(10, 10, 40, 40)), 0.25)
    assert seen.labels.tolist() == [0, 1, 2, 3, 4]
    assert seen.unused.tolist() == [False, False, True, True, True]
    assert seen.crowds.tolist() == [False, False, False, False, True]
    assert seen.boxes[2].tolist() == [0, 0, 2, 10]
    assert there.seen(View(100), 0.25).boxes.tolist() == boxes


@given(placed_boxes, st.tuples(*[st.integers(1, 160)] * 2), st.floats(0, 0.9), st.booleans(), seeds)
def test_boxes_that_are_seen_lie_in_the_view_and_are_torchvisions(
    boxes: np.ndarray, size: tuple[int, int], jitter: float, mirrored: bool, seed: int
) -> None:
    crop = random_crop(size, jitter, np.random.default_rng(seed))
    assert crop.left + crop.width <= size[0]
    assert crop.top + crop.height <= size[1]
    assert all(own >= (1 - jitter) * side - 1 for own, side in zip((crop.width, crop.height), size, strict=True))
    seen = View(size[0], mirrored, crop).boxes(boxes)
    assert (seen >= 0).all()
    assert (seen <= [crop.width, crop.height] * 2).all()
    given_boxes = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=size[::-1])
    expected = v2.functional.crop(given_boxes, crop.top, crop.left, crop.height, crop.width)
    expected = v2.functional.horizontal_flip(expected) if mirrored else expected
    assert np.array_equal(seen, expected.numpy())


@given(placed_boxes, st.floats(0.01, 0.9), st.floats(0, 1), seeds)
def test_a_crop_keeps_an_object_in_sight(boxes: np.ndarray, jitter: float, least: float, seed: int) -> None:
    crop = drawn_crop((160, 160), boxes, jitter, least, np.random.default_rng(seed))
    if crop is not None and len(boxes):
        edges = np.array([[crop.left, crop.top, crop.left + crop.width, crop.top + crop.height]], np.float32)
        shares = covered_share(boxes, edges)[:, 0]
        assert shares.max() > 0
        assert shares.max() >= least
    assert len(boxes) or crop is not None


def test_an_image_is_not_cropped_where_no_crop_shows_enough() -> None:
    """The object fills the image: no crop of half its width shows all of it."""
    whole = np.array([[0, 0, 100, 100]], np.float32)
    assert drawn_crop((100, 100), whole, 0.9, 1.0, np.random.default_rng(0)) is None
    assert drawn_crop((100, 100), whole[:0], 0.9, 1.0, np.random.default_rng(0)) is not None


@pytest.mark.parametrize("seed", range(8))
def test_a_painted_box_is_found_where_it_is_said_to_be(seed: int) -> None:
    """White on black: what the crop, mirrored, shows of it is white, and nothing else."""
    box = np.array([[30, 20, 70, 50]], np.float32)
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[20:50, 30:70] = 255
    settings = Settings(**{**SMALL, "seed": seed, "colour_jitter": 0.0})
    (drawn, *_) = drawn_images(settings, 1, 1)
    cropped, view, factor = augmented(pixels, box, drawn, settings)
    assert 0.7 <= factor <= 1.3
    assert view.crop is not None
    shown = cropped[:, ::-1] if drawn.mirrored else cropped
    x1, y1, x2, y2 = view.boxes(box)[0].astype(int)
    assert shown[y1:y2, x1:x2].min() == 255
    assert (shown > 0).all(axis=2).sum() == (x2 - x1) * (y2 - y1) > 0


# Colours


def test_colours_by_hand() -> None:
    """Twice as bright; half or none of the contrast, around the mean of the grey image; a third of a turn of red."""
    image = torch.tensor([[[10, 30]]] * 3, dtype=torch.uint8)
    assert recoloured(image, ColourChange((("brightness", 2.0),)))[0].tolist() == [[20, 60]]
    assert recoloured(image, ColourChange((("contrast", 0.5),)))[0, 0].tolist() == pytest.approx([15, 25], abs=1)
    assert recoloured(image, ColourChange((("brightness", 2.0), ("contrast", 0.0))))[0, 0].tolist() == pytest.approx(
        [40, 40], abs=1
    )
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    assert recoloured(red, ColourChange(((HUE, 1 / 3),))).flatten().tolist() == [0, 255, 0]
    assert recoloured(red, ColourChange(())).tolist() == red.tolist()


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_what_a_network_takes_is_turned_back_into_colours(name: str) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8))
    preprocessing = PREPROCESSINGS[name]
    colours = preprocessing.colours(preprocessing.apply(pixels))
    torch.testing.assert_close(colours, pixels.float() / 255, atol=1e-5, rtol=0)


@given(seeds, st.floats(0, 1))
def test_amounts_stay_within_their_ranges(seed: int, strength: float) -> None:
    random = np.random.default_rng(seed)
    change = drawn_colours(strength, random)
    again = np.random.default_rng(seed)
    again.random(9)
    assert random.random() == again.random()  # whatever is changed, as many numbers are drawn
    for name, amount in change.steps:
        assert abs(amount - (name != HUE)) <= strength * RANGES[name]


def test_how_often_and_how_far_colours_change() -> None:
    """RandomPhotometricDistort's ranges at SSD_STRENGTH, each in half of the images, the contrast first in half."""
    changes = [drawn_colours(SSD_STRENGTH, np.random.default_rng(seed)) for seed in range(400)]
    theirs = v2.RandomPhotometricDistort()
    for name in RANGES:
        amounts = [dict(change.steps)[name] for change in changes if name in dict(change.steps)]
        assert len(amounts) == pytest.approx(200, abs=50)
        assert [min(amounts), max(amounts)] == pytest.approx(getattr(theirs, name), abs=0.03)
    both = [[name for name, _ in change.steps if name in (CONTRAST, HUE)] for change in changes]
    assert both.count([CONTRAST, HUE]) == pytest.approx(50, abs=30)
    assert both.count([HUE, CONTRAST]) == pytest.approx(50, abs=30)


# Batches and trainings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_dataset(["shapes:train"], work=tmp_path_factory.mktemp("data"), options={"images": 6})


def source() -> NetworkSource:
    return NetworkSource.from_settings(NetworkSettings("shapenet", "random", classes=7))


def sampler(dataset: Any, settings: Settings, rank: int = 0, ranks: int = 1) -> WholeImages[Any]:
    return WholeImages(
        settings,
        dataset,
        ImageMemory(dataset, 10**8),
        source(),
        lambda image, drawn: draw_anchors(image, settings.head, 4, settings, drawn.random),
        Execution(),
        Ranks(rank, ranks),
        regions_per_step=1,
        counts={},
    )


def test_a_batch_depends_on_its_iteration_and_its_seed_alone(dataset: Any) -> None:
    """Of a sampler that begins later, of the other of two processes, and not of another seed."""
    settings = Settings(**SMALL)
    batches = list(sampler(dataset, settings).batches(1, 3))
    (third,) = sampler(dataset, settings).batches(3, 3)
    (share,) = sampler(dataset, settings, 1, 2).batches(3, 3)
    for one, other in ((batches[2][0], third[0]), (batches[2][1], third[1]), (batches[2][1], share[0])):
        assert torch.equal(one.inputs, other.inputs)
        assert np.array_equal(one.objects.boxes, other.objects.boxes)
        assert (one.size, one.scale, one.view) == (other.size, other.scale, other.view)
    (elsewhere,) = sampler(dataset, Settings(**{**SMALL, "seed": 1})).batches(3, 3)
    assert elsewhere[0].view != third[0].view


def test_augmented_images_are_as_large_as_they_say_and_their_objects_lie_in_them(dataset: Any) -> None:
    sizes, settings = set(), Settings(**SMALL)
    for batch in sampler(dataset, settings).batches(1, 6):
        for image in batch:
            assert (image.objects.boxes >= 0).all()
            assert (image.objects.boxes <= image.size * 2).all()
            assert len(image.objects.used)
            assert image.inputs.shape[3] >= round(image.size[0] * image.scale)
            sizes.add(tuple(image.inputs.shape))
    assert len(sizes) > 6


def test_without_jitter_images_are_drawn_as_before(dataset: Any) -> None:
    """Also what other augmentation leaves alone: the order of images, mirroring, and the examples' random numbers."""
    plain, jittered = (drawn_images(Settings(**{**SMALL, **more}), 6, 5) for more in (dict.fromkeys(JITTERS, 0.0), {}))
    for one, other in zip(plain, jittered, strict=True):
        assert (one.position, one.level, one.mirrored) == (other.position, other.level, other.mirrored)
        assert one.random.random() == other.random.random()
    assert set(JITTERS) <= set(identity_of(Settings(**SMALL)))
    assert not set(JITTERS) & set(identity_of(Settings()))


def test_a_training_that_resumes_is_bit_for_bit_the_same(dataset: Any) -> None:
    settings = Settings(**SMALL)
    trainings = [ProposalTraining(settings, source(), "cpu", Ranks()) for _ in range(3)]
    for batch in sampler(dataset, settings).batches(1, 4):
        trainings[0].step(batch)
    for batch in sampler(dataset, settings).batches(1, 2):
        trainings[1].step(batch)
    trainings[2].restore(trainings[1].state())
    for batch in sampler(dataset, settings).batches(3, 4):
        trainings[2].step(batch)
    one, other = trainings[0].weights(), trainings[2].weights()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_maps_are_those_of_images_as_they_are() -> None:
    settings = Settings(**{**SMALL, "frozen": ("trunk",), "crop_jitter": 0.0})
    message = r"scale_jitter = 0\.3 changes the pixels .* leave out scale_jitter and colour_jitter, or inputs\.maps"
    with pytest.raises(BadSetting, match=message):
        check_maps_settings(settings, MapsSettings(sides=(64,), longest=120, mirrored=True))


def test_least_visible_is_for_crops() -> None:
    with pytest.raises(BadSetting, match=r"least_visible = 0\.5 is for images that are cropped; set crop_jitter"):
        Settings(least_visible=0.5)
