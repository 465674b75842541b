"""What a report says first of each recipe: how good its detector is, what its proposals allow, what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rcnn_cli.looking.recall import Measured
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.report.charts import remedied
from rcnn_cli.report.runs import Run
from rcnn_cli.report.tables import gains
from stages.eval.report import HEADLINES, MEASURES
from stages.matching.proposals import recall_at
from stages.tables import percent

REMEDIES = {
    "Loc right": "if poorly localised detections were right",
    "no Loc": "without poorly localised detections and duplicates",
    "no Sim": "without detections on objects of similar classes",
    "no Oth": "without detections on objects of other classes",
    "no BG": "without detections on the background",
}
LEAST_GAIN = 0.0005
"""Of AP: what is less is printed as 0.0 points."""


def main_runs(runs: Sequence[Run]) -> list[Run]:
    """The first run of each recipe: that of its main evaluation, where it is complete."""
    first: dict[Graph, Run] = {}
    for run in runs:
        first.setdefault(run.graph, run)
    return list(first.values())


def headline(
    run: Run, diagnosis: Mapping[str, Any] | None, measured: Mapping[str, Measured], missed: int | None
) -> dict[str, Any]:
    """A run's mAP with its interval, the recall of its proposals at the evaluation's IoU, and the remedy that would
    raise the mean AP of its `diagnosis` most.

    `measured` are the proposals that could be measured, by key; `missed` is the number of objects that no detection
    finds. What is not known is None.
    """
    summary = run.summary
    interval = summary.get("bootstrap", {}).get("map")
    return {
        "run": run,
        "map": percent(summary["map"]) if summary["map"] is not None else None,
        "interval": [percent(end) for end in interval] if interval else None,
        "measure": HEADLINES[summary["metric"]],
        "iou": summary["iou"],
        "classes": sum(one[MEASURES[summary["metric"]]] is not None for one in summary["classes"].values()),
        "recall": recall_of_proposals(run, measured),
        "limit": None if diagnosis is None else limit_of(diagnosis),
        "missed": missed,
        "objects": sum(one["positives"] for one in summary["classes"].values()),
    }


def recall_of_proposals(run: Run, measured: Mapping[str, Measured]) -> dict[str, Any] | None:
    """The share of objects that a proposal of the run's detector covers, in percent, and how many boxes an image that
    takes; None where its proposals are not there or there is no object."""
    node = proposals_node(run)
    found = None if node is None else measured.get(run.graph.identity(node).key)
    if found is None or not len(found.found.overlaps):
        return None
    share = recall_at(found.found.overlaps[:, -1], np.array([run.summary["iou"]]))[0]
    return {"share": percent(float(share)), "boxes": f"{found.found.boxes[-1]:,.0f}"}


def proposals_node(run: Run) -> Node | None:
    """The proposals that the run's detector scores."""
    node: Node | None = run.detector
    while node is not None and node.use.stage.makes != "proposals":
        source = node.sources.get("features") or node.sources.get("proposals")
        node = source if isinstance(source, Node) else None
    return node


def limit_of(diagnosis: Mapping[str, Any]) -> dict[str, Any] | None:
    """The remedy that gains most: its type of false positives, the points, what it is in words; None without an AP."""
    if diagnosis["ap"] is None:
        return None
    found = gains(diagnosis)
    remedy = max(found, key=lambda one: found[one])
    return {
        "kind": remedied(remedy),
        "gain": f"{100 * found[remedy]:+.1f}",
        "words": REMEDIES[remedy],
        "none": found[remedy] < LEAST_GAIN,
    }
