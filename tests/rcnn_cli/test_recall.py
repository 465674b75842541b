"""`rcnn recall`: recall and average recall by hand, and the command on caches of two recipes."""

from __future__ import annotations

import copy
import csv
import json
import shlex
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cache.manifest import read_manifest, write_manifest
from rcnn_cli.looking.recall import Measured, panels
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.matching.proposals import (
    Coverage,
    average_recall,
    best_overlaps_of_first,
    groups,
    recall_at,
    scored_first,
)
from tests.in_process import caller
from tests.stages.forest_files import write_forest

RECIPE = """
[datasets.test]
source = "voc:{folder}:test"
[propose]
method = "sliding-window"
max_boxes = {boxes}
"""
EDGES = """
[datasets.test]
source = "voc:{folder}:test"
[propose]
method = "edge-boxes"
min_box_area = 200.0
"""


def test_the_first_boxes_by_hand() -> None:
    objects = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    boxes = np.array([[0, 0, 10, 5], [50, 0, 60, 10], [0, 0, 10, 10], [20, 0, 30, 8]], np.float32)
    overlaps = best_overlaps_of_first(boxes, objects, (1, 2, 3, 9, None))
    np.testing.assert_allclose(overlaps, [[0.5, 0.5, 1, 1, 1], [0, 0, 0, 0.8, 0.8]])
    assert best_overlaps_of_first(boxes[:0], objects, (1, None)).tolist() == [[0, 0], [0, 0]]
    assert best_overlaps_of_first(boxes, objects[:0], (1, None)).shape == (0, 2)


def test_objects_with_features_do_not_cover_themselves_and_windows_are_ranked_by_their_best_class() -> None:
    boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert scored_first({"boxes": boxes}) is boxes
    is_object = np.array([True, False, False, False])
    assert scored_first({"boxes": boxes, "is_object": is_object})[:, 0].tolist() == [4, 8, 12]
    # Two classes and the background, which counts for nothing; a tie keeps its order.
    softmax = np.array([[1, 0, 0], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0, 0.8]], np.float16)
    ranked = scored_first({"boxes": boxes, "is_object": is_object, "softmax": softmax})
    assert ranked[:, 0].tolist() == [8, 4, 12]


def test_recall_and_average_recall_by_hand() -> None:
    overlaps = np.array([1.0, 0.75, 0.5, 0.2])
    assert recall_at(overlaps, np.array([0.5, 0.6, 0.75, 0.8, 1])).tolist() == [0.75, 0.5, 0.5, 0.25, 0.25]
    assert average_recall(overlaps) == pytest.approx(2 * (0.5 + 0.25) / 4)
    assert average_recall(np.ones(3)) == 1
    assert np.isnan(average_recall(np.zeros(0)))
    assert np.isnan(recall_at(np.zeros(0), np.array([0.5]))).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_average_recall_is_twice_the_area_under_recall(overlaps: list[float]) -> None:
    levels = np.linspace(0.5, 1, 20001)
    area = np.trapezoid(recall_at(np.array(overlaps), levels), levels)
    assert average_recall(np.array(overlaps)) == pytest.approx(2 * area, abs=1e-3)


def test_groups_by_size_and_class() -> None:
    areas = np.array([1023.9, 1024, 9215.9, 9216])
    coverage = Coverage((None,), np.array([0, 1, 0, 2], np.int32), areas, np.zeros((4, 1)), np.zeros(1))
    members = {name: np.flatnonzero(mask).tolist() for name, mask in groups(coverage, ["cat", "all", "owl"]).items()}
    assert members == {
        "all": [0, 1, 2, 3],
        "small": [0],
        "medium": [1, 2],
        "large": [3],
        "class cat": [0, 2],
        "class all": [1],
        "class owl": [3],
    }


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls `rcnn` in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    monkeypatch.setattr("rcnn_cli.running.device.cores", lambda: 1)
    return caller(capsys)


