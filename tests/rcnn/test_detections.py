"""Detections as arrays, tables, COCO's results and pictures, on a few that are written by hand."""

from __future__ import annotations

import builtins
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rcnn.detections import Detection, Detections
from rcnn_cli.looking.showing import Showing
from stages import detections as arrays
from stages.contract.errors import StageError
from stages.matching.average_precision import Curve

CLASSES = ("cat", "dog")
BOXES = np.array([[1, 2, 11, 22], [0, 0, 5, 5], [3, 4, 30.126, 18]], np.float32)
IMAGE = np.full((24, 32, 3), 120, np.uint8)


def showing(cuts: tuple[float, float] = (0.5, 0.5), curves: dict[str, Curve] | None = None) -> Showing:
    """Rules for two classes, without an evaluation unless `curves` are given."""
    return Showing(CLASSES, "SVM margin", np.array(cuts, np.float32), "a score of 0.5", curves or {}, {})


def made(**others: Any) -> Detections:
    """Two cats and a dog between them in score."""
    scores, labels = np.array([0.25, -1.0, 0.75], np.float32), np.array([0, 0, 1], np.int32)
    found = arrays.Detections(BOXES, scores, labels)
    return Detections.of(found, others.pop("showing", showing()), IMAGE, others.pop("name", "photo"), None)


def test_best_first_with_what_is_drawn() -> None:
    detections = made()
    assert detections.scores.tolist() == [0.75, 0.25, -1.0]
    assert detections.names == ["dog", "cat", "cat"]
    assert detections.drawn.tolist() == detections.good_enough.tolist() == [True, False, False]
    np.testing.assert_array_equal(detections.boxes, BOXES[[2, 0, 1]])
    assert detections.size == (32, 24)
    assert np.isnan(detections.precision).all()
    assert [detections.boxes.dtype, detections.scores.dtype, detections.labels.dtype] == [
        *2 * [np.dtype("float32")],
        np.dtype("int32"),
    ]


def test_one_by_one() -> None:
    detections = made()
    assert len(detections) == 3
    first = detections[0]
    assert first == Detection("dog", 1, 0.75, first.precision, (3.0, 4.0, float(np.float32(30.126)), 18.0), True)
    assert detections[-1].score == -1
    assert [one.name for one in detections] == detections.names
    with pytest.raises(IndexError):
        detections[3]


def test_some_of_them() -> None:
    detections = made()
    cats = detections["cat"]
    assert cats.scores.tolist() == [0.25, -1.0]
    assert detections[detections.scores > 0].names == ["dog", "cat"]
    assert detections[1:].names == detections[[1, 2]].names == ["cat", "cat"]
    assert len(detections[[]]) == 0
    assert cats.good_enough.tolist() == [False, False]
    assert cats.drawn.tolist() == [True, True]  # none is good enough: the best are drawn in thin lines
    with pytest.raises(StageError, match="'cta': is not a class of this detector, did you mean 'cat'"):
        detections["cta"]


def test_none() -> None:
    nothing = made()[:0]
    assert nothing.to_coco() == []
    assert list(nothing) == []
    assert repr(nothing) == "<Detections in photo, 32 x 24: none>"
    assert nothing.picture().shape[2] == 3
    assert len(nothing.to_pandas()) == 0


def test_a_line_of_text() -> None:
    assert repr(made()) == "<Detections in photo, 32 x 24: 3 (1 good enough): dog 0.75, cat 0.25, cat -1.00>"


def test_a_table() -> None:
    table = made().to_pandas()
    assert list(table) == ["image", "class", "label", "score", "precision", "x1", "y1", "x2", "y2", "good_enough"]
    assert table["class"].tolist() == ["dog", "cat", "cat"]
    assert table[["x1", "y1", "x2", "y2"]].to_numpy(np.float32).tolist() == BOXES[[2, 0, 1]].tolist()
    assert table.image.unique().tolist() == ["photo"]


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(StageError, match=r"^pandas is not installed; install it with `pip install 'rcnn\[pandas\]'`$"):
        made().to_pandas()


def test_results_of_coco() -> None:
    dog, cat, _ = made(name="000000397133").to_coco()
    assert dog == {"image_id": 397133, "category_id": 2, "bbox": [3.0, 4.0, 27.13, 14.0], "score": 0.75}
    assert cat == {"image_id": 397133, "category_id": 1, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.25}
    assert made().to_coco()[0]["image_id"] == "photo"
    assert made().to_coco(7, {"cat": 17, "dog": 18})[0]["category_id"] == 18
    assert made().to_coco(0)[0]["image_id"] == 0
    with pytest.raises(StageError, match="category_ids: has no id of the class 'dog'; give one for every class"):
        made().to_coco(category_ids={"cat": 17})


def test_coco_reads_them() -> None:
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {
        "images": [{"id": 5, "width": 32, "height": 24}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    truth.createIndex()
    read = truth.loadRes(made(name="0005").to_coco())
    assert [read.anns[one]["category_id"] for one in sorted(read.anns)] == [2, 1, 1]
    assert read.anns[2]["area"] == 200


def test_pictures() -> None:
    detections = made()
    picture = detections.picture()
    np.testing.assert_array_equal(picture, detections.showing.picture(IMAGE, detections.found))
    with Image.open(io.BytesIO(detections._repr_png_())) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)


def test_plots_in_axes_of_their_own_and_in_given_ones() -> None:
    from matplotlib import pyplot

    detections = made()
    detections.plot()
    height, width = detections.picture().shape[:2]
    assert pyplot.gcf().get_size_inches() * pyplot.rcParams["figure.dpi"] == pytest.approx((width, height))
    _, (left, right) = pyplot.subplots(1, 2)
    assert detections.plot(right) is right
    np.testing.assert_array_equal(right.images[0].get_array(), detections.picture())
    assert not left.images
    pyplot.close("all")
