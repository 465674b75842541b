"""Grid files: what a cell's recipe becomes, products of axes, and one sentence for each mistake."""

from pathlib import Path

import pytest

from rcnn_cli.experiments.ablation import Spread, base_recipe, base_table, end_of, make_plan, run_table, spread
from rcnn_cli.experiments.ablation_table import shown
from rcnn_cli.experiments.grid import Change, Grid, load_grid, merged, nested
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import RecipeError, build_recipe
from stages.contract.errors import StageError
from tests.pipeline import PROJECT, SMALL

GRIDS = sorted((PROJECT / "recipes/grids").glob("*.toml"))
CELLS = """
recipe = "base.toml"
set.extract.layers = ["pool4", "fc5"]
[cells.a]
set = { "train-svm.layer" = "fc5", train-svm.C = 0.1 }
remove = ["train-bbox", "propose.max_boxes"]
paper = 54
paper_source = "Table 2"
[cells.b]
evaluation = "eval"
"""
AXES = """
recipe = "base.toml"
[axes]
"extract.padding" = [0, 16]
[axes.layer.first]
set.train-svm.layer = "pool4"
[axes.layer.second]
set.train-svm.layer = "fc5"
[paper]
"16 / second" = 44.7
"""


def write(tmp_path, text):
    (tmp_path / "base.toml").write_text(SMALL)
    path = tmp_path / "g.toml"
    path.write_text(text)
    return path


def recipe_of(grid: Grid) -> Path:
    """The base recipe that the grid names."""
    assert grid.recipe is not None
    return grid.recipe


def test_a_cell_merges_tables_over_the_base_and_leaves_others_out(tmp_path):
    grid = load_grid(write(tmp_path, CELLS))
    assert grid.recipe == tmp_path / "base.toml"
    a, b = (run_table(base_table(grid, recipe_of(grid), ()), cell, None, ()) for cell in grid.cells)
    assert a["train-svm"] == {"layer": "fc5", "retrain_after": 100, "C": 0.1}
    assert a["extract"] == b["extract"] == {"layers": ["pool4", "fc5"], "padding": 4}
    assert a["propose"] == {"resize_width": 240}
    assert "train-bbox" not in a
    assert b["train-bbox"] == {"layer": "pool4"}
    assert (grid.cells[0].paper, grid.cells[0].paper_source, grid.cells[1].paper) == (54.0, "Table 2", None)
    assert grid.cells[0].words() == [
        "no [train-bbox]", "no [propose.max_boxes]", "train-svm.layer = fc5", "train-svm.C = 0.1",
    ]  # fmt: skip


def test_changes_of_the_command_line_hold_unless_a_cell_says_otherwise(tmp_path):
    grid = load_grid(write(tmp_path, CELLS))
    base = base_table(grid, recipe_of(grid), ["train-svm.C=5.0", "extract.padding=0"])
    a, b = (run_table(base, cell, None, ()) for cell in grid.cells)
    assert (a["train-svm"]["C"], b["train-svm"]["C"]) == (0.1, 5.0)
    assert (a["extract"]["padding"], b["extract"]["padding"]) == (0, 0)


def test_axes_are_multiplied_the_last_one_fastest(tmp_path):
    grid = load_grid(write(tmp_path, AXES))
    assert grid.columns == ("extract.padding", "layer")
    assert [cell.name for cell in grid.cells] == ["0 / first", "0 / second", "16 / first", "16 / second"]
    assert [cell.paper for cell in grid.cells] == [None, None, None, 44.7]
    table = run_table(base_table(grid, recipe_of(grid), ()), grid.cells[3], None, ())
    assert (table["extract"]["padding"], table["train-svm"]["layer"]) == (16, "fc5")


