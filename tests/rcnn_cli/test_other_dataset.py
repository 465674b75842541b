"""An evaluation whose inputs name another dataset than its split: what is written and drawn is of the dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cache import Writer
from rcnn_cli.experiments.tuning import check_split, tuning_grid
from rcnn_cli.looking.figures import Wish, detections
from rcnn_cli.looking.recall import proposals_of
from rcnn_cli.looking.results import draw_results, show_results
from rcnn_cli.looking.units import features_node
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.graph import Graph
from stages.contract.errors import StageError
from stages.contract.inputs import Inputs
from stages.detect.stage import schema
from tests.rcnn_cli.evaluations import RECIPE, detection_record, graph_of, run_tables, write_scene

THINGS = {"t1": [("cat", (10, 10, 60, 60), False)], "v1": [("cat", (20, 20, 70, 70), False)]}
OTHER = """
[datasets.val]
source = "voc:{folder}/voc:val"
[datasets.choose]
source = "voc:{folder}/voc:choose"
"""
INPUTS = """
inputs = { images = "val", detections = "detect@val" }
"""


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """[eval], whose split is "test", evaluates detections in the one image of "val"."""
    write_scene(tmp_path, THINGS)
    for name, image in (("test", "t1"), ("val", "v1"), ("choose", "c1")):
        (tmp_path / f"voc/ImageSets/Main/{name}.txt").write_text(f"{image}\n")
    for kind, ending in (("JPEGImages", "png"), ("Annotations", "xml")):
        (tmp_path / f"voc/{kind}/c1.{ending}").write_bytes((tmp_path / f"voc/{kind}/t1.{ending}").read_bytes())
    inputs = INPUTS.replace("{", "{{").replace("}", "}}")
    graph = graph_of(tmp_path, RECIPE + inputs + OTHER)
    node = graph.nodes["detect@val"]
    writer = Writer(graph.folder(node), graph.identity(node), ("v1",), schema(node.settings, Inputs()), part_size=1)
    for part in writer.claim():
        writer.write(part, [detection_record([("cat", (20, 20, 70, 70), 1.0)], ["cat"])])
    writer.finish({"skipped": {}}, lambda reader: {"classes": ["cat"], "thresholds": [None]})
    writer.release()
    run_tables(graph, "eval")
    return graph


def test_the_dataset_of_a_node(graph: Graph) -> None:
    assert graph.nodes["eval"].split == "test"
    assert {name: node.dataset for name, node in graph.nodes.items()} == {
        "propose@train": "train",
        "extract@train": "train",
        "train-svm": "train",
        "propose@val": "val",
        "extract@val": "val",
        "detect@val": "val",
        "eval": "val",
    }


def test_results_and_pictures_are_of_the_dataset(graph: Graph, capsys: pytest.CaptureFixture[str]) -> None:
    show_results(graph, [graph.nodes["eval"]])
    folder = graph.work / "results" / "r"
    assert (folder / "eval/comp4_det_val_cat.txt").read_text().split()[0] == "v1"
    annotations = json.loads((folder / "eval/coco-annotations.json").read_text())
    assert [image["file_name"] for image in annotations["images"]] == ["v1.png"]
    assert len(json.loads((folder / "eval/coco-results.json").read_text())) == 1
    draw_results(graph, graph.nodes["detect@val"])
    assert "1 image drawn" in capsys.readouterr().out
    _, remark = detections(graph, Wish(0.5, (), 1, 0, OutputFolder(graph.work)))
    assert "of 'val'" in remark


def test_proposals_and_features_are_found_by_their_dataset(graph: Graph) -> None:
    assert [node.name for node in proposals_of(graph, "val")] == ["propose@val"]
    assert features_node(graph, "val", None).name == "extract@val"
    with pytest.raises(StageError, match="on train, val, not on 'test'; choose with"):
        proposals_of(graph, "test")


def test_tuning_takes_another_dataset_than_the_reported_one(graph: Graph) -> None:
    with pytest.raises(StageError, match=r"\[eval\] evaluates on 'val'"):
        check_split(graph, graph.nodes["eval"], "val")
    check_split(graph, graph.nodes["eval"], "choose")
    grid = tuning_grid(graph, graph.nodes["eval"], "choose", {"nms_iou": [0.3]})
    assert grid.base.set["eval"] == {"split": "choose", "inputs": {"detections": "detect", "images": "choose"}}
