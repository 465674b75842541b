"""`python -m benchmarks.tolerance RECIPE --work WORK`: what liblinear's tolerance costs and what it gains.

RECIPE's features on its training and test sets must be cached in WORK; nothing is written there. For each variant,
`train-svm` and the stages after it up to `--evaluation` are run again in one process.

The first table covers all of training, with mining: processor seconds of `train-svm`, iterations, trainings that
stopped at `max_iterations`; then, compared with the first variant, the scores of all test regions by all classes, the
hard negatives of the last round that both have, and mAP. The second covers single trainings on the first variant's
examples of the last round: how far the objective is above its minimum (found with a tolerance of 1e-7), the duality
gap reported for an SVM that has not converged, and the scores of these examples against the minimum's and between two
seeds.

A variant is `tolerance` or `tolerance/max_iterations`, optionally followed by settings, as in
`1e-4,loss=squared_hinge`; `early=0.1` uses that tolerance before the last image.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.classes import describe
from cache import Reader
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import Options, run_node
from stages.contract.execution import Execution
from stages.features.linear_models import read_svms
from stages.features.sparse import sparse_rows
from stages.train_svm import Settings
from stages.train_svm import stage as train_svm
from stages.train_svm.duality import relative_gap
from stages.train_svm.mining import ClassMiner
from stages.train_svm.pool import Keys
from stages.train_svm.solver import Solution, minimise

VARIANTS = (
    *("1e-6/100000", "0.1", "0.01", "1e-3", "1e-4", "1e-4/10000", "1e-5/100000", "1e-4/10000,early=0.1"),
    *("1e-4/10000,loss=squared_hinge", "1e-4/10000,target_norm=10", "1e-4/10000,target_norm=40"),
)
TOLERANCES = (0.1, 0.01, 1e-3, 1e-4, 1e-5)
PATIENT = 100_000


@dataclass(frozen=True)
class Variant:
    """Changes of train-svm's settings, and the tolerance before the last image if it differs."""

    name: str
    settings: dict[str, str]
    early: float | None


@dataclass
class Trained:
    """The result of a variant. `examples`: for each class, the features of its last round, [n, D] in their stored
    dtype, and the number of positives; `negatives`: the keys of its hard negatives; `scores`, float32 [regions,
    classes]: those of the test set."""

    seconds: float
    iterations: int
    stopped: int
    trainings: int
    scores: np.ndarray
    mean_ap: float
    negatives: dict[str, Keys]
    examples: dict[str, tuple[np.ndarray, int]]
    scale: float


def parse_variant(text: str) -> Variant:
    """Parses "1e-4/10000,loss=squared_hinge,early=0.1"."""
    first, *others = text.split(",")
    tolerance, slash, iterations = first.partition("/")
    settings = {"tolerance": tolerance, **({"max_iterations": iterations} if slash else {})}
    settings |= dict(change.split("=", 1) for change in others)
    early = settings.pop("early", None)
    return Variant(text, settings, float(early) if early else None)


def train(recipe: Path, work: Path, variant: Variant, options: argparse.Namespace) -> Trained:
    """Trains, detects and evaluates in a temporary folder, using the features in `work`."""
    changes = [f"{options.table}.{name}={value}" for name, value in variant.settings.items()]
    with tempfile.TemporaryDirectory() as folder:
        link(work, Path(folder))
        graph = Graph(load_recipe(recipe, [*options.set, *changes]), Path(folder))
        (node,), (evaluation,) = graph.select(options.table), graph.select(options.evaluation)
        made = Options(Execution(jobs=1))
        examples: dict[str, tuple[np.ndarray, int]] = {}
        negatives: dict[str, Keys] = {}

        class Watched(train_svm.Mining):
            """Mining that keeps the last round's examples and may use another tolerance before the last image."""

            def visit(self, image: int, record: Any) -> None:
                final = image == len(self.features) - 1
                if variant.early is not None:
                    tolerance = node.settings.tolerance if final else variant.early
                    self.settings = dataclasses.replace(self.settings, tolerance=tolerance)
                super().visit(image, record)

            def take_over(self, miner: ClassMiner, image: int, solution: Solution) -> Keys:
                if image == len(self.features) - 1:
                    examples[miner.name] = (self.pool.read(miner.examples), len(miner.positives))
                    negatives[miner.name] = miner.negatives
                return super().take_over(miner, image, solution)

        own, train_svm.Mining = train_svm.Mining, Watched  # type: ignore[misc]
        try:
            started = time.process_time()
            run_node(graph, node, made)
            seconds = time.process_time() - started
        finally:
            train_svm.Mining = own  # type: ignore[misc]
        for needed in graph.needed(evaluation):
            run_node(graph, needed, made)
        reader = Reader(graph.folder(node))
        logs = [record for _, record in reader.records(["log/iterations", "log/converged"])]
        converged = np.concatenate([log["log/converged"] for log in logs])
        return Trained(
            seconds,
            int(sum(log["log/iterations"].sum() for log in logs)),
            int((~converged).sum()),
            len(converged),
            scores_of(graph, node, evaluation),
            Reader(graph.folder(evaluation)).manifest["summary"]["map_11"],
            negatives,
            examples,
            read_svms(reader).scale,
        )


