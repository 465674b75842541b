"""`rcnn recall --masks`: how well the regions of recipes cover the masks of objects, as a table and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from rcnn_cli.looking.recall import count_words, label, proposals_of
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import RecipeError
from rcnn_cli.running.runner import check_readable
from stages.contract.errors import BadSetting
from stages.matching.proposals import recall_at
from stages.matching.regions import RegionCoverage, region_coverage
from stages.resampling import CONFIDENCE
from stages.tables import aligned, percent

FILES = ("regions.json",)
LEVELS = (0.5, 0.7)
RESAMPLES, SEED = 1000, 0


def measure_regions(
    graphs: Sequence[Graph], split: str, counts: Sequence[int | None], least_pixels: int
) -> list[dict[str, Any]]:
    """The numbers of every cache of proposals on `split`, each once, as JSON values. Raises RecipeError for one without
    masks, StageError and IncompleteCache."""
    chosen: dict[str, tuple[Graph, Node]] = {}
    for graph in graphs:
        for node in proposals_of(graph, split):
            check_readable(graph, node, "to measure its regions")
            chosen.setdefault(graph.identity(node).key, (graph, node))
    values = []
    for key, (graph, node) in chosen.items():
        reader = Reader(graph.folder(node))
        try:
            covered = region_coverage(reader, graph.dataset(node.dataset), counts, least_pixels)
        except BadSetting as error:
            raise RecipeError(f"{graph.recipe.path}: [{node.table}] on '{split}': {error}") from None
        name = label(graph, node, several=len(graphs) > 1)
        values.append({"name": name, "key": key, "order": reader.manifest["summary"]["order"], **as_values(covered)})
    return values


def as_values(covered: RegionCoverage) -> dict[str, Any]:
    """A cache's numbers as JSON values, None for nan."""
    rows = []
    intervals = covered.intervals(RESAMPLES, SEED)
    for column, count in enumerate(covered.counts):
        recall = recall_at(covered.overlaps[:, column], np.array(LEVELS))
        values = {"best_overlap": covered.best_overlap()[column], "covering": covered.covering()[column]}
        values |= {f"recall_{level}": share for level, share in zip(LEVELS, recall, strict=True)}
        rows.append(
            {
                "regions": count,
                "per_image": float(covered.regions[column]),
                **{name: None if math.isnan(value) else float(value) for name, value in values.items()},
                "intervals": intervals[column],
            }
        )
    return {"objects": len(covered.overlaps), "resamples": RESAMPLES, "confidence": CONFIDENCE, "regions": rows}


def tell_regions(measured: Sequence[dict[str, Any]], folder: Path, given: bool, as_json: bool) -> str:
    """Writes the JSON into `folder`; the table, or the JSON, that is to be printed."""
    output = OutputFolder(folder, given=given)
    output.check(FILES)
    text = json.dumps(measured, indent=2, ensure_ascii=False, allow_nan=False)
    output.write(FILES[0], text + "\n")
    return text if as_json else f"{format_regions(measured)}\nNumbers: {output.path}/{FILES[0]}"


def format_regions(measured: Sequence[dict[str, Any]]) -> str:
    """A row for each cache and count, in percent."""
    lines = [["cache", "objects", "regions", "per image", "best IoU", "covering", "at .5", "at .7"]]
    for cache in measured:
        for row in cache["regions"]:
            shown = [with_interval(row, name) for name in ("best_overlap", "covering")]
            shown += [percent(row[f"recall_{level}"]) for level in LEVELS]
            first = [cache["name"], str(cache["objects"]), count_words(row["regions"]), f"{row['per_image']:,.0f}"]
            lines.append([*first, *shown])
    head = (
        f"Mean best IoU of objects' masks and covering, with {100 * CONFIDENCE:g} % bootstrap intervals over "
        f"images ({RESAMPLES:,} resamples); recall at IoU .5 and .7; percent"
    )
    orders = [f"The first N of {cache['name']}: {cache['order']}." for cache in measured]
    return "\n".join([head, *aligned(lines, rules_before=(1,)), *orders])


def with_interval(row: dict[str, Any], name: str) -> str:
    """A measure in percent, with its interval if there is one: "56.0 [51.2, 60.7]"."""
    interval = row["intervals"][name]
    return percent(row[name]) + (f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else "")
