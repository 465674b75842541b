"""`rcnn recall`: how well the proposals of recipes cover the objects, as a table, CSV, JSON and one figure.

A network that is read densely has no proposals; its windows, which are scored in their place, are measured instead.
After figure 4 of Faster R-CNN (Ren et al., PAMI 2017) and Hosang et al. (PAMI 2016).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import check_readable
from stages.contract.errors import StageError
from stages.matching.proposals import (
    SIZES,
    Coverage,
    are_ranked_windows,
    are_windows,
    average_recall,
    coverage,
    groups,
    recall_at,
)
from stages.pictures.palette import line_of
from stages.pictures.plots import cut, new_figure, plain, save, say
from stages.plurals import number_of
from stages.propose.methods import METHODS
from stages.tables import aligned, csv_text

LEVELS = np.round(np.arange(0.5, 1.001, 0.05), 2)
DRAWN = np.linspace(0.5, 1, 1001)
FILES = ("recall.json", "recall.csv", "recall.png")
WINDOWS_RANKED = "dense windows, ranked by the probability of their best class"
WINDOWS_IN_PLACE = "not a ranking: dense windows, scale by scale and row by row"


@dataclass(frozen=True)
class Measured:
    """One cache of proposals or windows: its name in the figure, its `key`, whether its boxes are ranked by a score,
    what order they have in words, the dataset's classes."""

    name: str
    key: str
    ranked: bool
    order: str
    classes: tuple[str, ...]
    coverage: Coverage
    work: Path


def parse_counts(text: str) -> tuple[int | None, ...]:
    """ "300,1000" as (300, 1000, None); None stands for all. Raises StageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise StageError(f"--counts {text}: must be whole numbers above 0, as --counts 300,1000,2000")
    return (*sorted({int(word) for word in words}), None)


def measure(graphs: Sequence[Graph], split: str, counts: Sequence[int | None]) -> list[Measured]:
    """Every cache of proposals or windows on `split`, each once. Raises StageError and IncompleteCache."""
    chosen: dict[str, tuple[Graph, Node]] = {}
    for graph in graphs:
        for node in proposals_of(graph, split):
            check_readable(graph, node, "to measure recall")
            chosen.setdefault(graph.identity(node).key, (graph, node))
    names = [label(graph, node, several=len(graphs) > 1) for graph, node in chosen.values()]
    unique = [
        name if names.count(name) == 1 else f"{name} ({graph.identity(node).key})"
        for name, (graph, node) in zip(names, chosen.values(), strict=True)
    ]
    return [
        measure_cache(graph, node, name, counts) for name, (graph, node) in zip(unique, chosen.values(), strict=True)
    ]


def measure_cache(graph: Graph, node: Node, name: str, counts: Sequence[int | None]) -> Measured:
    """A complete cache of proposals or windows, by its `name` in the figure."""
    reader, dataset = Reader(graph.folder(node)), graph.dataset(node.dataset)
    if are_windows(reader):
        ranked = are_ranked_windows(reader)
        order = WINDOWS_RANKED if ranked else WINDOWS_IN_PLACE
    else:
        recorded = reader.manifest["summary"].get("order")  # earlier versions recorded none
        order, ranked = recorded or METHODS[node.settings.method].order, "scores" in reader.schema.rows
    covered = coverage(reader, dataset, counts)
    return Measured(name, reader.key, ranked, order, tuple(dataset.classes), covered, graph.work)


def proposals_of(graph: Graph, split: str) -> list[Node]:
    """The recipe's nodes that make proposals, or features of windows in their place, on `split`; raises StageError if
    there is none."""
    every = covering(graph)
    nodes = [node for node in every if node.dataset == split]
    if not nodes:
        splits = ", ".join(sorted({node.dataset for node in every})) or "no split"
        raise StageError(f"{graph.recipe.path}: has proposals on {splits}, not on '{split}'; choose with --split")
    return nodes


def covering(graph: Graph) -> list[Node]:
    """The recipe's nodes whose boxes are scored: proposals, and features that are not made from any."""
    nodes = graph.making("proposals", "features")
    return [node for node in nodes if node.use.stage.makes == "proposals" or "proposals" not in node.sources]


def scored_by(detector: Node) -> Node | None:
    """What the boxes that a detector scores are read from: proposals, or the windows in their place."""
    return detector.made_from("proposals") or detector.made_from("features")


def label(graph: Graph, node: Node, several: bool) -> str:
    """The recipe's name; where it proposes in several ways the table's, after the recipe's if there are `several`."""
    uses = {node.use.name for node in covering(graph)}
    if len(uses) == 1:
        return graph.recipe.name
    return f"{graph.recipe.name} {node.use.name}" if several else node.use.name


def tell(measured: Sequence[Measured], folder: Path | None, as_json: bool) -> str:
    """Writes figure, CSV and JSON into `folder`; the table, or the JSON, that is to be printed."""
    output = OutputFolder(folder or measured[0].work / "results" / "recall", given=folder is not None)
    output.check(FILES)
    caches = [as_values(cache) for cache in measured]
    text = json.dumps(caches, indent=2, ensure_ascii=False, allow_nan=False)
    output.write("recall.json", text + "\n")
    output.write("recall.csv", csv_text(csv_rows(caches)))
    with output.file("recall.png") as path:
        plot(measured, path)
    return text if as_json else f"{format_table(caches)}\nFigure and numbers: {output.path}/"


