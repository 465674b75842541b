"""`rcnn compare` on evaluations made by hand: classes, intervals, errors, images, files, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache import Reader
from rcnn_cli.looking.comparison import compare, open_sides
from rcnn_cli.looking.comparison_results import format_comparison
from rcnn_cli.looking.comparison_sheet import heading
from rcnn_cli.looking.evaluated import NAMES
from rcnn_cli.main import main
from rcnn_cli.outputs import OutputFolder
from stages.contract.errors import StageError
from stages.eval.report import paired_difference
from stages.matching.error_types import TYPES
from stages.pictures.palette import kind_colour
from tests.rcnn_cli.evaluations import RECIPE, graph_of, run_tables, write_detections, write_scene

CAT, OWL, FAR = (0, 0, 10, 10), (40, 0, 50, 10), (60, 60, 70, 70)
THINGS = {
    "a": [("cat", CAT, False), ("owl", OWL, False)],
    "b": [("cat", CAT, False), ("owl", OWL, True)],
    "c": [],
}
KNOWN = ("cat", "owl")
A = {"a": [("cat", CAT, 0.9), ("cat", OWL, 0.1)], "b": [("cat", FAR, 0.8), ("owl", OWL, 0.7)]}
B = {"a": [("cat", CAT, 0.9), ("owl", OWL, 0.7)], "b": [("cat", CAT, 0.5)], "c": [("cat", FAR, 0.4)]}
TWO = RECIPE + '[detect-b]\nstage = "detect"\nnms_iou = 0.5\n[eval-b]\nstage = "eval"\n'
TWO += 'inputs = {{ detections = "detect-b" }}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors of one recipe, evaluated."""
    made = tmp_path_factory.mktemp("comparison")
    write_scene(made, THINGS)
    graph = graph_of(made, TWO, "two")
    write_detections(graph, KNOWN, A)
    write_detections(graph, KNOWN, B, "detect-b")
    run_tables(graph, "eval", "eval-b")
    return made


def compared(folder: Path, resamples: int = 200) -> dict[str, Any]:
    graph = graph_of(folder, TWO, "two")
    return compare(*open_sides(graph, graph, "eval", "eval-b"), resamples)


def test_classes_by_hand(folder: Path) -> None:
    told = compared(folder)
    cat, owl = told["classes"]
    assert (cat["class"], cat["objects"], owl["class"], owl["objects"]) == ("cat", 2, "owl", 1)
    assert cat["a"] == pytest.approx(6 / 11)  # one of two cats, without a mistake before it
    assert (cat["b"], owl["a"], owl["b"]) == (1, 0, 1)
    assert cat["difference"] == pytest.approx(5 / 11)
    assert owl["interval"] == (1.0, 1.0)  # in every resample that has the owl
    assert owl["differs"]
    assert told["map"]["difference"] == pytest.approx((5 / 11 + 1) / 2)
    assert [one["text"] for one in told["differences"]] == ["detect / detect-b.nms_iou 0.3 -> 0.5"]


def test_images_by_hand(folder: Path) -> None:
    """Cuts at precision 0.5: A's cats from 0.8 on (1/1, 1/2), none of its owls (the only one is ignored); all of B."""
    a, b, c = compared(folder)["images"]
    assert (a["found"], a["false"], a["objects"], a["newly_found"], a["lost"]) == ([1, 2], [0, 0], 2, ["owl"], [])
    assert (b["found"], b["false"], b["objects"], b["newly_found"]) == ([0, 1], [1, 0], 1, ["cat"])
    assert b["no_longer_false"] == ["BG cat"]
    assert (c["found"], c["false"], c["newly_false"]) == ([0, 0], [0, 1], ["BG cat"])
    np.testing.assert_allclose([a["worth"], b["worth"], c["worth"]], np.array([[1, 2], [-0.5, 1], [0, -2 / 3]]))
    np.testing.assert_allclose([one["gain"] for one in (a, b, c)], [1, 1.5, -2 / 3])


def test_errors_by_hand(folder: Path) -> None:
    a, b = compared(folder)["errors"]
    assert a["top"] == {"Loc": 0, "Sim": 0, "Oth": 1, "BG": 1}  # two, as there are two cats
    assert b["top"] == {"Loc": 0, "Sim": 0, "Oth": 0, "BG": 1}
    assert (a["found"], a["missed"], b["found"], b["missed"]) == (1, 2, 3, 0)
    assert a["shown"]["BG"] == b["shown"]["BG"] == 1


