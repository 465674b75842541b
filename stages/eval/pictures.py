"""Figures of an evaluation: precision-recall curves, contact sheets of detections, and box plots."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.detections import Detections, DetectionSet, best_first
from stages.images.reading import Pixels
from stages.matching.average_precision import Curve, interpolated_steps
from stages.pictures.drawing import class_colours, contact_sheet, font_of, shortened
from stages.pictures.marks import Mark, draw_marks
from stages.pictures.palette import GREY, MUTED, TRUTH, Colour, line_of, series_colour
from stages.pictures.plots import apart, cut, new_figure, plain, save, say

Item = TypeVar("Item")
MOST_PLOTS = 200
PLOT_WIDTH = 2.4
OUTLIER = 1.5
MOST_OUTLIERS = 6
BARS_WIDTH = 4.2
MOST_BESIDE = 2
WIDEST_NAME = 26
TITLE_WIDTH = 200
LABEL_HEIGHT = 0.036
LABEL_WIDTH = 1.0
"""The size of a class's name in a box plot: its height as a share of the axis, its width in inches."""


def plot_precision_recall(evaluations: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """Writes a PNG of interpolated precision against recall: one small plot per class, one line per evaluation.

    `evaluations` maps a name (such as "with regression") to the curves of its classes. Classes with nothing to find are
    left out; if there are more than MOST_PLOTS classes, those with the most objects are shown. Plots of classes without
    true positives say so.
    """
    from matplotlib.lines import Line2D

    every = plotted_classes(evaluations)
    classes = most_objects(every, evaluations, MOST_PLOTS)
    columns = min(5, max(1, math.ceil(math.sqrt(len(classes)))))
    rows = max(1, math.ceil(len(classes) / columns))
    figure = new_figure(PLOT_WIDTH * columns + 0.6, 2.3 * rows + 0.9)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for name, ax in zip(classes, axes.ravel(), strict=False):
        draw_class(ax, name, evaluations)
    for ax in axes.ravel()[len(classes) :]:
        ax.set_axis_off()
    if not classes:
        say(axes[0, 0], "no objects to find")
    for ax in lowest_axes(axes, len(classes)):
        ax.tick_params(labelbottom=True)
    which = "" if len(classes) == len(every) else f"; the {len(classes)} of {len(every)} classes with the most objects"
    label = textwrap.fill(f"recall (beside each class: 11-point AP in percent{which})", 30 * columns)
    figure.supxlabel(label, fontsize=9)
    figure.supylabel("interpolated precision", fontsize=9)
    if len(evaluations) > 1:
        width = figure.get_figwidth()
        names = [cut(label, 9, width - 0.8) for label in evaluations]
        handles = [Line2D([], [], label=label, linewidth=1.3, **line_of(number)) for number, label in enumerate(names)]
        columns = max(1, min(len(handles), int(width * 11 / (max(map(len, names)) + 6))))
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    save(figure, path)


def plotted_classes(evaluations: Mapping[str, Mapping[str, Curve]]) -> list[str]:
    """The classes with objects to find in any of the evaluations, in order."""
    named = [name for curves in evaluations.values() for name, curve in curves.items() if curve.positives]
    return list(dict.fromkeys(named))


def most_objects(names: Sequence[str], evaluations: Mapping[str, Mapping[str, Curve]], at_most: int) -> list[str]:
    """The `at_most` classes with the most objects to find, in the order of `names`."""
    objects = {name: max(curves[name].positives for curves in evaluations.values() if name in curves) for name in names}
    chosen = set(sorted(names, key=lambda name: -objects[name])[:at_most])
    return [name for name in names if name in chosen]


def lowest_axes(axes: NDArray[np.object_], used: int) -> list[Any]:
    """The lowest used plot of each column of `axes` [rows, columns], of which the first `used` are used."""
    rows, columns = axes.shape
    places = [
        max((row for row in range(rows) if row * columns + column < used), default=None) for column in range(columns)
    ]
    return [axes[row, column] for column, row in enumerate(places) if row is not None]


def draw_class(ax: Any, name: str, evaluations: Mapping[str, Mapping[str, Curve]]) -> None:
    """Draws one class's plot: its curves, with their APs in the title."""
    aps = []
    known: list[Curve] = []
    for number, curves in enumerate(evaluations.values()):
        curve = curves.get(name)
        if curve is None or not curve.positives:
            continue
        draw_steps(ax, *interpolated_steps(curve), linewidth=1.3, **line_of(number))
        aps.append(f"{100 * curve.ap_11:.1f}")
        known.append(curve)
    reason = why_empty(known)
    if reason:
        say(ax, reason)
    few = len(aps) <= MOST_BESIDE
    values = " / ".join(aps)
    if few:
        ax.set_title(f"{cut(name, 9, PLOT_WIDTH - 0.35 - 0.09 * len(values))}  {values}", fontsize=9)
    else:
        ax.set_title(f"{cut(name, 8, PLOT_WIDTH - 0.3)}\n{textwrap.fill(values, 36)}", fontsize=7.5)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    ax.tick_params(labelsize=8, length=2)
    plain(ax)


def draw_steps(ax: Any, recall: NDArray[np.floating], precision: NDArray[np.floating], **line: Any) -> None:
    """Draws interpolated precision [k] against recall [k], from `interpolated_steps`; nothing if k is 0."""
    if len(recall):
        ax.plot(np.append(0.0, recall), np.append(precision[0], precision), drawstyle="steps-pre", **line)


def why_empty(curves: Sequence[Curve]) -> str:
    """Why none of a class's `curves` can be seen; "" if one can."""
    if any(len(curve.recall) and curve.recall[-1] > 0 for curve in curves):
        return ""
    counts = [len(curve.recall) for curve in curves]
    if not any(counts):
        return "no detections"
    ends = dict.fromkeys((min(counts), max(counts)))
    return f"no true positives\n{' to '.join(f'{count:,}' for count in ends)} false"


@dataclass(frozen=True)
class DetectionSheet:
    """A contact sheet, `pixels` uint8 [H, W, 3] RGB, of `images` images; on `bare` of them no detection has a precision
    of `at_least`, so their best ones are shown."""

    pixels: Pixels
    images: int
    bare: int
    at_least: float


def detection_sheet(
    dataset: Any,
    detections: DetectionSet,
    precision: NDArray[np.floating],
    at_least: float,
    image_ids: Sequence[str],
    *,
    columns: int = 4,
    cell: tuple[int, int] = (360, 300),
) -> DetectionSheet:
    """Figures 8 to 11: images with their detections of precision `at_least` or higher, and the annotated objects.

    `precision` [n] is that of each row of `detections.every` (`calibrated_precision`; nan if unknown), shown beside the
    class. An image without such a detection shows its best ones regardless of score, in thin lines, as many as it has
    objects and at least one; its title and the sheet's heading say so. `cell` is (width, height) in pixels.
    """
    cells, titles, bare = [], [], 0
    for image_id in image_ids:
        place = detections.image_index[image_id]
        rows = np.arange(detections.offsets[place], detections.offsets[place + 1])
        record = dataset.record(image_id)
        best, enough = rows_to_show(precision[rows], detections.every.scores[rows], at_least, max(1, len(record.boxes)))
        bare += not enough
        marks = detection_marks(detections, precision, rows[best], enough)
        marks += [
            Mark(box, TRUTH, "" if enough else dataset.classes[label], dashed=True)
            for box, label in zip(record.boxes, record.labels, strict=True)
        ]
        cells.append(draw_marks(dataset.read_image(image_id), marks, cell))
        titles.append(title_of(image_id, len(best), enough, at_least))
    heading = [
        "The number beside each class is the precision of its detections with at least this score; detections with "
        f"{at_least:g} or more are shown. White dashes: annotated objects."
    ]
    if bare:
        which = "None" if bare == len(image_ids) else f"{len(image_ids) - bare}"
        heading.append(
            f"{which} of these {len(image_ids)} images {'has' if which in ('None', '1') else 'have'} such a detection; "
            "the others show their best detections regardless of score, in thin lines."
        )
    return DetectionSheet(contact_sheet(cells, columns, titles, heading=heading), len(cells), bare, at_least)


def rows_to_show(
    precision: NDArray[np.floating], scores: NDArray[np.floating], at_least: float, least: int
) -> tuple[NDArray[np.int64], bool]:
    """The rows of an image's detections to show, int64 [k], best first, and whether any has precision `at_least`.

    `precision` (nan if unknown) and `scores` are [n]. If none is precise enough, the `least` rows with the highest
    precision are shown, ties broken by score.
    """
    order = best_first(scores, precision)
    enough = order[precision[order] >= at_least]
    return (enough, True) if len(enough) else (order[:least], False)


def detection_marks(
    detections: DetectionSet, precision: NDArray[np.floating], rows: NDArray[np.int64], enough: bool
) -> list[Mark]:
    """Marks for the boxes of `rows` (int64 [k]) in their classes' colours, thin if not precise `enough`."""
    every, colours = detections.every, class_colours(len(detections.classes))
    marks = []
    for row in rows:
        known = "" if np.isnan(precision[row]) else f" {precision[row]:.2f}"
        text = f"{detections.classes[every.labels[row]]}{known}"
        colour = colours[every.labels[row]]
        marks.append(Mark(every.boxes[row], colour, text) if enough else thin_mark(every.boxes[row], colour, text))
    return marks


def thin_mark(box: NDArray[np.floating], colour: Colour, text: str) -> Mark:
    """The mark of a detection (`box` [4]) that is not precise enough: a thin line and a grey label."""
    return Mark(box, colour, text, stroke=1, ground=GREY)


def draw_best(
    image: Pixels,
    detections: Detections,
    precision: NDArray[np.floating],
    record: Any,
    names: tuple[Sequence[str], Sequence[str]],
) -> Pixels:
    """A copy of an image on which no detection reaches its threshold, uint8 [H, W, 3]: with the best of its
    `detections` regardless of score, as many as it has objects and at least one, in thin lines, and the objects of its
    `record`.

    `precision` [n] is that of each detection, nan if unknown (see `best_first`); `names` are the detector's classes and
    the dataset's.
    """
    best = best_first(detections.scores, precision)[: max(1, len(record.boxes))]
    colours = class_colours(len(names[0]))
    marks = [
        thin_mark(detections.boxes[row], colours[label], f"{names[0][label]} {detections.scores[row]:.2f}")
        for row, label in zip(best, detections.labels[best], strict=True)
    ]
    marks += [
        Mark(box, TRUTH, names[1][label], dashed=True) for box, label in zip(record.boxes, record.labels, strict=True)
    ]
    return draw_marks(image, marks, (image.shape[1], image.shape[0]))


def title_of(image_id: str, shown: int, enough: bool, at_least: float) -> str:
    """The title under an image."""
    name = shortened(image_id, font_of(13), TITLE_WIDTH)
    if enough:
        return name
    return f"{name}: none reaches {at_least:g}, best {shown}" if shown else f"{name}: no detections"


def images_to_show(
    detections: DetectionSet, precision: NDArray[np.floating], at_least: float, count: int = 12
) -> list[str]:
    """`count` images, in order: evenly spaced among those with a detection of precision `at_least` or higher and, if
    these are too few, among the other readable ones. `precision` [n] is that of each row of `detections.every`."""
    precise = np.zeros(len(detections.image_ids), bool)
    images = np.repeat(np.arange(len(precise)), np.diff(detections.offsets))
    precise[images[np.nan_to_num(precision, nan=-1.0) >= at_least]] = True
    readable = (detections.image_sizes > 0).all(axis=1)
    chosen = evenly(np.flatnonzero(readable & precise).tolist(), count)
    chosen += evenly(np.flatnonzero(readable & ~precise).tolist(), count - len(chosen))
    return [detections.image_ids[place] for place in sorted(chosen)]


def plot_box_plots(
    evaluations: Mapping[str, Mapping[str, float]], path: Path, published: Sequence[tuple[str, float]] = ()
) -> None:
    """Figure 3 as a PNG: a box plot of all classes' APs per evaluation; `evaluations` maps name to class to AP.

    With `published` mAP, (name, percent), bars on the left compare those of the evaluations with them.

    As in the paper, the line marks the median, the box the quartiles, the whiskers the extremes, and each AP is a dot,
    all in the evaluation's colour except for the black median; the diamond is the mean. The worst and the best class
    are named, and so are outliers, more than OUTLIER times the height of the box away from it.
    """
    names = list(evaluations)
    values = [100 * np.array(list(aps.values())) for aps in evaluations.values()]
    figure = new_figure(1.6 + 1.9 * len(names) + (BARS_WIDTH if published else 0), 4.8)
    if published:
        bars, ax = figure.subplots(1, 2, gridspec_kw={"width_ratios": [BARS_WIDTH, 1.6 + 1.9 * len(names)]})
        draw_means(bars, [(wrapped(name), aps.mean()) for name, aps in zip(names, values, strict=True)], published)
    else:
        ax = figure.subplots()
    parts = ax.boxplot(
        values, positions=range(len(names)), whis=(0, 100), widths=0.36, showmeans=True,
        medianprops={"color": "black", "linewidth": 2}, capprops={"color": MUTED}, whiskerprops={"linestyle": "--"},
        meanprops={"marker": "D", "markersize": 6, "markerfacecolor": "white", "markeredgecolor": MUTED},
    )  # fmt: skip
    for number, box in enumerate(parts["boxes"]):
        for part in (box, *parts["whiskers"][2 * number : 2 * number + 2]):
            part.set_color(series_colour(number))
    lowest = max(0.0, 10 * math.floor((min(aps.min() for aps in values) - 5) / 10))
    highest = min(101.0, 10 * math.ceil((max(aps.max() for aps in values) + 5) / 10))
    line = LABEL_HEIGHT * (highest - lowest)
    for place, (classes, aps) in enumerate(zip(evaluations.values(), values, strict=True)):
        ax.plot(np.full(len(aps), place), aps, ".", color=series_colour(place), markersize=5, alpha=0.8, zorder=4)
        labelled = sorted(named_classes(list(classes), aps).items(), key=lambda named: named[1])
        heights = apart([value for _, value in labelled], line, lowest + line / 2, highest - line / 2)
        for (name, value), height in zip(labelled, heights, strict=True):
            ax.annotate(
                cut(name, 8, LABEL_WIDTH), (place + 0.1, value), xytext=(place + 0.23, height), fontsize=8, va="center",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 1, "shrinkB": 0},
            )  # fmt: skip
    ax.set(xlim=(-0.5, len(names) - 0.25), ylim=(lowest, highest))
    ax.set_ylabel("average precision per class, percent", fontsize=9)
    averages = [f"mean {aps.mean():.1f}, median {np.median(aps):.1f}" for aps in values]
    ax.set_xticks(range(len(names)), [f"{wrapped(name)}\n{words}" for name, words in zip(names, averages, strict=True)])
    ax.tick_params(labelsize=8, length=2)
    plain(ax, "y")
    save(figure, path)


