"""Small plots as SVG that the page can colour.

They are drawn by Matplotlib, not Plotly: its 4.8 MB of script would slow down a phone and leave the plots empty without
JavaScript, and only pictures need filters, not curves. Each plot is a panel whose text keeps its size on any screen;
the page lays the panels out. The colours of text and lines are placeholders that become the page's CSS variables, so
one drawing serves light and dark; the other colours are the palette's, which suit both.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rcnn_cli.report.selection import thinned
from stages.contract.card import LogColumns
from stages.eval.calibration import Calibration
from stages.eval.operating_pictures import (
    draw_obtained,
    draw_reliability,
    draw_thresholds,
)
from stages.eval.pictures import draw_steps, why_empty
from stages.matching.average_precision import Curve, interpolated_steps
from stages.matching.error_types import TYPES
from stages.pictures.palette import KINDS, SERIES, line_of, series_colour, series_dashes
from stages.pictures.plots import apart, say, whole_steps
from stages.training.log import curves

INK, MUTED, RULE, GROUND = "#000001", "#000002", "#000003", "#000004"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", GROUND: "--paper"}
WIDTH, HEIGHT = 3.1, 2.3
STEPS = 80
"""Thresholds at which a class's precision, recall and F1 are drawn."""
LABEL_HEIGHT = 11.0
"""The height of a number in the plot of sensitivities, in points of normalised AP."""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.5,
}


def panel(name: str, draw: Callable[[Any], None], width: float = WIDTH, height: float = HEIGHT) -> str:
    """An SVG element of `width` x `height` inches with what `draw(ax)` draws. `name` must be unique in the page and
    seeds the element's ids, so that the same plot gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        buffer = io.StringIO()
        omitted = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=omitted)
    return for_the_page(buffer.getvalue())


def for_the_page(drawn: str) -> str:
    """Matplotlib's SVG as an element of the page: without prologue, metadata and styles, in the page's colours."""
    body = drawn[drawn.index("<svg") :]
    for pattern, text in (
        (r"<!--.*?-->\s*", ""),
        (r"<metadata>.*?</metadata>\s*", ""),
        (r"<style\b.*?</style>\s*", ""),
        (r"<defs>\s*</defs>\s*", ""),
        (r'(<g) id="[^"]*"', r"\1"),
        (r'\s(?:width|height)="[\d.]+pt"', ""),
        (r'\s(?:xmlns(?::xlink)?|version)="[^"]*"', ""),
        (r"xlink:href", "href"),
        (r"font-family: [^;\"]*;?", ""),
        (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
        (r">\s+<", "><"),
        (r"^<svg", '<svg class="plot" aria-hidden="true" focusable="false"'),
    ):
        body = re.sub(pattern, text, body, flags=re.S)
    return re.sub("|".join(VARIABLES), lambda match: f"var({VARIABLES[match[0]]})", body).strip()


def key_of_line(number: int) -> dict[str, Any]:
    """A run's line for a legend in HTML: the number of its colour, its dashes as an SVG stroke-dasharray."""
    return {"colour": number % len(SERIES), "dashes": " ".join(map(str, series_dashes(number)))}


def precision_recall(name: str, curves: Mapping[int, Curve]) -> str:
    """The curves of one class by run number: interpolated precision in at most about a hundred steps."""

    def draw(ax: Any) -> None:
        for number, curve in curves.items():
            recall, precision = interpolated_steps(curve)
            at = thinned(recall)
            draw_steps(ax, 100 * recall[at], 100 * precision[at], **line_of(number))
        reason = why_empty(list(curves.values()))
        if reason:
            say(ax, reason, INK, GROUND)
        ax.set(xlim=(0, 100), ylim=(0, 102), xticks=(0, 25, 50, 75, 100), yticks=(0, 25, 50, 75, 100))
        ax.set(xlabel="recall, %", ylabel="precision, %")

    return panel(f"precision-recall {name}", draw)


def thresholds(name: str, curve: Curve) -> str:
    """One class's precision, recall and F1, in percent, against the threshold; a dot marks the best F1."""

    def draw(ax: Any) -> None:
        draw_thresholds(ax, curve, STEPS)
        ax.locator_params(axis="x", nbins=4)
        reason = why_empty([curve])
        if reason:
            say(ax, reason, INK, GROUND)
        ax.set(xlabel="threshold", ylabel="percent")

    return panel(f"thresholds {name}", draw)


def reliability(name: str, calibration: Calibration) -> str:
    """The reliability diagrams of a run."""
    return panel(f"reliability {name}", lambda ax: draw_reliability(ax, calibration, MUTED))


def obtained(name: str, calibration: Calibration) -> str:
    """The precision that chosen thresholds obtain on other images, against that asked for."""
    return panel(f"obtained {name}", lambda ax: draw_obtained(ax, calibration, MUTED, GROUND))


