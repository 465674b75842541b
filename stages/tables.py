"""Tables of numbers as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def percent(value: float | None) -> str:
    """0.5432 as "54.3", None as "-"."""
    return "-" if value is None else f"{100 * value:.1f}"


def aligned(rows: Sequence[Sequence[str]], rules_before: Sequence[int]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right, rules before some rows."""
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
