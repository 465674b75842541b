"""What a report shows, by hand and as properties; its drawings and pictures as parts of a page."""

from __future__ import annotations

import base64
import io
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from rcnn_cli.report import charts
from rcnn_cli.report.page import environment
from rcnn_cli.report.papers import TABLE_2, is_voc_2007_test
from rcnn_cli.report.pictures import Album, jpeg_uri
from rcnn_cli.report.selection import (
    best_and_worst,
    best_of_each,
    crop_window,
    fitted,
    in_turn,
    letters,
    shares_right,
    thinned,
)
from rcnn_cli.report.tables import row
from stages.contract.card import LogColumns
from stages.eval.pictures import plot_precision_recall
from stages.images.reading import read_image
from stages.matching.average_precision import Curve
from stages.pictures.palette import SERIES
from tests.plotted import drawn

__all__ = ["drawn"]

PROJECT = Path(__file__).parents[2]


def test_the_best_of_each_group_by_hand() -> None:
    groups = np.array([1, 0, 1, 0, 1, 1])
    values = np.array([0.5, 0.1, 0.9, 0.1, 0.7, 0.9])
    assert best_of_each(groups, values, 2).tolist() == [1, 3, 2, 5]
    assert best_of_each(groups, values, 9).tolist() == [1, 3, 2, 5, 4, 0]
    assert best_of_each(groups[:0], values[:0], 2).tolist() == []


def test_groups_in_turn_by_hand() -> None:
    assert in_turn(np.array([7, 7, 7, 2, 9, 9])).tolist() == [3, 0, 4, 1, 5, 2]
    assert in_turn(np.zeros(0, np.int64)).tolist() == []


@given(st.lists(st.integers(0, 4), max_size=40))
def test_in_turn_keeps_every_row_and_each_groups_order(groups: list[int]) -> None:
    order = in_turn(np.array(groups, np.int64))
    assert sorted(order.tolist()) == list(range(len(groups)))
    for group in set(groups):
        own = [place for place in order.tolist() if groups[place] == group]
        assert own == sorted(own)


def test_the_measure_of_an_image_by_hand() -> None:
    shares = shares_right(np.array([2, 1, 0, 0, 0]), np.array([2, 2, 1, 0, 0]), np.array([0, 2, 0, 3, 0]))
    np.testing.assert_allclose(shares, [1, 0.25, 0, 0, np.nan])


def test_best_and_worst_images_by_hand() -> None:
    shares = np.array([1, 0.5, np.nan, 1, 0, 0])
    weights = np.array([1, 2, 9, 3, 1, 4])
    best, worst = best_and_worst(shares, weights, 2)
    assert (best.tolist(), worst.tolist()) == ([3, 0], [5, 4])
    best, worst = best_and_worst(shares, weights, 4)
    assert (best.tolist(), worst.tolist()) == ([3, 0, 1], [5, 4])  # none in both; the right ones are not the worst
    assert [one.tolist() for one in best_and_worst(np.array([np.nan]), np.array([1]), 3)] == [[], []]


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.just(4)), elements=st.floats(0, 300)),
    st.tuples(st.integers(20, 400), st.integers(20, 400)),
)
def test_a_crop_holds_its_boxes_and_stays_in_the_image(corners: Any, size: tuple[int, int]) -> None:
    limit = np.array([*size, *size])
    boxes = np.minimum(np.hstack([np.minimum(corners[:, :2], corners[:, 2:]), corners.max(axis=1, keepdims=True)
                                  .repeat(2, axis=1)]), limit)  # fmt: skip
    x, y, side = crop_window(boxes, size)
    assert side <= max(size)
    assert x <= boxes[:, 0].min() + 1e-6
    assert y <= boxes[:, 1].min() + 1e-6
    assert x + side >= boxes[:, 2].max() - 1e-6
    assert y + side >= boxes[:, 3].max() - 1e-6
    for start, length in ((x, size[0]), (y, size[1])):
        if side <= length:
            assert -1e-6 <= start <= length - side + 1e-6
        else:
            assert start == (length - side) / 2


def test_sizes_that_fit() -> None:
    assert fitted((500, 375), 480) == (480, 360)
    assert fitted((100, 50), 480) == (100, 50)
    assert fitted((4000, 2), 480) == (480, 1)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=300, unique=True))
def test_a_thinned_curve_keeps_few_points_and_its_end(values: list[float]) -> None:
    """No stretch of recall longer than a twentieth of the whole loses a point at its end."""
    recall = np.sort(values)
    points = thinned(recall, 20)
    assert len(points) == len(recall) if len(recall) <= 20 else len(points) <= 21
    assert (np.diff(points) > 0).all()
    assert points[-1] == len(recall) - 1
    for first, last in pairwise(points):
        assert last == first + 1 or recall[last - 1] - recall[first] <= recall[-1] / 20 + 1e-9
    assert thinned(recall[:0]).tolist() == []


def test_the_page_and_the_figure_draw_the_same_steps(tmp_path: Path, drawn: list[Any]) -> None:
    """Found, false, found, false, found, false, of four objects: the precision is 1 up to a recall of 1/4, 2/3 up to
    2/4, 3/5 up to 3/4, and nothing is drawn beyond."""
    found = np.array([True, False, True, False, True, False])
    true, scores = np.cumsum(found), np.linspace(1, 0, 6).astype(np.float32)
    curve = Curve(scores, true / 4, true / np.arange(1, 7), 4, 6)
    expected = [[0, 0.25, 0.5, 0.75], [1, 1, 2 / 3, 3 / 5]]
    plot_precision_recall({"eval": {"cat": curve}}, tmp_path / "curves.png")
    charts.precision_recall("x", {0: curve})
    for figure, scale in zip(drawn, (1, 100), strict=True):
        (line,) = figure.axes[0].lines
        np.testing.assert_allclose(np.array(line.get_data()), scale * np.array(expected))
        assert line.get_drawstyle() == "steps-pre"  # a value holds from the recall before it to its own


