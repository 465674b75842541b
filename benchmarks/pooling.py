"""The features of two recipes, one image at a time: `python -m benchmarks.pooling A.toml B.toml --work work`.

Both are computed on demand on one core of the CPU (no cache is read or written but those of networks and proposals,
which must be complete: run the recipes first). The two take turns image by image; printed is the processor time per
image, and the median and the 5th and 95th percentile of A / B. With method = "roi-pool", that of the maps alone, too.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import describe_machine
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import on_demand
from stages.contract.execution import Execution


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs=2, type=Path, metavar="RECIPE")
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args(arguments)
    print(f"{datetime.date.today().isoformat()}, {describe_machine(1)}")
    graphs = [Graph(load_recipe(path), options.work) for path in options.recipes]
    readers = [on_demand(graph, features_of(graph), Execution()) for graph in graphs]
    ids = readers[0].item_ids[: options.images]
    seconds: list[list[float]] = [[], []]
    rows = []
    for reader in readers:
        reader.record(ids[0])  # loads the network
    for image_id in ids:
        for reader, taken in zip(readers, seconds, strict=True):
            record, needed = timed(reader.record, image_id)
            taken.append(needed)
        rows.append(len(record["boxes"]))
    print(f"{len(ids)} images, {np.mean(rows):.0f} regions each")
    for path, reader, taken in zip(options.recipes, readers, seconds, strict=True):
        maps = reader.task.maps
        alone = [timed(maps.read, image_id)[1] for image_id in ids] if maps is not None else []
        remark = f", the maps alone {1000 * np.median(alone):.0f} ms" if alone else ""
        print(f"{path}: median {1000 * np.median(taken):.0f} ms{remark}")
    low, middle, high = np.percentile(np.array(seconds[0]) / np.array(seconds[1]), (5, 50, 95))
    print(f"ratio {middle:.2f} ({low:.2f} to {high:.2f})")


def features_of(graph: Graph) -> Node:
    """The features of the test set."""
    return next(node for node in graph.making("features") if node.split == "test")


def timed(compute: Callable[[str], Any], image_id: str) -> tuple[Any, float]:
    """The image's record, and the processor time that it took."""
    started = time.process_time()
    return compute(image_id), time.process_time() - started


if __name__ == "__main__":
    main()