def test_a_seed_goes_where_the_recipe_has_the_table(tmp_path):
    grid = load_grid(write(tmp_path, CELLS))
    base = base_table(grid, recipe_of(grid), ())
    table = run_table(base, grid.cells[0], 7, ("pretrain.seed", "datasets.train.seed", "finetune.seed"))
    assert (table["pretrain"]["seed"], table["datasets"]["train"]["seed"]) == (7, 7)
    assert "finetune" not in table
    assert "seed" not in base["pretrain"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([("a", 50.0), ("b", 52.0), ("c", 57.0)], Spread(53.0, 13**0.5, 3)),  # deviations -3, -1, 4: 26 / 2
        ([("a", 50.0)], Spread(50.0, None, 1)),
        ([("a", 50.0), ("a", 50.0)], Spread(50.0, None, 1)),  # one cache: the seeds do not affect it
        ([("a", 50.0), ("b", 50.0)], Spread(50.0, 0.0, 2)),
        ([("a", 50.0), ("b", None)], None),
    ],
)
def test_mean_and_sample_deviation_over_seeds_by_hand(values, expected):
    found = spread(values)
    assert found == (expected and Spread(expected.mean, pytest.approx(expected.deviation), expected.count))  # type: ignore[arg-type]


def test_numbers_as_the_table_shows_them():
    assert shown(Spread(53.04, 3.6055, 3), "-") == "53.0 ± 3.6"
    assert shown(Spread(53.04, None, 1), "-") == "53.0"
    assert shown(None, "failed") == "failed"


OWN = """
set.extract.layers = ["pool4", "fc5"]
[cells.a]
recipe = "base.toml"
set.train-svm.layer = "fc5"
[cells.b]
recipe = "other/without.toml"
"""


def test_a_cell_may_name_its_own_recipe(tmp_path):
    path = write(tmp_path, OWN)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/without.toml").write_text(SMALL.partition("[train-bbox]")[0] + '[detect]\nscore = "svm"\n[eval]')
    grid = load_grid(path)
    assert grid.recipe is None
    assert base_recipe(grid, None) is None
    plan = make_plan(grid, None, ["extract.padding=0"], tmp_path / "work", str)
    assert not plan.failed
    a, b = (run.graph.recipe for run in plan.runs)
    assert (a.path, b.path) == (tmp_path / "base.toml", tmp_path / "other/without.toml")
    assert ("train-bbox" in a.uses, "train-bbox" in b.uses) == (True, False)
    assert a.uses["extract"].settings == b.uses["extract"].settings
    assert (a.uses["extract"].settings.padding, b.uses["train-svm"].settings.layer) == (0, "pool4")
    assert grid.cells[0].words() == ["recipe = base.toml", "train-svm.layer = fc5"]
    with pytest.raises(StageError, match=r"every cell of .* names its own recipe; leave the option out"):
        base_recipe(grid, tmp_path / "base.toml")


def test_only_cells_without_a_recipe_of_their_own_need_the_grids(tmp_path):
    grid = load_grid(write(tmp_path, OWN + "[cells.c]\n"))
    with pytest.raises(StageError, match="names no base recipe, and 'c' has none of its own; add recipe"):
        base_recipe(grid, None)
    assert base_recipe(grid, tmp_path / "base.toml") == tmp_path / "base.toml"
    plan = make_plan(grid, tmp_path / "base.toml", (), tmp_path / "work", str)
    assert list(plan.failed) == [("b", None)]
    assert "without.toml" in plan.failed["b", None]
    assert [run.graph.recipe.path.name for run in plan.runs] == ["base.toml", "base.toml"]


def test_nothing_is_changed_in_place():
    base = {"extract": {"padding": 4}}
    assert merged(base, nested({"extract.padding": 0, "extract.test.mode": "warp"})) == {
        "extract": {"padding": 0, "test": {"mode": "warp"}}
    }
    assert Change({}, ("extract.padding",)).applied(base) == {"extract": {}}
    assert base == {"extract": {"padding": 4}}


def test_what_is_not_there_cannot_be_removed():
    with pytest.raises(
        RecipeError, match="remove 'train-box': the recipe has no 'train-box', did you mean 'train-bbox'"
    ):
        Change({}, ("train-box",)).applied({"train-bbox": {}})


