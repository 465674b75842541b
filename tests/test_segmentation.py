"""Semantic segmentation end to end, by the real commands: a table, pictures, a grid, and resuming."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache import Reader
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.report.papers import SEGMENTATION, SEGMENTATION_MEANS
from rcnn_cli.report.segmentations import papers_table
from stages.benchmark_classes import VOC_CLASSES
from stages.datasets.shapes import SHAPES, ShapesSettings, draw_shapes
from stages.eval_segmentation.stage import label_map
from tests.in_process import rcnn

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 8
masks = true

[datasets.test]
source = "shapes:test"
images = 5
masks = true

[network]
name = "shapenet"
weights = "random"

[propose]
masks = true
max_boxes = 25
resize_width = 170

[extract]
layers = ["fc5"]
padding = 4
objects = "masks"

[extract-foreground]
stage = "extract"
layers = ["fc5"]
padding = 4
objects = "masks"
fill = "foreground"

[train-svr]
layer = "fc5"
folds = 2
inputs = { more = "extract-foreground" }

[segment-training]
stage = "segment"
held_out = true
inputs = { more = "extract-foreground" }

[segment]
inputs = { more = "extract-foreground", calibration = "segment-training@train" }

[segment-all]
stage = "segment"
inputs = { more = "extract-foreground" }

[eval-segmentation]
bootstrap = 50

[eval-all]
stage = "eval-segmentation"
bootstrap = 50
inputs = { segmentation = "segment-all" }
"""
GRID = """
title = "Fills"
recipe = "small.toml"
evaluation = "eval-segmentation"
classes = true
paper_source = "R-CNN Table 5"
metrics = { "mean accuracy" = "mean_accuracy", low = "mean_accuracy_low", images = "images" }
[cells.full]
set.train-svr.inputs.more = "none"
set.segment.inputs.more = "none"
set.segment-training.inputs.more = "none"
paper = 43.0
[cells.both]
paper = 47.9
"""


def test_the_papers_means_are_those_of_their_classes() -> None:
    """But for the last, of which Table 5 has 45.8 and Table 7 45.7."""
    table = papers_table(["background", *VOC_CLASSES])
    assert [len(row) for row in table] == [8] * 23
    for name, values in SEGMENTATION.items():
        assert len(values) == 21
        assert np.mean(values) == pytest.approx(SEGMENTATION_MEANS[name], abs=0.051 if name != "full+fg fc7" else 0.16)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(recipe, work folder, what the run printed)."""
    folder = tmp_path_factory.mktemp("segmentation")
    (folder / "small.toml").write_text(RECIPE)
    return folder / "small.toml", folder / "work", rcnn("run", folder / "small.toml", work=folder / "work").stdout


def cache_of(work: Path, stage: str, label: str) -> Reader:
    (folder,) = (work / "caches" / stage).glob(f"{label}.*")
    return Reader(folder)


def test_a_run_prints_a_table_and_writes_files_and_pictures(finished: tuple[Path, Path, str]) -> None:
    _, work, printed = finished
    results = work / "results/small/eval-segmentation"
    summary = json.loads((results / "results.json").read_text())
    assert summary["images"] == 5
    low, high = summary["bootstrap"]["mean_accuracy"]
    mean, ends = 100 * summary["mean_accuracy"], f"[{100 * low:.1f}, {100 * high:.1f}]"
    assert f"{mean:.1f} {ends}" in " ".join(printed.split())
    assert "eval-all - eval-segmentation:" in printed
    rows = list(csv.DictReader((results / "classes.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [*summary["classes"], "mean"]
    confusion = list(csv.reader((results / "confusion.csv").read_text().splitlines()))
    pixels = sum(int(value) for row in confusion[1:] for value in row[1:])
    assert pixels == sum(of["pixels"] for of in summary["classes"].values())
    with Image.open(results / "segmentation.png") as picture:
        assert picture.width > 900


def test_what_is_counted_is_what_was_segmented(finished: tuple[Path, Path, str]) -> None:
    """The columns of the confusion matrix are the label map's, but for void pixels."""
    _, work, _ = finished
    segmented, evaluated = cache_of(work, "segment", "small-test"), cache_of(work, "eval-segmentation", "small-test")
    for image_id in segmented.item_ids:
        labels = label_map(segmented, image_id)
        counts = evaluated.read(image_id)["confusion"].sum(axis=0)
        assert (counts <= np.bincount(labels.ravel(), minlength=len(counts))).all()
        assert counts.sum() > 0.9 * labels.size


def test_the_threshold_is_that_of_as_many_training_segments_as_objects(finished: tuple[Path, Path, str]) -> None:
    _, work, _ = finished
    training, test = cache_of(work, "segment", "small-segment-training-train"), cache_of(work, "segment", "small-test")
    scores = np.concatenate([record["score"] for _, record in training.records(["score"])])
    threshold = test.manifest["summary"]["threshold"]
    assert (scores >= threshold).sum() == training.manifest["summary"]["objects"]
    assert all((record["score"] >= threshold).all() for _, record in test.records(["score"]))


