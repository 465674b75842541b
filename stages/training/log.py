"""The training log: recorded step by step, written as CSV during training, plotted afterwards.

The stage's card defines its columns (`LogColumns`); the CSV file also has the duration of each step, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader, Record
from cache.files import write_atomically
from stages.contract.card import LogColumns, Stage
from stages.pictures.palette import line_of
from stages.pictures.plots import new_figure, save, whole_steps

FILE = "training.csv"
TABLE = "log"
SHOWN_POINTS = 100
MEANS = 100
"""How many of the last steps a summary averages."""

Log = Mapping[str, Any]  # columns of equal length, lists or arrays, the step number first


class TrainingLog:
    """The measurements of each step, in order, and its duration in seconds."""

    def __init__(self, columns: LogColumns) -> None:
        self.columns = columns
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rate: float, measured: Mapping[str, float], seconds: float) -> dict[str, float]:
        """Appends and returns the row of the next step. Raises KeyError if a column is missing from `measured`."""
        columns = self.columns
        row = {columns.step: len(self) + 1, "learning_rate": rate}
        row |= {name: measured[name] for name in (*columns.losses, *columns.accuracies)}
        self.rows.append(row)
        self.seconds.append(seconds)
        return row

    def record(self) -> Record:
        """The log as the columns of the cache's table TABLE."""
        return {
            f"{TABLE}/{name}": np.array([row[name] for row in self.rows], dtype)
            for name, dtype in self.columns.dtypes.items()
        }

    def state(self) -> Record:
        """What a checkpoint stores of the log."""
        return {**self.record(), "seconds": np.array(self.seconds, np.float32)}

    def restore(self, state: Record) -> None:
        """The inverse of `state`. Raises KeyError or ValueError for anything else."""
        names = list(self.columns.dtypes)
        values = zip(*(state[f"{TABLE}/{name}"].tolist() for name in names), strict=True)
        self.rows = [dict(zip(names, row, strict=True)) for row in values]
        self.seconds = state["seconds"].tolist()

    def after(self, step: int) -> list[dict[str, float]]:
        """The values of the steps after this one, by the names that trackers show ("train/loss", "learning_rate")."""
        measured = (*self.columns.losses, *self.columns.accuracies)
        return [
            {"learning_rate": row["learning_rate"], **{f"train/{name}": row[name] for name in measured}}
            for row in self.rows[step:]
        ]

    def write(self, folder: Path) -> None:
        """Writes FILE into a cache's folder, atomically. Raises DiskFull or CacheError."""
        measured = {name: [row[name] for row in self.rows] for name in self.columns.dtypes}
        write_log(folder, {**measured, "seconds": self.seconds})

    def sentence(self, first: int, last: int) -> str:
        """A log line: mean losses and accuracies of the steps from row `first` on, out of `last` steps in all."""
        means = {name: float(np.mean([row[name] for row in self.rows[first:]])) for name in self.columns.dtypes}
        measures = [f"{name.replace('_', ' ')} {means[name]:.3f}" for name in self.columns.losses]
        measures += [f"{name.replace('_', ' ')} {100 * means[name]:.1f} %" for name in self.columns.accuracies]
        return f"{self.columns.step} {len(self)} of {last}: {', '.join(measures)}"


def write_log(folder: Path, log: Log) -> None:
    """Writes FILE into a cache's folder, atomically. Raises DiskFull or CacheError."""
    rows = zip(*log.values(), strict=True)
    lines = [",".join(log), *(",".join(map(as_text, row)) for row in rows)]
    write_atomically(folder / FILE, [("\n".join(lines) + "\n").encode()], durable=False)


def as_text(value: float | np.generic) -> str:
    """Integers in full, other numbers to six significant digits."""
    return str(value) if isinstance(value, int | np.integer) else f"{value:.6g}"


def read_log(reader: Reader, item_id: str) -> dict[str, np.ndarray]:
    """The columns of the table TABLE in the cache of a training stage, [steps] each."""
    names = list(reader.schema.tables[TABLE])
    record = reader.read(item_id, [f"{TABLE}/{name}" for name in names])
    return {name: record[f"{TABLE}/{name}"] for name in names}


def last_means(reader: Reader, stage: Stage) -> dict[str, float]:
    """The means of the losses and accuracies of the last MEANS steps, by name, in the cache of a stage's network."""
    assert stage.log is not None
    (item,) = reader.item_ids
    log = read_log(reader, item)
    return {name: float(log[name][-MEANS:].mean()) for name in (*stage.log.losses, *stage.log.accuracies)}


def running_means(values: Sequence[float], points: int = SHOWN_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Means of `values` over at most `points` equal stretches, and the zero-based middle of each: float64 [points]."""
    stretches = np.array_split(np.asarray(values, np.float64), max(1, min(points, len(values))))
    lengths = np.array([len(stretch) for stretch in stretches])
    return np.array([stretch.mean() for stretch in stretches]), np.cumsum(lengths) - (lengths + 1) / 2


def points_in_words(log: Log) -> str:
    """What a point on the curves of `log` stands for, such as an epoch or the mean of several iterations."""
    step, count = next(iter(log)), len(next(iter(log.values())))
    if count == 1:
        return f"a single {step}"
    return f"one point per {step}" if count <= SHOWN_POINTS else f"each point averages a few {step}s"


def smoothed(log: Log, step: str, names: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per column in `names`, the steps and running means to plot: float64 [points] each."""
    steps = np.asarray(log[step], np.float64)
    for name in names:
        means, places = running_means(log[name])
        yield np.interp(places, np.arange(len(steps)), steps), means


def plot_log(log: Log, columns: LogColumns, path: Path) -> None:
    """Plots losses, accuracies and learning rate to a PNG, one point per step or per short stretch of steps."""
    panels = {
        "loss": (columns.losses, 3.0),
        "accuracy": (columns.accuracies, 3.0),
        "learning rate": (("learning_rate",), 1.3),
    }
    shown = {label: names for label, (names, _) in panels.items() if names}
    figure = new_figure(7, 6.5)
    axes = figure.subplots(len(shown), 1, sharex=True, height_ratios=[panels[label][1] for label in shown])
    for ax, (label, names) in zip(axes, shown.items(), strict=True):
        draw_panel(ax, log, columns.step, names)
        ax.set_ylabel(label)
        if label == "loss":
            ax.set_ylim(bottom=0)
        elif label == "accuracy":
            ax.set_ylim(-0.02, 1.02)
        else:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(lambda *_: "")
    axes[-1].set_xlabel(f"{columns.step} ({points_in_words(log)})")
    whole_steps(axes[-1], log[columns.step])
    save(figure, path)


def draw_panel(ax: Any, log: Log, step: str, names: Sequence[str]) -> None:
    """Draws one panel: the columns `names` against the column `step`."""
    for number, (steps, means) in enumerate(smoothed(log, step, names)):
        marker = "." if len(means) < 20 else ""
        ax.plot(steps, means, marker=marker, linewidth=1.3, **line_of(number))
        ax.lines[-1].set_label(names[number].replace("_", " "))
    if len(names) > 1:
        ax.legend(frameon=False, fontsize=9)
    ax.grid(alpha=0.25)
