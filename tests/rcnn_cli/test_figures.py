"""`rcnn units` and `rcnn figures` on a small recipe, and what they say to bad input.

The network is random and knows nothing; SVMs tested on the images of their training find some objects all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache import Reader
from rcnn_cli.looking.figures import OF_ALL, OF_RECIPE, Wish, elongated, figure_names
from rcnn_cli.looking.units import Unit, parse_unit
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.boxes import iou_matrix
from stages.contract.errors import StageError
from stages.extract.units import TopRegions, strongest_regions
from stages.matching.average_precision import calibrated_precision
from stages.matching.objects import read_objects
from stages.pictures.palette import PROPOSAL, SCORES, TRUTH, rgb
from tests.built_once import BuiltOnce
from tests.in_process import caller, rcnn

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
max_boxes = 100
resize_width = 160
seed = 4
[extract]
layers = ["pool4", "fc5"]
padding = 4
[train-svm]
layer = "pool4"
[detect]
inputs = { regressor = "none" }
[eval]
"""

Call = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def made(built_once: BuiltOnce, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with looked.toml and the work folder of its complete caches."""

    def build(folder: Path) -> None:
        (folder / "looked.toml").write_text(RECIPE)
        rcnn("run", folder / "looked.toml", work=folder / "work")

    return built_once.copy("looked", build, tmp_path_factory.mktemp("look"))


@pytest.fixture
def call(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `rcnn` in this process on the complete caches: (exit code, standard output, standard error)."""
    monkeypatch.setenv("RCNN_WORK", str(made / "work"))
    return caller(capsys)


def graph_of(made: Path) -> Graph:
    return Graph(load_recipe(made / "looked.toml", ()), made / "work")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


# units


def test_units_are_counted_from_1_as_in_the_paper() -> None:
    """R-CNN's figure 12 shows (5, 6, 53) of 6 x 6 x 256."""
    assert parse_unit("3,4,80", (256, 6, 6), "pool5") == Unit(79, 2, 3)
    assert str(Unit(79, 2, 3)) == "3,4,80"
    assert parse_unit(" 6, 6, 256", (256, 6, 6), "pool5") == Unit(255, 5, 5)
    for text in ("0,1,1", "7,1,1", "1,7,1", "1,1,257", "1,1", "1,1,1,1", "a,1,1", "", "-1,1,1"):
        with pytest.raises(StageError, match=r"write ROW,COLUMN,CHANNEL from 1,1,1 to 6,6,256"):
            parse_unit(text, (256, 6, 6), "pool5")


def test_the_top_regions_are_those_of_the_cache(made: Path, call: Call, tmp_path: Path) -> None:
    """The order of the flattened layer, the suppression and the normalisation, from the cache itself."""
    graph = graph_of(made)
    reader = Reader(graph.folder(graph.nodes["extract@test"]))
    records = [(image_id, record, ~record["is_object"]) for image_id, record in reader.records()]
    maps = np.concatenate([record["pool4"][keep].reshape(-1, 96, 4, 4) for _, record, keep in records])
    channel = int(np.argmax((maps[:, :, 1, 2] > 0).sum(axis=0)))
    arguments = ("units", made / "looked.toml", "--unit", f"2,3,{channel + 1}", "--top", 5, "--overlap", 0.3)
    code, printed, _ = call(*arguments, "--json", "-o", tmp_path / "out")
    assert code == 0
    (told,) = json.loads(printed)
    assert json.loads((tmp_path / "out/extract-test-pool4.json").read_text()) == [told]
    assert told["unit"] == [2, 3, channel + 1]
    assert told["receptive_field"] == [10, 0, 64, 53]
    assert told["channel_maximum"] == maps[:, channel].max()
    activations = [region["activation"] for region in told["regions"]]
    assert activations[0] == maps[:, channel, 1, 2].max()
    assert activations == sorted(activations, reverse=True)
    assert 1 <= len(activations) <= 5
    for region in told["regions"]:
        record = reader.read(region["image"])
        row = np.flatnonzero(np.abs(record["boxes"] - region["box"]).max(axis=1) < 0.01)[-1]
        assert not record["is_object"][row]
        assert record["pool4"][row].reshape(96, 4, 4)[channel, 1, 2] == region["activation"]
        assert region["normalised"] == pytest.approx(region["activation"] / told["channel_maximum"])
        others = [one["box"] for one in told["regions"] if one["image"] == region["image"] and one is not region]
        if others:
            assert iou_matrix(np.array([region["box"]], np.float32), np.array(others, np.float32)).max() <= 0.301
    picture = pixels(tmp_path / "out/extract-test-pool4.png")
    assert (picture == 255).all(axis=2).sum() > 100 * len(activations)  # the white fields


def test_a_montage_takes_each_class_in_turn(made: Path, call: Call) -> None:
    named = ("--unit", "1,1,1", "--unit", "1,1,1")
    code, printed, _ = call("units", made / "looked.toml", "--montage", 4, *named, "--split", "train")
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith(
        "pool4 of extract@train: 4 x 4 units (row, column) in each of 96 channels, input 64 x 64"
    )
    assert lines[3].split()[0] == "1,1,1"
    assert not lines[4].startswith("1,1,1")  # named twice, shown once
    assert [line.count(",") >= 2 for line in lines[3:8]] == [True] * 5
    assert "4 units chosen: each class's most selective one in turn" in printed
    folder = made / "work/results/looked/units"
    told = json.loads((folder / "extract-train-pool4.json").read_text())
    assert len({one["unit"][2] for one in told[1:]}) == 4
    assert len({one["chosen_for"] for one in told[1:]}) == 4
    assert told[0]["chosen_for"] is None
    first = (folder / "extract-train-pool4.png").read_bytes()
    assert call("units", made / "looked.toml", "--montage", 4, "--unit", "1,1,1", "--split", "train")[0] == 0
    assert (folder / "extract-train-pool4.png").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--unit", "5,1,1"), "--unit 5,1,1: is not a unit of pool4; write ROW,COLUMN,CHANNEL from 1,1,1 to 4,4,96"),
        (
            ("--layer", "fc5"),
            "--layer fc5: not a convolutional map, so its units have no place in the image; choose pool4",
        ),
        (("--layer", "pool5"), "--layer pool5: is not among the cached layers, did you mean 'pool4'"),
        (("--split", "val"), "has features on train, test, not on 'val'; choose with --split"),
        (("--features", "extracted"), "--features extracted: is not an extract table of"),
        (("--set", "extract.layers=['fc5']", "--split", "test"), "extract@test is not complete"),
        (("--set", "extract.padding=3"), "looked.toml --set extract.padding=3 --split test` first"),
    ],
)
def test_units_names_what_is_wrong(made: Path, call: Call, arguments: tuple[str, ...], words: str) -> None:
    code, printed, errors = call("units", made / "looked.toml", *arguments)
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert printed == ""


