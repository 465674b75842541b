"""Runs the cells of a grid; caches that cells share, by their keys, are made once.

A *run* is a cell with one of the grid's seeds. Numbers are read from caches' manifests: "map" is in the summary of the
cell's evaluation, "coco.AP" in a table of that summary, "propose@test:boxes_per_image" in the summary of another cache
of the recipe. A cell may end in proposals instead of an evaluation; "recall.300.0.7" and "recall.all.average" are the
recall and average recall of their first 300, and of all, by `stages.matching.proposals`; "extract@test:recall.all.0.5"
is that of the boxes that are scored, proposals or not. "training_minutes" and "cache_megabytes" are what a cell cost:
the time of the caches that its detector was trained from, and the size of all.
"""

from __future__ import annotations

import logging
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from cache.files import is_number
from rcnn_cli.experiments.grid import Cell, Grid, GridError, flattened, merged, nested
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import RecipeError, apply_change, build_recipe, read_toml
from rcnn_cli.running.runner import Options, complete, ensure, look, tell_uncached
from rcnn_cli.running.waiting import is_complete
from stages.contract.catalogue import catalogue
from stages.contract.kinds import MEASURED
from stages.contract.settings import nearest
from stages.matching.proposals import average_recall, coverage, recall_at

log = logging.getLogger("rcnn")

SHARES = (
    *("map", "map_11", "map_area", "ap_11", "ap_area", "error", "class_error", "top_1_error", "top_5_error"),
    *("mean_accuracy", "mean_accuracy_low", "mean_accuracy_high", "pixel_accuracy", "accuracy"),
)
"""Numbers shown in percent, like everything in a table `coco`."""
COCO, LOCALISATION = "coco", "localisation"
ON_REQUEST = {COCO: "measure by COCO's rules", LOCALISATION: "measure ILSVRC's localisation error"}
"""Tables of an evaluation's summary that a setting of the same name adds, and what it then does."""
RECALL = re.compile(r"recall\.([1-9][0-9]*|all)\.(0\.[0-9]+|1|average)")
PROPOSALS, FEATURES, TEST = "proposals", "features", "test"
TRAINING, SIZE = "training_minutes", "cache_megabytes"
Explain = Callable[[BaseException], str]


@dataclass(frozen=True)
class Run:
    """A cell with a seed: the graph of its recipe; the `evaluation` whose numbers are shown, which may be proposals;
    the caches that this and the metrics need, inputs first, and their keys."""

    cell: Cell
    seed: int | None
    graph: Graph
    evaluation: Node
    nodes: tuple[Node, ...]
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run in messages: "fc7", "fc7, seed 2"."""
        return self.cell.name if self.seed is None else f"{self.cell.name}, seed {self.seed}"

    @property
    def key(self) -> str:
        """The key of the evaluation."""
        return self.graph.identity(self.evaluation).key


@dataclass(frozen=True)
class Count:
    """For a stage: how many distinct caches the runs need, how many are complete, how many several runs share."""

    stage: str
    caches: int
    complete: int
    shared: int

    @property
    def missing(self) -> int:
        """How many caches are still to be made."""
        return self.caches - self.complete


@dataclass
class Plan:
    """The runs in order: all cells for the first seed, then for the next; `failed` maps (cell, seed) to the reason.
    `recipe`: the base recipe, None if every cell names its own."""

    grid: Grid
    recipe: Path | None
    work: Path
    runs: list[Run] = field(default_factory=list)
    failed: dict[tuple[str, int | None], str] = field(default_factory=dict)

    def counts(self) -> list[Count]:
        """The caches that all runs need, by stage, in the order of the pipeline. Changes nothing on disk."""
        needed = Counter(key for run in self.runs for key in run.keys)
        caches = {
            key: (node.use.stage.name, is_complete(run.graph, node))
            for run in self.runs
            for key, node in zip(run.keys, run.nodes, strict=True)
        }
        order = list(catalogue())
        of_stage: dict[str, list[str]] = {}
        for key, (stage, _) in sorted(caches.items(), key=lambda cache: order.index(cache[1][0])):
            of_stage.setdefault(stage, []).append(key)
        return [
            Count(stage, len(keys), sum(caches[key][1] for key in keys), sum(needed[key] > 1 for key in keys))
            for stage, keys in of_stage.items()
        ]

    def makers(self) -> list[Node]:
        """The nodes whose caches are still to be made, and those computed on demand in the process."""
        nodes = {key: (run, node) for run in self.runs for key, node in zip(run.keys, run.nodes, strict=True)}
        return [
            maker
            for run, node in nodes.values()
            if not is_complete(run.graph, node)
            for maker in run.graph.makers([node])
        ]


@dataclass(frozen=True)
class Spread:
    """The mean of `count` values and their sample standard deviation (None for a single value)."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Row:
    """The outcome of a cell. `values`: by the metrics' titles; `classes`: APs by class; APs are in percent, and None if
    there are no objects to find. `seeds`: the values of each run; `error`: why the cell failed."""

    cell: Cell
    values: Mapping[str, Spread | None]
    classes: Mapping[str, Spread | None]
    measure: str = ""
    seeds: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    caches: tuple[str, ...] = ()
    error: str | None = None


