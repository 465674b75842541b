"""The detector of a small recipe from Python: the numbers of its own cache and of `rcnn predict`, whatever the image
comes as; and one sentence for what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rcnn
from rcnn.detector import Detector
from tests.built_once import BuiltOnce
from tests.in_process import rcnn as command
from tests.pipeline import run_small


@pytest.fixture(scope="module")
def small(built_once: BuiltOnce) -> Path:
    """A folder with small.toml and, in work/, its complete caches."""
    return built_once.folder("small", run_small)


@pytest.fixture(scope="module")
def detector(small: Path) -> Detector:
    return rcnn.load(small / "small.toml", work=small / "work")


@pytest.fixture(scope="module")
def photo(small: Path) -> Path:
    """An image of the test set in which something is detected."""
    rows = rcnn.open(small / "small.toml", "detect", split="test", work=small / "work")
    found = max(rows, key=lambda image_id: len(rows[image_id]["score"]))
    return next((small / "work" / "datasets").glob(f"*/JPEGImages/{found}.*"))


def test_what_it_says_of_itself(detector: Detector, small: Path) -> None:
    assert len(detector.classes) == 10
    assert detector.score == "SVM margin"
    assert detector.rule == "a precision of 0.5"
    assert detector.origin == {"recipe": str(small / "small.toml"), "detector": "detect@test"}
    assert repr(detector) == (
        f"<Detector of {small / 'small.toml'} detect@test: 10 classes; drawn: a precision of 0.5 or more>"
    )


def test_the_same_as_the_cache_of_the_recipe(detector: Detector, small: Path, photo: Path) -> None:
    record = rcnn.open(small / "small.toml", "detect@test", work=small / "work")[photo.stem]
    found = detector(photo)
    assert len(found) > 3
    order = np.lexsort((found.boxes[:, 0], -found.scores, found.labels))
    own = np.lexsort((record["boxes"][:, 0], -record["score"], record["label"]))
    np.testing.assert_array_equal(found.scores[order], record["score"][own])
    np.testing.assert_array_equal(found.boxes[order], record["boxes"][own])
    assert list(found.size) == record["image_size"].tolist()


def test_the_same_as_predict(detector: Detector, small: Path, photo: Path, tmp_path: Path) -> None:
    command("predict", small / "small.toml", photo, "-o", tmp_path, work=small / "work")
    told = json.loads((tmp_path / f"{photo.stem}.json").read_text())
    found = detector(photo)
    assert [one["class"] for one in told["detections"]] == found.names
    assert [one["score"] for one in told["detections"]] == [one.score for one in found]
    assert [one["drawn"] for one in told["detections"]] == found.drawn.tolist()
    precisions = [np.nan if one["precision"] is None else one["precision"] for one in told["detections"]]
    np.testing.assert_array_equal(precisions, found.precision)
    with Image.open(tmp_path / f"{photo.stem}.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), found.picture())


def test_a_file_an_array_and_an_image_of_pillow_are_one(detector: Detector, photo: Path) -> None:
    of_file = detector(str(photo))
    with Image.open(photo) as image:
        others = [detector(image), detector(np.asarray(image), name="other")]
    for found in others:
        np.testing.assert_array_equal(found.scores, of_file.scores)
        np.testing.assert_array_equal(found.boxes, of_file.boxes)
        np.testing.assert_array_equal(found.image, of_file.image)
    assert [of_file.name, others[0].name, others[1].name] == [photo.stem, photo.stem, "other"]
    assert [of_file.path, others[0].path, others[1].path] == [photo, photo, None]


def test_a_second_image_is_not_taken_for_the_first(detector: Detector, photo: Path) -> None:
    first = detector(photo)
    other = detector(first.image[:, ::-1], name=photo.stem)
    assert other.scores.tolist() != first.scores.tolist()
    np.testing.assert_array_equal(detector(photo).scores, first.scores)


def test_thresholds_and_precisions(small: Path, photo: Path) -> None:
    recipe, work = small / "small.toml", small / "work"
    every = rcnn.load(recipe, work=work, threshold=-1000)(photo)
    assert every.drawn.all()
    strict = rcnn.load(str(recipe), work=str(work), precision=1.0)
    assert strict.rule == "a precision of 1"


def test_a_file_of_thresholds(detector: Detector, small: Path, photo: Path, tmp_path: Path) -> None:
    best = detector(photo)[0]
    scores = {name: best.score if name == best.name else 1000.0 for name in detector.classes}
    file = tmp_path / "thresholds.toml"
    file.write_text("[thresholds]\n" + "".join(f"{name} = {score!r}\n" for name, score in scores.items()))
    found = rcnn.load(small / "small.toml", work=small / "work", thresholds=file)(photo)
    of_class = [one for one in found if one.name == best.name]
    assert [one for one in found if one.good_enough] == [one for one in of_class if one.score >= best.score]
    assert best.score in [one.score for one in of_class]


def test_changes_and_another_table(small: Path, photo: Path) -> None:
    recipe, work = small / "small.toml", small / "work"
    changed = rcnn.load(recipe, work=work, changes={"detect.nms_iou": 0.9, "detect.bbox_regression": False})
    assert len(changed(photo)) > len(rcnn.load(recipe, work=work, detector="detect@test")(photo))


def refusals() -> dict[str, tuple[dict[str, Any], str]]:
    """Arguments of `load` that cannot be, and what is said."""
    return {
        "no recipe": ({"recipe": "nowhere.toml"}, r"nowhere\.toml: no such recipe"),
        "no detector": ({"detector": "detekt"}, r"has no detector 'detekt', did you mean 'detect'"),
        "both": ({"threshold": 0.5, "precision": 0.5}, "^threshold and precision: give only one of them"),
        "no number": ({"threshold": float("nan")}, "^threshold nan: must be a finite number"),
        "a file and a number": ({"threshold": 0.5, "thresholds": "t.toml"}, "^thresholds and threshold: give only one"),
        "no thresholds": (
            {"thresholds": "nowhere.toml"},
            r"nowhere\.toml: no such file; write it with `rcnn thresholds`",
        ),
        "no share": ({"precision": 1.5}, r"^precision = 1\.5: must be a share between 0 and 1"),
        "no device": ({"device": "gpu"}, "^device gpu: is unknown; use auto, cpu, cuda or cuda:N"),
        "no table": ({"changes": {"detekt.nms_iou": 0.4}}, r"^changes detekt\.nms_iou=0\.4: the recipe has no table"),
        "no setting": ({"changes": {"detect.nms": 0.4}}, r"unknown setting 'nms', did you mean 'nms_iou'\?"),
        "no value": ({"changes": {"detect.nms_iou": 2}}, r"nms_iou = 2\.0 must be at most 1"),
        "not trained": (
            {"changes": {"train-svm.C": 3.0}},
            r"train-svm, which is not complete .* run `rcnn train-svm .*",
        ),
    }


@pytest.mark.parametrize("name", refusals())
def test_what_cannot_be_loaded_is_a_sentence(small: Path, name: str) -> None:
    given, sentence = refusals()[name]
    with pytest.raises(rcnn.Error, match=sentence) as caught:
        rcnn.load(**{"recipe": small / "small.toml", "work": small / "work", **given})
    assert "\n" not in str(caught.value)


def test_a_precision_without_an_evaluation(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "work", tmp_path / "work", ignore=shutil.ignore_patterns("eval"))
    shutil.copy(small / "small.toml", tmp_path)
    with pytest.raises(rcnn.Error, match=r"^precision: no evaluation of detect@test is complete.*or pass threshold$"):
        rcnn.load(tmp_path / "small.toml", work=tmp_path / "work", precision=0.9)
    assert rcnn.load(tmp_path / "small.toml", work=tmp_path / "work").rule == "a score of 0"


def test_a_bad_image_leaves_the_detector_usable(detector: Detector, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes()[:500])
    before = detector(photo)
    for bad in (tmp_path / "a.jpg", tmp_path / "b.jpg", np.zeros((3, 3)), tmp_path):
        with pytest.raises(rcnn.BadImage):
            detector(bad)
    np.testing.assert_array_equal(detector(photo).scores, before.scores)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (9, 9)])
def test_images_in_which_little_can_be_proposed(detector: Detector, size: tuple[int, int]) -> None:
    """As `rcnn predict` does: detections, or the sentence of a stage."""
    try:
        found = detector(np.full((*size, 3), 90, np.uint8))
    except rcnn.Error as error:
        assert "the image" in str(error) or "image" in str(error)  # noqa: PT017
    else:
        assert found.size == size[::-1]
