"""A report's summary of each recipe: its detector's mAP, its proposals' recall and its costliest error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rcnn_cli.looking.recall import Measured, scored_by
from rcnn_cli.recipes.graph import Graph
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
"""A gain in AP, in [0, 1], below which it is printed as 0.0 points."""


def main_runs(runs: Sequence[Run]) -> list[Run]:
    """The first run of each recipe: its main evaluation, if that is complete."""
    first: dict[Graph, Run] = {}
    for run in runs:
        first.setdefault(run.graph, run)
    return list(first.values())


def headline(
    run: Run, diagnosis: Mapping[str, Any] | None, measured: Mapping[str, Measured], missed: int | None
) -> dict[str, Any]:
    """A run's mAP with its interval, the recall of its proposals at the evaluation's IoU, and the remedy that would
    raise its `diagnosis`'s mean AP most.

    `measured`: the recall of proposals, by their cache's key; `missed`: the number of objects that no detection finds.
    Unknown values are None.
    """
    summary = run.summary
    interval = summary.get("bootstrap", {}).get("map")
    return {
        "run": run,
        "map": percent(summary["map"]) if summary["map"] is not None else None,
        "interval": [percent(end) for end in interval] if interval else None,
        "measure": HEADLINES[summary["metric"]],
        "iou": summary["iou"],
        "classes": sum(numbers[MEASURES[summary["metric"]]] is not None for numbers in summary["classes"].values()),
        "recall": recall_of_proposals(run, measured),
        "limit": None if diagnosis is None else limit_of(diagnosis),
        "missed": missed,
        "objects": sum(numbers["positives"] for numbers in summary["classes"].values()),
    }


def recall_of_proposals(run: Run, measured: Mapping[str, Measured]) -> dict[str, Any] | None:
    """The share of objects covered by the proposals, or windows, that the run's detector scores, in percent, how many
    there are per image and what they are called; None if they are missing or there are no objects."""
    node = scored_by(run.detector)
    proposals = None if node is None else measured.get(run.graph.identity(node).key)
    if node is None or proposals is None or not len(proposals.coverage.overlaps):
        return None
    share = recall_at(proposals.coverage.overlaps[:, -1], np.array([run.summary["iou"]]))[0]
    return {
        "share": percent(float(share)),
        "boxes": f"{proposals.coverage.boxes[-1]:,.0f}",
        "what": "proposals" if node.use.stage.makes == "proposals" else "windows",
    }


def limit_of(diagnosis: Mapping[str, Any]) -> dict[str, Any] | None:
    """The remedy with the largest gain: its type of false positives, the gain and a description; None without an AP."""
    if diagnosis["ap"] is None:
        return None
    by_remedy = gains(diagnosis)
    remedy = max(by_remedy, key=lambda name: by_remedy[name])
    return {
        "kind": remedied(remedy),
        "gain": f"{100 * by_remedy[remedy]:+.1f}",
        "words": REMEDIES[remedy],
        "none": by_remedy[remedy] < LEAST_GAIN,
    }