def test_the_interval_is_that_of_resampled_evaluations(folder: Path) -> None:
    seeded = TWO.replace("[eval]\n", "[eval]\nbootstrap = 60\nbootstrap_seed = 5\n")
    seeded += "bootstrap = 60\nbootstrap_seed = 5\n"
    graph = graph_of(folder, seeded, "seeded")
    run_tables(graph, "eval", "eval-b")
    told = compare(*open_sides(graph, graph, "eval", "eval-b"), 60)
    cached = paired_difference(*(Reader(graph.folder(graph.nodes[name])) for name in ("eval", "eval-b")))
    assert cached is not None
    assert told["map"]["interval"] == cached["interval"]
    assert told["map"]["difference"] == cached["difference"]
    manifest = Reader(graph.folder(graph.nodes["eval-b"])).manifest["summary"]
    assert list(told["classes"][0]["interval_b"]) == manifest["classes"]["cat"]["interval"]


def test_without_resamples_there_are_no_intervals(folder: Path) -> None:
    told = compared(folder, 0)
    assert [one["interval"] for one in (*told["classes"], told["map"])] == [None] * 3
    assert "no intervals: --resamples 0" in format_comparison(told)


def test_both_are_judged_by_the_same_similar_classes(folder: Path, warned: list[str]) -> None:
    """What one recipe alone says is similar holds; if both do, and differ, A's holds, and this is said aloud."""
    plain = graph_of(folder, TWO, "plain")
    alike = graph_of(folder, TWO + '[diagnose]\nsimilar = [["cat", "owl"]]\n', "alike")
    other = graph_of(folder, TWO + "[diagnose]\npoor_iou = 0.2\n", "other")
    kinds = []
    for graphs in ((plain, plain), (plain, alike), (alike, plain), (alike, other), (other, alike)):
        side, _ = open_sides(*graphs, "eval", "eval-b")
        kinds.append([NAMES[int(one)] for one in side.evaluated.verdicts])
    assert kinds[0] == kinds[4] == ["true", "Oth", "BG", "ignored"]
    assert kinds[1] == kinds[2] == kinds[3] == ["true", "Sim", "BG", "ignored"]
    assert warned == ["the recipes' [diagnose] tables differ; A's is used for the error types of both runs"] * 2


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said aloud."""
    said: list[str] = []
    monkeypatch.setattr("rcnn_cli.looking.comparison.log.warning", lambda text, *values: said.append(text % values))
    return said


@pytest.fixture
def call(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls `rcnn compare` in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[Any, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["compare", *map(str, arguments), "--work", str(folder / "work")])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def test_the_command_prints_and_writes_it(folder: Path, call: Any, tmp_path: Path) -> None:
    recipe = folder / "two.toml"
    both = (recipe, recipe, "--evaluation", "eval", "--evaluation-b", "eval-b", "--resamples", 40)
    code, printed, _ = call(*both, "-o", tmp_path)
    assert code == 0
    for line in (
        "  detect / detect-b.nms_iou 0.3 -> 0.5",
        "owl          1   0.0  100.0  +100.0  [+100.0, +100.0]  *",
        "equally good, about 0.1 of the 2 classes would still be marked by chance.",
        "  b  +1.50  found 0 -> 1 of 1  false 1 -> 0  objects +cat; false -BG cat",
        "  c  -0.67  found 0 -> 0 of 0  false 0 -> 1  false +BG cat",
        "Images: 2 better, 1 worse; in 0, both find the same objects and make the same mistakes.",
    ):
        assert line in printed
    told = json.loads((tmp_path / "compare.json").read_text())
    assert json.loads(call(*both, "-o", tmp_path, "--json")[1]) == told
    rows = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["cat", "owl", "mean"]
    assert float(rows[2]["difference"]) == told["map"]["difference"]
    images = list(csv.DictReader((tmp_path / "images.csv").read_text().splitlines()))
    assert [row["newly_found"] for row in images] == ["owl", "cat", ""]
    better, worse = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("better", "worse"))
    assert better.shape[1] > worse.shape[1]  # two pairs beside each other, and one
    call(recipe, recipe, "--evaluation", "eval-b", "--evaluation-b", "eval", "-o", tmp_path)
    assert np.asarray(Image.open(tmp_path / "worse.png")).shape == better.shape


@pytest.mark.parametrize("width", [300, 684, 1400])
def test_the_legend_is_whole_on_a_sheet_of_any_width(width: int) -> None:
    """A sheet of one image is 684 pixels wide: long names go on to another line, and every kind has its sign."""
    short, long = (SimpleNamespace(name=name) for name in ("a eval", "some long name of a recipe " * 3))
    legend = heading(short, long, width)  # type: ignore[arg-type]
    assert legend.shape[1] == width
    assert legend.shape[0] >= heading(short, short, width).shape[0]  # type: ignore[arg-type]
    for kind in (*TYPES, "true", "missed", "ignored"):
        assert (legend == kind_colour(kind)).all(axis=2).sum() > 50
    heights = [heading(short, short, wide).shape[0] for wide in (300, 684, 1400)]  # type: ignore[arg-type]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > heights[2]


def test_a_sheet_of_nothing_is_removed(folder: Path, call: Any, tmp_path: Path) -> None:
    same = graph_of(folder, TWO.replace("nms_iou = 0.5", "nms_iou = 0.6"), "same")
    write_detections(same, KNOWN, A, "detect-b")
    run_tables(same, "eval-b")
    OutputFolder(tmp_path).write("better.png", "of an earlier comparison")
    code, printed, _ = call(folder / "same.toml", folder / "same.toml", "--evaluation-b", "eval-b", "-o", tmp_path)
    assert code == 0
    assert not (tmp_path / "better.png").exists()
    assert "Images: 0 better, 0 worse; in 3, both find the same objects and make the same mistakes." in printed


def test_what_cannot_be_compared_is_one_sentence(folder: Path, call: Any, tmp_path: Path) -> None:
    recipe = folder / "two.toml"
    code, _, errors = call(recipe, recipe)
    assert code == 2
    assert "are the same evaluation: there is nothing to compare" in errors
    assert "has no evaluation 'evil'; it has eval, eval-b" in call(recipe, recipe, "--evaluation-b", "evil")[2]
    strict = graph_of(folder, TWO + "iou = 0.7\n", "strict")
    run_tables(strict, "eval-b")
    code, _, errors = call(recipe, folder / "strict.toml", "--evaluation-b", "eval-b")
    assert code == 2
    assert "evaluate by different rules: iou is 0.5 in A, 0.7 in B; use the same for both" in errors
    missing = graph_of(folder, TWO + "iou = 0.8\n", "missing")
    assert missing
    errors = call(recipe, folder / "missing.toml", "--evaluation-b", "eval-b")[2]
    assert f"eval-b is not complete; run `rcnn run {folder / 'missing.toml'}` first" in errors


@pytest.mark.parametrize("changed", ["images", "annotations"])
def test_other_data_is_refused(folder: Path, tmp_path: Path, changed: str) -> None:
    things: dict[str, Any] = {**THINGS, "c": [("cat", FAR, False)]}
    if changed == "images":
        things["d"] = []
    write_scene(tmp_path, things)
    other = graph_of(tmp_path, TWO, "two")
    write_detections(other, KNOWN, B, "detect-b")
    run_tables(other, "eval-b")
    said = "evaluate different images .3 of .* and 4 of" if changed == "images" else "with different annotations"
    with pytest.raises(StageError, match=said):
        open_sides(graph_of(folder, TWO, "two"), other, "eval", "eval-b")


def test_a_class_that_one_detector_does_not_know_is_told(folder: Path, warned: list[str]) -> None:
    blind = graph_of(folder, TWO.replace("nms_iou = 0.5", "nms_iou = 0.7"), "blind")
    write_detections(blind, ("cat",), {"a": [("cat", CAT, 0.9)]}, "detect-b")
    run_tables(blind, "eval-b")
    told = compare(*open_sides(blind, blind, "eval", "eval-b"), 20)
    name = f"{folder / 'blind.toml'} [eval-b]"
    assert warned == [f"{name}: classes unknown to the detector, so all their objects are missed: owl"]
    assert told["classes"][1]["b"] == 0