# Planning


def base_table(grid: Grid, recipe: Path, changes: Sequence[str]) -> dict[str, Any]:
    """The tables to which the cells' changes are applied: the recipe with the grid's changes and `--set`."""
    table = grid.base.applied(read_toml(recipe))
    for change in changes:
        apply_change(table, change)
    return table


def base_recipe(grid: Grid, option: Path | None) -> Path | None:
    """--recipe, else the recipe that the grid names; None if every cell names its own. Raises GridError if a cell has
    none, or if none would take --recipe."""
    without = [cell.name for cell in grid.cells if cell.recipe is None]
    if option is not None and not without:
        raise GridError(f"--recipe {option}: every cell of {grid.path} names its own recipe; leave the option out")
    if option is None and grid.recipe is None and without:
        raise GridError(
            f"{grid.path}: names no base recipe, and '{without[0]}' has none of its own; add recipe = \"...\", or pass "
            "--recipe"
        )
    return option or grid.recipe


def make_plan(grid: Grid, recipe: Path | None, changes: Sequence[str], work: Path, explain: Explain) -> Plan:
    """The graphs and keys of all runs; a cell with an invalid recipe fails here. Raises GridError and RecipeError."""
    shared = None if recipe is None else base_table(grid, recipe, changes)
    plan, datasets = Plan(grid, recipe, work), dict[str, Any]()
    for seed in grid.seeds or (None,):
        for cell in grid.cells:
            try:
                own = cell.recipe or recipe
                assert own is not None, "base_recipe has seen to that"
                base = base_table(grid, own, changes) if shared is None or cell.recipe else shared
                graph = Graph(build_recipe(own, run_table(base, cell, seed, grid.seed_settings)), work, datasets)
                plan.runs.append(make_run(cell, seed, graph, grid.metrics))
            except Exception as error:
                plan.failed[cell.name, seed] = explain(error)
    warn_of_seeds(plan)
    warn_of_twins(plan)
    return plan


def run_table(base: Mapping[str, Any], cell: Cell, seed: int | None, settings: Sequence[str]) -> dict[str, Any]:
    """The tables of a run's recipe: `base` with the cell's changes, and the seed in those `settings` that it has."""
    table = dict(base)
    for change in cell.changes:
        table = change.applied(table)
    seeded = [name for name in settings if seed is not None and has_table(table, name)]
    return merged(table, nested(dict.fromkeys(seeded, seed)))


