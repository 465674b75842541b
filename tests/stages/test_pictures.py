"""Box plots, filters and detections with their precision: what is drawn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from stages.contract.errors import StageError
from stages.detections import Detections, DetectionSet, detections_from_arrays
from stages.eval.pictures import detection_sheet, draw_best, images_to_show, named_classes, plot_box_plots, rows_to_show
from stages.images.reading import read_image
from stages.networks import PREPROCESSINGS, architectures
from stages.pictures.drawing import class_colours, save_image
from stages.pictures.filters import filter_sheet, first_filters, second_filters
from stages.pictures.palette import TRUTH, series_colour
from stages.pictures.plots import apart


def test_a_box_plot_names_the_extremes_and_the_outliers() -> None:
    """Quartiles 42.5 and 57.5: beyond 20 and 80 is an outlier."""
    values = np.array([20.0, 40, 45, 50, 55, 60, 81])
    names = list("abcdefg")
    assert named_classes(names, values) == {"g": 81, "a": 20}
    assert named_classes(names, np.array([19.0, 40, 45, 50, 55, 60, 70])) == {"a": 19, "g": 70}
    assert named_classes(["one"], np.array([3.0])) == {"one": 3}


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 5))
def test_labels_keep_apart(values: list[float], gap: float) -> None:
    """Twelve labels of at most 5 have room in 0..100: they keep their order and distance and stay inside; what is far
    enough apart stays where it is."""
    values = sorted(values)
    places = apart(values, gap, 0, 100)
    assert all(second - first >= gap - 1e-9 for first, second in pairwise(places))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)
    if all(second - first >= gap for first, second in pairwise(values)):
        assert places == pytest.approx(values)


def test_labels_move_as_little_as_they_must() -> None:
    assert apart([5, 5], 2) == [4, 6]
    assert apart([0, 0, 9], 2) == [-1, 1, 9]
    assert apart([0, 0, 9], 2, low=0) == [0, 2, 9]
    assert apart([9, 9.5, 10], 2, high=10) == [6, 8, 10]
    assert apart([0, 0, 0], 2, low=0, high=3) == [0, 2, 4]  # no room: in order, from the bottom


def test_box_plots_show_median_and_every_class(tmp_path: Path) -> None:
    evaluations = {"one": {"cat": 0.9, "dog": 0.5, "owl": 0.1}, "two": {"cat": 0.8}}
    plot_box_plots(evaluations, tmp_path / "new/box.png")
    plot_box_plots(evaluations, tmp_path / "bars.png", [("published", 31.4)])
    widths = [Image.open(tmp_path / name).width for name in ("new/box.png", "bars.png")]
    assert widths[0] < widths[1]
    picture = np.asarray(Image.open(tmp_path / "new/box.png").convert("RGB")).astype(int)
    black = picture.max(axis=2) < 30
    medians = np.flatnonzero(black[:, 100:].sum(axis=1) > 60)
    assert len(np.split(medians, np.flatnonzero(np.diff(medians) > 5) + 1)) == 3  # 50, 80 and the axis
    for number in (0, 1):
        colour = tuple(bytes.fromhex(series_colour(number)[1:]))
        assert (np.abs(picture - colour).max(axis=2) < 60).sum() > 10


def test_filters_are_those_of_the_image_s_colours() -> None:
    """Caffe's first channel is blue; grey is 0, and the largest weight is a colour's end."""
    first = nn.Conv2d(3, 2, 5, bias=False)
    module = nn.Sequential(first, nn.ReLU(), nn.Conv2d(2, 4, 1))
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, 0, 1, 2] = 3.0  # the first channel, y 1, x 2
        first.weight[1, 2, 4, 4] = -0.5
    caffe = first_filters(module, PREPROCESSINGS["caffe"])
    assert caffe.shape == (2, 5, 5, 3)
    assert caffe[0, 1, 2].tolist() == [0, 0, 3]
    plain = first_filters(module, PREPROCESSINGS["plain"])
    assert plain[0, 1, 2].tolist() == [12, 0, 0]  # a quarter is one standard deviation
    sheet = filter_sheet(caffe)
    assert (sheet == (128, 128, 255)).all(axis=2).sum() == 12 * 12
    assert (sheet == (0, 128, 128)).all(axis=2).sum() == 12 * 12
    assert (sheet == (128, 128, 128)).all(axis=2).sum() == 2 * 24 * 12 * 12


def test_filters_of_the_second_layer_are_their_largest_kernels() -> None:
    """One for each filter, in grey, whichever channel it is on; a layer of 1 x 1 has no shapes to show."""
    second = nn.Conv2d(2, 3, (3, 2), bias=False)
    with torch.no_grad():
        second.weight.zero_()
        second.weight[0, 1, 2, 0] = 1.0
        second.weight[1, 0] = 0.3  # six of 0.3 are less than one of 0.9
        second.weight[1, 1, 0, 1] = -0.9
    kernels = second_filters(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), second, nn.Conv2d(3, 3, 1)))
    assert kernels is not None
    assert kernels.shape == (3, 3, 2, 3)
    np.testing.assert_array_equal(kernels[..., 0], kernels[..., 2])
    np.testing.assert_allclose(kernels[0, :, :, 0], [[0, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(kernels[1, :, :, 0], np.array([[0, -0.9], [0, 0], [0, 0]]))
    assert not kernels[2].any()
    assert filter_sheet(kernels).dtype == np.uint8
    assert second_filters(nn.Sequential(nn.Conv2d(3, 2, 5), nn.Conv2d(2, 2, 1))) is None
    assert second_filters(nn.Sequential(nn.Conv2d(3, 2, 5), nn.Linear(2, 2))) is None


@pytest.mark.parametrize(("name", "first", "second"), [("overfeat-fast", 11, 5), ("overfeat-accurate", 7, 7)])
def test_filters_of_overfeat(name: str, first: int, second: int) -> None:
    """The paper's Figure 2: 96 filters in colour, 256 kernels in grey."""
    module = getattr(architectures, name.replace("-", "_"))(2, widths=(2, 2))
    assert first_filters(module, PREPROCESSINGS["overfeat"]).shape == (96, first, first, 3)
    kernels = second_filters(module)
    assert kernels is not None
    assert kernels.shape == (256, second, second, 3)