def test_the_command_compares_caches_in_one_figure(tmp_path: Path, call: Any) -> None:
    draw_shapes(tmp_path / "voc", ShapesSettings(train=1, val=1, test=3))
    recipes = [tmp_path / "few.toml", tmp_path / "many.toml"]
    for recipe, boxes in zip(recipes, (40, 400), strict=True):
        recipe.write_text(RECIPE.format(folder=tmp_path / "voc", boxes=boxes))
    code, _, errors = call("recall", *recipes)
    assert code == 2
    assert "propose@test is not complete" in errors
    assert f"run `rcnn propose {recipes[0]} --split test` first" in errors
    for recipe in recipes:
        assert call("propose", recipe)[0] == 0
    changes = ("propose.max_boxes=3", "name='a b'")
    _, _, errors = call("recall", recipes[0], *(word for change in changes for word in ("--set", change)))
    assert f"run `rcnn propose {recipes[0]} --set propose.max_boxes=3 --set " in errors
    advised = shlex.split(errors.partition("run `rcnn ")[2].partition("`")[0])
    assert advised == [
        *("propose", str(recipes[0]), "--set", changes[0], "--set", changes[1], "--split", "test"),
    ]
    code, printed, _ = call("recall", *recipes, recipes[0], "--counts", "20,100", "-o", tmp_path / "out")
    assert code == 0
    rows = [line.split() for line in printed.splitlines()[3:9]]
    assert [row[0] for row in rows] == ["few"] * 3 + ["many"] * 3
    assert [row[2:4] for row in rows[3:]] == [["20", "20"], ["100", "100"], ["all", "400"]]
    assert rows[0][4:] == rows[3][4:]  # the first 20 are the same, however many are kept
    assert "The first N of few: not a ranking: a random order" in printed
    caches = json.loads((tmp_path / "out/recall.json").read_text())
    assert json.loads(call("recall", *recipes, "--counts", "20,100", "--json")[1]) == caches
    best = {
        (cache["name"], row["proposals"]): row["average_recall"]
        for cache in caches
        for row in cache["recall"]
        if row["group"] == "all"
    }
    assert best["many", 20] <= best["many", 100] <= best["many", None]
    assert best["few", 100] == best["few", None]
    table = list(csv.DictReader((tmp_path / "out/recall.csv").read_text().splitlines()))
    rest = [row for row in table if row["cache"] == "many" and row["proposals"] == "all"]
    every, of_classes = rest[0], [row for row in rest if row["group"].startswith("class ")]
    weighted = sum(int(row["objects"]) * float(row["recall_0.5"] or 0) for row in of_classes)
    assert weighted == pytest.approx(int(every["objects"]) * float(every["recall_0.5"]))
    picture = np.asarray(Image.open(tmp_path / "out/recall.png").convert("RGB")).astype(int)
    coloured = np.abs(picture - picture.mean(axis=2, keepdims=True)).max(axis=2) > 40
    assert coloured.sum() > 500
    assert picture.shape[1] > 2.5 * picture.shape[0]  # a panel for the first 20, the first 100 and all


def test_the_cache_says_whether_its_order_is_a_ranking(tmp_path: Path, call: Any) -> None:
    draw_shapes(tmp_path / "voc", ShapesSettings(train=1, val=1, test=3))
    windows, edges = tmp_path / "windows.toml", tmp_path / "edges.toml"
    windows.write_text(RECIPE.format(folder=tmp_path / "voc", boxes=40))
    edges.write_text(EDGES.format(folder=tmp_path / "voc"))
    assert call("propose", windows)[0] == 0
    code, _, said = call("propose", edges)
    assert code == 0
    assert said.count("EdgeBoxes takes image gradients for edges") == 1
    code, printed, _ = call("recall", windows, edges, "--counts", "50", "-o", tmp_path / "out")
    assert code == 0
    assert "The first N of edges: a ranking by score." in printed
    caches = {cache["name"]: cache for cache in json.loads((tmp_path / "out/recall.json").read_text())}
    assert {name: cache["ranked"] for name, cache in caches.items()} == {"windows": False, "edges": True}
    first_50 = next(row for row in caches["edges"]["recall"] if row["proposals"] == 50 and row["group"] == "all")
    assert first_50["recall"]["0.5"] > 0.3
    folder = next(path for path in (tmp_path / "work/caches/propose").iterdir() if caches["edges"]["key"] in path.name)
    assert "scores: float32 []" in call("inspect", folder)[1]
    manifest = copy.deepcopy(read_manifest(folder / "manifest.json"))
    assert manifest is not None
    del manifest["summary"]["order"]  # as an earlier version wrote it
    write_manifest(folder / "manifest.json", manifest)
    assert "The first N of edges: a ranking by score." in call("recall", edges)[1]
    with h5py.File(folder / "data.h5") as file:
        scores = file["scores"][: file["offsets"][1]]
        assert len(scores) > 20
        assert (np.diff(scores) <= 0).all()


def test_several_tables_of_a_recipe_go_by_their_names(tmp_path: Path, call: Any) -> None:
    draw_shapes(tmp_path / "voc", ShapesSettings(train=1, val=1, test=2))
    first, second = tmp_path / "one.toml", tmp_path / "two.toml"
    first.write_text(RECIPE.format(folder=tmp_path / "voc", boxes=40))
    fewer = '[fewer]\nstage = "propose"\nmethod = "sliding-window"\nmax_boxes = 20\n'
    second.write_text(RECIPE.format(folder=tmp_path / "voc", boxes=50) + fewer)
    assert call("run", first)[0] == call("run", second)[0] == 0

    def names(*recipes: Path) -> list[str]:
        code, printed, _ = call("recall", *recipes, "--json")
        assert code == 0
        return [cache["name"] for cache in json.loads(printed)]

    assert names(first) == ["one"]
    assert names(second) == ["propose", "fewer"]
    assert names(first, second) == ["one", "two propose", "two fewer"]


