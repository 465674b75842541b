"""Box plots, filters and detections with their precision: what is drawn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from stages.detections import Detections, detections_from_arrays
from stages.drawing import class_colours, save_image
from stages.errors import StageError
from stages.eval.pictures import apart, named_classes, plot_box_plots, precision_sheet
from stages.images import read_image
from stages.networks import PREPROCESSINGS
from stages.networks.pictures import filter_sheet, first_filters


def test_a_box_plot_names_the_extremes_and_the_outliers() -> None:
    """Quartiles 42.5 and 57.5: beyond 20 and 80 is an outlier."""
    values = np.array([20.0, 40, 45, 50, 55, 60, 81])
    names = list("abcdefg")
    assert named_classes(names, values) == {"g": 81, "a": 20}
    assert named_classes(names, np.array([19.0, 40, 45, 50, 55, 60, 70])) == {"a": 19, "g": 70}
    assert named_classes(["one"], np.array([3.0])) == {"one": 3}


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 5))
def test_labels_keep_apart(values: list[float], gap: float) -> None:
    values = sorted(values)
    places = apart(values, gap)
    assert all(place >= value for place, value in zip(places, values, strict=True))
    assert all(second - first >= gap * 0.999 for first, second in pairwise(places))
    if all(second - first >= gap for first, second in pairwise(values)):
        assert places == values


def test_box_plots_show_median_and_every_class(tmp_path: Path) -> None:
    plot_box_plots({"one": {"cat": 0.9, "dog": 0.5, "owl": 0.1}, "two": {"cat": 0.8}}, tmp_path / "new/box.png")
    picture = np.asarray(Image.open(tmp_path / "new/box.png").convert("RGB")).astype(int)
    red = np.abs(picture - (0xD6, 0x27, 0x28)).max(axis=2) < 30
    green = (picture[..., 1] - picture[..., 0] > 50) & (picture[..., 1] - picture[..., 2] > 30)
    assert red.sum() > 50
    assert green.sum() > 40
    medians = np.flatnonzero(red.sum(axis=1) > 20)
    assert len(np.split(medians, np.flatnonzero(np.diff(medians) > 5) + 1)) == 2  # 50 and 80


def test_filters_are_those_of_the_image_s_colours() -> None:
    """Caffe's first channel is blue; grey is 0, and the largest weight is a colour's end."""
    module = nn.Sequential(nn.Conv2d(3, 2, 5, bias=False), nn.ReLU(), nn.Conv2d(2, 4, 1))
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].weight[0, 0, 1, 2] = 3.0  # the first channel, y 1, x 2
        module[0].weight[1, 2, 4, 4] = -0.5
    caffe = first_filters(module, PREPROCESSINGS["caffe"])
    assert caffe.shape == (2, 5, 5, 3)
    assert caffe[0, 1, 2].tolist() == [0, 0, 3]
    plain = first_filters(module, PREPROCESSINGS["plain"])
    assert plain[0, 1, 2].tolist() == [12, 0, 0]  # a quarter is one standard deviation
    sheet = filter_sheet(caffe)
    assert (sheet == (128, 128, 255)).all(axis=2).sum() == 12 * 12
    assert (sheet == (0, 128, 128)).all(axis=2).sum() == 12 * 12
    assert (sheet == (128, 128, 128)).all(axis=2).sum() == 2 * 24 * 12 * 12


def test_a_network_that_sees_no_colours_has_no_such_filters() -> None:
    for module in (nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Conv2d(1, 3, 3))):
        with pytest.raises(StageError, match="no convolution of the image's three colours"):
            first_filters(module, PREPROCESSINGS["plain"])


def test_only_precise_detections_are_drawn(tmp_path: Path) -> None:
    """Above, not at, the limit; of the second image there is none, and it is shown all the same."""
    for name in ("a", "b"):
        save_image(np.full((100, 120, 3), 128, np.uint8), tmp_path / f"{name}.png")
    dataset = SimpleNamespace(read_image=lambda image_id: read_image(tmp_path / f"{image_id}.png"))
    boxes = np.array([[10, 40, 40, 90], [50, 40, 80, 90], [85, 40, 115, 90]], np.float32)
    found = Detections(boxes, np.array([9, 3, 1], np.float32), np.array([0, 1, 2], np.int32))
    none = Detections(boxes[:0], np.zeros(0, np.float32), np.zeros(0, np.int32))
    detections = detections_from_arrays(("cat", "dog", "owl"), [("a", found), ("b", none)])
    sheet = precision_sheet(
        dataset, detections, np.array([0.9, 0.5, np.nan]), 0.5, ["a", "b"], columns=1, cell=(360, 300)
    )
    counts = [(sheet == colour).all(axis=2).sum() for colour in class_colours(3)]
    assert counts[0] > 300
    assert counts[1:] == [0, 0]
    assert ((sheet == 128).all(axis=2)).sum() > 1.8 * 360 * 300
