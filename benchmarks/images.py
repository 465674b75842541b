"""From an image's pixels to its detections: `python -m benchmarks.images RECIPE... --work work`.

The detectors of the recipes, or of the cells of a grid, which must have been run, compute proposals, features and
detections of the same test images on one core of the CPU, as `rcnn predict` does; they take turns image by image.
Printed is the processor time per image, without decoding, and the median and the 5th and 95th percentile of the first
detector's time over each other's; `--json FILE` keeps it. Where proposals and features come from the same maps (Faster
R-CNN), a recipe's detector that runs the trunk twice, once for each, takes part as well.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import describe_machine
from rcnn_cli.experiments.ablation import base_recipe, make_plan
from rcnn_cli.experiments.grid import is_grid, load_grid
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import Computed, on_demand
from rcnn_cli.sentences import explain
from stages.contract.execution import Execution
from stages.datasets import Photos
from stages.images.reading import Pixels


@dataclass
class Detector:
    """A detector that computes everything from pixels, and the seconds that it took."""

    name: str
    graph: Graph
    node: Node
    apart: bool = False
    photos: Photos = field(default_factory=Photos)
    seconds: list[float] = field(default_factory=list)

    def open(self) -> None:
        """Loads nothing yet; `apart` gives proposals maps of their own."""
        computed = Computed()
        if self.apart:
            proposals = self.node.made_from("proposals")
            assert proposals is not None
            computed = {proposals.name: on_demand(self.graph, proposals, Execution(), self.photos)}
        self.reader = on_demand(self.graph, self.node, Execution(), self.photos, computed)

    def detect(self, name: str, pixels: Pixels) -> Any:
        """The detections in an image."""
        self.photos.show(name, pixels)
        return self.reader.record(name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE")
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times of all images to FILE")
    options = parser.parse_args(arguments)
    date, machine = datetime.date.today().isoformat(), describe_machine(1)
    print(f"{date}, {machine}")
    detectors = [detector for path in options.recipes for detector in detectors_of(path, options.work)]
    for detector in detectors:
        detector.open()
    measure(detectors, options.images)
    for detector in detectors:
        milliseconds = 1000 * np.median(detector.seconds)
        low, middle, high = np.percentile(np.array(detectors[0].seconds) / np.array(detector.seconds), (5, 50, 95))
        print(f"{detector.name}: median {milliseconds:.0f} ms, ratio {middle:.2f} ({low:.2f} to {high:.2f})")
    if options.json is not None:
        seconds = {detector.name: detector.seconds for detector in detectors}
        options.json.write_text(json.dumps({"date": date, "machine": machine, "seconds": seconds}, indent=2) + "\n")


def detectors_of(path: Path, work: Path) -> Iterator[Detector]:
    """The detector of a recipe, also with the trunk run twice if that makes a difference; or those of a grid's cells,
    with its first seed, by their names."""
    if is_grid(path):
        grid = load_grid(path)
        plan = make_plan(grid, base_recipe(grid, None), (), work, explain)
        if plan.failed:
            raise SystemExit(f"{path}: {plan.failed}")
        for run in plan.runs:
            node = run.evaluation.made_from("detections")
            if node is not None and run.seed in (None, *grid.seeds[:1]):
                yield Detector(run.cell.name, run.graph, node)
        return
    graph = Graph(load_recipe(path), work)
    node = test_node(graph, "detections")
    yield Detector(str(path), graph, node)
    if shares_maps(node):
        yield Detector(f"{path}, the trunk run twice", graph, node, apart=True)


def measure(detectors: Sequence[Detector], images: int) -> None:
    """Runs the detectors in turn on the first test images of the first one's recipe."""
    dataset: Any = detectors[0].graph.dataset("test")
    for count, image_id in enumerate(dataset.image_ids[:images]):
        pixels = dataset.image_file(image_id).read()
        for detector in detectors:
            if not count:
                detector.detect(image_id, pixels)  # loads the network
            started = time.process_time()
            detector.detect(image_id, pixels)
            detector.seconds.append(time.process_time() - started)
        print(f"image {count + 1}", end="\r", flush=True)


def test_node(graph: Graph, kind: str) -> Node:
    """What makes this kind for the test set: that of the table with the stage's own name, else the first."""
    nodes = [node for node in graph.making(kind) if node.split == "test"]
    return next((node for node in nodes if node.use.name == node.use.stage.name), nodes[0])


def shares_maps(detector: Node) -> bool:
    """Whether a detector's proposals and features are made from the same maps."""
    features = detector.made_from("features")
    proposals = None if features is None else features.sources.get("proposals")
    if features is None or not isinstance(proposals, Node):
        return False
    return features.sources.get("maps") in list(proposals.sources.values())


if __name__ == "__main__":
    main()