def make_run(cell: Cell, seed: int | None, graph: Graph, metrics: Mapping[str, str]) -> Run:
    """The run with the keys of its caches (which reads the checksums of datasets and weights). Raises RecipeError."""
    evaluation = end_of(graph, cell.evaluation)
    ends = [evaluation, *(node_of(graph, evaluation, name) for name in metrics.values())]
    graph.check(ends)
    needed = {node.name for end in ends for node in caches_of(graph, end)}
    nodes = tuple(node for node in graph.caches() if node.name in needed)
    run = Run(cell, seed, graph, evaluation, nodes, tuple(graph.identity(node).key for node in nodes))
    for name in metrics.values():
        check_metric(run, name)
    return run


def caches_of(graph: Graph, node: Node) -> list[Node]:
    """The caches up to and including the node's, inputs first."""
    return [other for other in graph.needed(node) if graph.is_cached(other)]


def check_metric(run: Run, name: str) -> None:
    """Raises RecipeError for a metric of a cache that its settings do not request, or that has no such metric.

    Whether the cache's summary has a number of that name is known only once it exists.
    """
    node = node_of(run.graph, run.evaluation, name)
    if RECALL.fullmatch(name.rpartition(":")[2]) and node.use.stage.makes not in (PROPOSALS, FEATURES):
        raise RecipeError(f"metrics: '{name}': {node.name} has no proposals; name a table of them as the evaluation")
    for table, words in ON_REQUEST.items():
        if is_in(table, name.rpartition(":")[2]) and not getattr(node.settings, table, True):
            raise RecipeError(f"metrics: '{name}': {node.name} does not {words}; set {node.use.name}.{table} = true")


def has_table(table: Mapping[str, Any], setting: str) -> bool:
    """Whether the recipe has the table that the dotted `setting` belongs to."""
    for key in setting.split(".")[:-1]:
        inner = table.get(key)
        if not isinstance(inner, dict):
            return False
        table = inner
    return True


def warn_of_seeds(plan: Plan) -> None:
    """Warns of seed settings that no cell has."""
    for name in plan.grid.seed_settings:
        if not any(has_table(run.graph.recipe.as_json(), name) for run in plan.runs):
            log.warning("seed_settings '%s': no cell's recipe has that table", name)


def evaluation_of(graph: Graph, name: str) -> Node:
    """The node of the evaluation `name`. Raises RecipeError if the recipe has none."""
    evaluations = {node.use.name: node for node in graph.making(*MEASURED)}
    if name not in evaluations:
        raise RecipeError(f"{graph.recipe.path}: has no evaluation [{name}]{nearest(name, evaluations)}")
    return evaluations[name]


def end_of(graph: Graph, name: str) -> Node:
    """The node of the evaluation `name`, or of the cached proposals of that table on the test set. Raises RecipeError
    if the recipe has neither."""
    ends = {node.use.name: node for node in graph.making(PROPOSALS) if node.dataset == TEST and graph.is_cached(node)}
    return ends[name] if name in ends else evaluation_of(graph, name)


def warn_of_twins(plan: Plan) -> None:
    """Warns of cells that are identical because their differences do not reach the evaluation."""
    first: dict[str, Run] = {}
    for run in plan.runs:
        twin = first.setdefault(run.key, run)
        if twin.cell is not run.cell and run.seed == twin.seed:
            log.warning("'%s' is the same as '%s': what they change does not affect the result", run.name, twin.name)


# Running


def execute(plan: Plan, options: Options, explain: Explain) -> list[Row]:
    """Makes what is missing, run by run, and returns one row per cell. If a run fails, the others continue.

    A cache that has failed once is not tried again for another cell.
    """
    broken: dict[str, str] = {}
    for number, run in enumerate(plan.runs, start=1):
        reason = make(run, f"[{number}/{len(plan.runs)}] {run.name}", options, broken, explain)
        if reason is not None:
            log.warning("%s: failed: %s", run.name, reason)
            plan.failed[run.cell.name, run.seed] = reason
    return [row_of(plan, cell, explain) for cell in plan.grid.cells]


