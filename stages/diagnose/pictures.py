"""Figures of a diagnosis: R-CNN's figures 5 and 6, and the normalised AP of every class's subsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.diagnose.characteristics import FEWEST
from stages.matching.error_types import TYPES
from stages.pictures.palette import KINDS, series_colour
from stages.pictures.plots import GROUNDED, apart, cut, new_figure, plain, save, say

COLOURS = tuple(KINDS[name] for name in TYPES)
MEASURED = series_colour(0)
PLOT_WIDTH, CLASS_WIDTH = 2.4, 1.3
"""Width in inches of a plot in figure 5, and of the subsets of a class."""
SHORT = {
    "extra-small": "XS", "small": "S", "medium": "M", "large": "L", "extra-large": "XL",
    "extra-tall": "XT", "tall": "T", "wide": "W", "extra-wide": "XW",
    "visible": "vis", "occluded": "occ", "truncated": "trunc", "Frontal": "front",
}  # fmt: skip
LABEL_HEIGHT = 0.055
"""Height of a number in figure 6, in units of normalised AP."""
MOST_PLOTS = 60
MOST_CLASSES = 20


def plot_trends(summary: Mapping[str, Any], path: Path) -> None:
    """Figure 5 as a PNG: per group and class, the share of each type against the number of false positives.

    Groups and classes with fewer than two points are left out; at most MOST_PLOTS are shown, groups before classes.
    """
    trends = summary["trends"]
    names = [*summary["groups"], *summary["classes"]]
    shown = [name for name in names if len(trends[name]) > 1][:MOST_PLOTS]
    columns = min(5, max(1, math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = new_figure(PLOT_WIDTH * columns + 0.6, 2.2 * rows + 0.9)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for name, ax in zip(shown, axes, strict=False):
        draw_trend(ax, name, trends[name])
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    if not shown:
        say(axes[0], "too few false positives")
    figure.supxlabel("top-ranked false positives", fontsize=9)
    figure.supylabel("percentage of each type", fontsize=9)
    if shown:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9)
    save(figure, path)


def draw_trend(ax: Any, name: str, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Draws one stacked plot; counts are evenly spaced, since they double."""
    places = range(len(counts))
    shares = [[100 * seen[kind] / sum(seen.values()) for seen in counts.values()] for kind in TYPES]
    ax.stackplot(places, shares, labels=list(TYPES), colors=COLOURS, edgecolor="white", linewidth=0.6)
    ax.set_title(cut(name, 9, PLOT_WIDTH - 0.3), fontsize=9)
    ax.set(xlim=(0, len(counts) - 1), ylim=(0, 100), yticks=(0, 50, 100))
    ax.set_xticks(places, list(counts), fontsize=7)
    ax.tick_params(labelsize=7, length=2)


def plot_sensitivity(summary: Mapping[str, Any], path: Path) -> None:
    """Figure 6 as a PNG: per characteristic, the mean normalised AP of the worst and best subsets.

    The dashed line is the mean over all classes, the short black line the mean over the classes in these two.
    """
    characteristics = summary["characteristics"]
    figure = new_figure(1.1 * max(3, len(characteristics)) + 1.2, 3.2)
    ax = figure.subplots()
    for place, means in enumerate(characteristics.values()):
        ends = (means["lowest"], means["highest"])
        ax.plot([place, place], ends, "+-", color=MEASURED, markersize=9, linewidth=1.2)
        ax.plot([place], [means["overall"]], "_", color="black", markersize=9)
        for value, height in zip(ends, apart(ends, LABEL_HEIGHT, LABEL_HEIGHT / 2, 1.0), strict=True):
            at = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(f"{value:.3f}", (place, height), fontsize=8, bbox=GROUNDED, **at)
    if summary["ap_n"] is not None:
        ax.axhline(summary["ap_n"], color="black", linestyle="--", linewidth=1)
        ax.annotate(
            f"{summary['ap_n']:.3f}", (-0.55, summary["ap_n"]), xytext=(2, 3), textcoords="offset points", fontsize=8
        )
    if not characteristics:
        say(ax, "no class has two subsets with enough objects")
    ax.set(xlim=(-0.6, max(1, len(characteristics)) - 0.3), ylim=(0, 1.08), ylabel="normalised AP")
    ax.set_xticks(range(len(characteristics)), list(characteristics), fontsize=8)
    plain(ax)
    ax.tick_params(labelsize=8, length=2)
    save(figure, path)


def plot_characteristics(summary: Mapping[str, Any], path: Path) -> None:
    """A PNG with one plot per characteristic, showing the normalised AP of every class's subsets.

    Bars are standard errors, dashed lines the APs of whole classes; subsets of fewer than FEWEST objects are pale. At
    most MOST_CLASSES classes are shown, those with the most objects.
    """
    names = list(next(iter(summary["classes"].values()))["characteristics"])
    with_objects = [name for name, of_class in summary["classes"].items() if of_class["positives"]]
    most = sorted(with_objects, key=lambda name: -summary["classes"][name]["positives"])[:MOST_CLASSES]
    classes = {name: summary["classes"][name] for name in with_objects if name in most}
    figure = new_figure(CLASS_WIDTH * max(3, len(classes)) + 0.8, 1.75 * max(1, len(names)) + 0.3)
    axes = figure.subplots(max(1, len(names)), squeeze=False).ravel()
    if not names:
        say(axes[0], "no characteristic is annotated")
    for name, ax in zip(names, axes, strict=False):
        draw_characteristic(ax, name, classes)
    save(figure, path)


def draw_characteristic(ax: Any, name: str, classes: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws the subsets of every class by one characteristic, the classes side by side."""
    ticks = {}
    width = 1 + max(len(of_class["characteristics"][name]) for of_class in classes.values())
    for number, (class_name, of_class) in enumerate(classes.items()):
        bins = of_class["characteristics"][name]
        start = number * width
        ends, ap = [start - 0.4, start + len(bins) - 0.6], of_class["ap_n"]
        ax.plot(ends, [ap, ap], color="black", linestyle="--", linewidth=0.8)
        ax.annotate(cut(class_name, 8, CLASS_WIDTH - 0.25), (start - 0.4, 1.1), fontsize=8, annotation_clip=False)
        for place, (label, of_bin) in enumerate(bins.items(), start):
            ticks[place] = SHORT.get(label, label.lower())
            if of_bin["ap_n"] is not None:
                alpha = 1.0 if of_bin["positives"] >= FEWEST else 0.3
                error = of_bin["ap_n_error"] or 0.0
                ax.errorbar(
                    place, of_bin["ap_n"], error, fmt="o", color=MEASURED, markersize=3.5, capsize=2, alpha=alpha
                )
    ax.set(xlim=(-0.8, len(classes) * width - 1.2), ylim=(0, 1.05), yticks=(0, 0.5, 1))
    ax.set_ylabel(name, fontsize=8)
    ax.set_xticks(list(ticks), list(ticks.values()))
    plain(ax)
    ax.tick_params(labelsize=7, length=2)
    ax.tick_params(axis="x", labelsize=7 if width > 5 else 6)


def draw_diagnosis(summary: Mapping[str, Any], folder: Path) -> Sequence[Path]:
    """Draws all figures of a diagnosis into `folder`; returns their paths."""
    drawings = {
        "false-positives.png": plot_trends,
        "sensitivity.png": plot_sensitivity,
        "characteristics.png": plot_characteristics,
    }
    for name, draw in drawings.items():
        draw(summary, folder / name)
    return [folder / name for name in drawings]
