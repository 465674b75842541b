"""The log of a training: a CSV file while it runs, curves when it is done.

A log is a mapping from column names to values of the same number of rows; the first column numbers the steps ("epoch",
"iteration"), `loss` and `learning_rate` are what they say, and whatever else but `seconds` is a share of right answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from cache.files import write_atomically
from stages.pictures.palette import line_of
from stages.pictures.plots import new_figure, save, whole_steps

Log = Mapping[str, Any]  # of lists or arrays

FILE = "training.csv"
TABLE = "log"
SHOWN_POINTS = 100


def write_log(folder: Path, log: Log) -> None:
    """Writes FILE into a cache's folder, whole or not at all. Raises DiskFull or CacheError."""
    rows = zip(*log.values(), strict=True)
    lines = [",".join(log), *(",".join(map(as_text, row)) for row in rows)]
    write_atomically(folder / FILE, [("\n".join(lines) + "\n").encode()], durable=False)


def as_text(value: float | np.generic) -> str:
    """A whole number as it is, another to six digits."""
    return str(value) if isinstance(value, int | np.integer) else f"{value:.6g}"


def read_log(reader: Reader, item_id: str) -> dict[str, np.ndarray]:
    """The columns of the table TABLE in the cache of a training stage."""
    names = list(reader.schema.tables[TABLE])
    record = reader.read(item_id, [f"{TABLE}/{name}" for name in names])
    return {name: record[f"{TABLE}/{name}"] for name in names}


def running_means(values: Sequence[float], points: int = SHOWN_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Means of up to `points` equal stretches of `values`, and the place (from 0) of the middle of each."""
    stretches = np.array_split(np.asarray(values, np.float64), max(1, min(points, len(values))))
    ends = np.cumsum([len(one) for one in stretches])
    return np.array([one.mean() for one in stretches]), ends - np.array([(len(one) + 1) / 2 for one in stretches])


def points_in_words(log: Log) -> str:
    """What a point of the curves of `log` stands for: an epoch, say, or the mean of several iterations."""
    step, count = next(iter(log)), len(next(iter(log.values())))
    if count == 1:
        return f"a single {step}"
    return f"a point for each {step}" if count <= SHOWN_POINTS else f"each point the mean of a few {step}s"


def plot_log(log: Log, path: Path) -> None:
    """Writes a PNG of loss, accuracies and learning rate: a point for each step, or means of short stretches."""
    step, *columns = log
    accuracies = [name for name in columns if name not in ("loss", "learning_rate", "seconds")]
    figure = new_figure(7, 6.5)
    panels: list[tuple[str, list[str]]] = [("loss", ["loss"]), ("accuracy", accuracies)]
    panels.append(("learning rate", ["learning_rate"]))
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=(3, 3, 1.3))
    for ax, (label, names) in zip(axes, panels, strict=True):
        draw_panel(ax, log, names)
        ax.set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(-0.02, 1.02)
    axes[2].set_yscale("log")
    axes[-1].yaxis.set_major_formatter("{x:g}")
    axes[-1].yaxis.set_minor_formatter(lambda *_: "")
    axes[-1].set_xlabel(f"{step} ({points_in_words(log)})")
    whole_steps(axes[-1], log[step])
    save(figure, path)


def draw_panel(ax: Any, log: Log, names: Sequence[str]) -> None:
    """One panel: a line for each of the columns `names` against the first one."""
    steps = np.asarray(next(iter(log.values())), np.float64)
    for number, name in enumerate(names):
        means, places = running_means(log[name])
        marker = "." if len(means) < 20 else ""
        ax.plot(np.interp(places, np.arange(len(steps)), steps), means, marker=marker, linewidth=1.3, **line_of(number))
        ax.lines[-1].set_label(name.replace("_", " "))
    if len(names) > 1:
        ax.legend(frameon=False, fontsize=9)
    ax.grid(alpha=0.25)
