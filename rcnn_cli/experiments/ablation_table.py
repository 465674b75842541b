"""The outcome of a grid as text, Markdown, CSV and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.files import write_atomically, write_json
from rcnn_cli.experiments.ablation import Count, Plan, Row, Spread
from rcnn_cli.experiments.grid import Cell, Grid
from stages.plurals import number_of

Table = list[list[str]]


def format_counts(plan: Plan, counts: Sequence[Count]) -> str:
    """The counts of caches by stage, for a terminal."""
    from stages.tables import aligned

    rows = [["stage", "caches", "complete", "to make", "shared"]]
    rows += [[count.stage, *map(str, (count.caches, count.complete, count.missing, count.shared))] for count in counts]
    seeds = f" x {number_of(len(plan.grid.seeds), 'seed')}" if plan.grid.seeds else ""
    head = f"{plan.grid.title}: {number_of(len(plan.grid.cells), 'cell')}{seeds}, {counted(plan, counts)}"
    return "\n".join([head, *(aligned(rows, rules_before=(1,)) if counts else []), *failures(plan)])


def counted(plan: Plan, counts: Sequence[Count]) -> str:
    """The totals in words: "24 caches instead of 63 without sharing; 3 complete, 21 to make"."""
    unshared = sum(len(run.nodes) for run in plan.runs)
    total, done = sum(count.caches for count in counts), sum(count.complete for count in counts)
    return f"{number_of(total, 'cache')} instead of {unshared} without sharing; {done} complete, {total - done} to make"


def failures(plan: Plan) -> list[str]:
    """One line per cell that cannot be run, with the reason for one of its seeds."""
    return [f"{cell}: cannot be run: {reason}" for cell, reason in {n: r for (n, _), r in plan.failed.items()}.items()]


def counts_json(plan: Plan, counts: Sequence[Count]) -> dict[str, Any]:
    """The output of `--dry-run --json`."""
    return {
        "cells": len(plan.grid.cells),
        "runs": len(plan.runs),
        "caches_without_sharing": sum(len(run.nodes) for run in plan.runs),
        "stages": {count.stage: {"missing": count.missing, **asdict(count)} for count in counts},
        "failed": {name: reason for (name, _), reason in plan.failed.items()},
    }


class Notes:
    """Footnotes, numbered in the order of their first use."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The mark of a footnote, e.g. "[2]"; "" for an empty text."""
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return f"[{self.texts.index(text) + 1}]"

    def lines(self) -> list[str]:
        """One line per footnote: "[1] ..."."""
        return [f"[{number}] {text}" for number, text in enumerate(self.texts, start=1)]


def format_text(plan: Plan, rows: Sequence[Row]) -> str:
    """The table for a terminal, footnotes below; each line ends with the cell's changes, or why it failed."""
    from stages.tables import aligned

    notes = Notes()
    table, ends = body(plan.grid, rows, notes), [last_column(plan.grid, row) for row in rows]
    lines = aligned(table, rules_before=(1,))
    width = max(map(len, lines))
    lines[2:] = [f"{line:<{width}}  {end}".rstrip() for line, end in zip(lines[2:], ends, strict=True)]
    blocks = [heading(plan), "\n".join(lines)]
    if plan.grid.classes:
        blocks.append("\n".join(aligned(class_table(plan.grid, rows), rules_before=(1,))))
    return "\n\n".join([*blocks, "\n".join([*remarks(plan.grid, rows), *notes.lines()])]).rstrip()


def format_markdown(plan: Plan, rows: Sequence[Row]) -> str:
    """The table as a Markdown document."""
    notes = Notes()
    table = body(plan.grid, rows, notes)
    table[0].append("settings")
    for line, row in zip(table[1:], rows, strict=True):
        line.append(f"failed: {row.error}" if row.error else ", ".join(f"`{word}`" for word in row.cell.words()))
    blocks = [f"# {heading(plan)}", markdown_table(table)]
    if plan.grid.classes:
        blocks.append(markdown_table(class_table(plan.grid, rows)))
    return "\n\n".join([*blocks, *remarks(plan.grid, rows), *notes.lines()]) + "\n"


def markdown_table(rows: Table) -> str:
    """A Markdown table; the first row is the heading."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def heading(plan: Plan) -> str:
    """Title, and the base recipe if there is one."""
    return plan.grid.title if plan.recipe is None else f"{plan.grid.title} ({plan.recipe})"


def body(grid: Grid, rows: Sequence[Row], notes: Notes) -> Table:
    """The heading and one row per cell: its places, our numbers, and the paper's if the grid has any."""
    papers = any(cell.paper is not None for cell in grid.cells)
    marked = papers or any(cell.protocol for cell in grid.cells)
    table = [[*grid.columns, *grid.metrics, *(["paper"] if papers else []), *([""] if marked else [])]]
    for row in rows:
        ours = [shown(row.values.get(title), "failed" if row.error else "-") for title in grid.metrics]
        paper = ["-" if row.cell.paper is None else f"{row.cell.paper:.1f}"] if papers else []
        mark = [notes.mark(note_of(row.cell))] if marked else []
        table.append([*row.cell.places, *ours, *paper, *mark])
    return table


