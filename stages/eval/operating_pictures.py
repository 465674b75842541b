"""Figures of how a detector is best used: thresholds, confusions, and how far its scores can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.eval.calibration import LIKELY, RAW, Calibration, Reliability, known
from stages.eval.confusion import BACKGROUND, MISSED, Confusion
from stages.eval.operating_points import best_f1, operating_points, points_at
from stages.matching.average_precision import Curve
from stages.pictures.palette import MUTED, line_of, series_colour
from stages.pictures.plots import cut, new_figure, plain, save, say
from stages.tables import percent

MOST_PLOTS = 100
MOST_CONFUSED = 200
MOST_NUMBERED = 30
"""Of a confusion matrix: the most classes drawn, and the most with a number in each cell."""
STEPS = 200
FITTED_SERIES, RAW_SERIES = 0, 1
MEASURES = ("precision", "recall", "F1")
LONGEST_NAME = 1.1
"""The width of a class's name beside the matrix, in inches."""


def sampled_points(curve: Curve, steps: int = STEPS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A class's precision, recall and F1 at evenly spaced thresholds and at the best one, to be drawn.

    Returns (thresholds float64 [t], rising; values float64 [3, t], in the order of MEASURES), both without columns if
    no detection counts.
    """
    points, best = operating_points(curve), best_f1(curve)
    if not len(points.scores):
        return np.zeros(0), np.zeros((3, 0))
    ends = float(points.scores[-1]), float(points.scores[0])
    thresholds = np.unique([*np.linspace(*ends, steps), *([best[0]] if best else [])])
    places = points_at(points, thresholds)
    return thresholds, np.stack([points.precision[places], points.recall[places], points.f1[places]])


def draw_thresholds(ax: Any, curve: Curve, steps: int = STEPS) -> None:
    """Draws a class's precision, recall and F1, in percent, against the threshold; a dot marks the best F1."""
    thresholds, values = sampled_points(curve, steps)
    for number, line in enumerate(values):
        ax.plot(thresholds, 100 * line, linewidth=1.3, **line_of(number))
    best = best_f1(curve)
    if best:
        ax.plot([best[0]], [100 * best[1]], ".", color=series_colour(2), markersize=9)
    ax.set(ylim=(0, 102), yticks=(0, 25, 50, 75, 100))


def plot_thresholds(curves: Mapping[str, Curve], score: str, path: Path) -> None:
    """Writes a PNG of precision, recall and F1 against the threshold, one small plot per class with objects to find; of
    many, the MOST_PLOTS with the most objects. `score` is what the scores are called."""
    from matplotlib.lines import Line2D

    with_objects = [name for name, curve in curves.items() if curve.positives]
    chosen = sorted(with_objects, key=lambda name: -curves[name].positives)[:MOST_PLOTS]
    names = [name for name in with_objects if name in chosen]
    columns = min(5, max(1, math.ceil(math.sqrt(len(names)))))
    rows = max(1, math.ceil(len(names) / columns))
    width, height = 2.4 * columns + 0.6, 2.0 * rows + 0.9
    figure = new_figure(width, height)
    figure.set_layout_engine(None)  # twice as fast, and all panels are alike
    figure.subplots_adjust(0.65 / width, 0.65 / height, 1 - 0.15 / width, 1 - 0.6 / height, 0.12, 0.42)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for name, ax in zip(names, axes.ravel(), strict=False):
        plain(ax)
        draw_thresholds(ax, curves[name])
        best = best_f1(curves[name])
        words = f"F1 {100 * best[1]:.0f} at {best[0]:.3g}" if best else "no true positive"
        ax.set_title(cut(name, 9, 1.1), fontsize=9, loc="left")
        ax.set_title(words, fontsize=7.5, loc="right", color=MUTED)
        ax.tick_params(labelsize=7)
        ax.locator_params(axis="x", nbins=4)
    for ax in axes.ravel()[len(names) :]:
        ax.set_axis_off()
    if not names:
        say(axes[0, 0], "no objects to find")
    of_many = "" if len(names) == len(with_objects) else f" (the {len(names)} classes with the most objects)"
    figure.supxlabel(f"threshold: {score}{of_many}", fontsize=9, y=0.1 / height)
    figure.supylabel("percent", fontsize=9, x=0.1 / width)
    handles = [Line2D([], [], label=label, linewidth=1.3, **line_of(n)) for n, label in enumerate(MEASURES)]
    figure.legend(handles=handles, loc="upper center", ncols=3 if columns > 1 else 1, frameon=False, fontsize=9)
    save(figure, path)


def plot_confusion(confusion: Confusion, path: Path) -> None:
    """Writes a PNG of the confusion matrix, each row in percent of its sum, with the sums beside the true classes.

    Cells have numbers if there are at most MOST_NUMBERED classes; of more than MOST_CONFUSED, a sentence says that the
    table has them.
    """
    from matplotlib.colors import PowerNorm

    count = len(confusion.classes)
    if count > MOST_CONFUSED:
        figure = new_figure(5, 1.2)
        ax = figure.subplots()
        ax.set_axis_off()
        say(ax, f"{count:,} classes are too many to draw; see the table")
        save(figure, path)
        return
    numbered = count <= MOST_NUMBERED
    cell = 0.32 if numbered else max(0.09, 0.2 - count / 1500)
    side = cell * (count + 1)
    figure = new_figure(max(4.0, side + 2.4), max(3.2, side + 1.9))
    ax = figure.subplots()
    shares = confusion.shares
    shares[-1, -1] = np.nan
    scale = PowerNorm(0.5, vmin=0, vmax=100)  # so that rare confusions are seen, too
    image = ax.imshow(100 * shares, cmap="Blues", norm=scale)
    points = 8 if numbered else max(3.5, 72 * cell * 0.8)
    sums = confusion.counts.sum(axis=1)
    true = [f"{cut(name, 8, LONGEST_NAME)}  {total:,}" for name, total in zip([*confusion.classes, BACKGROUND], sums,
                                                                              strict=True)]  # fmt: skip
    predicted = [cut(name, 8, LONGEST_NAME) for name in [*confusion.classes, MISSED]]
    ax.set_yticks(range(count + 1), true, fontsize=points)
    ax.set_xticks(range(count + 1), predicted, fontsize=points, rotation=90)
    ax.set_xlabel("detected as", fontsize=9)
    ax.set_ylabel("true class, and how many are counted", fontsize=9)
    ax.tick_params(length=0)
    ax.axhline(count - 0.5, color=MUTED, linewidth=0.6)
    ax.axvline(count - 0.5, color=MUTED, linewidth=0.6)
    if numbered:
        for row, column in np.argwhere(confusion.counts > 0).tolist():
            share = 100 * shares[row, column]
            ink = "white" if share > 30 else "black"
            words = f"{share:.0f}" if share >= 0.5 else "<1"
            ax.text(column, row, words, ha="center", va="center", fontsize=7.5, color=ink)
    bar = figure.colorbar(image, ax=ax, shrink=0.6, aspect=25)
    bar.set_ticks([0, 1, 5, 10, 25, 50, 100])
    bar.set_label("percent of the row", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    save(figure, path)


def draw_reliability(ax: Any, calibration: Calibration, diagonal: str = MUTED) -> None:
    """Draws the reliability diagrams: precision, with its 95 % interval, against probability, in percent; on the
    `diagonal` both are equal."""
    ax.plot([0, 100], [0, 100], color=diagonal, linewidth=0.8, linestyle=":")
    for name, diagram in calibration.diagrams.items():
        colour = colour_of(name)
        some = diagram.detections > 0
        at, precision = 100 * diagram.probability[some], 100 * diagram.precision[some]
        low, high = (100 * end[some] for end in diagram.interval())
        ax.vlines(at, low, high, color=colour, linewidth=1.0)
        ax.plot(at, precision, ".", color=colour, markersize=6)
    ax.set(xlim=(0, 102), ylim=(0, 102), xticks=(0, 25, 50, 75, 100), yticks=(0, 25, 50, 75, 100))
    ax.set(xlabel="probability, %", ylabel="precision, %")


def draw_obtained(ax: Any, calibration: Calibration, diagonal: str = MUTED, ground: str = "white") -> None:
    """Draws the precision that thresholds obtain on images not used to choose them, against that asked for; on the
    `diagonal` both are equal."""
    asked = [100 * one.asked for one in calibration.obtained]
    precision = [100 * one.precision for one in calibration.obtained]
    ax.plot([0, 100], [0, 100], color=diagonal, linewidth=0.8, linestyle=":")
    ax.plot(asked, precision, marker=".", linewidth=1.3, **line_of(FITTED_SERIES))
    if np.isnan(precision).all():
        say(ax, "no threshold reaches\nthese precisions", diagonal, ground)
    ax.set(xlim=(45, 95), ylim=(0, 102), xticks=asked, yticks=(0, 25, 50, 75, 100))
    ax.set(xlabel="precision asked for, %", ylabel="precision obtained, %")


def errors_in_words(diagram: Reliability) -> str:
    """Its D-ECE, of all detections and of likely ones: "D-ECE 0.6 % (from 0.3 on: 9.1 %)"."""
    every, likely = (percent(known(error)) for error in (diagram.error, diagram.error_from(LIKELY)))
    return f"D-ECE {every} % (from {LIKELY:g} on: {likely} %)"


def plot_calibration(calibration: Calibration, path: Path) -> None:
    """Writes a PNG with the reliability diagrams, and with the precision that chosen thresholds obtain."""
    from matplotlib.lines import Line2D

    figure = new_figure(8.2, 3.9)
    left, right = figure.subplots(1, 2)
    for ax in (left, right):
        plain(ax)
    draw_reliability(left, calibration)
    draw_obtained(right, calibration)
    handles = [
        Line2D([], [], label=f"{name}: {errors_in_words(one)}", marker=".", linewidth=1.3, color=colour_of(name))
        for name, one in calibration.diagrams.items()
    ]
    left.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=7.5, borderpad=0)
    right.set_title("thresholds chosen on the other half of the images", fontsize=7.5, loc="left")
    save(figure, path)


def colour_of(diagram: str) -> str:
    """The colour of a reliability diagram, by its name."""
    return series_colour(RAW_SERIES if diagram == RAW else FITTED_SERIES)
