"""`rcnn export`: a file of each system detects what its recipe detects, in an empty folder, and says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import rcnn as rcnn_python
from rcnn_cli.exporting.card import KEY
from rcnn_cli.exporting.export import without_folders
from rcnn_cli.exporting.model_file import detector_of_file, read_card
from rcnn_cli.looking.image_detector import ImageDetector, detector_of_recipe
from rcnn_cli.recipes.detectors import detector_node
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.images.reading import Pixels, read_image
from stages.networks import NETWORKS
from stages.networks.architectures import empty_module
from tests import exported
from tests.built_once import BuiltOnce
from tests.in_process import rcnn


@pytest.fixture(scope="module")
def built(built_once: BuiltOnce) -> Path:
    return built_once.folder("exported", exported.build)


@pytest.fixture(scope="module")
def graph(built: Path) -> Graph:
    return Graph(load_recipe(built / "systems.toml"), built / "work")


@pytest.fixture(scope="module")
def images(built: Path) -> dict[str, Pixels]:
    """Two images, one of them not of the dataset's shape."""
    path = min((built / "work/datasets").rglob("JPEGImages/*.jpg"))
    pixels = read_image(path)
    return {path.stem: pixels, "part": np.ascontiguousarray(pixels[20:, ::-1][:, :130])}


def assert_same_detections(one: ImageDetector, other: ImageDetector, name: str, pixels: Pixels) -> None:
    first, second = one.detect(pixels, name), other.detect(pixels, name)
    assert len(first)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert one.showing.as_json(first) == other.showing.as_json(second)