def note_of(cell: Cell) -> str:
    """A cell's footnote: the source of the paper's number and what was done differently for it."""
    return ": ".join(text for text in (cell.paper_source, cell.protocol) if text)


def class_table(grid: Grid, rows: Sequence[Row]) -> Table:
    """The AP of each class, one row per cell that did not fail."""
    made = [row for row in rows if not row.error]
    classes = list(dict.fromkeys(name for row in made for name in row.classes))
    lines = [[*row.cell.places, *(shown(row.classes.get(name), "-") for name in classes)] for row in made]
    return [[*grid.columns, *classes], *lines]


def last_column(grid: Grid, row: Row) -> str:
    """What a cell changes, unless its first columns already show it; or why it failed."""
    if row.error:
        return f"failed: {row.error}"
    already = [f"{column} = {place}" for column, place in zip(grid.columns, row.cell.places, strict=True)]
    words = row.cell.words()
    return "" if words == already else ", ".join(words)


def shown(value: Spread | None, missing: str) -> str:
    """A number as text: "54.2", "54.2 ± 0.4"; `missing` for None."""
    if value is None:
        return missing
    return f"{value.mean:.1f}" if value.deviation is None else f"{value.mean:.1f} ± {value.deviation:.1f}"


def remarks(grid: Grid, rows: Sequence[Row]) -> list[str]:
    """Notes on the whole table: the metric, the seeds, the protocol."""
    measures = list(dict.fromkeys(row.measure for row in rows if row.measure))
    lines = [f"AP: {' or '.join(measures)}, in percent."] if measures else []
    if grid.seeds:
        counts = {value.count for row in rows for value in row.values.values() if value is not None}
        few = "" if counts <= {len(grid.seeds)} else "; a number without ± is not affected by the seed"
        settings, seeds = " and ".join(grid.seed_settings), ", ".join(map(str, grid.seeds))
        over = "Mean ± sample standard deviation over" if len(grid.seeds) > 1 else "One run only:"
        lines.append(f"{over} {settings} = {seeds}{few}.")
    return [*lines, *([grid.protocol] if grid.protocol else [])]


def table_as_csv(grid: Grid, rows: Sequence[Row]) -> str:
    """One row per cell with all of its numbers."""
    from stages.tables import csv_text

    classes = list(dict.fromkeys(name for row in rows for name in row.classes))
    numbers = [*grid.metrics, *classes]
    spreads = [heading for name in numbers for heading in (name, f"{name} deviation")]
    table: list[list[Any]] = [
        [*grid.columns, "settings", "runs", *spreads, "paper", "paper_source", "protocol", "failed"]
    ]
    for row in rows:
        values = [{**row.classes, **row.values}.get(name) for name in numbers]
        runs = max((value.count for value in values if value is not None), default=0)
        columns = [number for value in values for number in ((value.mean, value.deviation) if value else (None, None))]
        cell = row.cell
        last = [cell.paper, cell.paper_source, cell.protocol or grid.protocol, row.error]
        table.append([*cell.places, "; ".join(cell.words()), runs, *columns, *last])
    return csv_text(table)


def as_json(plan: Plan, rows: Sequence[Row], changes: Sequence[str]) -> dict[str, Any]:
    """The whole outcome as JSON values; APs in percent."""
    grid = plan.grid
    return {
        "grid": str(grid.path),
        "title": grid.title,
        "recipe": None if plan.recipe is None else str(plan.recipe),
        "changes": list(changes),
        "protocol": grid.protocol,
        "seeds": list(grid.seeds),
        "seed_settings": list(grid.seed_settings),
        "rows": [row_json(grid, row) for row in rows],
    }


def row_json(grid: Grid, row: Row) -> dict[str, Any]:
    """The outcome of a cell as JSON values."""
    cell = row.cell
    return {
        "cell": cell.name,
        "recipe": None if cell.recipe is None else str(cell.recipe),
        "places": dict(zip(grid.columns, cell.places, strict=True)),
        "settings": cell.words(),
        "evaluation": cell.evaluation,
        "values": {name: None if value is None else asdict(value) for name, value in row.values.items()},
        "classes": {name: None if value is None else asdict(value) for name, value in row.classes.items()},
        "measure": row.measure,
        "seeds": {seed: dict(values) for seed, values in row.seeds.items()},
        "caches": list(row.caches),
        "paper": cell.paper,
        "paper_source": cell.paper_source,
        "protocol": cell.protocol,
        "failed": row.error,
    }


def write_tables(plan: Plan, rows: Sequence[Row], changes: Sequence[str], work: Path, name: str) -> Iterator[Path]:
    """Writes NAME.md, NAME.csv and NAME.json to `ablations/` in the work folder; yields their paths."""
    from stages.file_names import file_name

    folder, name = work / "ablations", file_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("md", format_markdown(plan, rows)), ("csv", table_as_csv(plan.grid, rows))):
        path = folder / f"{name}.{suffix}"
        write_atomically(path, [text.encode("utf-8", "replace")])
        yield path
    write_json(folder / f"{name}.json", as_json(plan, rows, changes))
    yield folder / f"{name}.json"