def as_values(measured: Measured) -> dict[str, Any]:
    """A cache's numbers as JSON values: for each count and group recall at LEVELS and average recall, None for nan."""
    rows = []
    for column, count in enumerate(measured.coverage.counts):
        for group, members in groups(measured.coverage, measured.classes).items():
            overlaps = measured.coverage.overlaps[members, column]
            values = [average_recall(overlaps), *recall_at(overlaps, LEVELS).tolist()]
            average, *levels = (None if math.isnan(value) else value for value in values)
            row = {"proposals": count, "group": group, "objects": len(overlaps), "average_recall": average}
            rows.append({**row, "recall": dict(zip(map(str, LEVELS.tolist()), levels, strict=True))})
    boxes = dict(zip(map(count_words, measured.coverage.counts), measured.coverage.boxes.tolist(), strict=True))
    return {
        "name": measured.name,
        "key": measured.key,
        "ranked": measured.ranked,
        "order": measured.order,
        "boxes_per_image": boxes,
        "recall": rows,
    }


def count_words(count: int | None) -> str:
    """300 as "300", None as "all"."""
    return "all" if count is None else str(count)


def csv_rows(caches: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """A heading, and a row for each cache, count and group."""
    rows: list[list[Any]] = [
        ["cache", "proposals", "group", "objects", "average_recall", *(f"recall_{level:g}" for level in LEVELS)]
    ]
    for cache in caches:
        for row in cache["recall"]:
            head = [cache["name"], count_words(row["proposals"]), row["group"], row["objects"], row["average_recall"]]
            rows.append([*head, *row["recall"].values()])
    return rows


def format_table(caches: Sequence[dict[str, Any]]) -> str:
    """A row for each cache and count, in percent; what order the boxes have below."""
    rows = [["cache", "objects", "proposals", "per image", "at .5", "at .7", "average", *SIZES]]
    for cache in caches:
        for count, boxes in cache["boxes_per_image"].items():
            of_group = {row["group"]: row for row in cache["recall"] if count_words(row["proposals"]) == count}
            every = of_group["all"]
            values = [every["recall"]["0.5"], every["recall"]["0.7"], every["average_recall"]]
            values += [of_group[size]["average_recall"] for size in SIZES]
            shown = ["-" if value is None else f"{100 * value:.1f}" for value in values]
            rows.append([cache["name"], str(every["objects"]), count, f"{boxes:,.0f}", *shown])
    head = "Recall at IoU .5 and .7, and average recall, for all, small, medium and large objects; percent"
    orders = [f"The first N of {cache['name']}: {cache['order']}." for cache in caches]
    return "\n".join([head, *aligned(rows, rules_before=(1,)), *orders])


def panels(measured: Sequence[Measured]) -> list[int]:
    """The columns worth a panel: all boxes, and before them each count that some cache has more boxes than."""
    first = measured[0].coverage
    return [
        column
        for column, count in enumerate(first.counts)
        if count is None or any(cache.coverage.boxes[column] < cache.coverage.boxes[-1] for cache in measured)
    ]


def plot(measured: Sequence[Measured], path: Path) -> None:
    """A PNG with recall against IoU, a panel for each number of proposals and in it a line for each cache, with its
    average recall; numbers of proposals that no cache exceeds are left out, as they are the last panel's."""
    drawn = panels(measured)
    width = 3.1 * len(drawn) + 0.5
    names = [
        f"{cut(cache.name, 9, width - 2)} ({number_of(len(cache.coverage.overlaps), 'object')}"
        f"{', ranked' if cache.ranked else ''})"
        for cache in measured
    ]
    columns = max(1, int(width / (0.6 + 0.075 * max(map(len, names)))))
    figure = new_figure(width, 3.2 + 0.2 * -(-len(names) // columns))
    axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for column, ax in zip(drawn, axes, strict=True):
        for number, cache in enumerate(measured):
            overlaps = cache.coverage.overlaps[:, column]
            average = f"{100 * average_recall(overlaps):.1f}" if len(overlaps) else "-"
            recall = 100 * recall_at(overlaps, DRAWN)
            ax.plot(DRAWN, recall, label=average, linewidth=1.5, clip_on=False, **line_of(number))
        if not any(len(cache.coverage.overlaps) for cache in measured):
            say(ax, "no objects to cover")
        count = measured[0].coverage.counts[column]
        boxes = sorted(
            {f"{cache.coverage.boxes[column]:,.0f}" for cache in measured}, key=lambda text: (len(text), text)
        )
        spread = boxes[0] if len(boxes) == 1 else f"{boxes[0]} to {boxes[-1]}"
        ax.set_title(
            f"all proposals: {spread} per image" if count is None else number_of(count, "proposal"), fontsize=10
        )
        ax.set(xlim=(0.5, 1), ylim=(0, 100), xlabel="IoU", xticks=LEVELS[::2])
        ax.xaxis.set_major_formatter("{x:g}")
        plain(ax)
        ax.legend(title="average recall", loc="best", fontsize=8, title_fontsize=8, framealpha=0.85)
    axes[0].set_ylabel("recall, percent")
    figure.legend(axes[0].get_lines(), names, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    save(figure, path)