def test_letters_of_runs() -> None:
    names = letters(54)
    assert [names[place] for place in (0, 25, 26, 51, 52, 53)] == ["A", "Z", "AA", "AZ", "BA", "BB"]


def test_the_best_of_a_row_is_marked_as_it_is_printed() -> None:
    cells = row("cat", [{"ap": 0.5004}, {"ap": 0.4996}, {"ap": None}, {"ap": 0.4}], "ap", 3, "")["cells"]
    assert [(cell["text"], cell["best"]) for cell in cells] == [
        ("50.0", True),
        ("50.0", True),
        ("-", False),
        ("40.0", False),
    ]
    assert not row("cat", [{"ap": 0.5}], "ap", 3, "")["cells"][0]["best"]


def test_the_papers_figures_are_those_of_the_grid() -> None:
    grid = tomllib.loads((PROJECT / "recipes/grids/table2.toml").read_text())
    assert [value for _, value in TABLE_2] == [cell["paper"] for cell in grid["cells"].values()]


def test_only_the_whole_official_test_set_is_compared_with_the_papers() -> None:
    from stages.benchmark_classes import VOC_CLASSES

    class Data:
        name, classes = "voc2007-test", VOC_CLASSES

        def __init__(self, images: int) -> None:
            self.images = images

        def __len__(self) -> int:
            return self.images

    assert is_voc_2007_test(Data(4952))
    assert not is_voc_2007_test(Data(250))


def test_a_plot_is_an_element_of_the_page() -> None:
    curve = Curve(np.array([3.0, 2, 1], np.float32), np.array([0.5, 0.5, 1]), np.array([1, 0.5, 2 / 3]), 2, 3)
    drawn = charts.precision_recall("A 0", {0: curve, 1: curve})
    assert drawn == charts.precision_recall("A 0", {0: curve, 1: curve})
    assert drawn.startswith('<svg class="plot"')
    assert SERIES[0] in drawn
    assert SERIES[1] in drawn
    assert "var(--ink)" in drawn
    assert not re.search(r"<style|<metadata|xmlns|://|<g id|width=\"[\d.]+pt|#0[0-9a-f]{5}", drawn)
    assert ">precision, %<" in drawn
    other = charts.precision_recall("A 1", {0: curve})
    ids = [set(re.findall(r' id="([^"]+)"', one)) for one in (drawn, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_logarithmic_axis_has_plain_words() -> None:
    log = {"iteration": np.arange(40), "loss": np.ones(40), "accuracy": np.ones(40), "seconds": np.ones(40),
           "learning_rate": np.geomspace(0.005, 0.0004, 40)}  # fmt: skip
    panels = charts.training("A", log, LogColumns("iteration", losses=("loss",), accuracies=("accuracy",)))
    assert [title for title, _, _ in panels] == ["Loss", "Accuracy", "Learning rate"]
    assert panels[1][2] == [(0, "accuracy")]
    assert ">0.001<" in panels[2][1]
    assert "mathdefault" not in panels[2][1]
    columns = LogColumns("iteration", losses=("loss",), accuracies=("accuracy",), validated=("mAP",))
    validations = {"iteration": [20, 40], "loss": [1, 1], "accuracy": [1, 1], "mAP": [0.2, 0.3]}
    loss, shares, _ = charts.training("A", log, columns, validations)
    assert loss[2] == [(0, "loss"), (1, "loss, validation")]
    assert [called for _, called in shares[2]] == ["accuracy", "accuracy, validation", "mAP, validation"]


def test_pictures_are_jpegs_that_fit() -> None:
    uri = jpeg_uri(np.full((300, 960, 3), (200, 30, 30), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (image.format, image.size) == ("JPEG", (480, 150))
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 30)).max() < 8


class Folder:
    """A dataset of PNG files, without objects."""

    classes = ("cat",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_image(self, image_id: str) -> Any:
        """The image. Raises BadImage."""
        return read_image(self.folder / f"{image_id}.png")

    def record(self, image_id: str) -> Any:
        """What an album asks of an image."""
        from stages.datasets.records import ImageRecord

        none = np.zeros(0, bool)
        boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        return ImageRecord(image_id, self.folder / f"{image_id}.png", 40, 30, boxes, labels, none, none, none, ())


def test_an_album_ends_with_the_first_picture_that_does_not_fit(tmp_path: Path) -> None:
    for name in "abcd":
        Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    album = Album({"key": Folder(tmp_path)})
    album.add([("key", "a")], 1_000_000)
    one = album.used
    album.add([("key", name) for name in "abcda"], 2 * one + one // 2)
    assert [image_id for _, image_id in album.pictures] == ["a", "c"]
    assert [picture.number for picture in album.pictures.values()] == [0, 1]
    assert album.unreadable == {("key", "b")}
    assert album.used == 2 * one == sum(len(picture.uri) for picture in album.pictures.values())


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", 'a & b\'s "c"'])
def test_names_are_escaped_in_markup_and_in_scripts(name: str) -> None:
    template = environment().from_string('<b title="{{ name }}">{{ name }}</b><script>{{ [name] | tojson }}</script>')
    text = template.render(name=name)
    assert name not in text
    assert text.count("<") == 4
