"""R-CNN section 4 from end to end: recipes/shapes-ilsvrc.toml with few images, a random network and short trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache import Reader
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from tests.in_process import rcnn
from tests.pipeline import PROJECT

RECIPE = PROJECT / "recipes" / "shapes-ilsvrc.toml"
CHANGES = [
    "datasets.train.images=12",
    "datasets.train.per_class=1",
    "datasets.test.images=4",
    "propose.max_boxes=40",
    "propose.resize_width=120",
    "finetune.iterations=3",
    "finetune.batch_size=16",
    "train-svm.mining_images=5",
    "train-svm.max_iterations=50",
]


def test_the_protocol(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    text = RECIPE.read_text(encoding="utf-8")
    recipe.write_text(
        text.replace('[pretrain]\nsplit = "pretraining"', '[network]\nname = "shapenet"\nweights = "random"')
    )
    words = [word for change in CHANGES for word in ("--set", change)]
    rcnn("run", recipe, *words, work=tmp_path)
    graph = Graph(load_recipe(recipe, CHANGES), tmp_path)
    names = ("propose@train", "extract@train", "train-svm")
    reader_of = {name: Reader(graph.folder(graph.nodes[name])) for name in names}
    train = graph.dataset("train")
    collected = [image_id for image_id in train.image_ids if image_id.startswith("collected_")]
    assert train.images_not_exhaustive == set(collected)
    assert len(collected) == len(train.classes) == 10
    for image_id in train.image_ids:
        proposed = len(reader_of["propose@train"].read(image_id, ["boxes"])["boxes"])
        assert (proposed == 0) == (image_id in collected)
        record = reader_of["extract@train"].read(image_id, ["is_object"])
        assert int(record["is_object"].sum()) == len(train.record(image_id).boxes)
    svms = reader_of["train-svm"].manifest["summary"]["classes"]
    labels = np.concatenate([train.record(image_id).labels for image_id in train.image_ids])
    for label, name in enumerate(train.classes):
        assert svms[name]["positives"] == int((labels == label).sum()) > 0
    background = Reader(graph.folder(graph.nodes["finetune"])).read("network", ["background_windows"])
    most = sum(len(reader_of["propose@train"].read(image_id, ["boxes"])["boxes"]) for image_id in train.image_ids)
    assert 0 < int(background["background_windows"]) <= most
    evaluated = Reader(graph.folder(graph.nodes["eval"])).manifest["summary"]
    assert 0 <= evaluated["map_area"] <= 1