def test_a_network_that_sees_no_colours_has_no_such_filters() -> None:
    for module in (nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Conv2d(1, 3, 3))):
        with pytest.raises(StageError, match="not a convolution over the image's three colour channels"):
            first_filters(module, PREPROCESSINGS["plain"])


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Any, DetectionSet]:
    """Two grey images, "a" with three detections and an object, "b" with one of a dog and two objects."""
    for name in ("a", "b"):
        save_image(np.full((100, 120, 3), 128, np.uint8), tmp_path / f"{name}.png")
    objects = {"a": [[60, 5, 70, 30]], "b": [[5, 5, 30, 30], [80, 5, 110, 30]]}
    dataset = SimpleNamespace(
        classes=CLASSES,
        read_image=lambda image_id: read_image(tmp_path / f"{image_id}.png"),
        record=lambda image_id: SimpleNamespace(
            boxes=np.array(objects[image_id], np.float32), labels=np.zeros(len(objects[image_id]), int)
        ),
    )
    boxes = np.array([[10, 40, 40, 90], [50, 40, 80, 90], [85, 40, 115, 90]], np.float32)
    found = Detections(boxes, np.array([9, 3, 1], np.float32), np.array([0, 1, 2], np.int32))
    other = Detections(boxes[2:], np.array([-5], np.float32), np.array([1], np.int32))
    sizes = {"a": (120, 100), "b": (120, 100)}
    return dataset, detections_from_arrays(CLASSES, [("a", found), ("b", other)], sizes)


CLASSES = ("cat", "dog", "owl")


def test_a_sheet_draws_what_is_precise_and_else_the_best(scene: tuple[Any, DetectionSet]) -> None:
    """At the limit or above. On the second image nothing is: its best is drawn, thinner, and it is counted."""
    dataset, detections = scene
    sheet = detection_sheet(dataset, detections, np.array([0.9, 0.49, np.nan, 0.1]), 0.5, ["a", "b"], columns=1)
    cat, dog, owl = ((sheet.pixels == colour).all(axis=2).sum() for colour in class_colours(3))
    assert cat > dog > 100  # of the dog the outline of one pixel and the label, of the cat two pixels
    assert owl == 0
    assert (sheet.images, sheet.bare) == (2, 1)
    everything = detection_sheet(dataset, detections, np.full(4, 0.9), 0.5, ["a", "b"], columns=1)
    assert everything.bare == 0
    assert everything.pixels.shape[0] < sheet.pixels.shape[0]  # no line of the heading says that some are bare


def test_a_sheet_draws_the_annotated_objects_in_one_colour(scene: tuple[Any, DetectionSet]) -> None:
    dataset, detections = scene
    for precision in (np.full(4, 0.9), np.full(4, np.nan)):
        sheet = detection_sheet(dataset, detections, precision, 0.5, ["a", "b"], columns=1)
        assert (sheet.pixels == TRUTH).all(axis=2).sum() > 200


def test_rows_to_show() -> None:
    precision, scores = np.array([0.2, np.nan, 0.7, 0.6, 0.2]), np.array([1.0, 9, 1, 2, 3])
    rows, enough = rows_to_show(precision, scores, 0.5, 1)
    assert (rows.tolist(), enough) == ([2, 3], True)
    assert rows_to_show(precision, scores, 0.6, 1)[0].tolist() == [2, 3]  # 0.6 is enough
    rows, enough = rows_to_show(precision, scores, 0.71, 3)
    assert (rows.tolist(), enough) == ([2, 3, 4], False)
    rows, enough = rows_to_show(precision[:0], scores[:0], 0.5, 3)
    assert (rows.tolist(), enough) == ([], False)


def test_images_to_show_are_filled_up_with_others() -> None:
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    one = Detections(np.array([[0, 0, 5, 5]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    pairs = [(name, one if name in "bdf" else none) for name in "abcdefg"]
    sizes = dict.fromkeys("abdefg", (9, 9))  # "c" was skipped as unreadable
    detections = detections_from_arrays(CLASSES, pairs, sizes)
    precision = np.array([0.9, 0.1, 0.8])
    assert images_to_show(detections, precision, 0.5, 2) == ["b", "f"]
    assert images_to_show(detections, precision, 0.5, 4) == ["a", "b", "f", "g"]
    assert images_to_show(detections, precision, 0.5) == list("abdefg")


def test_an_image_without_anything_above_its_threshold_shows_its_best(scene: tuple[Any, DetectionSet]) -> None:
    dataset, detections = scene
    image, found = dataset.read_image("a"), detections.of_image("a")
    for precision, best in ((np.full(len(found), np.nan), 0), (np.array([0.1, 0.2, 0.1]), 1)):  # by score, by precision
        drawn = draw_best(image, found, precision, dataset.record("a"), (CLASSES, CLASSES))
        assert drawn.shape == image.shape
        inked = [int((drawn == colour).all(axis=2).sum()) for colour in class_colours(3)]
        assert inked[best] > 100  # it has one object, so one detection is drawn
        assert sum(inked) == inked[best]
        assert (drawn == TRUTH).all(axis=2).any()
