"""`rcnn predict` on a small recipe with two detectors: which one, of which photos, what is drawn and what is written.

The network is random; SVMs tested on the images of their training find some objects all the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rcnn_cli.main import main
from tests.in_process import caller

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 5
[datasets.test]
source = "shapes:train"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 60
resize_width = 160
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
"""

Call = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.toml and the work folder of its complete caches."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "small.toml").write_text(RECIPE)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(folder / "small.toml"), "--work", str(folder / "work"), "--jobs", "1"])
    assert ended.value.code == 0
    return folder


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
    assert f"{there}: is there already and was not written by rcnn" in errors
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
        assert (code, f"{there}: is there already and was not written by rcnn" in errors) == (2, True), errors
        assert content(folder) == {there: b"mine"}
    for _ in range(2):
        assert call(name, *recipes, *rest, "-o", tmp_path / "own")[0] == 0
