"""What a crowd among the annotations does to the keys of caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.datasets.coco import CocoDataset

RECIPE = """
[datasets.train]
source = "coco:{folder}/all.json:{folder}"
[datasets.test]
source = "coco:{folder}/all.json:{folder}"
[network]
name = "shapenet"
weights = "random"
[propose]
[extract]
[train-svm]
[train-bbox]
[detect]
[eval]
"""


def keys(folder: Path, crowd: int) -> dict[str, str]:
    """The key of each cache of a recipe on one image with one object or crowd."""
    Image.new("RGB", (60, 40)).save(folder / "a.png")
    thing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": crowd}
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    content = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [thing]}
    (folder / "all.json").write_text(json.dumps(content))
    (folder / "r.toml").write_text(RECIPE.format(folder=folder))
    graph = Graph(load_recipe(folder / "r.toml"), folder / "work")
    return {node.use.name: graph.identity(node).key for node in graph.nodes.values() if node.split != "test"}


def test_what_trained_on_crowds_before_has_another_key_and_nothing_else_has(tmp_path: Path, monkeypatch: Any) -> None:
    with_a_crowd, without = keys(tmp_path, 1), keys(tmp_path, 0)
    monkeypatch.setattr(CocoDataset, "images_with_crowds", frozenset())  # as before crowds were told apart
    assert keys(tmp_path, 0) == without
    before = keys(tmp_path, 1)
    changed = {name for name, key in with_a_crowd.items() if key != before[name]}
    assert changed == {"train-svm", "train-bbox"}
