"""`rcnn predict` on a small recipe with two detectors: which one, of which photos, what is drawn and what is written.

The network is random; SVMs tested on the images of their training find some objects all the same.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cache import Reader
from rcnn_cli.looking.image_detector import ImageDetector
from rcnn_cli.outputs import COPIES, LIST
from stages.contract.errors import StageError
from stages.datasets import open_dataset
from stages.detections import shortest
from stages.eval.operating_points import best_f1
from stages.eval.report import read_curves
from stages.images.reading import read_image
from stages.images.videos import frame_count, read_frames
from stages.matching.average_precision import calibrated_precision
from tests.built_once import BuiltOnce
from tests.in_process import caller, rcnn
from tests.pipeline import FOUR_IMAGES
from tests.stages.test_videos import Camera, write_video

RECIPE = (
    FOUR_IMAGES
    + """[extract]
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
)
CLASSES = ["arrow", "crescent", "cross", "disc", "heart", "hexagon", "ring", "square", "star", "triangle"]

Call = Callable[..., tuple[Any, str, str]]
real_capture = cv2.VideoCapture


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


# Thresholds of classes


def test_thresholds_are_chosen_kept_and_used(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    recipe, file = made / "small.toml", tmp_path / "thresholds.toml"
    code, printed, errors = call("thresholds", recipe, "--split", "test", "-o", file, "--json")
    assert code == 0, errors
    assert "chosen on 'test', on which [eval] reports results: what is reported there is then too good" in errors
    rows = {row["class"]: row for row in json.loads(printed)["thresholds"]}
    curves = read_curves(next(Reader(path) for path in (made / "work/caches/eval").glob("small-test*")))
    assert list(rows) == CLASSES
    for name, row in rows.items():
        best = best_f1(curves[name])
        assert (row["score"], row["f1"]) == ((None, None) if best is None else (shortest(np.float32(best[0])), best[1]))
    arguments = ("predict", recipe, photos, "-o", tmp_path / "out")
    code, printed, errors = call(*arguments, "--thresholds", file)
    assert (code, "warning" in errors) == (0, False), errors
    found = told(tmp_path / "out", "a")
    assert found["drawn"]["rule"] == "the threshold of its class (best F1 on test) or more"
    assert found["drawn"]["least_score"] == {name: row["score"] for name, row in rows.items()}
    code, _, errors = call(*arguments, "--thresholds", file, "--detector", "detect-without-bbox")
    assert (code, "was chosen for [detect] of" in errors) == (0, True)
    assert call("thresholds", recipe, "--split", "test", "-o", file)[0] == 0  # its own file may be replaced
    file.write_text(file.read_text().replace('"SVM margin"', '"softmax probability"'))
    code, _, errors = call("thresholds", recipe, "--split", "test", "-o", file)
    assert (code, "already exists and was not written by rcnn, or has changed since" in errors) == (2, True)
    for options, said in (
        (("--thresholds", file), "has thresholds of a softmax probability, but the detections of this detector"),
        (("--thresholds", tmp_path / "no.toml"), "no.toml: no such file; write it with `rcnn thresholds`"),
        (("--thresholds", file, "--threshold", 0), "--thresholds and --threshold: give only one of them"),
        (("--thresholds", file, "--precision", 0), "--thresholds and --precision: give only one of them"),
    ):
        code, _, errors = call(*arguments, *options)
        assert (code, said in errors) == (2, True), errors


def test_thresholds_on_a_split_that_was_not_evaluated(call: Call, made: Path, tmp_path: Path) -> None:
    """The detector is evaluated there, and nothing is trained again."""
    recipe, caches = made / "small.toml", made / "work" / "caches"
    before = set(caches.glob("*/*"))
    two_more = ("--set", "datasets.val.source=shapes:val", "--set", "datasets.val.images=2")
    arguments = ("thresholds", recipe, "-o", tmp_path / "t.toml", "--precision", 0.8, "--jobs", 1)
    code, printed, errors = call(*arguments, *two_more)
    assert code == 0, errors
    assert "chosen on" not in errors
    assert printed.startswith("detect, SVM margin: precision 0.8 on val\n")
    new = {path.parent.name: path.name.rpartition(".")[0] for path in set(caches.glob("*/*")) - before}
    assert new == dict.fromkeys(("propose", "extract", "detect", "eval"), "small-val")
    code, _, errors = call(*arguments, "--split", "train")
    assert "chosen on 'train', on which the detector was trained" in errors
    code, _, errors = call("thresholds", recipe, "--split", "val")
    assert (code, "has no dataset 'val' to choose settings on; add [datasets.val]" in errors) == (2, True)


def test_frames_of_a_video(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    write_video(photos / "clip.avi", 5)
    arguments = ("predict", made / "small.toml", photos / "clip.avi", "--every", 4, "--frames", "-o", tmp_path / "out")
    code, printed, _ = call(*arguments)
    assert code == 0
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        f"{photos}/clip.avi, frame 0",
        f"{photos}/clip.avi, frame 4",
    ]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["clip-00000.json", "clip-00004.json"]
    assert (told(tmp_path / "out", "clip-00004")["frame"], told(tmp_path / "out", "clip-00004")["time"]) == (4, 0.4)


# Videos and cameras


def film_of(photos: list[Path], path: Path) -> Path:
    """A video of five frames in a second, 160 x 120 pixels, of these photos in turn."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (160, 120))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV writes no Motion JPEG: videos are not tested")
    for number in range(5):
        pixels = read_image(photos[number % len(photos)])
        writer.write(cv2.resize(np.ascontiguousarray(pixels[:, :, ::-1]), (160, 120)))
    writer.release()
    return path


def test_a_video_becomes_a_video_and_json_lines(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    film_of(sorted(photos.glob("*.jpg")), photos / "clip.avi")
    arguments = ("predict", made / "small.toml", photos / "clip.avi", "--every", 2, "-o", tmp_path / "out")
    for _ in range(2):  # a second time, its own files are replaced
        code, printed, errors = call(*arguments, "--precision", 0.2)
        assert code == 0, errors
    assert re.fullmatch(rf"{photos}/clip.avi: 3 frames: .* -> {tmp_path}/out/clip.mp4, .jsonl\n", printed)
    assert files_in(tmp_path / "out") == ["clip.jsonl", "clip.mp4"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "clip.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["time"]) for line in lines] == [(0, 0), (2, 0.4), (4, 0.8)]
    assert {(line["width"], line["height"], line["path"]) for line in lines} == {(160, 120, f"{photos}/clip.avi")}
    for line in lines:
        for one in line["detections"]:
            least = line["drawn"]["least_score"][one["class"]]
            assert one["drawn"] == (least is not None and one["score"] >= least)
    frames = list(read_frames(tmp_path / "out" / "clip.mp4"))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.4, 0.8], abs=0.01)
    assert frames[0].pixels.shape == (120, 160, 3)
    assert call(*arguments, "--seconds", 0.3, "--no-pictures", "--format", "json,csv")[0] == 0
    assert len((tmp_path / "out" / "clip.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "out" / "detections.csv").read_text().startswith("image,path,frame,time,")


def files_in(folder: Path) -> list[str]:
    """The files below a folder, without rcnn's lists of them."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (LIST, COPIES)
    )


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), StageError("clip.avi: the disk is full"), SystemExit(143)])
def test_a_video_that_is_not_finished_leaves_nothing(
    call: Call, made: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    film_of(sorted(photos.glob("*.jpg")), photos / "clip.avi")
    real = ImageDetector.detect

    def fails(self: ImageDetector, pixels: Any, name: str, path: Path | None = None) -> Any:
        if name == "clip-00003":
            raise fault
        return real(self, pixels, name, path)

    monkeypatch.setattr(ImageDetector, "detect", fails)
    code, _, _ = call("predict", made / "small.toml", photos / "clip.avi", "--every", 1, "-o", tmp_path / "out")
    assert code == {KeyboardInterrupt: 130, StageError: 2, SystemExit: 143}[type(fault)]
    assert files_in(tmp_path / "out") == []


def test_a_camera_until_ctrl_c(
    call: Call, made: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first Ctrl-C ends the recording in good order, after the frame that is being looked at."""
    camera = Camera(1000)
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: camera if source == 0 else real_capture(source))
    monkeypatch.setattr("stages.images.videos.time.monotonic", lambda: camera.clock)
    real = ImageDetector.detect

    def interrupted(self: ImageDetector, pixels: Any, name: str, path: Path | None = None) -> Any:
        if name == "camera:0-00008":
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, pixels, name, path)

    monkeypatch.setattr(ImageDetector, "detect", interrupted)
    code, printed, errors = call("predict", made / "small.toml", "camera:0", "--every", 4, "-o", tmp_path / "out")
    assert code == 0, errors
    assert "camera:0: Ctrl-C ends it" in errors
    assert re.match(r"camera:0: 3 frames: .*/camera-0-\d{8}-\d{6}.mp4, .jsonl\n", printed)
    (lines,) = (tmp_path / "out").glob("camera-0-*.jsonl")
    assert [json.loads(line)["time"] for line in lines.read_text().splitlines()] == [0, 0.4, 0.8]
    assert frame_count(lines.with_suffix(".mp4")) == 3
    camera = Camera(1000)
    timed = ("predict", made / "small.toml", "camera:0", "--every", 4, "--seconds", 0.5, "-o", tmp_path / "timed")
    assert call(*timed, "--frames", "--format", "csv")[0] == 0
    assert len(list((tmp_path / "timed").glob("camera-0-*-0000[04].png"))) == 2
    camera = Camera(0, opens=False)
    code, _, errors = call("predict", made / "small.toml", "camera:0", "-o", tmp_path / "none")
    assert (code, "camera:0: cannot be opened" in errors) == (2, True)
    code, _, errors = call("predict", made / "small.toml", "camera:front")
    assert (code, "camera:front: name a camera by its number, as in camera:0" in errors) == (2, True)


# Other formats


def photos_with_detections(call: Call, made: Path, photos: Path, out: Path, *options: object) -> dict[str, list[Any]]:
    """Predicts on a.jpg, b.jpg and a picture of nothing; the detections that are good enough, by photo."""
    Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(photos / "nothing.png")
    code, _, errors = call("predict", made / "small.toml", photos, "-o", out, "--precision", 0.2, *options)
    assert code == 0, errors
    found = {}
    for name in ("a", "b", "nothing"):
        values = told(out, name)
        found[name] = [
            one for one in values["detections"] if one["drawn"] and not values["drawn"]["whatever_the_score"]
        ]
    assert found["a"] or found["b"]
    return found


def test_other_formats_are_read_back_as_datasets(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    """The detections that are good enough, in every format, read by the project's own readers."""
    out = tmp_path / "out"
    found = photos_with_detections(call, made, photos, out, "--format", "coco,voc", "--format", "yolo,csv,json")
    read: dict[str, Any] = {
        "coco": open_dataset([f"coco:{out}/coco/annotations.json:{out}/coco/images"], work=tmp_path),
        "voc": open_dataset([f"voc:{out}/voc:train"], work=tmp_path, options={"classes": CLASSES}),
        "yolo": open_dataset([f"yolo:{out}/yolo/data.yaml:train"], work=tmp_path),
    }
    for kind, dataset in read.items():
        assert list(dataset.classes) == CLASSES
        assert dataset.image_ids == (("1", "2", "3") if kind == "coco" else ("a", "b", "nothing"))
        for name, image_id in zip(found, dataset.image_ids, strict=True):
            record = dataset.record(image_id)
            assert [CLASSES[label] for label in record.labels] == [one["class"] for one in found[name]]
            boxes = np.array([one["box"] for one in found[name]], np.float32).reshape(-1, 4)
            assert kind != "voc" or (record.boxes == np.rint(record.boxes)).all()
            np.testing.assert_allclose(record.boxes, boxes, atol=0.506 if kind == "voc" else 0.011)
            (source,) = photos.glob(f"{name}.*")
            np.testing.assert_array_equal(dataset.read_image(image_id), read_image(source))
            assert dataset.image_path(image_id).read_bytes() == source.read_bytes()
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, one) for name, those in found.items() for one in those]
    assert [(Path(row["image"]).stem, row["class"], float(row["score"]), float(row["x2"])) for row in rows] == [
        (name, one["class"], one["score"], one["box"][2]) for name, one in expected
    ]
    precision = [one["precision"] for _, one in expected]
    assert [float(row["precision"]) for row in rows] == pytest.approx(precision, abs=1e-4)
    before = content(out)
    photos_with_detections(call, made, photos, out, "--format", "coco,voc,yolo,csv,json")
    assert content(out) == before
    again = call("predict", made / "small.toml", out / "yolo" / "images" / "train", "-o", tmp_path / "again")
    assert again[0] == 0  # copies are photos, as opposed to what predict draws
    assert content(tmp_path / "again").keys() >= {"a.json", "b.json", "nothing.json"}
    (out / "voc" / "Annotations" / "a.xml").write_text("corrected by hand")
    code, _, errors = call("predict", made / "small.toml", photos, "-o", out, "--format", "voc")
    assert (code, "a.xml: already exists and was not written by rcnn, or has changed since" in errors) == (2, True)


