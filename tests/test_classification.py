"""Classification end to end, by the real commands: pre-training on crops, dense reading, averaging, a grid."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.in_process import rcnn

RECIPE = """
[datasets.pretraining]
source = "shapes-classification:train"
per_class = 8
side = 72

[datasets.test]
source = "shapes-classification:val"
per_class = 2
side = 72

[pretrain]
views = "crops"
side = 68
epochs = 1
held_out = 4

[pretrain-again]
stage = "pretrain"
views = "crops"
side = 68
epochs = 1
held_out = 4
seed = 1
split = "pretraining"

[classify]
sides = [72, 80]

[classify-two]
stage = "classify"
sides = [72, 80]
inputs = { network = "pretrain-again", with = "classify" }
"""
GRID = """
title = "Views"
recipe = "small.toml"
evaluation = "classify"
paper_source = "OverFeat Table 2"
metrics = { top-1 = "top_1_error", views = "views" }
[cells.fine]
paper = 16.97
[cells.coarse]
set.classify.fine = false
[cells.crops]
set.classify.method = "crops"
remove = ["classify.sides"]
[cells.two]
evaluation = "classify-two"
[cells.wrong]
set.classify.sides = [40]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(recipe, work folder, what the run printed)."""
    folder = tmp_path_factory.mktemp("classification")
    (folder / "small.toml").write_text(RECIPE)
    return folder / "small.toml", folder / "work", rcnn("run", folder / "small.toml", work=folder / "work").stdout


def test_a_run_prints_a_table_and_writes_files(finished: tuple[Path, Path, str]) -> None:
    _, work, printed = finished
    results = work / "results/small"
    summary = json.loads((results / "classify/results.json").read_text())
    assert summary["images"] == 32
    assert "background" not in summary["class_names"]
    (line,) = [line for line in printed.splitlines() if line.startswith("top-1 error")]
    assert f"{100 * summary['top_1_error']:.1f} [" in line
    (line,) = [line for line in printed.splitlines() if line.startswith("networks averaged")]
    assert line.split()[-2:] == ["1", "2"]
    rows = list(csv.reader((results / "classify-two/images.csv").read_text().splitlines()))
    assert len(rows) == 33
    assert (results / "pretrain-again/training.png").exists()


def test_nothing_is_done_twice_and_the_stage_has_its_own_command(finished: tuple[Path, Path, str]) -> None:
    recipe, work, _ = finished
    again = rcnn("run", recipe, work=work)
    assert "nothing to do" in again.stdout
    alone = rcnn("classify", recipe, work=work)
    assert "top-1 error" in alone.stdout
    assert "classify-two" not in alone.stdout
    assert rcnn("status", recipe, work=work).returncode == 0
    assert "scores" in rcnn("inspect", next((work / "caches/classify").glob("*two*")), work=work).stdout


def test_a_grid_of_views(finished: tuple[Path, Path, str]) -> None:
    recipe, work, _ = finished
    grid = recipe.with_name("grid.toml")
    grid.write_text(GRID)
    done = rcnn("ablate", grid, work=work, check=False)
    assert done.returncode == 1
    assert "no window of shapenet fits into an image of 40 pixels" in done.stderr
    rows = {row["cell"]: row for row in json.loads((work / "ablations/grid.json").read_text())["rows"]}
    summary = json.loads((work / "results/small/classify/results.json").read_text())
    assert rows["fine"]["values"]["top-1"]["mean"] == 100 * summary["top_1_error"]
    assert rows["fine"]["paper"] == 16.97
    views = {name: row["values"]["views"]["mean"] for name, row in rows.items() if not row["failed"]}
    assert views["crops"] == 10
    assert views["coarse"] < views["fine"] == views["two"]
    assert "wrong" not in views


def test_what_does_not_fit_is_said_in_a_sentence(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    recipe, work, _ = finished
    untrained = '[network]\nname = "shapenet"\nweights = "random"\n\n' + RECIPE.replace(
        "[classify]\n", '[classify]\ninputs = { network = "network" }\n'
    )
    (tmp_path / "untrained.toml").write_text(untrained)
    done = rcnn("classify", tmp_path / "untrained.toml", work=work, check=False)
    assert done.returncode == 2
    assert "classify: shapenet has 10 outputs, but shapes-classification-val has 16 classes" in done.stderr
    done = rcnn("classify", recipe, "--method", "crops", work=work, check=False)
    assert done.returncode == 2
    assert "'sides' is a setting of method = 'dense', and method is 'crops'" in done.stderr
