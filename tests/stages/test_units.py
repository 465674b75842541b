"""The regions that excite units most: by hand, against a plain sort, on small caches; what is drawn of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from stages.boxes import iou_matrix
from stages.extract.pictures import Region, UnitRow, View, actual_scale, seen_regions, transformation_sheet, unit_sheet
from stages.extract.units import Strongest, class_selectivity, selective_units, strongest_regions
from stages.images.warp import warp_regions
from stages.networks import PREPROCESSINGS
from stages.pictures.drawing import draw_field, sections

NEAR = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 50, 10, 60]], np.float32)


def test_the_strongest_by_hand() -> None:
    """Unit 0 takes rows 1 (which suppresses 0) and 2 of the first image and row 3 of the second; unit 1 never fires."""
    strongest = Strongest(2, 3, 0.1)
    strongest.add(0, NEAR, np.array([[3, 0], [4, 0], [2, 0], [0, 0]], np.float16))
    strongest.add(1, NEAR, np.array([[1, -1], [0.5, -1], [2, -1], [9, -1]], np.float16))
    (activations, images, rows), silent = strongest.best()
    assert activations.tolist() == [9, 4, 2]
    assert images.tolist() == [1, 0, 0]  # of the two 2s the earlier image's
    assert rows.tolist() == [3, 1, 2]
    assert [len(one) for one in silent] == [0, 0, 0]


A_TENTH = [(0, 0, 5, 1, 2), (4, 0, 6, 1, 1)]  # 1 / 10: in float32 more than the double 0.1
region = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2, st.integers(-1, 9))


@given(
    st.lists(st.lists(region, max_size=8), min_size=1, max_size=6),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@example([A_TENTH], 2, 0.1)
def test_the_strongest_are_those_of_a_plain_sort(
    images: list[list[tuple[int, ...]]], count: int, overlap: float
) -> None:
    """Suppress in each image, then sort all: by activation, image, row. Never more than `count` are held."""
    strongest = Strongest(1, count, overlap)
    every: list[tuple[float, int, int]] = []
    for image, regions in enumerate(images):
        drawn = np.array(regions, np.int64).reshape(-1, 5)
        boxes = np.hstack([drawn[:, :2], drawn[:, :2] + drawn[:, 2:4]]).astype(np.float32)
        values = drawn[:, 4:].astype(np.float16)
        strongest.add(image, boxes, values)
        assert len(strongest.held[0]) <= count
        kept: list[int] = []
        for row in np.argsort(-values[:, 0], kind="stable"):
            if values[row, 0] > 0 and not (iou_matrix(boxes[[row]], boxes[kept]) > overlap).any():
                kept.append(int(row))
        every += [(-float(values[row, 0]), image, row) for row in kept]
    expected = sorted(every)[:count]
    ((activations, images_found, places),) = strongest.best()
    found = zip((-activations).tolist(), images_found.tolist(), places.tolist(), strict=True)
    assert list(found) == expected


def test_strongest_regions_of_a_cache(feature_cache: Callable[..., Any], region_image: Callable[..., Any]) -> None:
    """Objects are left out; the maximum is that of the whole channel; a region shows what it overlaps most."""
    features = np.zeros((4, 8), np.float32)  # 2 channels of 2 x 2
    features[:, 5] = 7, 1, 3, 2.5  # channel 1, y 0, x 1; the 7 is an object's
    features[3, 6] = 6  # the same channel elsewhere
    features[2, 0] = 50  # another channel
    boxes = [[0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 10, 9], [20, 0, 30, 10]]
    empty = region_image(np.zeros((0, 4)), [], np.zeros((0, 8)), layer="pool5")
    reader = feature_cache(
        [empty, region_image(boxes, [4], features, layer="pool5"), empty], layer="pool5", part_size=2
    )
    seen: list[int] = []
    (found, other) = strongest_regions(
        reader, "pool5", (2, 2, 2), np.array([[1, 0, 1], [1, 1, 1]]), 2, 0.1, lambda: seen.append(1)
    )
    assert len(seen) == 3
    assert found.activations.tolist() == [3, 2.5]
    np.testing.assert_allclose(found.normalised, [0.5, 2.5 / 6])
    assert found.channel_maximum == other.channel_maximum == 6
    assert found.images.tolist() == [1, 1]
    assert found.boxes.tolist() == [boxes[2], boxes[3]]
    assert found.labels.tolist() == [4, -1]
    assert len(other.activations) == 0
    assert other.normalised.tolist() == []


def test_selectivity_by_hand(feature_cache: Callable[..., Any], region_image: Callable[..., Any]) -> None:
    """Unit 0 fires for class 0, unit 1 for all alike, unit 2 never. Proposals and difficult objects do not count."""
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (4, 1))
    first = region_image(
        boxes, [0, 1, 0], [[4, 3, 0], [0, 3, 0], [99, 9, 9], [50, 0, 8]], difficult=[False, False, True]
    )
    second = region_image(boxes[:1], [1], [[0, 3, 0]])
    found = class_selectivity(feature_cache([first, second]), "fc7", 3)
    spread = np.std([4, 0, 0])
    np.testing.assert_allclose(found[:2, 0], [4 / spread, -4 / spread])
    assert np.isnan(found[:, 1:]).all()
    assert np.isnan(found[2]).all()


def test_units_are_chosen_class_by_class() -> None:
    """Class 1 has the best unit and comes first; a channel (here of two units) is taken once; below 0 none is taken."""
    selectivity = np.array([[5, 4, 1, 0.5, 0, -1], [6, 1, 2, 3, -1, -1], [np.nan] * 6])
    assert selective_units(selectivity, (3, 1, 2), 9) == [(0, 1), (2, 0)]
    assert selective_units(selectivity, (6, 1, 1), 4) == [(0, 1), (1, 0), (3, 1), (2, 0)]
    assert selective_units(selectivity, (6, 1, 1), 1) == [(0, 1)]
    assert selective_units(selectivity[2:], (6, 1, 1), 4) == []


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS.values(), ids=lambda one: one.name)
def test_pixels_come_back_from_preprocessing(preprocessing: Any) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 30), np.uint8))
    assert torch.equal(preprocessing.pixels(preprocessing.apply(image)), image)


@pytest.mark.parametrize("mode", ["warp", "square", "square-masked"])
def test_regions_are_shown_as_the_network_sees_them(mode: str) -> None:
    """The same pixels, to half a grey level; outside the image is the mean colour."""
    preprocessing = PREPROCESSINGS["caffe"]
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[0, 0, 20, 10], [30, 10, 60, 40]], np.float32)
    shown = seen_regions(image, boxes, View(64, mode, 4, preprocessing))
    given = warp_regions(torch.from_numpy(image).permute(2, 0, 1), boxes, 64, mode, 4, preprocessing)
    for one, seen in zip(given, shown, strict=True):
        back = preprocessing.apply(torch.from_numpy(seen).permute(2, 0, 1))
        assert (back - one).abs().max() <= 0.501
    assert shown[0][0, 0].tolist() == [123, 117, 104]


def test_a_field_is_drawn_on_a_copy() -> None:
    image = np.full((60, 60, 3), 90, np.uint8)
    drawn = draw_field(image, (10, 20, 50, 61), "")
    assert (image == 90).all()
    assert drawn[40, [11, 12, 47, 48]].tolist() == [[255] * 3] * 4
    assert drawn[40, [10, 49]].tolist() == [[0] * 3] * 2
    assert drawn[40, [9, 13, 46, 50]].tolist() == [[90] * 3] * 4
    assert drawn[58, 30].tolist() == [255] * 3  # what lies outside is drawn inside the edge
    written = draw_field(image, (10, 20, 50, 61), "0.93")
    changed = np.argwhere((written != drawn).any(axis=2))
    assert changed.min(axis=0).tolist() >= [23, 13]
    assert len(changed) > 20


def test_sections_side_by_side() -> None:
    one, two = np.full((10, 8, 3), 200, np.uint8), np.full((10, 8, 3), 50, np.uint8)
    sheet = sections([("first", [one] * 3), ("second", [two]), ("third", [two])], columns=2, gap=4, across=2)
    assert (sheet == 200).all(axis=2).sum() == 3 * 80
    assert (sheet == 50).all(axis=2).sum() >= 2 * 80
    rows, columns = np.nonzero((sheet == 200).all(axis=2))
    assert (columns.min(), columns.max()) == (12, 12 + 8 + 4 + 7)
    assert rows.max() - rows.min() == 10 + 4 + 9
    assert sections([], columns=3).shape[2] == 3


def test_a_unit_sheet_shows_each_region_and_the_field() -> None:
    regions = [np.full((64, 64, 3), grey, np.uint8) for grey in (60, 100, 140)]
    sheet = unit_sheet([UnitRow("unit", regions, [1.0, 0.5, 0.25], (0, 0, 32, 64))], 64, columns=2, cell=96)
    for grey in (60, 100, 140):
        assert (np.abs(sheet.astype(int) - grey).max(axis=2) <= 1).sum() > 0.6 * 96 * 96
    white = (sheet == 255).all(axis=2)
    assert white[:, 12 + 1].sum() >= 2 * 90  # the left edges of the first column's fields
    assert white[:, 12 + 47 - 1].sum() >= 2 * 90  # and the right ones: half of the cell


def test_actual_scale_by_hand() -> None:
    """At S = 64 in cells of 128 an image pixel has two; what would not fit is shrunk."""
    image = np.full((100, 200, 3), 10, np.uint8)
    region = Region("cat", image, np.array([20, 30, 40, 40], np.float32))
    drawn, shrunk = actual_scale(region, 64, 0, 128)
    assert shrunk == 1
    rows, columns = np.nonzero((drawn == 10).all(axis=2))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 40)
    drawn, shrunk = actual_scale(Region("cat", image, np.array([0, 0, 128, 60], np.float32)), 64, 0, 128)
    assert shrunk == 0.5
    assert np.ptp(np.nonzero((drawn == 10).all(axis=2))[1]) + 1 == 128


def test_transformations_are_those_of_the_warping() -> None:
    """Masked squares of a wide box show the mean colour beside it; squares with context and warps do not."""
    image = np.full((300, 300, 3), 200, np.uint8)
    region = Region("cat", image, np.array([100, 120, 200, 160], np.float32))
    sheet = transformation_sheet([region], 64, 4, PREPROCESSINGS["plain"], cell=120)
    grey = (np.abs(sheet.astype(int) - 128).max(axis=2) <= 1).sum()
    assert 0.5 * 2 * 120**2 < grey < 0.7 * 2 * 120**2  # 60 % of two cells
    one_row = transformation_sheet([region, region], 64, 4, PREPROCESSINGS["plain"], cell=120)
    assert one_row.shape[1] > 1.9 * sheet.shape[1]
    assert one_row.shape[0] == sheet.shape[0]
    unpadded = transformation_sheet([region], 64, 0, PREPROCESSINGS["plain"], cell=120)
    assert unpadded.shape[0] < 0.6 * sheet.shape[0]
