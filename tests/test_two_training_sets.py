"""Faster R-CNN trained on two datasets at once, as the papers' 07+12, by the real commands."""

from __future__ import annotations

from pathlib import Path

from cache import Reader
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.datasets.shapes import ShapesSettings, draw_shapes
from tests.in_process import rcnn

RECIPE = """
[datasets.train]
source = "voc:{folder}/first:train"
[datasets.test]
source = "voc:{folder}/first:test"
[network]
name = "shapenet"
weights = "random"
[rpn]
stage = "train-rpn"
iterations = 3
images_per_batch = 3
sides = [64]
longest = 120
scales = [2.0, 4.0]
hidden = 8
[maps-rpn]
stage = "maps"
sides = [64]
longest = 120
inputs = {{ network = "rpn" }}
[propose]
method = "rpn"
max_boxes = 40
least_side = 4.0
inputs = {{ rpn = "rpn", maps = "maps-rpn" }}
[train-fast]
iterations = 3
images_per_batch = 3
sides = [64]
longest = 120
[maps]
sides = [64]
longest = 120
[extract]
method = "roi-pool"
layers = ["softmax", "deltas"]
[detect]
score = "softmax"
regression = "network"
cap = "image"
[eval]
"""
BOTH = """datasets.train.source=["voc:{folder}/first:train", "voc:{folder}/second:train"]"""


def test_the_recipe_of_one_set_trains_on_two(tmp_path: Path) -> None:
    """Two sets of shapes, with the same ids: 4 + 3 images, of which an epoch takes each once."""
    draw_shapes(tmp_path / "first", ShapesSettings(train=4, val=1, test=3))
    draw_shapes(tmp_path / "second", ShapesSettings(train=3, val=1, test=1, seed=7))
    (tmp_path / "mix.toml").write_text(RECIPE.format(folder=tmp_path))
    both = ("--set", BOTH.format(folder=tmp_path))
    refused = rcnn("run", tmp_path / "mix.toml", *both, work=tmp_path / "work", check=False)
    assert refused.returncode == 2
    assert "image 'train_00000' is in first-train and in second-train; name each image once, or set " in refused.stderr
    changes = (*both, "--set", "datasets.train.prefix_ids=true")
    rcnn("run", tmp_path / "mix.toml", *changes, work=tmp_path / "work")
    graph = Graph(load_recipe(tmp_path / "mix.toml", changes[1::2]), tmp_path / "work")
    dataset = graph.dataset("train")
    assert len(dataset.image_ids) == 7
    assert {image_id.partition("/")[0] for image_id in dataset.image_ids} == {"first-train", "second-train"}
    objects = sum(int((~dataset.record(image_id).difficult).sum()) for image_id in dataset.image_ids)
    for name in ("rpn", "train-fast"):
        assert int(Reader(graph.folder(graph.nodes[name])).read("network", ["objects"])["objects"]) == objects
    proposals = Reader(graph.folder(graph.nodes["propose@train"]))
    assert set(proposals.item_ids) == set(dataset.image_ids)
    evaluated = Reader(graph.folder(graph.nodes["eval"])).manifest["summary"]["classes"]
    tested = graph.dataset("test")
    assert sum(of_class["positives"] for of_class in evaluated.values()) == sum(
        int((~tested.record(image_id).difficult).sum()) for image_id in tested.image_ids
    )
