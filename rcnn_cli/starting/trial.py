"""What a recipe costs on this machine, measured on a few images and a few iterations.

`rcnn plan` takes all iterations of a training on its sample; this takes ITERATIONS of them, since their number is what
is to be chosen.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import Recipe
from rcnn_cli.running.planning import SampleGraph, Stopwatch, quiet, seconds_per_item, spread
from rcnn_cli.running.runner import Options, run_node
from stages.datasets import Dataset

log = logging.getLogger("rcnn")

SAMPLE = 4
ITERATIONS = 6


@dataclass(frozen=True)
class Cost:
    """Seconds that a cache takes: to begin, and for each of so many `items`, images or iterations of a training
    (`trains`). `by_region`: what an image takes is spent on its regions."""

    begin: float
    each: float
    items: int
    trains: bool = False
    by_region: bool = False


class TrialGraph(SampleGraph):
    """A sample of images that have objects, where enough do: a training cannot begin without any."""

    def dataset(self, name: str, *kinds: str) -> Any:
        """The sample of a split."""
        whole = self.whole.dataset(name, *kinds)
        if name not in self.open_datasets and isinstance(whole, Dataset):
            annotated = [place for place, one in enumerate(whole.image_ids) if len(whole.record(one).labels)]
            if len(annotated) >= self.count:
                chosen = [annotated[place] for place in spread(len(annotated), self.count)]
                self.open_datasets[name] = whole.subset(chosen)
        return super().dataset(name, *kinds)


def trial(recipe: Recipe, work: Path, options: Options, makes: str = "detections") -> dict[str, Cost]:
    """The costs of the caches up to those that are detections, by name; says which is measured. Raises what running the
    recipe raises.

    Trainings by iterations are to have ITERATIONS of them in the `recipe`, and cost what each costs.
    """
    graph = Graph(recipe, work)
    graph.check()
    graph.open_own_data()
    with tempfile.TemporaryDirectory(prefix="rcnn-init-") as folder:
        small = TrialGraph(graph, Path(folder), SAMPLE)
        names = {node.name for last in small.making(makes) for node in small.needed(last)}
        nodes = [node for node in small.caches() if node.name in names]
        costs: dict[str, Cost] = {}
        for node in nodes:
            log.info("%s: measuring on a sample (%d of %d)", node.name, len(costs) + 1, len(nodes))
            with quiet():
                costs[node.name] = measured(small, node, options)
        return costs


def measured(small: SampleGraph, node: Node, options: Options) -> Cost:
    """Runs a node on the sample."""
    execution = options.execution
    watch = Stopwatch(execution.progress)
    few = max(1, SAMPLE // (2 * execution.jobs))  # enough parts for all processes
    run_node(
        small, node, replace(options, execution=replace(execution, progress=watch.opened), part_size=few, adopt=False)
    )
    finished = watch.elapsed()
    rate = seconds_per_item(watch.events, watch.first or finished, execution.jobs)
    done = sum(items for _, items in watch.events)
    begin = max(0.0, finished - rate * done)
    if trains_by_iterations(node):
        return Cost(begin, rate, ITERATIONS, trains=True)
    sample, whole = small.dataset(node.dataset), small.whole.dataset(node.dataset)
    stage = node.use.stage
    if not stage.follows_split:
        return Cost(begin, (finished - begin) / len(sample), len(whole))
    return Cost(begin, rate, len(whole), by_region=stage.makes == "features")


def trains_by_iterations(node: Node) -> bool:
    """Whether a node is a training whose iterations the recipe states."""
    return node.use.stage.log is not None and hasattr(node.settings, "iterations")
