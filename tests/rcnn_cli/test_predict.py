"""`rcnn predict` on a small recipe with two detectors: which one, of which photos, what is drawn and what is written.

The network is random; SVMs tested on the images of their training find some objects all the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from cache import Reader
from stages.eval.average_precision import calibrated_precision
from stages.eval.report import read_curves
from tests.built_once import BuiltOnce
from tests.in_process import caller, rcnn
from tests.stages.test_videos import write_video

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 4
[datasets.test]
source = "shapes:train"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 40
resize_width = 160
seed = 4
[extract]
layers = ["pool4"]
padding = 4
[train-svm]
layer = "pool4"
[train-bbox]
layer = "pool4"
[detect]
[detect-without-bbox]
stage = "detect"
inputs = { regressor = "none" }
[eval-without-bbox]
stage = "eval"
inputs = { detections = "detect-without-bbox" }
[eval]
[diagnose]
"""
CLASSES = ["arrow", "crescent", "cross", "disc", "heart", "hexagon", "ring", "square", "star", "triangle"]

Call = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def made(built_once: BuiltOnce, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.toml and the work folder of its complete caches."""

    def build(folder: Path) -> None:
        (folder / "small.toml").write_text(RECIPE)
        rcnn("run", folder / "small.toml", work=folder / "work")

    return built_once.copy("predict", build, tmp_path_factory.mktemp("predict"))


@pytest.fixture
def call(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `rcnn` in this process on the complete caches: (exit code, standard output, standard error)."""
    monkeypatch.setenv("RCNN_WORK", str(made / "work"))
    return caller(capsys)


@pytest.fixture
def photos(made: Path, tmp_path: Path) -> Path:
    """A folder with the photos a.jpg and b.jpg."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, source in zip("ab", sorted((made / "work/datasets").rglob("JPEGImages/*.jpg")), strict=False):
        shutil.copy(source, folder / f"{name}.jpg")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The names in data.h5


@pytest.mark.parametrize(
    ("cache", "column", "name", "among"),
    [
        ("detect/small-test.*", "label", "classes", CLASSES),
        ("extract/small-train.*", "label", "classes", CLASSES),
        ("diagnose/small-test.*", "type", "types", ["found", "difficult", "Loc", "Sim", "Oth", "BG"]),
    ],
)
def test_numbers_have_names_in_the_attributes(made: Path, cache: str, column: str, name: str, among: list[str]) -> None:
    (folder,) = (made / "work/caches").glob(cache)
    with h5py.File(folder / "data.h5") as file:
        assert list(file.attrs[name]) == among
        assert file[column][()].max() < len(among)
        assert cache[:6] != "detect" or file.attrs["score"] == "SVM margin"


# Which detector


def test_which_of_several_detectors_is_said(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    said = "detector: detect (of detect, detect-without-bbox; --detector chooses)"
    out = ("-o", tmp_path / "out")
    assert said in call("predict", made / "small.toml", photos / "a.jpg", *out)[2]
    assert said in call("explain", made / "small.toml", "train_00000", *out)[2]
    named = ("--detector", "detect-without-bbox")
    assert "detector: " not in call("predict", made / "small.toml", photos / "a.jpg", *named, *out)[2]
    assert "of 'test' by detect@test" in call("figures", made / "small.toml", "--only", "detections", *out)[1]


# What is written over


@pytest.mark.parametrize("there", ["a.png", "a.json"])
def test_a_file_that_predict_did_not_write_stays(
    call: Call, made: Path, photos: Path, there: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / there).write_text("mine")
    code, _, errors = call("predict", made / "small.toml", photos / "a.jpg", photos / "b.jpg", "-o", tmp_path / "out")
    assert code == 2
    assert f"{there}: already exists and was not written by rcnn" in errors
    assert content(tmp_path / "out") == {there: b"mine"}


def test_predict_into_the_photos_own_folder(call: Call, made: Path, photos: Path) -> None:
    """NAME.png would be the photo itself; beside a.jpg it may stand, and the same command replaces it."""
    shutil.copy(photos / "a.jpg", photos / "c.png")
    before = content(photos)
    code, _, errors = call("predict", made / "small.toml", photos / "a.jpg", photos / "c.png", "-o", photos)
    assert code == 2
    assert f"{photos}/c.png: is read by this command and would be overwritten" in errors
    assert content(photos) == before
    for _ in range(2):
        assert call("predict", made / "small.toml", photos / "a.jpg", "-o", photos)[0] == 0
    assert before.items() <= content(photos).items()
    code, _, errors = call("predict", made / "small.toml", photos / "a.png", "-o", photos)  # a drawing as a photo
    assert (code, "is read by this command" in errors) == (2, True)


def test_photos_of_one_name_have_files_of_their_own(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "more").mkdir()
    for name in ("A.JPG", "a-2.jpg"):
        shutil.copy(photos / "b.jpg", photos / "more" / name)
    given = [photos / "a.jpg", photos / "more" / "A.JPG", photos / "more" / "a-2.jpg"]
    assert call("predict", made / "small.toml", *given, "-o", tmp_path / "out")[0] == 0
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.json")) == ["A-2", "a", "a-2-2"]


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (("recall",), ("recall.csv", "recall.json", "recall.png")),
        (("units", "--layer", "pool4"), ("extract-test-pool4.json", "extract-test-pool4.png")),
        (("figures", "--only", "filters"), ("small-filters.png", "box-plots.png")),
        (("report",), ("index.html", "made-from.json")),
        (("explain", "train_00000"), ("train_00000.json", "train_00000.png")),
        (("compare", "--evaluation-b", "eval-without-bbox"), ("compare.csv", "better.png")),
    ],
)
def test_no_command_writes_over_what_is_not_its_own(
    call: Call, made: Path, tmp_path: Path, arguments: tuple[str, ...], files: tuple[str, ...]
) -> None:
    name, *rest = arguments
    recipes = [made / "small.toml"] * (2 if name == "compare" else 1)
    for there in files:
        folder = tmp_path / there
        folder.mkdir()
        (folder / there).write_text("mine")
        code, _, errors = call(name, *recipes, *rest, "-o", folder)
        assert (code, f"{there}: already exists and was not written by rcnn" in errors) == (2, True), errors
        assert content(folder) == {there: b"mine"}
    for _ in range(2):
        assert call(name, *recipes, *rest, "-o", tmp_path / "own")[0] == 0


# What is drawn and written


def told(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_picture_and_json_follow_one_rule_that_the_json_states(
    call: Call, made: Path, photos: Path, tmp_path: Path
) -> None:
    assert call("predict", made / "small.toml", photos, "-o", tmp_path)[0] == 0
    curves = read_curves(next(Reader(path) for path in (made / "work/caches/eval").glob("small-test*")))
    some = 0
    for name in "ab":
        found = told(tmp_path, name)
        assert (found["written_by"], found["image"], found["detector"]) == (
            "rcnn predict",
            f"{name}.jpg",
            "detect@test",
        )
        assert (found["score"], found["precision"]["dataset"]) == ("SVM margin", "test")
        assert found["drawn"]["rule"] == "a precision of 0.5 or more"
        detections, least = found["detections"], found["drawn"]["least_score"]
        for one in detections:
            reached = least[one["class"]] is not None and one["score"] >= least[one["class"]]
            assert reached == (one["precision"] is not None and one["precision"] >= 0.5)
            assert one["drawn"] == reached or found["drawn"]["whatever_the_score"]
            (expected,) = calibrated_precision(curves[one["class"]], np.array([one["score"]], np.float32))
            assert one["precision"] == (None if np.isnan(expected) else expected)
        assert any(one["drawn"] for one in detections)
        some += not found["drawn"]["whatever_the_score"]
        ranks = [(-1 if one["precision"] is None else one["precision"], one["score"]) for one in detections]
        assert ranks == sorted(ranks, reverse=True)
        width, height = Image.open(photos / f"{name}.jpg").size
        assert (found["width"], found["height"]) == (width, height)
        drawn = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert drawn.shape[0] > height
    assert some > 0


def test_where_nothing_is_good_enough_the_best_are_drawn_and_this_is_said(
    call: Call, made: Path, photos: Path, tmp_path: Path
) -> None:
    code, printed, _ = call("predict", made / "small.toml", photos / "a.jpg", "--threshold", 99, "-o", tmp_path)
    assert code == 0
    assert "none has a score of 99 or more; the best: " in printed
    found = told(tmp_path, "a")
    assert found["drawn"]["whatever_the_score"]
    assert set(found["drawn"]["least_score"].values()) == {99.0}
    assert [one["drawn"] for one in found["detections"]] == [True] * 3 + [False] * (len(found["detections"]) - 3)


def test_without_an_evaluation_there_are_scores_alone(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    without = made / "without.toml"
    without.write_text(RECIPE.split("[eval-without-bbox]")[0])
    assert call("predict", without, photos / "a.jpg", "-o", tmp_path)[0] == 0
    found = told(tmp_path, "a")
    assert (found["precision"], found["drawn"]["rule"]) == (None, "a score of 0 or more")
    assert {one["precision"] for one in found["detections"]} == {None}
    code, _, errors = call("predict", without, photos / "a.jpg", "--precision", 0.9, "-o", tmp_path)
    assert (code, "--precision: no evaluation of detect@test is complete" in errors) == (2, True)


def test_precision_and_threshold_choose_what_is_drawn(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ("predict", made / "small.toml", photos / "a.jpg", "-o", tmp_path)
    drawn = []
    for option in (("--precision", 0.05), ("--precision", 0.5), ("--threshold", -99)):
        assert call(*arguments, *option)[0] == 0
        drawn.append(sum(one["drawn"] for one in told(tmp_path, "a")["detections"]))
    assert drawn[0] >= drawn[1]
    assert drawn[2] == len(told(tmp_path, "a")["detections"])
    code, _, errors = call(*arguments, "--threshold", "nan")
    assert (code, "--threshold nan: must be a finite number" in errors) == (2, True)
    code, _, errors = call(*arguments, "-o", "")
    assert (code, "is empty; name a folder or file" in errors) == (2, True)
    code, _, errors = call(*arguments, "--precision", 0.5, "--threshold", 0)
    assert (code, "--threshold and --precision: give only one of them" in errors) == (2, True)


def test_frames_of_a_video(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    write_video(photos / "clip.avi", 5)
    code, printed, _ = call("predict", made / "small.toml", photos / "clip.avi", "--every", 4, "-o", tmp_path / "out")
    assert code == 0
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        f"{photos}/clip.avi, frame 0",
        f"{photos}/clip.avi, frame 4",
    ]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["clip-00000.json", "clip-00004.json"]
    assert told(tmp_path / "out", "clip-00004")["frame"] == 4


def test_photos_are_looked_for_before_anything_is_loaded(
    call: Call, made: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rcnn_cli.looking.prediction.detector_of_recipe", lambda *_: pytest.fail("the network is loaded")
    )
    (photos / "no.jpg").write_text("no picture")
    for name, said in (("c.jpg", "no such file"), ("no.jpg", "is not an image")):
        code, _, errors = call("predict", made / "small.toml", photos / "a.jpg", photos / name)
        assert (code, said in errors) == (2, True)


def test_only_the_stages_that_a_photo_passes_through_need_the_device(
    call: Call, made: Path, photos: Path, tmp_path: Path
) -> None:
    """The network that is fine-tuned is not the one that extracts, so its precision does not matter here."""
    text = RECIPE.replace("[extract]", '[finetune]\nprecision = "tf32"\n[extract]\ninputs = { network = "network" }')
    recipe = tmp_path / "small.toml"
    recipe.write_text(text)
    for command in ("predict", "explain"):
        on_cpu = (
            command,
            recipe,
            photos / "a.jpg",
            "--detector",
            "detect",
            "--device",
            "cpu",
            "-o",
            tmp_path / command,
        )
        code, _, errors = call(*on_cpu)
        assert code == 0, errors
        code, _, errors = call(*on_cpu, "--set", "extract.precision=tf32")
        assert code == 2
        assert "[extract] precision = 'tf32' needs --device cuda" in errors


def test_a_name_that_is_no_text(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    """Names are bytes; those of an old camera or another system may be no UTF-8."""
    odd = photos / os.fsdecode(b"caf\xe9.jpg")
    try:
        shutil.copy(photos / "a.jpg", odd)
    except OSError:
        pytest.skip("this disk has only names in UTF-8")
    for command in ("predict", "explain"):
        code, printed, errors = call(command, made / "small.toml", odd, "-o", tmp_path / command)
        assert code == 0, errors
        assert "caf\ufffd.jpg" in printed
        (path,) = (tmp_path / command).glob("*.json")
        assert json.loads(path.read_text())["image"] == "caf\ufffd.jpg"
