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
VALIDATIONS = "validation"
"""Tables of the cache: a row for each step, and one for each validation."""
SHOWN_POINTS = 100
MEANS = 100
"""How many of the last steps a summary averages."""

Log = Mapping[str, Any]  # columns of equal length, lists or arrays, the step number first


class TrainingLog:
    """The measurements of each step, in order, and its duration in seconds; those on a validation set, if there is
    one."""

    def __init__(self, columns: LogColumns) -> None:
        self.columns = columns
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.validated = False
        self.validations: list[dict[str, float]] = []

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

    def add_validation(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Appends and returns what was measured on the validation set after the last step, in float32, as a checkpoint
        keeps it: what follows from it must not differ after a kill. Raises KeyError if a column is missing."""
        names = list(self.columns.validation_dtypes)[1:]
        row = {self.columns.step: len(self), **{name: float(np.float32(measured[name])) for name in names}}
        self.validations.append(row)
        return row

    def record(self) -> Record:
        """The log as the columns of the cache's table TABLE and, with a validation set, of VALIDATIONS."""
        tables = {TABLE: (self.columns.dtypes, self.rows)}
        if self.validated:
            tables[VALIDATIONS] = (self.columns.validation_dtypes, self.validations)
        return {
            f"{table}/{name}": np.array([row[name] for row in rows], dtype)
            for table, (dtypes, rows) in tables.items()
            for name, dtype in dtypes.items()
        }

    def state(self) -> Record:
        """What a checkpoint stores of the log."""
        return {**self.record(), "seconds": np.array(self.seconds, np.float32)}

    def restore(self, state: Record) -> None:
        """The inverse of `state`. Raises KeyError or ValueError for anything else."""
        self.rows = rows_of(state, TABLE, self.columns.dtypes)
        self.validations = rows_of(state, VALIDATIONS, self.columns.validation_dtypes) if self.validated else []
        self.seconds = state["seconds"].tolist()

    def after(self, step: int) -> list[dict[str, float]]:
        """The values of the steps after this one, by the names that trackers show ("train/loss", "learning_rate")."""
        measured = (*self.columns.losses, *self.columns.accuracies)
        validations = {row[self.columns.step]: row for row in self.validations}
        return [
            {
                "learning_rate": row["learning_rate"],
                **{f"train/{name}": row[name] for name in measured},
                **self.validation_of(validations.get(number, {}), "validation/"),
            }
            for number, row in enumerate(self.rows[step:], step + 1)
        ]

    def validation_of(self, row: Mapping[str, float], prefix: str) -> dict[str, float]:
        """What was measured in a validation, with a prefix before the names."""
        return {f"{prefix}{name}": value for name, value in row.items() if name != self.columns.step}

    def write(self, folder: Path) -> None:
        """Writes FILE into a cache's folder, atomically. Raises DiskFull or CacheError."""
        log: dict[str, list[Any]] = {name: [row[name] for row in self.rows] for name in self.columns.dtypes}
        if self.validated:
            log |= on_steps(self.validations, self.columns, len(self))
        write_log(folder, {**log, "seconds": self.seconds})

    def sentence(self, first: int, last: int) -> str:
        """A log line: mean losses and accuracies of the steps from row `first` on, out of `last` steps in all."""
        means = {name: float(np.mean([row[name] for row in self.rows[first:]])) for name in self.columns.dtypes}
        measures = measures_in_words(means, self.columns.losses, self.columns.accuracies)
        return f"{self.columns.step} {len(self)} of {last}: {measures}"

    def validation_sentence(self) -> str:
        """A log line: the last validation."""
        row = self.validations[-1]
        measures = measures_in_words(row, self.columns.losses, self.columns.shares)
        return f"{self.columns.step} {row[self.columns.step]}, on the validation set: {measures}"


def measures_in_words(values: Mapping[str, float], losses: Sequence[str], shares: Sequence[str]) -> str:
    """Losses, and shares in percent, each after its name."""
    named = [f"{name.replace('_', ' ')} {values[name]:.3f}" for name in losses]
    return ", ".join([*named, *(f"{name.replace('_', ' ')} {100 * values[name]:.1f} %" for name in shares)])


def rows_of(state: Record, table: str, dtypes: Mapping[str, str]) -> list[dict[str, float]]:
    """The rows of a table in a record. Raises KeyError or ValueError if columns are missing or of unequal lengths."""
    values = zip(*(state[f"{table}/{name}"].tolist() for name in dtypes), strict=True)
    return [dict(zip(dtypes, row, strict=True)) for row in values]


def on_steps(validations: Sequence[Mapping[str, float]], columns: LogColumns, steps: int) -> dict[str, list[Any]]:
    """The validations as columns with an entry for each of that many steps, None where nothing was measured."""
    by_step = {row[columns.step]: row for row in validations}
    return {
        f"validation_{name}": [by_step.get(step, {}).get(name) for step in range(1, steps + 1)]
        for name in list(columns.validation_dtypes)[1:]
    }


def write_log(folder: Path, log: Log) -> None:
    """Writes FILE into a cache's folder, atomically. Raises DiskFull or CacheError."""
    rows = zip(*log.values(), strict=True)
    lines = [",".join(log), *(",".join(map(as_text, row)) for row in rows)]
    write_atomically(folder / FILE, [("\n".join(lines) + "\n").encode()], durable=False)


def as_text(value: float | np.generic | None) -> str:
    """Integers in full, other numbers to six significant digits; nothing for None."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int | np.integer) else f"{value:.6g}"


def read_log(reader: Reader, item_id: str) -> dict[str, np.ndarray]:
    """The columns of the table TABLE in the cache of a training stage, [steps] each."""
    names = list(reader.schema.tables[TABLE])
    record = reader.read(item_id, [f"{TABLE}/{name}" for name in names])
    return {name: record[f"{TABLE}/{name}"] for name in names}


def read_validations(reader: Reader, item_id: str) -> dict[str, np.ndarray]:
    """The columns of the table VALIDATIONS in the cache of a training stage, [validations] each; none without a
    validation set."""
    names = list(reader.schema.tables.get(VALIDATIONS, ()))
    record = reader.read(item_id, [f"{VALIDATIONS}/{name}" for name in names]) if names else {}
    return {name: record[f"{VALIDATIONS}/{name}"] for name in names}


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


def plot_log(log: Log, columns: LogColumns, path: Path, validations: Log | None = None) -> None:
    """Plots losses, accuracies and learning rate to a PNG, one point per step or per short stretch of steps; of a
    validation set, a point for each of the `validations`."""
    shares = columns.shares if validations else columns.accuracies
    panels = {"loss": (columns.losses, 3.0), "accuracy": (shares, 3.0), "learning rate": (("learning_rate",), 1.3)}
    shown = {label: names for label, (names, _) in panels.items() if names}
    figure = new_figure(9 if validations else 7, 6.5)
    axes = figure.subplots(len(shown), 1, sharex=True, height_ratios=[panels[label][1] for label in shown])
    for ax, (label, names) in zip(axes, shown.items(), strict=True):
        draw_panel(ax, log, columns.step, names, validations or {})
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


def draw_panel(ax: Any, log: Log, step: str, names: Sequence[str], validations: Log) -> None:
    """Draws one panel: the columns `names` of the log, and of the validations, against the column `step`."""
    for name, number, (steps, values), marker in curves(log, step, names, validations):
        ax.plot(steps, values, marker=marker, linewidth=1.3, **line_of(number))
        ax.lines[-1].set_label(name)
    if len(ax.lines) > 1:
        beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if validations else {}
        ax.legend(frameon=False, fontsize=9, **beside)
    ax.grid(alpha=0.25)


def curves(
    log: Log, step: str, names: Sequence[str], validations: Log
) -> Iterator[tuple[str, int, tuple[np.ndarray, np.ndarray], str]]:
    """What a panel shows: (the curve's name, its number, its steps and values, its marker), first of the log."""
    logged = [name for name in names if name in log]
    for number, (name, (steps, means)) in enumerate(zip(logged, smoothed(log, step, logged), strict=True)):
        yield name.replace("_", " "), number, (steps, means), "." if len(means) < 20 else ""
    for number, name in enumerate((name for name in names if name in validations), len(logged)):
        points = np.asarray(validations[step], np.float64), np.asarray(validations[name], np.float64)
        yield f"{name.replace('_', ' ')}, validation", number, points, "."