def test_the_advised_command_makes_what_is_missing(tmp_path: Path, call: Any) -> None:
    """`rcnn propose` makes [propose] alone if there is such a table."""
    draw_shapes(tmp_path / "voc", ShapesSettings(train=1, val=1, test=1))
    recipe = tmp_path / "two.toml"
    other = '[windows]\nstage = "propose"\nmethod = "sliding-window"\nmax_boxes = 7\n'
    recipe.write_text(RECIPE.format(folder=tmp_path / "voc", boxes=5) + other)
    for table, command in (("propose", f"propose {recipe} --split test"), ("windows", f"run {recipe}")):
        code, _, errors = call("recall", recipe)
        assert code == 2
        assert f"{table}@test is not complete" in errors
        assert f"; run `rcnn {command}` first" in errors
        assert call(*command.split())[0] == 0
    assert call("recall", recipe)[0] == 0


def test_a_model_of_edges_that_cannot_be_used_is_a_sentence(tmp_path: Path, call: Any) -> None:
    draw_shapes(tmp_path / "voc", ShapesSettings(train=1, val=1, test=2))
    recipe, model = tmp_path / "edges.toml", tmp_path / "model.yml.gz"
    recipe.write_text(EDGES.format(folder=tmp_path / "voc") + f'model = "{model}"\n')
    code, _, errors = call("propose", recipe)
    assert code == 2
    assert errors.splitlines()[-1].endswith(f"{model}: no such model file; correct propose.model")
    model.write_text("options:\n   stride: 0\n")
    code, _, errors = call("propose", recipe)
    assert code == 2
    assert f"{model}: is not an intact structured-forests model in OpenCV's YAML (it has no childs)" in errors
    write_forest(model)
    code, _, said = call("propose", recipe)
    assert code == 0
    assert f"EdgeBoxes takes the edges of the structured forest {model}" in said


def test_numbers_that_no_cache_exceeds_get_no_panel() -> None:
    def measured(*boxes: float) -> Measured:
        coverage = Coverage((20, 100, None), np.zeros(1, np.int32), np.ones(1), np.ones((1, 3)), np.array(boxes))
        return Measured("name", "key", False, "", ("cat",), coverage, Path())

    assert panels([measured(18.5, 18.5, 18.5)]) == [2]
    assert panels([measured(20, 60, 60)]) == [0, 2]
    assert panels([measured(20, 60, 60), measured(20, 100, 101)]) == [0, 1, 2]


REGIONS = """
[datasets.test]
source = "shapes:test"
images = 3
masks = {masks}
[cuts]
stage = "propose"
method = "min-cut"
superpixel_side = 10
[search]
stage = "propose"
masks = true
"""


def test_regions_are_measured_by_their_masks(tmp_path: Path, call: Any) -> None:
    recipe, plain = tmp_path / "r.toml", tmp_path / "plain.toml"
    recipe.write_text(REGIONS.format(masks="true"))
    plain.write_text(REGIONS.format(masks="false"))
    assert call("run", recipe)[0] == 0
    code, printed, _ = call("recall", recipe, "--masks", "--counts", "5,60", "-o", tmp_path / "out")
    assert code == 0
    rows = [line.split() for line in printed.splitlines()[3:7]]
    assert [(row[0], row[2]) for row in rows] == [("cuts", "5"), ("cuts", "60"), ("search", "5"), ("search", "60")]
    caches = json.loads((tmp_path / "out/regions.json").read_text())
    assert json.loads(call("recall", recipe, "--masks", "--counts", "5,60", "--json")[1]) == caches
    for cache in caches:
        few, many = cache["regions"]
        assert few["best_overlap"] <= many["best_overlap"]
        low, high = many["intervals"]["covering"]
        assert 0 < low <= many["covering"] <= high <= 1
    assert caches[0]["regions"][1]["best_overlap"] > 0.5
    fewer = json.loads(call("recall", recipe, "--masks", "--min-pixels", "100000", "--json")[1])
    assert [(cache["objects"], cache["regions"][0]["best_overlap"]) for cache in fewer] == [(0, None), (0, None)]
    code, _, errors = call("recall", plain, "--masks")
    assert code == 2
    assert "[cuts] on 'test': shapes-test was opened without masks; set masks = true" in errors
    assert "--min-pixels is for --masks" in call("recall", recipe, "--min-pixels", "5")[2]


def test_bad_options(tmp_path: Path, call: Any) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(folder=tmp_path, boxes=9))
    assert "--counts 3,x: must be whole numbers" in call("recall", recipe, "--counts", "3,x")[2]
    code, _, errors = call("recall", recipe, "--split", "train")
    assert code == 2
    assert "has proposals on test, not on 'train'; choose with --split" in errors
