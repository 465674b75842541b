"""An evaluation to look at: precision-recall curves, and a contact sheet of what was detected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.detections import DetectionSet
from stages.drawing import contact_sheet, draw_fitted
from stages.eval.average_precision import Curve
from stages.images import Pixels, read_image

LINES = ("#2563ab", "#d1602b", "#3c8f57", "#8a5aa8", "#6b6b6b")
STYLES = ("-", "--", "-.", ":")
MOST_PLOTS = 200


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
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
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
    ax.set_title(f"{name}  {' / '.join(aps)}", fontsize=9)
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
            read_image(dataset.image_path(image_id)),
            detections.of_image(image_id).above(cuts),
            detections.classes,
            cell,
        )
        for image_id in chosen
    ]
    return contact_sheet(cells, columns, titles=chosen)


def evenly(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names (or all, if there are fewer), evenly spaced."""
    picks = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[pick] for pick in picks]