def make(run: Run, label: str, options: Options, broken: dict[str, str], explain: Explain) -> str | None:
    """Makes the missing caches of a run, inputs first; returns the reason if one cannot be made."""
    there = {node.name for node in run.nodes if complete(run.graph, node)}
    missing = [node.name for node in run.nodes if node.name not in there]
    reused = ", ".join(node.name for node in run.nodes if node.name in there)
    log.info("%s: reuses %s; makes %s", label, reused or "nothing", ", ".join(missing) or "nothing")
    tell_uncached(run.graph, run.nodes)
    for node, key in zip(run.nodes, run.keys, strict=True):
        if key in broken:
            return broken[key]
        try:
            ensure(run.graph, node, options, there)
        except Exception as error:
            broken[key] = f"{node.name}: {explain(error)}"
            return broken[key]
    return None


# Numbers


def row_of(plan: Plan, cell: Cell, explain: Explain) -> Row:
    """The cell's row: its numbers over the seeds, or why it failed."""
    runs = [run for run in plan.runs if run.cell is cell]
    reasons = {seed: reason for (name, seed), reason in plan.failed.items() if name == cell.name}
    if reasons:
        seed, reason = next(iter(reasons.items()))
        return Row(cell, {}, {}, error=reason if seed is None else f"seed {seed}: {reason}")
    try:
        values = {
            title: [(key_of(run, name), number_of(run, name)) for run in runs]
            for title, name in plan.grid.metrics.items()
        }
    except RecipeError as error:
        plan.failed[cell.name, None] = explain(error)
        return Row(cell, {}, {}, error=plan.failed[cell.name, None])
    classes = [(run.key, class_values(run)) for run in runs]
    seeds = {str(run.seed): {title: of[place][1] for title, of in values.items()} for place, run in enumerate(runs)}
    return Row(
        cell,
        {title: spread(numbers) for title, numbers in values.items()},
        {name: spread([(key, aps.get(name)) for key, aps in classes]) for name in classes[0][1]},
        measure_of(runs[0]),
        seeds if plan.grid.seeds else {},
        tuple(dict.fromkeys(str(run.graph.folder(run.evaluation).relative_to(run.graph.work)) for run in runs)),
    )


def node_of(graph: Graph, evaluation: Node, name: str) -> Node:
    """The node that has the number `name`: the one it names, else the evaluation. Raises RecipeError if there is no
    such cache."""
    table = name.rpartition(":")[0]
    nodes = {node.name: node for node in graph.caches()}
    if table and table not in nodes:
        raise RecipeError(f"metrics: '{table}' is not a cache of this recipe{nearest(table, nodes)}")
    return nodes[table] if table else evaluation


def key_of(run: Run, name: str) -> str:
    """The key of the cache that has the number `name`."""
    return run.graph.identity(node_of(run.graph, run.evaluation, name)).key


def number_of(run: Run, name: str) -> float | None:
    """The number `name` of a run, in percent if it is an AP. Raises RecipeError if there is none."""
    key, node = name.rpartition(":")[2], node_of(run.graph, run.evaluation, name)
    if key == TRAINING:
        return training_minutes(run.graph, node)
    if key == SIZE:
        return sum(manifest_of(run.graph, cached)["bytes"] for cached in caches_of(run.graph, node)) / 1e6
    if recall := RECALL.fullmatch(key):
        return recall_of(run, node, *recall.groups())
    numbers = {key: value for key, value in flattened(summary_of(run, node)) if is_number(value) or is_share(key)}
    if key not in numbers:
        # There are too many numbers of single classes to list.
        known = numbers if "." in key else [name for name in numbers if not name.startswith("classes.")]
        raise RecipeError(f"metrics: {node.name} has no number '{key}'{nearest(key, known)}")
    value = numbers[key]
    return 100 * value if value is not None and is_share(key) else value