MISTAKES = [
    ("recipe = ", "is not valid TOML"),
    ('recipe = "base.toml"', "needs either cells"),
    (CELLS + "[axes]\n'extract.padding' = [0]", "needs either cells"),
    ("cels = 1\n" + CELLS, "unknown key 'cels', did you mean 'cells'?"),
    (CELLS + "papr = 3", "[cells.b] unknown key 'papr', did you mean 'paper'?"),
    (CELLS + "paper = 'much'", "[cells.b]: paper = 'much' must be a number"),
    (CELLS + "set = 3", "cells.b.set must be a table"),
    ("seeds = [0]\n" + CELLS, "only make sense together"),
    ("seeds = [0.5]\nseed_settings = ['pretrain.seed']\n" + CELLS, "seeds = 0.5 must be a whole number"),
    (CELLS + "[metrics]\nmAP = 3", "must name a number"),
    (CELLS + "[paper]\na = 3", "[paper] is for axes"),
    (AXES + '"8 / first" = 1', "[paper] '8 / first' is not a cell"),
    ('[axes]\n"train-svm.C" = [1, 1.0]', "two cells are called '1'"),
    ("[axes]\npadding = 3", '"padding" must be a list of values for that setting, or a table of changes'),
    ("[axes.layer.first]\nlayer = 3", "[axes.layer.first] unknown key 'layer'"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_in_a_grid_is_a_sentence_that_names_the_file(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(StageError) as raised:
        load_grid(path)
    assert str(raised.value).startswith(f"{path}:")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_grid(tmp_path):
    with pytest.raises(StageError, match="no such grid; `rcnn recipes` lists"):
        load_grid(tmp_path / "none.toml")


def test_seeds_need_settings_that_take_them(tmp_path):
    with pytest.raises(StageError, match="--seeds needs seed_settings in the grid"):
        load_grid(write(tmp_path, CELLS), "0")


def test_the_examples_in_the_docs_are_sound(tmp_path):
    blocks = (PROJECT / "docs/ablations.md").read_text().split("```toml")[1:]
    examples = [block.partition("```")[0] for block in blocks]
    assert len(examples) == 2
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.toml"
        path.write_text(example)
        grid = load_grid(path)
        base = base_table(grid, PROJECT / "recipes/shapes.toml", ())
        for cell in grid.cells:
            nodes = Graph(build_recipe(path, run_table(base, cell, 0, grid.seed_settings)), tmp_path).nodes
            assert cell.evaluation in nodes


def test_there_are_grids_to_ship():
    names = {path.stem for path in GRIDS}
    papers = {"table2", "table3", "appendix-a", "appendix-b", "proposals"}
    papers |= {"fast-table5", "fast-table6", "fast-table7", "fast-table8"}
    papers |= {"faster-table2", "faster-table8", "faster-table9", "faster-table10", "faster-figure4"}
    papers |= {"overfeat-table2", "segmentation-table5", "ilsvrc-table4"}
    on_shapes = {
        f"shapes-{name}" for name in (*papers, "effects", "overfeat-figure9", "overfeat-merging", "overfeat-context")
    }
    others = {"voc2007-squeezenet", "voc2007-segmentation-squeezenet", "voc2007-small-data", "fast-table4"}
    assert names == papers | on_shapes | others | {"three-papers", "three-papers-voc2007"}


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_cell_of_a_shipped_grid_is_a_sound_recipe(path, tmp_path):
    grid = load_grid(path)
    for cell in grid.cells:
        recipe = cell.recipe or recipe_of(grid)
        table = run_table(base_table(grid, recipe, ()), cell, 0, grid.seed_settings)
        graph = Graph(build_recipe(recipe, table), tmp_path)
        graph.check([end_of(graph, cell.evaluation)])
        assert (cell.paper is None) or cell.paper_source
