"""Which detector and evaluation a command takes that is told of none: one rule, by the order of the recipe's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from rcnn_cli.looking.evaluated import evaluation_node
from rcnn_cli.looking.units import features_nodes
from rcnn_cli.recipes.detectors import choice_told, detector_node, detector_of, evaluations_of, main_detector
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.contract.errors import StageError
from tests.pipeline import PROJECT

START = """
[datasets.train]
source = "shapes:train"
[datasets.val]
source = "shapes:val"
[datasets.test]
source = "shapes:test"
[network]
name = "shapenet"
weights = "random"
[propose]
[extract-early]
stage = "extract"
layers = ["pool4"]
[extract]
layers = ["fc5"]
[train-svm]
layer = "fc5"
"""


def graph_of(folder: Path, *tables: str) -> Graph:
    """A recipe with these tables, in this order: "detect", "plain" and "other" are detectors, "A: B" evaluates B."""
    text = START
    for table in tables:
        name, evaluates, detector = table.partition(": ")
        text += f"[{name}]\n"
        if evaluates:
            text += f'stage = "eval"\ninputs = {{ detections = "{detector}" }}\n'
            text += 'split = "val"\n' if name.endswith("-val") else ""
        elif name != "detect":
            text += 'stage = "detect"\n'
    (folder / "r.toml").write_text(text)
    return Graph(load_recipe(folder / "r.toml"), folder / "work")


@pytest.mark.parametrize(
    ("tables", "main", "evaluations"),
    [
        (("detect", "eval: detect"), "detect", ["eval"]),
        (("plain", "eval-plain: plain", "detect", "eval: detect"), "detect", ["eval", "eval-plain"]),
        (("eval-plain: plain", "eval: detect", "plain", "detect"), "detect", ["eval", "eval-plain"]),
        (("other", "plain", "e1: plain", "e2: other", "e3: other"), "other", ["e2", "e1", "e3"]),
        (("plain", "other", "eval: other", "e2: plain"), "plain", ["e2", "eval"]),
        (("detect", "e1-val: detect", "eval: detect"), "detect", ["eval", "e1-val"]),
        (("detect", "plain", "e1: plain", "eval: plain"), "detect", ["eval", "e1"]),
        (("plain", "other"), "plain", []),
        ((), None, []),
    ],
)
def test_the_main_ones(tmp_path: Path, tables: tuple[str, ...], main: str | None, evaluations: list[str]) -> None:
    graph = graph_of(tmp_path, *tables)
    assert main_detector(graph) == main
    assert [node.use.name for node in evaluations_of(graph)] == evaluations
    if main is None:
        with pytest.raises(StageError, match="has no detector"):
            detector_node(graph)
        return
    assert detector_node(graph).use.name == main
    if evaluations:
        assert evaluation_node(graph).use.name == evaluations[0]


def test_the_recipes_that_come_with_the_project() -> None:
    recipes = [path for path in (PROJECT / "recipes").rglob("*.toml") if path.parent.name != "grids"]
    graphs = [Graph(load_recipe(path), Path("work")) for path in recipes]
    detecting = [graph for graph in graphs if graph.making("detections")]
    assert all(main_detector(graph) == "detect" for graph in detecting)
    evaluating = [graph for graph in detecting if graph.making("evaluation")]  # of a submission nothing is evaluated
    assert all(detector_of(evaluation_node(graph)).use.name == "detect" for graph in evaluating)
    assert len(evaluating) > 5


def test_a_detector_on_several_splits_is_that_of_the_main_evaluation(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "detect", "first-val: detect", "eval: detect")
    assert detector_node(graph).name == "detect@test"
    assert detector_node(graph, "detect@val").name == "detect@val"
    graph = graph_of(tmp_path, "detect", "eval-val: detect")
    assert detector_node(graph).name == "detect@val"
    with pytest.raises(StageError, match="has no detector 'detekt', did you mean 'detect'"):
        detector_node(graph, "detekt")


def test_what_is_told_of_the_choice(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "plain", "detect", "eval: detect")
    told = choice_told(graph, detector_node(graph))
    assert told == "detector: detect (of plain, detect; --detector chooses)"
    alone = graph_of(tmp_path, "detect", "eval: detect")
    assert choice_told(alone, detector_node(alone)) == ""


def test_features_of_the_main_detector_come_first(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "detect", "eval: detect")
    assert features_nodes(graph)[0].use.name == "extract"
    assert features_nodes(graph)[-1].use.name == "extract-early"