def test_pycocotools_takes_dataset_and_results(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = photos_with_detections(call, made, photos, out, "--format", "coco,json", "--no-images", "--no-pictures")
    assert not list(out.glob("*.png"))
    assert files_in(out / "coco") == ["annotations.json", "results.json"]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(out / "coco" / "annotations.json"))
        results = dataset.loadRes(str(out / "coco" / "results.json"))
    assert [image["file_name"] for image in dataset.loadImgs(dataset.getImgIds())] == ["a.jpg", "b.jpg", "nothing.png"]
    for image, name in zip(dataset.getImgIds(), found, strict=True):
        for tool in (dataset, results):
            annotations = tool.loadAnns(tool.getAnnIds(imgIds=image))
            names = [tool.loadCats(one["category_id"])[0]["name"] for one in annotations]
            assert names == [one["class"] for one in found[name]]
            assert [one["score"] for one in annotations] == [one["score"] for one in found[name]]
            corners = [(one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]) for one in annotations]
            np.testing.assert_allclose(
                np.array(corners).reshape(-1, 2),
                np.array([one["box"][2:] for one in found[name]]).reshape(-1, 2),
                atol=0.02,
            )


def test_a_photo_that_lies_on_its_side_is_copied_upright(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photos / "a.jpg").save(photos / "side.jpg", exif=exif, quality=95)
    out = tmp_path / "out"
    arguments = ("predict", made / "small.toml", photos / "side.jpg", "-o", out, "--threshold", -99)
    assert call(*arguments, "--format", "voc,json")[0] == 0
    copied = Image.open(out / "voc" / "JPEGImages" / "side.jpg")
    assert copied.getexif().get(0x0112, 1) == 1
    assert copied.size == Image.open(photos / "a.jpg").size[::-1]
    options = {"classes": CLASSES, "exif": "stored"}
    dataset: Any = open_dataset([f"voc:{out}/voc:train"], work=tmp_path, options=options)
    boxes = np.array([one["box"] for one in told(out, "side")["detections"]], np.float32)
    assert np.abs(dataset.record("side").boxes - boxes).max() <= 0.501


