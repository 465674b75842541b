"""Evaluations made by hand: a folder in VOC's layout, detections written straight into a cache, the real eval stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cache import Writer
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import Options, run_node
from stages.contract.inputs import Inputs
from stages.datasets.voc_writer import WrittenObject, write_annotation
from stages.detect.stage import schema
from stages.detections import by_class

SIDE = 100
RECIPE = """
[datasets.train]
source = "voc:{folder}/voc:test"
[datasets.test]
source = "voc:{folder}/voc:test"
[network]
name = "shapenet"
weights = "random"
[propose]
[extract]
layers = ["pool4"]
[train-svm]
layer = "pool4"
[detect]
[eval]
"""

Box = tuple[int, int, int, int]
Things = Mapping[str, Sequence[tuple[str, Box, bool]]]
Rows = Mapping[str, Sequence[tuple[str, Box, float]]]


def write_scene(folder: Path, things: Things) -> None:
    """Images of 100 x 100 pixels with objects (class, box, difficult), as the image set "test" of `folder`/voc."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / "voc" / name).mkdir(parents=True, exist_ok=True)
    for number, (image, objects) in enumerate(things.items()):
        pixels = np.full((SIDE, SIDE, 3), 60 + 9 * number, np.uint8)
        Image.fromarray(pixels).save(folder / "voc/JPEGImages" / f"{image}.png")
        written = [WrittenObject(name, box, difficult) for name, box, difficult in objects]
        write_annotation(folder / "voc/Annotations" / f"{image}.xml", (SIDE, SIDE, 3), written)
    (folder / "voc/ImageSets/Main/test.txt").write_text("".join(f"{image}\n" for image in things))


def graph_of(folder: Path, recipe: str = RECIPE, name: str = "r") -> Graph:
    """The graph of a recipe on the scene in `folder`; caches go to `folder`/work."""
    path = folder / f"{name}.toml"
    path.write_text(recipe.format(folder=folder))
    (folder / "work").mkdir(exist_ok=True)
    return Graph(load_recipe(path), folder / "work")


def write_detections(graph: Graph, classes: Sequence[str], rows: Rows, table: str = "detect") -> None:
    """The complete cache of a detector that knows `classes` and found `rows`: (class, box, score) of each image."""
    node = graph.nodes[f"{table}@test"]
    dataset = graph.dataset("test")
    writer = Writer(
        graph.folder(node), graph.identity(node), dataset.image_ids, schema(node.settings, Inputs()), part_size=2
    )
    for part in writer.claim():
        writer.write(part, [detection_record(rows.get(image, ()), classes) for image in part.item_ids])
    writer.finish({}, lambda reader: {"classes": list(classes), "thresholds": [None] * len(classes)})
    writer.release()


def detection_record(rows: Sequence[tuple[str, Box, float]], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """One image's record, by class and within a class from the best score down."""
    rows = sorted(rows, key=lambda row: (classes.index(row[0]), -row[2]))
    boxes = np.array([row[1] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[2] for row in rows], np.float32)
    labels = np.array([classes.index(row[0]) for row in rows], np.int32)
    assert [label for label, _ in by_class(labels)] == sorted(set(labels.tolist()))
    candidates = {"candidates/score": scores, "candidates/label": labels}
    size = np.array([SIDE, SIDE], np.int32)
    return {"boxes": boxes, "score": scores, "label": labels, "image_size": size, **candidates}


def run_tables(graph: Graph, *tables: str) -> None:
    """Makes the caches of these tables, whose inputs are there."""
    for table in tables:
        assert run_node(graph, graph.select(table)[0], Options())