def link(work: Path, folder: Path) -> None:
    """Links the caches and datasets of `work` into `folder`, except caches that depend on SVMs."""
    (folder / "caches").mkdir()
    for stage in ("pretrain", "propose", "finetune", "extract", "train-bbox"):
        if (work / "caches" / stage).exists():
            (folder / "caches" / stage).symlink_to((work / "caches" / stage).resolve())
    if (work / "datasets").exists():
        (folder / "datasets").symlink_to((work / "datasets").resolve())
    if (work / "digests").exists():
        shutil.copytree(work / "digests", folder / "digests")


def scores_of(graph: Graph, node: Node, evaluation: Node) -> np.ndarray:
    """The scores of the evaluated detector's regions for the trained classes: float32 [regions, classes]."""
    svms = read_svms(Reader(graph.folder(node)))
    detector = evaluation.sources["detections"]
    assert isinstance(detector, Node)
    features = detector.sources["features"]
    assert isinstance(features, Node)
    rows = Reader(graph.folder(features)).records([svms.layer])
    return np.concatenate([svms.score(record[svms.layer])[:, svms.trained] for _, record in rows])


def whole_table(results: dict[str, Trained]) -> Iterator[str]:
    """Lines of a Markdown table: all of training, with mining, compared with the first variant."""
    first, *_ = results.values()
    yield (
        "| variant | processor, s | iterations | stopped | difference of scores: 99th percentile, largest "
        "| hard negatives in common | mAP |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, trained in results.items():
        apart = np.abs(trained.scores - first.scores)
        shared = [
            len(np.intersect1d(trained.negatives[label], keys))
            / max(1, len(np.union1d(trained.negatives[label], keys)))
            for label, keys in first.negatives.items()
        ]
        differences = "" if trained is first else f"{np.percentile(apart, 99):.2g}, {apart.max():.2g}"
        yield (
            f"| `{name}` | {trained.seconds:.1f} | {trained.iterations:,} | {trained.stopped} of {trained.trainings} "
            f"| {differences} | {100 * float(np.mean(shared)):.1f} % | {100 * trained.mean_ap:.2f} |"
        )


def single_table(trained: Trained, settings: Settings) -> Iterator[str]:
    """Lines of a Markdown table: single trainings on the same examples."""
    yield (
        "| tolerance | processor, s | iterations, median (max.) | objective above its minimum, max. "
        "| duality gap, max. | scores against the minimum's, max. | between two seeds, max. |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    prepared = [(sparse_rows(rows, trained.scale), count) for rows, count in trained.examples.values()]
    patient = dataclasses.replace(settings, max_iterations=PATIENT, loss="hinge")
    exact = dataclasses.replace(patient, tolerance=1e-7)
    minima = [minimise(examples, count, exact) for examples, count in prepared]
    for tolerance in TOLERANCES:
        chosen = dataclasses.replace(patient, tolerance=tolerance)
        started = time.process_time()
        solutions = [minimise(examples, count, chosen) for examples, count in prepared]
        seconds = time.process_time() - started
        others = [minimise(examples, count, dataclasses.replace(chosen, seed=1)) for examples, count in prepared]
        above, gaps, to_minimum, to_other = [], [], [], []
        for (examples, count), solution, other, minimum in zip(prepared, solutions, others, minima, strict=True):
            least, reached = minimum.objective.total, solution.objective.total
            above.append((reached - least) / reached)
            gaps.append(relative_gap(examples, count, solution.weights, solution.bias, chosen))
            to_minimum.append(np.abs(scored(solution, examples) - scored(minimum, examples)).max())
            to_other.append(np.abs(scored(solution, examples) - scored(other, examples)).max())
        iterations = [solution.iterations for solution in solutions]
        yield (
            f"| {tolerance:g} | {seconds:.1f} | {np.median(iterations):,.0f} ({max(iterations):,}) | {max(above):.1e} "
            f"| {max(gaps):.1e} | {max(to_minimum):.1e} | {max(to_other):.1e} |"
        )


def scored(solution: Solution, examples: Any) -> np.ndarray:
    """The scores of scaled examples [n, D]: float64 [n]."""
    return np.asarray(examples @ solution.weights + solution.bias)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains all variants and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--work", type=Path, default=Path("work"), help="the work folder with the features")
    parser.add_argument("--set", action="append", default=[], help="a change of the recipe, as in rcnn")
    parser.add_argument("--table", default="train-svm", help="the recipe's table that trains SVMs")
    parser.add_argument("--evaluation", default="eval", help="the recipe's evaluation")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, help="the others are compared with the first")
    options = parser.parse_args(arguments)
    logging.getLogger("stages").setLevel(logging.ERROR)
    results: dict[str, Trained] = {}
    for text in options.variants:
        results[text] = train(options.recipe, options.work, parse_variant(text), options)
    settings = load_recipe(options.recipe, options.set).uses[options.table].settings
    first, *_ = results.values()
    print(describe())
    print("", *whole_table(results), "", *single_table(first, settings), sep="\n")


if __name__ == "__main__":
    main()