def test_units_of_layers_that_do_not_help(made: Path, call: Call) -> None:
    """No map among the cached layers; features that are not cached; a recipe that extracts nothing."""
    fully = ("--set", 'extract.layers=["fc5"]', "--set", 'train-svm.layer="fc5"')
    assert call("extract", made / "looked.toml", *fully, "--split", "test", "--jobs", 1)[0] == 0
    code, _, errors = call("units", made / "looked.toml", *fully)
    assert code == 2
    assert "none of its layers is a convolutional map; add one to extract.layers of the recipe" in errors
    code, _, errors = call("units", made / "looked.toml", "--set", "extract.cache=false", "--set", "extract.padding=2")
    assert code == 2
    assert "extract@test: not cached (cache = false): computed by detect@test; " in errors
    assert "; to show its units, set extract.cache = true and run it" in errors
    (made / "bare.toml").write_text(RECIPE.split("[network]")[0] + '[propose]\nmethod = "sliding-window"\n')
    assert "extracts no features; add a table [extract]" in call("units", made / "bare.toml")[2]


def test_units_that_nothing_excites(made: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One of two has a line in the table and no row in the picture; one alone is an error."""

    def without_the_first(*arguments: Any) -> list[TopRegions]:
        first, *others = strongest_regions(*arguments)
        nothing = (first.activations[:0], first.images[:0], first.boxes[:0], first.labels[:0])
        return [TopRegions(*nothing, channel_maximum=0.0), *others]

    monkeypatch.setattr("rcnn_cli.looking.units.strongest_regions", without_the_first)
    arguments = ("units", made / "looked.toml", "--unit", "1,1,1", "-o", tmp_path)
    code, printed, _ = call(*arguments, "--unit", "2,2,2")
    assert code == 0
    assert printed.splitlines()[3].endswith("nothing activates it")
    code, _, errors = call(*arguments)
    assert code == 2
    assert "--unit 1,1,1: no region of 'test' gives an activation above 0; choose others" in errors


def test_a_montage_needs_two_classes(made: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rcnn_cli.looking.units.class_selectivity", lambda reader, layer, classes: np.full((classes, 1536), np.nan)
    )
    code, _, errors = call("units", made / "looked.toml")
    assert code == 2
    assert "--montage: needs objects of at least two classes on 'test'" in errors


# figures


def test_all_figures_of_a_recipe(made: Path, call: Call, tmp_path: Path) -> None:
    code, printed, errors = call("figures", made / "looked.toml", "-o", tmp_path, "--images", 2)
    assert (code, errors) == (0, "")
    names = [line.split(":")[0] for line in printed.splitlines()]
    assert names == [*(f"looked-{name}" for name in OF_RECIPE), *OF_ALL]
    assert [line for line in printed.splitlines() if "not drawn" in line] == [
        "looked-anchors: not drawn: propose@test: method = 'selective-search' has no anchors",
        "looked-windows: not drawn: detect@test: has no dense windows; its features have method = 'warp'",
        f"looked-segmentations: not drawn: {made / 'looked.toml'}: evaluates no segmentation; "
        "add a table [eval-segmentation]",
    ]
    assert "24 filters of 5 x 5 pixels, in the second layer 48 of 3 x 3 cells)" in printed
    for name in names:
        if name in ("looked-anchors", "looked-windows", "looked-segmentations"):
            continue
        picture = pixels(tmp_path / f"{name}.png").astype(int)
        coloured = np.abs(picture - picture.mean(axis=2, keepdims=True)).max(axis=2) > 40
        assert coloured.sum() > 200, name
    before = {path.name: path.read_bytes() for path in tmp_path.glob("looked-*.png")}
    assert call("figures", made / "looked.toml", "-o", tmp_path, "--images", 2)[0] == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("looked-*.png")} == before
    assert call("figures", made / "looked.toml", "-o", tmp_path, "--images", 2, "--seed", 5)[0] == 0
    after = {path.name: path.read_bytes() for path in tmp_path.glob("looked-*.png")}
    for name in ("looked-filters.png", "looked-filters-2.png"):
        assert after[name] == before[name]
    assert after["looked-training-samples.png"] != before["looked-training-samples.png"]


def test_detections_of_a_precision_on_chosen_images(
    made: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no detection has it the best are drawn, which the picture and the line say. With a lower one, more are."""
    ids = graph_of(made).dataset("test").image_ids
    sheets, lines = [], []
    for precision in (1.0, 0.5, 0.0):
        arguments = ("--only", "detections", "--precision", precision, "--image", ids[2], "--image", ids[0])
        with monkeypatch.context() as uncertain:
            if precision == 1.0:
                uncertain.setattr(
                    "rcnn_cli.looking.evaluated.calibrated_precision",
                    lambda curve, scores: np.minimum(calibrated_precision(curve, scores), 0.99),
                )
            code, printed, _ = call("figures", made / "looked.toml", *arguments, "-o", tmp_path)
        assert code == 0
        assert f"2 chosen images of 'test', precision {precision:g} or more" in printed
        sheets.append(pixels(tmp_path / "looked-detections.png").astype(int))
        lines.append(printed)
    bare, half, every = sheets
    assert ["the best ones are shown" in line for line in lines] == [True, False, False]
    assert "; 2 of the 2 have none; the best ones are shown, whatever the score)" in lines[0]
    assert half.shape == every.shape
    assert bare.shape[0] > half.shape[0]  # a line of the heading more
    outlines = [(one == TRUTH).all(axis=2).sum() for one in sheets]
    assert min(outlines) > 200
    labels = [(np.abs(one - one.mean(axis=2, keepdims=True)).max(axis=2) > 60).sum() for one in sheets]
    assert labels[2] > labels[1]


def test_proposals_have_the_colours_of_their_scores(made: Path, call: Call, tmp_path: Path) -> None:
    """EdgeBoxes' do; selective search's have one colour, as the legend says."""
    edges = ("--set", "propose.method=edge-boxes", "--set", "propose.max_boxes=40")
    bare = made / "boxes.toml"
    bare.write_text(RECIPE.replace("resize_width = 160\nseed = 4\n", ""))
    image = graph_of(made).dataset("test").image_ids[1]
    drawing = ("--only", "proposals", "--image", image, "-o", tmp_path)
    code, printed, _ = call("figures", bare, *edges, *drawing)
    assert code == 1
    assert "propose@test is not complete" in printed
    assert call("propose", bare, *edges, "--split", "test", "--jobs", 1)[0] == 0
    code, printed, _ = call("figures", bare, *edges, *drawing)
    assert code == 0
    assert "boxes-proposals.png (propose@test, 1 chosen image)" in printed
    code, printed, _ = call("figures", made / "looked.toml", *drawing)
    assert code == 0
    scored, plain = (pixels(tmp_path / f"{name}-proposals.png") for name in ("boxes", "looked"))
    for colour in SCORES:
        assert (scored == np.array(rgb(colour))).all(axis=2).any() == (colour in (SCORES[0], SCORES[-1]))
        assert not (plain == np.array(rgb(colour))).all(axis=2).any()
    assert all((sheet == np.array(TRUTH)).all(axis=2).sum() > 50 for sheet in (scored, plain))
    assert (plain == np.array(PROPOSAL)).all(axis=2).any()


def test_many_images_come_in_sheets(made: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rcnn_cli.looking.figures.A_SHEET", 3)
    code, printed, _ = call("figures", made / "looked.toml", "--only", "detections", "-o", tmp_path)
    assert code == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "looked-detections-1.png",
        "looked-detections-2.png",
    ]
    assert "looked-detections-1.png, " in printed
    assert "(4 random (seed 0) images of 'test'" in printed


def test_what_is_not_possible_is_said(made: Path, call: Call, tmp_path: Path) -> None:
    """Another C: the SVMs and all after them are not there, features are. With --only that is exit status 1."""
    arguments = ("figures", made / "looked.toml", "--set", "train-svm.C=0.5", "-o", tmp_path)
    code, printed, _ = call(*arguments)
    assert code == 0
    impossible = {line.split(":")[0]: line for line in printed.splitlines() if "not drawn" in line}
    without = {"looked-anchors", "looked-windows", "looked-segmentations"}
    assert set(impossible) == {*without, "looked-detections", "box-plots", "precision-recall"}
    assert "detect@test is not complete; run `rcnn run " in impossible["looked-detections"]
    assert "no evaluation of" in impossible["box-plots"]
    assert call(*arguments, "--only", "filters,box-plots")[0] == 1
    assert call(*arguments, "--only", "filters, transformations")[0] == 0
    code, printed, _ = call("figures", made / "looked.toml", "--only", "detections", "--image", "nobody")
    assert code == 1
    assert "looked-detections: not drawn: --image nobody: is not an image of 'test'; the first is 'train_" in printed


def test_transformations_have_the_recipe_s_own_padding(made: Path, call: Call, tmp_path: Path) -> None:
    """With a row for none and a row for it, which differ from one padding to another; one that leaves nothing of a
    region is refused as `rcnn extract` refuses it."""
    sheets = {}
    for padding in (0, 4, 9):
        arguments = ("--only", "transformations", "--set", f"extract.padding={padding}", "-o", tmp_path)
        assert call("figures", made / "looked.toml", *arguments)[0] == 0
        sheets[padding] = pixels(tmp_path / "looked-transformations.png")
    assert sheets[0].shape[0] < 0.6 * sheets[4].shape[0]
    assert (sheets[4] != sheets[9]).any(axis=2).sum() > 1000
    for name in ("transformations", "training-samples"):
        arguments = ("--only", name, "--set", "extract.padding=32", "-o", tmp_path)
        code, printed, _ = call("figures", made / "looked.toml", *arguments)
        assert code == 1
        assert "not drawn: " in printed
        assert "[extract] padding = 32 leaves no room for the region in shapenet's input of 64 pixels" in printed


def test_several_recipes_in_one_figure(made: Path, call: Call, tmp_path: Path) -> None:
    other = made / "other.toml"
    other.write_text(RECIPE + '[eval-strict]\nstage = "eval"\nsplit = "test"\niou = 0.7\n')
    code, printed, _ = call("figures", made / "looked.toml", other, "--only", "box-plots", "-o", tmp_path)
    assert code == 0
    assert "(without other eval-strict, which is not complete)" in printed
    one = pixels(tmp_path / "box-plots.png")
    assert call("run", other, "--jobs", 1)[0] == 0
    assert call("figures", made / "looked.toml", other, "--only", "box-plots,precision-recall", "-o", tmp_path)[0] == 0
    assert pixels(tmp_path / "box-plots.png").shape[1] > one.shape[1]
    code, _, errors = call("figures", made / "looked.toml", made / "looked.toml")
    assert code == 2
    assert "looked: two of the recipes have this name" in errors


def test_a_recipe_without_the_tables(made: Path, call: Call, tmp_path: Path) -> None:
    (made / "bare.toml").write_text(RECIPE.split("[network]")[0] + '[propose]\nmethod = "sliding-window"\n')
    code, printed, _ = call("figures", made / "bare.toml", "-o", tmp_path)
    assert code == 1
    lines = printed.splitlines()
    assert len(lines) == 10
    assert all("not drawn: " in line for line in lines)
    assert "trains no SVMs; add a table [train-svm]" in printed
    assert "extracts no features; add a table [extract]" in printed
    assert list(tmp_path.iterdir()) == []


def test_figures_are_named(call: Call, made: Path) -> None:
    assert figure_names(None) == [*OF_RECIPE, *OF_ALL]
    assert figure_names("box-plots, filters") == ["filters", "box-plots"]
    code, _, errors = call("figures", made / "looked.toml", "--only", "filter")
    assert code == 2
    assert "--only filter: is not a figure, did you mean 'filters'?\n" in errors
    with pytest.raises(StageError, match=r"^--only: names no figure; it may be one of anchors, box-plots, .*filters"):
        figure_names("")


def test_elongated_objects_of_different_classes(made: Path) -> None:
    dataset = graph_of(made).dataset("train")
    objects = read_objects(dataset, dataset.image_ids)
    wish = Wish(0.5, (), 12, 0, OutputFolder(made))
    rows = elongated(objects, 4, wish)
    assert len(set(objects.labels[rows])) == len(rows) == 4
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    stretch = np.abs(np.log(sides[:, 0] / sides[:, 1]))
    for row in rows:
        same = objects.labels == objects.labels[row]
        assert same.sum() > 10 or stretch[row] == stretch[same].max()
