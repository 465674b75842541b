"""An evaluation to look at: precision-recall curves, and a contact sheet of what was detected."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.detections import Detections, DetectionSet
from stages.drawing import contact_sheet, draw_fitted
from stages.eval.average_precision import Curve
from stages.images import Pixels

LINES = ("#2563ab", "#d1602b", "#3c8f57", "#8a5aa8", "#6b6b6b")
STYLES = ("-", "--", "-.", ":")
MOST_PLOTS = 200
OUTLIER = 1.5
MOST_OUTLIERS = 6
MOST_BESIDE = 2
WIDEST_NAME = 26


def plot_precision_recall(evaluations: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """Writes a PNG with a small plot for each class and in it a line for each evaluation.

    `evaluations` maps a name (as "with regression") to the curves of its classes. Classes with nothing to find are
    left out; of more than MOST_PLOTS classes those with the most objects are shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    every = plotted_classes(evaluations)
    classes = most_objects(every, evaluations, MOST_PLOTS)
    columns = min(5, max(1, math.ceil(math.sqrt(len(classes)))))
    rows = max(1, math.ceil(len(classes) / columns))
    figure = Figure(figsize=(2.4 * columns + 0.6, 2.3 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for name, ax in zip(classes, axes.ravel(), strict=False):
        draw_class(ax, name, evaluations)
    for ax in axes.ravel()[len(classes) :]:
        ax.set_axis_off()
    for ax in lowest_axes(axes, len(classes)):
        ax.tick_params(labelbottom=True)
    which = "" if len(classes) == len(every) else f"; the {len(classes)} of {len(every)} classes with the most objects"
    figure.supxlabel(f"recall (beside each class: 11-point AP in percent{which})", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    if len(evaluations) > 1:
        handles = [Line2D([], [], label=label, **line_of(number)) for number, label in enumerate(evaluations)]
        longest = max(len(label) for label in evaluations)
        columns = max(1, min(len(handles), int(figure.get_figwidth() * 11 / (longest + 6))))
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def line_of(number: int) -> dict[str, Any]:
    """Colour and style of the evaluation with this number."""
    return {"color": LINES[number % len(LINES)], "linestyle": STYLES[number % len(STYLES)], "linewidth": 1.3}


def plotted_classes(evaluations: Mapping[str, Mapping[str, Curve]]) -> list[str]:
    """Classes with something to find in any of the evaluations, in order."""
    named = [name for curves in evaluations.values() for name, curve in curves.items() if curve.positives]
    return list(dict.fromkeys(named))


def most_objects(names: Sequence[str], evaluations: Mapping[str, Mapping[str, Curve]], at_most: int) -> list[str]:
    """The `at_most` classes with the most objects to find, in the order of `names`."""
    objects = {name: max(one[name].positives for one in evaluations.values() if name in one) for name in names}
    chosen = set(sorted(names, key=lambda name: -objects[name])[:at_most])
    return [name for name in names if name in chosen]


def lowest_axes(axes: NDArray[np.object_], used: int) -> list[Any]:
    """In each column the lowest plot that is used."""
    rows, columns = axes.shape
    places = [
        max((row for row in range(rows) if row * columns + column < used), default=None) for column in range(columns)
    ]
    return [axes[row, column] for column, row in enumerate(places) if row is not None]


def draw_class(ax: Any, name: str, evaluations: Mapping[str, Mapping[str, Curve]]) -> None:
    """One class's plot: its curves, and their APs in the title."""
    aps = []
    for number, curves in enumerate(evaluations.values()):
        curve = curves.get(name)
        if curve is None or not curve.positives:
            continue
        recall, precision = np.append(0.0, curve.recall), np.append(curve.precision[:1], curve.precision)
        ax.plot(recall[: len(precision)], precision, **line_of(number))
        aps.append(f"{100 * curve.ap_11:.1f}")
    few = len(aps) <= MOST_BESIDE
    ax.set_title(f"{name}{'  ' if few else chr(10)}{' / '.join(aps)}", fontsize=9 if few else 7.5)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    ax.tick_params(labelsize=8, length=2)
    ax.grid(color="#e3e3e3", linewidth=0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def detection_sheet(
    dataset: Any,
    detections: DetectionSet,
    cuts: NDArray[np.floating],
    *,
    count: int = 12,
    columns: int = 4,
    cell: tuple[int, int] = (360, 300),
) -> Pixels:
    """A contact sheet of `count` images with their detections of at least their class's score in `cuts` [classes].

    Images are taken evenly from those that show any detection (from all that could be read, if none does); `cell` is
    (width, height).
    """
    sizes = zip(detections.image_ids, detections.image_sizes, strict=True)
    readable = [image_id for image_id, size in sizes if size.all()]
    shown = [image_id for image_id in readable if len(detections.of_image(image_id).above(cuts))]
    chosen = evenly(shown or readable, count)
    cells = [
        draw_fitted(
            dataset.read_image(image_id),
            detections.of_image(image_id).above(cuts),
            detections.classes,
            cell,
        )
        for image_id in chosen
    ]
    return contact_sheet(cells, columns, titles=chosen)


def precision_sheet(
    dataset: Any,
    detections: DetectionSet,
    precision: NDArray[np.floating],
    above: float,
    image_ids: Sequence[str],
    *,
    columns: int = 4,
    cell: tuple[int, int] = (360, 300),
) -> Pixels:
    """Figures 8 to 11: a contact sheet of the images, each with its detections of a precision above `above`.

    `precision` [n] is that of each row of `detections.every`, of its detector at its score (nan for none); it stands
    beside the class's name. `cell` is (width, height).
    """
    cells = []
    for image_id in image_ids:
        place = detections.image_index[image_id]
        rows = np.arange(detections.offsets[place], detections.offsets[place + 1])
        rows = rows[precision[rows] > above]
        every = detections.every
        found = Detections(every.boxes[rows], precision[rows].astype(np.float32), every.labels[rows])
        cells.append(draw_fitted(dataset.read_image(image_id), found, detections.classes, cell))
    return contact_sheet(cells, columns, titles=image_ids)


def plot_box_plots(evaluations: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Figure 3 as a PNG: a box plot of the AP of all classes for each evaluation, `evaluations` name to class to AP.

    As in the paper the red line marks the median, the box the quartiles, the whiskers the extremes, and each AP is a
    green dot; the diamond is the mean. Named are the worst and the best class and those beyond OUTLIER times the height
    of the box from it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(evaluations)
    values = [100 * np.array(list(aps.values())) for aps in evaluations.values()]
    figure = Figure(figsize=(1.6 + 1.9 * len(names), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.boxplot(
        values, positions=range(len(names)), whis=(0, 100), widths=0.36, showmeans=True,
        medianprops={"color": "#d62728", "linewidth": 1.6}, boxprops={"color": LINES[0]},
        whiskerprops={"color": LINES[0], "linestyle": "--"}, capprops={"color": "#444444"},
        meanprops={"marker": "D", "markersize": 6, "markerfacecolor": "white", "markeredgecolor": "#444444"},
    )  # fmt: skip
    lowest = max(0.0, 10 * math.floor((min(found.min() for found in values) - 5) / 10))
    for place, (aps, found) in enumerate(zip(evaluations.values(), values, strict=True)):
        ax.plot(np.full(len(found), place), found, ".", color=LINES[2], markersize=5, alpha=0.8)
        labelled = sorted(named_classes(list(aps), found).items(), key=lambda one: one[1])
        heights = apart([value for _, value in labelled], 0.034 * (100 - lowest))
        for (name, value), height in zip(labelled, heights, strict=True):
            ax.annotate(
                name, (place + 0.1, value), xytext=(place + 0.23, height), fontsize=8, va="center",
                arrowprops={"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
            )  # fmt: skip
    ax.set(xlim=(-0.5, len(names) - 0.25), ylim=(lowest, 101))
    ax.set_ylabel("average precision of each class, percent", fontsize=9)
    told = [f"mean {found.mean():.1f}, median {np.median(found):.1f}" for found in values]
    ax.set_xticks(range(len(names)), [f"{wrapped(name)}\n{words}" for name, words in zip(names, told, strict=True)])
    ax.tick_params(labelsize=8, length=2)
    ax.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def wrapped(name: str) -> str:
    """A long name in lines of some WIDEST_NAME characters."""
    return "\n".join(textwrap.wrap(name, WIDEST_NAME)) or name


def named_classes(names: Sequence[str], values: NDArray[np.floating]) -> dict[str, float]:
    """The classes that a box plot of `values` [classes] names: the outliers, at most MOST_OUTLIERS, worst and best."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    beyond = np.flatnonzero((values < low - OUTLIER * (high - low)) | (values > high + OUTLIER * (high - low)))
    furthest = beyond[np.argsort(-np.abs(values[beyond] - middle), kind="stable")][:MOST_OUTLIERS]
    return {names[row]: float(values[row]) for row in (*furthest, int(values.argmin()), int(values.argmax()))}


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending `values`, each moved up as little as keeps `gap` between neighbours."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    return places


def evenly(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names (or all, if there are fewer), evenly spaced."""
    picks = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[pick] for pick in picks]