@pytest.mark.parametrize("name", exported.SYSTEMS)
def test_a_file_detects_bit_for_bit_what_its_recipe_detects(
    name: str, built: Path, graph: Graph, images: dict[str, Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(shutil.copy(built / f"{name}.safetensors", tmp_path / "m.safetensors"))
    monkeypatch.chdir(tmp_path)
    own = detector_of_file(file, Execution())
    of_recipe = detector_of_recipe(graph, detector_node(graph, name), Execution())
    for image, pixels in images.items():
        assert_same_detections(own, of_recipe, image, pixels)
    assert list(tmp_path.iterdir()) == [file]
    assert dict(own.origin) == {"model": str(file), "detector": f"{name}@test"}


def test_rcnn_load_takes_a_file(built: Path, images: dict[str, Pixels]) -> None:
    detector = rcnn_python.load(built / "detect-joint.safetensors")
    assert len(detector.classes) == 10
    pixels = images["part"]
    own = detector_of_file(built / "detect-joint.safetensors", Execution()).detect(pixels, "part")
    np.testing.assert_array_equal(detector(pixels, name="part").scores, np.sort(own.scores)[::-1])
    with pytest.raises(rcnn_python.Error, match="an exported detector is complete and stays as it is; leave out work"):
        rcnn_python.load(built / "detect.safetensors", work=built / "work")


def test_two_files_in_one_process_do_not_take_each_others_networks(built: Path, images: dict[str, Pixels]) -> None:
    name, pixels = next(iter(images.items()))
    first = [detector_of_file(built / f"{one}.safetensors", Execution()) for one in exported.SYSTEMS]
    before = [one.detect(pixels, name).scores for one in first]
    again = [one.detect(pixels, name).scores for one in reversed(first)]
    for one, other in zip(before, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_thresholds_and_precisions_travel_along(built: Path, graph: Graph) -> None:
    node = detector_node(graph, "detect")
    for chosen in ({}, {"precision": 0.2}, {"threshold": -0.7}):
        own = detector_of_file(built / "detect.safetensors", Execution(), **chosen).showing
        of_recipe = detector_of_recipe(graph, node, Execution(), **chosen).showing
        np.testing.assert_array_equal(own.cuts, of_recipe.cuts)
        assert (own.rule, own.measured, own.classes) == (of_recipe.rule, of_recipe.measured, of_recipe.classes)
    with pytest.raises(StageError, match="was exported without an evaluation, so no precision is known"):
        detector_of_file(built / "detect-softmax.safetensors", Execution(), precision=0.5)


def test_the_same_export_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    file = tmp_path / "again.safetensors"
    for _ in range(2):  # an export of its own may be replaced
        rcnn("export", built / "systems.toml", "--note", "a note", "-o", file, work=built / "work")
    assert file.read_bytes() == (built / "detect.safetensors").read_bytes()


def test_safetensors_alone_reads_it(built: Path) -> None:
    """As docs/export.md says: names of the state dict under the table's, the card in the metadata."""
    tensors = load_file(built / "detect-joint.safetensors")
    prefix = "train-joint/weights/"
    weights = {name.removeprefix(prefix): one[0] for name, one in tensors.items() if name.startswith(prefix)}
    with safe_open(built / "detect-joint.safetensors", "np") as file:
        card = json.loads(file.metadata()[KEY])
    network = card["networks"]["train-joint"]
    assert network["architecture"] == "shapenet"
    assert network["outputs"] == [*card["classes"], "background"]
    assert network["preprocessing"] == NETWORKS["shapenet"].preprocessing.as_json()
    trunk = [name for name in empty_module(NETWORKS["shapenet"], 11).state_dict() if name.startswith("conv")]
    assert set(trunk) < set(weights)
    assert weights["rpn.cls_score.weight"].shape == (2 * 6, 16, 1, 1)


def test_the_card_says_where_it_is_from_and_nothing_of_this_machine(built: Path, graph: Graph) -> None:
    card = read_card(built / "detect.safetensors")
    about = card.about
    assert about["recipe"]["detector"] == "detect"
    assert about["trained_on"] == {"train": "shapes:train"}
    assert about["note"] == "a note"
    figures = about["figures"]
    low, high = figures["interval"]
    assert low <= figures["map"] <= high
    assert card.held["train-svm"].key == graph.identity(graph.nodes["train-svm"]).key
    with safe_open(built / "detect.safetensors", "np") as file:
        assert str(built) not in file.metadata()[KEY]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("voc:/home/me/VOC2007:trainval", "voc:VOC2007:trainval"),
        ("voc:$RCNN_VOC/VOC2012:val", "voc:VOC2012:val"),
        ("voc:$RCNN_VOC:val", "voc:$RCNN_VOC:val"),
        ("coco:~/a/instances.json:~/b/images", "coco:instances.json:images"),
        ("voc:data/me/VOC2007:trainval", "voc:VOC2007:trainval"),
        ("voc:{recipe}/../photos/:{recipe}/photos-train.txt", "voc:photos/:photos-train.txt"),
        ("shapes:train", "shapes:train"),
    ],
)
def test_folders_of_a_source_are_left_out(source: str, told: str) -> None:
    assert without_folders(source) == told


def test_inspect_shows_the_card(built: Path) -> None:
    shown = rcnn("inspect", built / "detect-fast.safetensors", work=built / "work").stdout
    assert "a trained detector of 10 classes" in shown
    assert "classes: arrow, crescent, cross" in shown
    assert "note: a note" in shown
    assert "extract-fast@test: images photos, proposals propose@test, network train-fast" in shown
    assert "train-fast: network, made by train-fast, cache" in shown


def refused(built: Path, *arguments: Any) -> str:
    done = rcnn("export", *arguments, work=built / "work", check=False)
    assert done.returncode == 2
    return done.stderr


def test_what_cannot_be_exported_is_a_sentence(built: Path, tmp_path: Path) -> None:
    recipe, output = built / "systems.toml", tmp_path / "m.safetensors"
    assert "m.bin: must end in .safetensors, as in -o m.safetensors" in refused(built, recipe, "-o", tmp_path / "m.bin")
    output.write_text("mine")
    assert "already exists and was not written by this command" in refused(built, recipe, "-o", output)
    assert output.read_text() == "mine"
    output.unlink()
    changed = ("--set", "train-svm.C=0.5", "--set", "train-svm.seed=1")
    assert "detect@test needs train-svm, which is not complete" in refused(built, recipe, "-o", output, *changed)
    np.savez(tmp_path / "boxes.npz", a=np.array([[0, 0, 5, 5]]))
    text = exported.RECIPE.replace(
        "resize_width = 160\nseed = 4\n", f'method = "file"\nfile = "{tmp_path}/boxes.npz"\n'
    )
    (tmp_path / "listed.toml").write_text(text)
    said = refused(built, tmp_path / "listed.toml", "-o", output)
    assert "[propose] reads the file" in said
    assert "which does not go into an export" in said
    assert not output.exists()


# Predicting with the file alone


@pytest.mark.parametrize("name", ["detect", "detect-dense"])
def test_predict_with_a_file_in_an_empty_folder(
    name: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = shutil.copy(min((built / "work/datasets").rglob("JPEGImages/*.jpg")), tmp_path / "photo.jpg")
    shutil.copy(built / f"{name}.safetensors", tmp_path / "m.safetensors")
    chosen = ("--detector", name)
    rcnn("predict", built / "systems.toml", photo, *chosen, "-o", tmp_path / "of-recipe", work=built / "work")
    monkeypatch.chdir(tmp_path)
    said = rcnn("predict", "m.safetensors", "photo.jpg", "-o", "out", work=tmp_path / "nothing").stdout
    assert "-> out/photo.png, .json" in said
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "out/photo.png").read_bytes() == (tmp_path / "of-recipe/photo.png").read_bytes()
    told, of_recipe = (json.loads((tmp_path / one / "photo.json").read_text()) for one in ("out", "of-recipe"))
    assert (told.pop("model"), told.pop("detector")) == ("m.safetensors", f"{name}@test")
    del of_recipe["recipe"], of_recipe["detector"], of_recipe["path"], told["path"]
    assert told == of_recipe


def test_a_file_with_thresholds_draws_by_them(built: Path, tmp_path: Path) -> None:
    chosen, file = tmp_path / "thresholds.toml", tmp_path / "m ü.safetensors"
    classes = read_card(built / "detect.safetensors").classes
    scores = {name: (0.1 * label if label else float("inf")) for label, name in reversed(list(enumerate(classes)))}
    lines = "".join(f"{name} = {score}\n" for name, score in scores.items())
    chosen.write_text(f'rule = "by hand"\nscored = "SVM margin"\n[thresholds]\n{lines}')
    done = rcnn("export", built / "systems.toml", "--thresholds", chosen, "-o", file, work=built / "work")
    assert f"`rcnn predict '{file}' photo.jpg`" in done.stdout
    showing = detector_of_file(file, Execution()).showing
    np.testing.assert_array_equal(showing.cuts, np.array([scores[name] for name in classes], np.float32))
    assert showing.rule == rcnn_python.load(file).rule == "the threshold of its class (by hand)"
    assert rcnn_python.load(file, threshold=0.3).rule == "a score of 0.3"
    assert rcnn_python.load(file, precision=0.3).rule == "a precision of 0.3"
    chosen.write_text(chosen.read_text().replace("by hand", "by another hand"))
    for one in (file, built / "detect.safetensors"):
        assert rcnn_python.load(one, thresholds=chosen).rule == "the threshold of its class (by another hand)"
    shown = rcnn("inspect", file, work=built / "work").stdout
    assert f"thresholds (by hand): {classes[0]} none, {classes[1]} 0.1, {classes[2]} 0.2" in shown
    assert shown.endswith(f"rcnn predict '{file}' photo.jpg\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("arrow = 1", "arow = 1"), "'arow' is not a class of this detector, did you mean 'arrow'?"),
        (("arrow = 1\n", ""), "has no threshold for arrow"),
        (("arrow = 1", "arrow = -inf"), "the threshold of 'arrow' is -inf; write a number"),
        (("SVM margin", "softmax probability"), "has thresholds of a softmax probability"),
        (("by hand", "\\u001b[2J"), "has characters that are not printed"),
    ],
)
def test_thresholds_that_no_card_can_hold(change: tuple[str, str], said: str, built: Path, tmp_path: Path) -> None:
    classes = read_card(built / "detect.safetensors").classes
    lines = "".join(f"{name} = 1\n" for name in classes)
    chosen, output = tmp_path / "thresholds.toml", tmp_path / "m.safetensors"
    text = f'rule = "by hand"\nscored = "SVM margin"\n[thresholds]\n{lines}'
    chosen.write_text(text.replace(*change))
    assert said in refused(built, built / "systems.toml", "--thresholds", chosen, "-o", output)
    assert not output.exists()