def error_trend(name: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Figure 5: the share of each type among the top-ranked false positives, by how many are counted; the x axis is in
    effect logarithmic, as the numbers double."""

    def draw(ax: Any) -> None:
        places = range(len(counts))
        shares = [
            [100 * by_type[kind] / max(1, sum(by_type.values())) for by_type in counts.values()] for kind in TYPES
        ]
        ax.stackplot(places, shares, colors=[KINDS[kind] for kind in TYPES], edgecolor=GROUND, linewidth=0.6)
        ax.set(xlim=(0, len(counts) - 1), ylim=(0, 100), yticks=(0, 25, 50, 75, 100))
        ax.set_xticks(places, list(counts), fontsize=7.5)
        ax.set(xlabel="top-ranked false positives", ylabel="of each type, %")
        ax.grid(visible=False)

    return panel(f"errors {name}", draw)


def remedies(name: str, gains: Mapping[str, float]) -> str:
    """The gain in AP from each remedy, in points; `gains` are in [0, 1]."""

    def draw(ax: Any) -> None:
        values = [100 * gain for gain in gains.values()]
        colours = [KINDS[remedied(remedy)] for remedy in gains]
        places = np.arange(len(values))[::-1]
        ax.barh(places, values, color=colours, height=0.62)
        for place, value in zip(places, values, strict=True):
            ax.annotate(
                f"{value:+.1f}".replace("-", "\N{MINUS SIGN}"),
                (max(value, 0), place),
                (4, 0),
                textcoords="offset points",
                va="center",
            )
        ax.set_yticks(places, list(gains))
        ax.set(xlim=(min(0, *values) * 1.15, max(1, *values) * 1.22), xlabel="gain in AP, points")
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")

    return panel(f"remedies {name}", draw)


def remedied(remedy: str) -> str:
    """The type of false positive that a remedy concerns: "Loc" for "no Loc" and "Loc right"."""
    return next(kind for kind in TYPES if kind in remedy)


def sensitivity(name: str, characteristics: Mapping[str, Mapping[str, float]], overall: float | None) -> str:
    """Figure 6: the normalised AP of the worst and best subset for each characteristic; dashed: all objects."""

    def draw(ax: Any) -> None:
        for place, aps in enumerate(characteristics.values()):
            ends = [100 * aps["lowest"], 100 * aps["highest"]]
            ax.plot([place, place], ends, "_-", color=series_colour(0), markersize=9)
            heights = apart(ends, LABEL_HEIGHT, LABEL_HEIGHT / 2, 112 - LABEL_HEIGHT / 2)
            for value, height in zip(ends, heights, strict=True):
                ax.annotate(f"{value:.0f}", (place, height), (7, 0), textcoords="offset points", va="center")
        if overall is not None:
            ax.axhline(100 * overall, color=MUTED, linestyle="--", linewidth=1)
        ax.set(xlim=(-0.6, max(1, len(characteristics)) - 0.2), ylim=(0, 112), yticks=(0, 25, 50, 75, 100))
        ax.set_ylabel("normalised AP, %")
        ax.set_xticks(range(len(characteristics)), [label.replace(" ", "\n") for label in characteristics])
        ax.grid(visible=False, axis="x")

    return panel(f"sensitivity {name}", draw)


def lines(
    name: str,
    series: Sequence[tuple[int, Any, Any]],
    labels: tuple[str, str],
    limits: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None),
    logarithmic: bool = False,
    whole: bool = False,
) -> str:
    """One line per entry of `series`, (number of its colour, x, y); `labels` and `limits` are those of the two axes.
    `whole`: x counts something, so its ticks are integers."""

    def draw(ax: Any) -> None:
        for number, x, y in series:
            ax.plot(x, y, marker="." if len(x) < 20 else "", **line_of(number))
        if all(np.isnan(y).all() for _, _, y in series):
            say(ax, "nothing to show", INK, GROUND)
        ax.set(xlabel=labels[0], ylabel=labels[1])
        if whole and series:
            whole_steps(ax, series[0][1])
        if limits[0]:
            ax.set_xlim(limits[0])
        if limits[1]:
            ax.set_ylim(limits[1])
        if logarithmic:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(lambda *_: "")

    return panel(name, draw)


def training(
    name: str, log: Mapping[str, Any], columns: LogColumns, validations: Mapping[str, Any] | None = None
) -> list[tuple[str, str, list[tuple[int, str]]]]:
    """The panels of a training log, and of its `validations` if there are any, as (title, SVG, legend): losses,
    accuracies, learning rate; what a point means is in `stages.training.log.points_in_words`."""

    def series(names: Sequence[str]) -> list[tuple[int, Any, Any]]:
        return [(number, *curve) for _, number, curve, _ in curves(log, columns.step, names, validations or {})]

    def drawn(
        what: str,
        names: Sequence[str],
        label: str,
        limits: tuple[float, float] | None = None,
        logarithmic: bool = False,
    ) -> str:
        return lines(f"{name} {what}", series(names), (columns.step, label), (None, limits), logarithmic, whole=True)

    def legend(names: Sequence[str]) -> list[tuple[int, str]]:
        return [(number, called) for called, number, _, _ in curves(log, columns.step, names, validations or {})]

    losses, shares = columns.losses, columns.shares if validations else columns.accuracies
    top = 1.05 * max(float(values.max()) for _, _, values in series(losses))
    of_losses = legend(losses)
    panels = [("Loss", drawn("loss", losses, "loss", (0, top)), of_losses if len(of_losses) > 1 else [])]
    if shares:
        panels.append(("Accuracy", drawn("accuracy", shares, "accuracy", (0, 1.02)), legend(shares)))
    rate = drawn("rate", ["learning_rate"], "learning rate", logarithmic=True)
    return [*panels, ("Learning rate", rate, [])]