def test_frames_of_a_video_as_a_dataset(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    film_of(sorted(photos.glob("*.jpg")), photos / "clip.avi")
    arguments = ("predict", made / "small.toml", photos / "clip.avi", "--every", 2, "-o", tmp_path, "--no-pictures")
    code, printed, _ = call(*arguments, "--format", "yolo")
    assert code == 0
    assert re.search(rf"\d+ detections? in 3 images -> {tmp_path}/yolo/data.yaml\n$", printed)
    dataset = open_dataset([f"yolo:{tmp_path}/yolo/data.yaml:train"], work=tmp_path / "work")
    assert dataset.image_ids == ("clip-00000", "clip-00002", "clip-00004")
    first = next(iter(read_frames(photos / "clip.avi")))
    assert np.abs(dataset.read_image("clip-00000").astype(int) - first.pixels).mean() < 4


def test_an_unknown_format_is_refused(call: Call, made: Path, photos: Path) -> None:
    code, _, errors = call("predict", made / "small.toml", photos / "a.jpg", "--format", "coco,vocs")
    assert (code, "--format vocs: is not a known format, did you mean 'voc'?" in errors) == (2, True)


# Tiles


def test_tiles_as_large_as_the_photo_change_nothing(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    width, height = Image.open(photos / "a.jpg").size
    arguments = ("predict", made / "small.toml", photos / "a.jpg", "-o")
    assert call(*arguments, tmp_path / "plain")[0] == 0
    assert call(*arguments, tmp_path / "tiles", "--tiles", max(width, height))[0] == 0
    plain, tiles = content(tmp_path / "plain"), content(tmp_path / "tiles")
    assert plain == tiles


def test_a_mosaic_is_found_tile_by_tile(call: Call, made: Path, photos: Path, tmp_path: Path) -> None:
    """Two photos side by side, in tiles that are the photos: what is found in both is moved to its place."""
    first, second = (np.asarray(Image.open(photos / f"{name}.jpg")) for name in "ab")
    side = max(*first.shape, *second.shape)
    square = [np.pad(one, ((0, side - one.shape[0]), (0, side - one.shape[1]), (0, 0))) for one in (first, second)]
    Image.fromarray(np.hstack(square)).save(photos / "mosaic.png")
    for name, pixels in zip("ab", square, strict=True):
        Image.fromarray(pixels).save(photos / f"{name}.png")
    arguments = ("predict", made / "small.toml", "-o", tmp_path, "--threshold", -99, "--no-pictures")
    tiled = ("--tiles", side, "--tile-overlap", 0, "--no-whole-image")
    assert call(*arguments, photos / "a.png", photos / "b.png")[0] == 0
    assert call(*arguments, photos / "mosaic.png", *tiled)[0] == 0
    own = {
        (
            one["class"],
            one["score"],
            *(round(x + shift * side * (place % 2 == 0)) for place, x in enumerate(one["box"])),
        )
        for shift, name in enumerate("ab")
        for one in told(tmp_path, name)["detections"]
    }
    found = {
        (one["class"], one["score"], *(round(x) for x in one["box"])) for one in told(tmp_path, "mosaic")["detections"]
    }
    assert len(found - own) == 0
    assert len(found) > 0.8 * len(own)  # parts at the inner edge go for whole boxes


def test_tiles_that_cannot_be(call: Call, made: Path, photos: Path) -> None:
    arguments = ("predict", made / "small.toml", photos / "a.jpg")
    for options, said in (
        (("--tiles", 64, "--tile-overlap", 64), "--tile-overlap 64: must be less than the side of the tiles"),
        (("--tile-overlap", 64), "--tile-overlap is for --tiles"),
        (("--no-whole-image",), "--no-whole-image is for --tiles"),
    ):
        code, _, errors = call(*arguments, *options)
        assert (code, said in errors) == (2, True), errors


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
    formats = ("--format", "json,coco,voc,yolo,csv")
    for command, options in (("predict", formats), ("explain", ())):
        code, printed, errors = call(command, made / "small.toml", odd, "-o", tmp_path / command, *options)
        assert code == 0, errors
        assert "caf\ufffd.jpg" in printed
        (path,) = (tmp_path / command).glob("*.json")
        assert json.loads(path.read_text())["image"] == "caf\ufffd.jpg"