def draw_means(ax: Any, own: Sequence[tuple[str, float]], published: Sequence[tuple[str, float]]) -> None:
    """Horizontal bars of mAP in percent, the best on top: `own` in their evaluations' colours, `published` in grey."""
    every = [(*bar, series_colour(number)) for number, bar in enumerate(own)] + [(*bar, MUTED) for bar in published]
    every.sort(key=lambda bar: bar[1])
    names, means, colours = zip(*every, strict=True)
    ax.barh(range(len(every)), means, color=colours, height=0.7)
    for place, mean in enumerate(means):
        ax.annotate(f"{mean:.1f}", (mean, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(every)), names)
    ax.set_xlabel("mAP, percent", fontsize=9)
    ax.set_xlim(0, 1.15 * max(means))
    ax.tick_params(labelsize=8, length=2)
    plain(ax, "x")


def wrapped(name: str) -> str:
    """A long name broken into at most three lines of WIDEST_NAME characters."""
    return "\n".join(textwrap.wrap(name, WIDEST_NAME, max_lines=3, placeholder="…")) or name


def named_classes(names: Sequence[str], values: NDArray[np.floating]) -> dict[str, float]:
    """The classes named in a box plot of `values` [classes]: at most MOST_OUTLIERS outliers, the worst and the best."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    beyond = np.flatnonzero((values < low - OUTLIER * (high - low)) | (values > high + OUTLIER * (high - low)))
    furthest = beyond[np.argsort(-np.abs(values[beyond] - middle), kind="stable")][:MOST_OUTLIERS]
    return {names[row]: float(values[row]) for row in (*furthest, int(values.argmin()), int(values.argmax()))}


def evenly(every: Sequence[Item], count: int) -> list[Item]:
    """`count` evenly spaced elements of `every`, or all if there are fewer."""
    picks = np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int)
    return [every[pick] for pick in picks]