def recall_of(run: Run, node: Node, count: str, level: str) -> float | None:
    """The recall of the first `count` proposals, or boxes with features, at the IoU `level`, or their average recall,
    in percent; None if there are no objects."""
    first = None if count == "all" else int(count)
    overlaps = coverage(Reader(run.graph.folder(node)), run.graph.dataset(node.dataset), [first]).overlaps[:, 0]
    recall = average_recall(overlaps) if level == "average" else recall_at(overlaps, np.array([float(level)]))[0]
    return None if math.isnan(recall) else 100 * float(recall)


def ends_in_proposals(run: Run) -> bool:
    """Whether the run ends in proposals, not in a measurement."""
    return run.evaluation.use.stage.makes == PROPOSALS


def ends_in_detections(run: Run) -> bool:
    """Whether the run ends in an evaluation of detections."""
    return "map" in summary_of(run, run.evaluation)


def recall_counts(grid: Grid) -> list[int | None]:
    """The numbers of proposals at which the grid measures recall, and all; empty if it measures none."""
    recalls = [recall for name in grid.metrics.values() if (recall := RECALL.fullmatch(name))]
    counts = {int(recall[1]) for recall in recalls if recall[1] != "all"}
    return [*sorted(counts), None] if recalls else []


def is_share(key: str) -> bool:
    """Whether the dotted `key` of a summary is an AP, a recall, an error or a mean of those, in [0, 1] or None."""
    return is_in(COCO, key) or (not key.startswith("bootstrap.") and key.rpartition(".")[2] in SHARES)


def is_in(table: str, key: str) -> bool:
    """Whether the dotted `key` is in this `table` of a summary, such as coco.AP or classes.cat.coco.AP50 in "coco"."""
    return table in key.split(".")[:-1]


def training_minutes(graph: Graph, node: Node) -> float | None:
    """The minutes of the commands that finished the caches that the node needs, but for those through which its images
    pass: what it took to make the detector. None if a manifest does not say."""
    of_images = {other.name for other in node.image_path()}
    trained = [cached for cached in caches_of(graph, node) if cached.name not in of_images]
    seconds: list[Any] = [manifest_of(graph, cached).get("seconds") for cached in trained]
    known = [value for value in seconds if is_number(value)]
    return sum(known) / 60 if len(known) == len(seconds) else None


def manifest_of(graph: Graph, node: Node) -> Mapping[str, Any]:
    """The manifest of a complete cache."""
    manifest = look(graph, node).recorded
    assert manifest is not None, "the run is complete"
    return manifest


def summary_of(run: Run, node: Node) -> Mapping[str, Any]:
    """The summary of a complete cache."""
    return manifest_of(run.graph, node)["summary"]


def class_values(run: Run) -> dict[str, float | None]:
    """The AP of each class in percent, by the evaluation's metric, or its accuracy in segmentations; None if it has no
    objects, or no pixels. Proposals and class scores have none."""
    from stages.eval.report import MEASURES

    summary = summary_of(run, run.evaluation)
    if not ends_in_detections(run) and "mean_accuracy" not in summary:
        return {}
    measure = MEASURES[summary["metric"]] if ends_in_detections(run) else "accuracy"
    aps = {name: numbers[measure] for name, numbers in summary["classes"].items()}
    return {name: None if ap is None else 100 * ap for name, ap in aps.items()}


def measure_of(run: Run) -> str:
    """The AP's definition in a few words: "11-point", "area @ 0.7"; "" for proposals and class scores."""
    from stages.eval.report import headline

    return headline(summary_of(run, run.evaluation)) if ends_in_detections(run) else ""


def spread(values: Sequence[tuple[str, float | None]]) -> Spread | None:
    """Mean and sample standard deviation (n - 1) of `values`, (cache key, value) pairs; None if a value is missing.

    Runs that share a cache, because the seed does not affect it, count as one value.
    """
    distinct = dict(values).values()
    present = [value for value in distinct if value is not None]
    if len(present) < len(distinct):
        return None
    deviation = statistics.stdev(present) if len(present) > 1 else None
    return Spread(statistics.fmean(present), deviation, len(present))
