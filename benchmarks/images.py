"""From an image's pixels to its detections: `python -m benchmarks.images RECIPE... --work work`.

The detectors of the recipes, which must have been run, compute proposals, features and detections of the same test
images on one core of the CPU, as `rcnn predict` does; they take turns image by image. Printed is the processor time per
image, without decoding, and the median and the 5th and 95th percentile of the first recipe's time over each other's.
Where proposals and features come from the same maps (Faster R-CNN), a detector that runs the trunk twice, once for
each, takes part as well.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import describe_machine
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import Computed, on_demand
from stages.contract.execution import Execution
from stages.datasets import Photos
from stages.images.reading import Pixels


@dataclass
class Detector:
    """A detector that computes everything from pixels, and the seconds that it took."""

    name: str
    graph: Graph
    apart: bool = False
    photos: Photos = field(default_factory=Photos)
    seconds: list[float] = field(default_factory=list)

    def open(self) -> None:
        """Loads nothing yet; `apart` gives proposals maps of their own."""
        node, computed = test_node(self.graph, "detections"), Computed()
        if self.apart:
            proposals = test_node(self.graph, "features").sources["proposals"]
            assert isinstance(proposals, Node)
            computed = {proposals.name: on_demand(self.graph, proposals, Execution(), self.photos)}
        self.reader = on_demand(self.graph, node, Execution(), self.photos, computed)

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
    options = parser.parse_args(arguments)
    print(f"{datetime.date.today().isoformat()}, {describe_machine(1)}")
    detectors = []
    for path in options.recipes:
        graph = Graph(load_recipe(path), options.work)
        detectors.append(Detector(str(path), graph))
        if shares_maps(graph):
            detectors.append(Detector(f"{path}, the trunk run twice", graph, apart=True))
    for detector in detectors:
        detector.open()
    measure(detectors, options.images)
    for detector in detectors:
        milliseconds = 1000 * np.median(detector.seconds)
        low, middle, high = np.percentile(np.array(detectors[0].seconds) / np.array(detector.seconds), (5, 50, 95))
        print(f"{detector.name}: median {milliseconds:.0f} ms, ratio {middle:.2f} ({low:.2f} to {high:.2f})")


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


def shares_maps(graph: Graph) -> bool:
    """Whether proposals and features of the test set are made from the same maps."""
    features = test_node(graph, "features")
    proposals = features.sources["proposals"]
    return isinstance(proposals, Node) and features.sources.get("maps") in list(proposals.sources.values())


if __name__ == "__main__":
    main()
