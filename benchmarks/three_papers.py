"""Accuracy against time, of the detectors in a grid of `rcnn ablate` that has been run: one PNG and a table.

    rcnn ablate recipes/grids/three-papers.toml --seeds 0
    python -m benchmarks.images recipes/grids/three-papers.toml --json times.json
    python -m benchmarks.three_papers recipes/grids/three-papers.toml times.json accuracy-against-time.png

A panel for each of the grid's metrics that is the mAP of an evaluation, in percent, with the evaluation's bootstrap
interval if it has one, against the median processor time per image on one core, on a logarithmic scale. The table has
the differences from the first detector as well, with the interval over the same resamples of the images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from rcnn_cli.experiments.ablation import Run, base_recipe, make_plan, node_of, summary_of
from rcnn_cli.experiments.grid import Grid, load_grid
from rcnn_cli.sentences import explain
from stages.eval.report import paired_difference
from stages.pictures.palette import series_colour
from stages.pictures.plots import new_figure, plain, save
from stages.tables import aligned

MARKERS = "osD^v<>p"
TICKS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Milliseconds."""


@dataclass(frozen=True)
class Point:
    """A detector in one panel: `milliseconds` per image, mAP and the ends of its interval (or None), in percent."""

    name: str
    milliseconds: float
    value: float
    interval: tuple[float, float] | None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("times", type=Path, help="what `python -m benchmarks.images GRID --json FILE` wrote")
    parser.add_argument("output", type=Path, help="the PNG to write")
    parser.add_argument("--work", type=Path, default=Path("work"))
    options = parser.parse_args(arguments)
    grid = load_grid(options.grid)
    plan = make_plan(grid, base_recipe(grid, None), (), options.work, explain)
    if plan.failed:
        raise SystemExit(f"{options.grid}: {plan.failed}")
    runs = [run for run in plan.runs if run.seed in (None, *grid.seeds[:1])]
    seconds = json.loads(options.times.read_text())["seconds"]
    metrics = panels(grid)
    points = {title: [point(run, metric, seconds) for run in runs] for title, metric in metrics.items()}
    draw(points, options.output)
    print("\n".join(aligned(table(points, runs, metrics), rules_before=(1,))))


def panels(grid: Grid) -> dict[str, str]:
    """The grid's metrics that are the mAP of an evaluation, by their titles."""
    return {title: name for title, name in grid.metrics.items() if name.rpartition(":")[2] == "map"}


def point(run: Run, metric: str, seconds: Mapping[str, Sequence[float]]) -> Point:
    """A run's place in the panel of a metric. `seconds`: of all images, by the cells' names."""
    summary = summary_of(run, node_of(run.graph, run.evaluation, metric))
    interval = summary.get("bootstrap", {}).get("map")
    ends = None if interval is None else (100 * interval[0], 100 * interval[1])
    return Point(run.cell.name, 1000 * float(np.median(seconds[run.cell.name])), 100 * summary["map"], ends)


def table(points: Mapping[str, Sequence[Point]], runs: Sequence[Run], metrics: Mapping[str, str]) -> list[list[str]]:
    """A heading and a row for each detector: milliseconds; for each panel mAP and its difference from the first, with
    intervals."""
    rows = [["detector", "ms", *(heading for title in points for heading in (title, "difference from the first"))]]
    for number, run in enumerate(runs):
        row = [run.cell.name, f"{next(iter(points.values()))[number].milliseconds:.0f}"]
        for title, of_title in points.items():
            row.append(in_words(f"{of_title[number].value:.1f}", of_title[number].interval))
            first, own = (evaluation_of(each, metrics[title]) for each in (runs[0], run))
            paired = paired_difference(first, own) if number else None
            if paired is None:
                row.append("")
            else:
                low, high = paired["interval"]
                row.append(in_words(f"{100 * paired['difference']:+.1f}", (100 * low, 100 * high), "+"))
        rows.append(row)
    return rows


def evaluation_of(run: Run, metric: str) -> Reader:
    """The complete cache of the evaluation that has the metric."""
    return Reader(run.graph.folder(node_of(run.graph, run.evaluation, metric)))


def in_words(number: str, interval: tuple[float, float] | None, sign: str = "") -> str:
    """A number and its interval: "79.1 [75.0, 83.2]"."""
    return number if interval is None else f"{number} [{interval[0]:{sign}.1f}, {interval[1]:{sign}.1f}]"


def draw(points: Mapping[str, Sequence[Point]], path: Path) -> None:
    """A PNG with one panel for each title, a marker for each detector."""
    figure = new_figure(4.4 * len(points) + 0.4, 4.6)
    axes = figure.subplots(1, len(points), sharey=True, squeeze=False)[0]
    for ax, (title, of_title) in zip(axes, points.items(), strict=True):
        for number, each in enumerate(of_title):
            draw_point(ax, number, each)
        place_ticks(ax, [each.milliseconds for each in of_title])
        ax.set_title(title, fontsize=11)
        plain(ax)
    axes[0].set_ylabel("percent")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    save(figure, path)


def draw_point(ax: Any, number: int, each: Point) -> None:
    """One detector: its marker and its interval."""
    colour, value = series_colour(number), each.value
    if each.interval is not None:
        ax.plot([each.milliseconds] * 2, each.interval, color=colour, linewidth=1.4, alpha=0.6)
    marker = MARKERS[number % len(MARKERS)]
    ax.plot(each.milliseconds, value, marker, color=colour, markersize=8, label=each.name, clip_on=False)


def place_ticks(ax: Any, milliseconds: Sequence[float]) -> None:
    """A logarithmic axis of time with round numbers."""
    ax.set_xscale("log")
    ax.set_xlim(min(milliseconds) / 1.4, max(milliseconds) * 1.4)
    low, high = ax.get_xlim()
    ax.set_xticks([tick for tick in TICKS if low <= tick <= high])
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_formatter("")
    ax.minorticks_off()
    ax.set_xlabel("ms per image, one core")


if __name__ == "__main__":
    main()
