"""A diagnosis to look at: R-CNN's figures 5 and 6, and the normalised AP of every class's subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.diagnose.characteristics import FEWEST
from stages.diagnose.false_positives import TYPES

COLOURS = ("#4f81bd", "#c0504d", "#6aa84f", "#8064a2")
GRID = "#e3e3e3"
SHORT = {
    "extra-small": "XS", "small": "S", "medium": "M", "large": "L", "extra-large": "XL",
    "extra-tall": "XT", "tall": "T", "wide": "W", "extra-wide": "XW",
    "visible": "vis", "occluded": "occ", "truncated": "trunc", "Frontal": "front",
}  # fmt: skip
MOST_PLOTS = 60


def plot_trends(summary: Mapping[str, Any], path: Path) -> None:
    """Figure 5 as a PNG: for each group and class the share of each type against the number of false positives.

    What has fewer than two of the numbers is left out; of more than MOST_PLOTS the first are shown, groups before
    classes.
    """
    trends = summary["trends"]
    names = [*summary["groups"], *summary["classes"]]
    shown = [name for name in names if len(trends[name]) > 1][:MOST_PLOTS]
    columns = min(5, max(1, math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(2.4 * columns + 0.6, 2.2 * rows + 0.9)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for name, ax in zip(shown, axes, strict=False):
        draw_trend(ax, name, trends[name])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    if not shown:
        axes[0].text(0.5, 0.5, "too few false positives", ha="center", va="center", fontsize=9)
    figure.supxlabel("top-ranked false positives", fontsize=9)
    figure.supylabel("percentage of each type", fontsize=9)
    if shown:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    save(figure, path)


def draw_trend(ax: Any, name: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """One stacked plot; the numbers are at equal distances, as they double."""
    places = range(len(counts))
    shares = [[100 * seen[kind] / sum(seen.values()) for seen in counts.values()] for kind in TYPES]
    ax.stackplot(places, shares, labels=list(TYPES), colors=COLOURS)
    ax.set_title(name if len(name) < 28 else f"{name[:26]}…", fontsize=9)
    ax.set(xlim=(0, len(counts) - 1), ylim=(0, 100), yticks=(0, 50, 100))
    ax.set_xticks(places, list(counts), fontsize=7)
    ax.tick_params(labelsize=7, length=2)


def plot_sensitivity(summary: Mapping[str, Any], path: Path) -> None:
    """Figure 6 as a PNG: of each characteristic the mean normalised AP of the worst and of the best subset, around the
    mean of all objects (dashed)."""
    found = summary["characteristics"]
    figure = new_figure(1.1 * max(3, len(found)) + 1.2, 3.2)
    ax = figure.subplots()
    for place, one in enumerate(found.values()):
        ax.plot([place, place], [one["lowest"], one["highest"]], "+-", color="#c0392b", markersize=9, linewidth=1.2)
        for value in (one["lowest"], one["highest"]):
            ax.annotate(f"{value:.3f}", (place, value), xytext=(6, 0), textcoords="offset points", fontsize=8)
    if summary["ap_n"] is not None:
        ax.axhline(summary["ap_n"], color="black", linestyle="--", linewidth=1)
        ax.annotate(
            f"{summary['ap_n']:.3f}", (-0.55, summary["ap_n"]), xytext=(2, 3), textcoords="offset points", fontsize=8
        )
    ax.set(xlim=(-0.6, max(1, len(found)) - 0.4), ylim=(0, 1.02), ylabel="normalised AP")
    ax.set_xticks(range(len(found)), list(found), fontsize=8)
    plain(ax)
    save(figure, path)


def plot_characteristics(summary: Mapping[str, Any], path: Path) -> None:
    """A PNG with a row of plots for each characteristic and a column for each class: the normalised AP of its subsets
    with standard errors, around the class's own (dashed); pale where there are fewer than FEWEST objects.

    Of many classes those with the most objects are shown.
    """
    names = list(summary["characteristics"])
    with_objects = [name for name, one in summary["classes"].items() if one["positives"]]
    most = sorted(with_objects, key=lambda name: -summary["classes"][name]["positives"])[: MOST_PLOTS // 3]
    classes = [name for name in with_objects if name in most]
    rows, columns = max(1, len(names)), max(1, len(classes))
    figure = new_figure(1.35 * columns + 1.0, 1.75 * rows + 0.5)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    if not (names and classes):
        axes[0, 0].set_axis_off()
    for row, name in enumerate(names):
        for column, of_class in enumerate(classes):
            one = summary["classes"][of_class]
            draw_bins(axes[row, column], one["characteristics"][name], one["ap_n"])
            if not row:
                axes[row, column].set_title(of_class, fontsize=9)
        if classes:
            axes[row, 0].set_ylabel(name, fontsize=8)
    save(figure, path)


def draw_bins(ax: Any, bins: Mapping[str, Mapping[str, Any]], overall: float) -> None:
    """One class's subsets by one characteristic."""
    ax.axhline(overall, color="black", linestyle="--", linewidth=0.8)
    for place, one in enumerate(bins.values()):
        if one["ap_n"] is None:
            continue
        faint = 1.0 if one["positives"] >= FEWEST else 0.3
        error = one["ap_n_error"] or 0.0
        ax.errorbar(place, one["ap_n"], error, fmt="o", color="#c0392b", markersize=3.5, capsize=2, alpha=faint)
    ax.set(xlim=(-0.6, len(bins) - 0.4), ylim=(0, 1.05), yticks=(0, 0.5, 1))
    ax.set_xticks(range(len(bins)), [SHORT.get(label, label.lower()) for label in bins])
    plain(ax)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(ax: Any) -> None:
    """A light grid, no frame."""
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=7, length=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def save(figure: Any, path: Path) -> None:
    """Writes the figure as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def draw_diagnosis(summary: Mapping[str, Any], folder: Path) -> Sequence[Path]:
    """All pictures of a diagnosis; returns their paths."""
    drawings = {
        "false-positives.png": plot_trends,
        "sensitivity.png": plot_sensitivity,
        "characteristics.png": plot_characteristics,
    }
    for name, draw in drawings.items():
        draw(summary, folder / name)
    return [folder / name for name in drawings]
