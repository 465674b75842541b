"""What `rcnn tune` searches, and the recipe that it writes."""

import tomllib

import pytest

from rcnn_cli.experiments.ablation import Row, Spread, base_table, evaluation_of, run_table
from rcnn_cli.experiments.tuning import best_row, tuning_grid, write_tuned
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import build_recipe, load_recipe
from stages.contract.errors import BadSetting, StageError

RECIPE = """
name = "base"
[datasets]
train = { source = "voc:{recipe}/voc:train" }    # five thousand
val = { source = "voc:{recipe}/voc:val" }
test = { source = "voc:{recipe}/voc:test" }
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 40
[propose.test]
max_boxes = 80     # more at test
[finetune]
[extract]
layers = ["fc5", "softmax"]
[svm]
stage = "train-svm"
layer = "fc5"
C = 0.5            # the old one
[detect]
inputs = { svm = "svm" }
[detect.test]
nms_iou = 0.4
max_per_image = 10
[eval]
inputs = { detections = "detect@test" }
[detect-softmax]
stage = "detect"
score = "softmax"
inputs = { regressor = "none" }
[eval-softmax]
stage = "eval"
inputs = { detections = "detect-softmax" }
"""
SEARCHED = {"negative_overlap": [0.0, 0.3], "C": [1.0], "nms_iou": [0.3, 0.5]}


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "base.toml").write_text(RECIPE)
    return Graph(load_recipe(tmp_path / "base.toml"), tmp_path / "work")


def settings_of(graph, grid, cell):
    """The nodes of a combination's recipe."""
    table = run_table(base_table(grid, graph.recipe.path, ()), cell, None, ())
    return Graph(build_recipe(graph.recipe.path, table), graph.work).nodes


def test_every_combination_is_evaluated_on_the_validation_split_as_on_the_test_split(graph):
    grid = tuning_grid(graph, evaluation_of(graph, "eval"), "val", SEARCHED)
    assert grid.columns == ("svm.negative_overlap", "svm.C", "detect.nms_iou")
    assert [cell.places for cell in grid.cells] == [
        ("0", "1", "0.3"), ("0", "1", "0.5"), ("0.3", "1", "0.3"), ("0.3", "1", "0.5"),
    ]  # fmt: skip
    nodes = settings_of(graph, grid, grid.cells[1])
    detector = nodes["eval"].sources["detections"]
    assert (nodes["eval"].split, detector.name) == ("val", "detect@val")
    assert (detector.settings.nms_iou, detector.settings.max_per_image) == (0.5, 10)
    assert (nodes["svm"].settings.negative_overlap, nodes["svm"].settings.C, nodes["svm"].split) == (0, 1, "train")
    assert [nodes[f"propose@{split}"].settings.max_boxes for split in ("train", "val")] == [40, 80]


def test_a_softmax_detector_has_only_its_suppression_to_choose(graph):
    grid = tuning_grid(graph, evaluation_of(graph, "eval-softmax"), "val", SEARCHED)
    assert grid.columns == ("detect-softmax.nms_iou",)
    with pytest.raises(StageError, match=r"\[detect-softmax\] has none of the settings C"):
        tuning_grid(graph, evaluation_of(graph, "eval-softmax"), "val", {"C": [1.0]})


def test_a_detector_that_merges_has_its_threshold_to_choose(graph, caplog):
    merging = RECIPE.replace("[detect]", '[detect]\nsuppression = "merge"\nmerge_scores = "best"').replace(
        "nms_iou = 0.4\n", ""
    )
    graph.recipe.path.write_text(merging)
    graph = Graph(load_recipe(graph.recipe.path), graph.work)
    searched = {**SEARCHED, "merge_threshold": [0.5, 0.9]}
    of_a_method = ("nms_iou", "merge_threshold")
    grid = tuning_grid(graph, evaluation_of(graph, "eval"), "val", searched, of_a_method)
    assert grid.columns == ("svm.negative_overlap", "svm.C", "detect.merge_threshold")
    nodes = settings_of(graph, grid, grid.cells[1])
    assert nodes["detect@val"].settings.merge_threshold == 0.9
    softmax = tuning_grid(graph, evaluation_of(graph, "eval-softmax"), "val", searched, (*of_a_method, *SEARCHED))
    assert softmax.columns == ("detect-softmax.nms_iou",)
    assert not caplog.messages
    tuning_grid(graph, evaluation_of(graph, "eval"), "val", searched)
    assert caplog.messages == ["eval: nothing that [detect] needs has the setting nms_iou"]
    with pytest.raises(BadSetting, match=r"merge_threshold = -1\.0 must be at least 0"):
        tuning_grid(graph, evaluation_of(graph, "eval"), "val", {"merge_threshold": [-1.0]})


def test_the_best_is_the_largest_and_of_equals_the_first(graph):
    cells = tuning_grid(graph, evaluation_of(graph, "eval"), "val", SEARCHED).cells
    rows = [
        Row(cell, {"mAP": None if value is None else Spread(value, None, 1)}, {})
        for cell, value in zip(cells, (50.0, 52.0, None, 52.0), strict=True)
    ]
    assert best_row(rows) is rows[1]
    with pytest.raises(StageError, match="no objects to find"):
        best_row(rows[2:3])


def test_the_recipe_that_is_written_keeps_all_but_what_was_chosen(graph, tmp_path):
    cell = tuning_grid(graph, evaluation_of(graph, "eval"), "val", SEARCHED).cells[1]
    (tmp_path / "other").mkdir()
    output = tmp_path / "other/tuned.toml"
    write_tuned(graph, output, Row(cell, {"mAP": Spread(61.23, None, 1)}, {}), "val", 4, ["extract.padding=0"], False)
    text = output.read_text()
    head = text.splitlines()[:3]
    assert head[0] == f"# Chosen by `rcnn tune {graph.recipe.path}` on the split 'val' (voc:{{recipe}}/voc:val),"
    assert head[1].startswith("# the best of 4 combinations, mAP 61.2: svm.negative_overlap = 0, svm.C = 1, ")
    assert head[2] == "# with --set extract.padding=0, which is not included below"
    for comment in ("# five thousand", "# more at test", "# the old one"):
        assert comment in text
    old, new = tomllib.loads(RECIPE), tomllib.loads(text)
    changed = {key for key in old if old[key] != new[key]}
    assert changed == {"name", "datasets", "svm", "detect"}
    assert new["name"] == "base-tuned"
    assert new["datasets"]["train"]["source"] == "voc:{recipe}/../voc:train"
    assert new["svm"] == {**old["svm"], "negative_overlap": 0.0, "C": 1.0}
    assert new["detect"] == {**old["detect"], "nms_iou": 0.5, "test": {"nms_iou": 0.5, "max_per_image": 10}}
    assert load_recipe(output).uses["detect"].settings_for("test").nms_iou == 0.5
    with pytest.raises(StageError, match="already exists"):
        write_tuned(graph, output, Row(cell, {"mAP": Spread(0, None, 1)}, {}), "val", 4, [], False)
    assert output.read_text() == text