def test_a_file_that_is_absent_or_cut_short(built: Path, tmp_path: Path) -> None:
    absent, short = tmp_path / "absent.safetensors", tmp_path / "short.safetensors"
    short.write_bytes((built / "detect.safetensors").read_bytes()[:-10])
    for read in (read_card, rcnn_python.load, lambda path: detector_of_file(path, Execution())):
        with pytest.raises(
            StageError, match=r"absent\.safetensors: no such file; name a file that `rcnn export` wrote"
        ):
            read(absent)
        with pytest.raises(StageError, match=r"short\.safetensors: is .* bytes long, not .*; export or fetch it again"):
            read(short)


def test_predict_with_a_file_takes_tiles_and_thresholds(built: Path, tmp_path: Path) -> None:
    photo = min((built / "work/datasets").rglob("JPEGImages/*.jpg"))
    recipe, file = built / "systems.toml", built / "detect.safetensors"
    work = tmp_path / "work"
    shutil.copytree(built / "work", work)
    thresholds = tmp_path / "thresholds.toml"
    rcnn("thresholds", recipe, "--split", "test", "-o", thresholds, work=work)
    png = f"{photo.stem}.png"
    for options in (("--tiles", 100), ("--thresholds", thresholds)):
        for one, name in ((recipe, "recipe"), (file, "file")):
            done = rcnn("predict", one, photo, *options, "-o", tmp_path / name, work=work)
            assert "was chosen for" not in done.stderr
        assert (tmp_path / "file" / png).read_bytes() == (tmp_path / "recipe" / png).read_bytes()
    own = tmp_path / "own.safetensors"
    done = rcnn("export", recipe, "--thresholds", thresholds, "-o", own, work=work)
    assert "was chosen for" not in done.stderr
    rcnn("predict", own, photo, "-o", tmp_path / "own", work=work)
    assert (tmp_path / "own" / png).read_bytes() == (tmp_path / "recipe" / png).read_bytes()
    other = rcnn(
        "export", recipe, "--detector", "detect-softmax", "--thresholds", thresholds, "-o", own, work=work, check=False
    )
    assert "has thresholds of a SVM margin" in other.stderr
    thresholds.write_text(thresholds.read_text().replace('key = "', 'key = "0'))
    done = rcnn("export", recipe, "--thresholds", thresholds, "-o", own, work=work)
    assert "was chosen for [detect]" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "detect.nms_iou=0.4"), "stays as it is; leave out --set"),
        (("--detector", "detect"), "stays as it is; leave out --detector"),
        (("--work", "x"), "stays as it is; leave out --work"),
    ],
)
def test_options_that_are_for_recipes(options: tuple[str, ...], said: str, built: Path, tmp_path: Path) -> None:
    photo = min((built / "work/datasets").rglob("JPEGImages/*.jpg"))
    file = built / "detect.safetensors"
    done = rcnn("predict", file, photo, *options, "-o", tmp_path / "o", work=tmp_path, check=False)
    assert done.returncode == 2
    assert said in done.stderr
