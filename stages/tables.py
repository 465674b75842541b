"""Tables as plain text and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Characters with which a spreadsheet cell starts a formula."""


def percent(value: float | None) -> str:
    """0.5432 as "54.3", None as "-"."""
    return "-" if value is None else f"{100 * value:.1f}"


def aligned(rows: Sequence[Sequence[str]], rules_before: Sequence[int]) -> list[str]:
    """The lines of a table: the first column left-aligned, the others right-aligned, rules before the given rows."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        if number in rules_before:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, None as an empty cell; text that a spreadsheet would run as a formula gets an apostrophe."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([plain_cell(cell) for cell in row] for row in rows)
    return file.getvalue()


def plain_cell(value: Any) -> Any:
    """A cell's value; text that starts like a formula, and is neither a number nor a dash, gets an apostrophe."""
    if not isinstance(value, str) or not value.startswith(FORMULA) or value == "-":
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
