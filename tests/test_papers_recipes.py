"""The papers' own configurations of Faster R-CNN, run whole on a few generated images with a small network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.datasets import open_detection
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.eval.coco import write_coco_annotations
from tests.in_process import rcnn

RECIPES = Path(__file__).parent.parent / "recipes"
SIZES = ("sides=[64]", "longest=120")
TRAININGS = (*SIZES, "iterations=2", 'frozen=["none"]')


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images in VOC's layout, and as COCO's files with their names."""
    folder = tmp_path_factory.mktemp("data")
    draw_shapes(folder / "voc", ShapesSettings(train=5, val=1, test=4))
    (folder / "annotations").mkdir()
    sets = folder / "voc" / "ImageSets" / "Main"
    (sets / "trainval.txt").write_text((sets / "train.txt").read_text())
    for split, name in (("train", "train2014"), ("test", "val2014")):
        voc = open_detection(f"voc:{folder}/voc:{split}", work=folder / "work")
        write_coco_annotations(voc, folder / "annotations" / f"instances_{name}.json")
        (folder / name).symlink_to(folder / "voc" / "JPEGImages")
    return folder


def changes(recipe: Path) -> list[str]:
    """What makes a recipe small: the arguments of the command."""
    words = ["network.name=shapenet", "network.weights=random"]
    for line in recipe.read_text().splitlines():
        table = line.strip("[]")
        if line.startswith(("[rpn", "[fast", "[train-fast]")):
            own = TRAININGS if table in ("rpn1", "fast1") else TRAININGS[:-1]
            words += [f"{table}.{change}" for change in own]
            if table.startswith("rpn"):
                words += [f"{table}.scales=[2.0,4.0]", f"{table}.hidden=8"]
        elif line.startswith("[maps"):
            words += [f"{table}.{change}" for change in SIZES]
    return [word for change in words for word in ("--set", change)]


@pytest.mark.parametrize("name", ["voc2007-faster-vgg16", "voc2007-faster-zf"])
def test_four_steps_on_voc(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCNN_VOC", str(data / "voc"))
    recipe = RECIPES / f"{name}.toml"
    rcnn("run", recipe, *changes(recipe), work=tmp_path)
    for table in ("eval", "eval-unshared"):
        results = json.loads((tmp_path / "results" / name / table / "results.json").read_text())
        assert 0 <= results["map_11"] <= 1


def test_coco_and_its_detector_on_voc(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of COCO's classes finds two of them on VOC by other names."""
    monkeypatch.setenv("RCNN_VOC", str(data / "voc"))
    monkeypatch.setenv("RCNN_COCO", str(data))
    recipe = RECIPES / "coco-faster-vgg16.toml"
    tables = ("rpn1", "rpn2", "fast1", "train-fast")
    few = [word for table in tables for word in ("--set", f"{table}.images_per_batch=2")]
    rcnn("run", recipe, *changes(recipe), *few, "--set", 'detect-voc.classes=["ring","arrow:cross"]', work=tmp_path)
    folder = tmp_path / "results" / "coco-faster-vgg16"
    assert (folder / "eval" / "coco-results.json").is_file()
    classes = json.loads((folder / "eval-voc" / "results.json").read_text())["classes"]
    assert {name for name, measured in classes.items() if measured["detections"]} == {"ring", "cross"}