def test_a_second_run_makes_nothing_again(finished: tuple[Path, Path, str]) -> None:
    recipe, work, _ = finished
    again = rcnn("run", recipe, work=work)
    assert "done (" not in again.stderr
    assert json.loads(rcnn("status", recipe, "--json", work=work).stdout)


def test_an_image_s_segmentation_depends_on_all_images_of_the_calibration(tmp_path: Path) -> None:
    """So it is copied from another cache only if the whole calibration is the same."""
    held_out = RECIPE.replace("segment-training@train", "segment-training@held-out").replace("held_out = true\n", "")
    held_out += '\n[datasets.held-out]\nsource = "shapes:val"\nimages = 2\nmasks = true\n'
    (tmp_path / "small.toml").write_text(held_out)
    keys = []
    for changes in ([], ["datasets.test.images=6"], ["datasets.held-out.images=3"]):
        graph = Graph(load_recipe(tmp_path / "small.toml", changes), tmp_path / "work")
        keys.append(graph.item_keys(graph.nodes["segment@test"]))
    first, more_images, other_calibration = keys
    assert sorted(first) == [f"test_{number:05d}" for number in range(5)]
    assert {image_id: more_images[image_id] for image_id in first} == first
    assert not {*first.values()} & {*other_calibration.values()}


def test_a_grid_shows_accuracies_with_intervals(finished: tuple[Path, Path, str]) -> None:
    recipe, work, _ = finished
    (recipe.parent / "grid.toml").write_text(GRID)
    printed = rcnn("ablate", recipe.parent / "grid.toml", work=work).stdout
    summary = json.loads((work / "results/small/eval-segmentation/results.json").read_text())
    row = next(line.split() for line in printed.splitlines() if line.startswith("both"))
    assert row[1:5] == [f"{100 * summary[name]:.1f}" for name in ("mean_accuracy", "mean_accuracy_low")] + [
        "5.0",
        "47.9",
    ]
    assert "background" in printed


def test_figures_of_segmentations(finished: tuple[Path, Path, str]) -> None:
    """One for each evaluation."""
    recipe, work, _ = finished
    printed = rcnn("figures", recipe, "--only", "segmentations", "--images", 2, "-o", work / "f", work=work).stdout
    assert "(random (seed 0) images, by eval-segmentation, eval-all)" in printed
    assert sorted(path.name for path in (work / "f").glob("*.png")) == [
        "small-segmentations-1.png",
        "small-segmentations-2.png",
    ]


def test_masks_are_needed(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text(RECIPE.replace("images = 8\nmasks = true", "images = 8"))
    failed = rcnn("run", tmp_path / "bare.toml", work=finished[1], check=False)
    assert failed.returncode == 2
    assert "[datasets.train] is read by a stage that needs masks; set masks = true there" in failed.stderr


def test_a_report_has_the_table_and_the_pictures(finished: tuple[Path, Path, str]) -> None:
    """Also where nothing is detected: then the sections on detections are missing."""
    recipe, work, _ = finished
    summary = json.loads((work / "results/small/eval-segmentation/results.json").read_text())
    rcnn("report", recipe, "-o", work / "page", work=work)
    page = (work / "page/index.html").read_text()
    assert "<title>Segmentation report: small</title>" in page
    assert page.count('<img class="segmentation" src="data:image/jpeg;base64,') == 2
    assert f"<b>{100 * summary['mean_accuracy']:.1f} %</b>" in page or "the best of 2" in page
    assert "eval-all - eval-segmentation:" in page
    assert "background" in page
    assert 'id="precision"' not in page
    assert "those numbers are not shown here" in page


def test_skipped_images_are_left_out_of_training_and_count_as_background(tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    draw_shapes(folder, ShapesSettings(train=5, val=1, test=3), masks=True)
    for image_id in ("train_00002", "test_00001"):
        (folder / f"JPEGImages/{image_id}.jpg").write_bytes(b"no image")
    text = RECIPE.replace("masks = true\n\n[", f"masks = true\nclasses = {json.dumps(SHAPES)}\n\n[")
    for split, count in (("train", 8), ("test", 5)):
        text = text.replace(f'"shapes:{split}"\nimages = {count}', f'"voc:{folder}:{split}"')
    (tmp_path / "small.toml").write_text(text)
    rcnn("run", tmp_path / "small.toml", "--skip-bad-images", work=tmp_path / "work")
    evaluated = cache_of(tmp_path / "work", "eval-segmentation", "small-test")
    confusion = evaluated.read("test_00001")["confusion"]
    assert confusion[1:, 0].sum() > 0
    assert confusion[:, 1:].sum() == 0


def test_proposals_without_masks_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text(RECIPE.replace("[propose]\nmasks = true", "[propose]"))
    failed = rcnn("run", tmp_path / "bare.toml", work=tmp_path / "work", check=False)
    assert failed.returncode == 2
    assert "[extract-foreground] fill = 'foreground' needs proposals with masks; set masks = true" in failed.stderr
    assert not (tmp_path / "work/caches").exists()
