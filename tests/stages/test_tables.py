"""Tables as CSV: what a spreadsheet would run is text, and everything reads back."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tables import FORMULA, csv_text


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+disc", "'+disc"),
        ("-disc", "'-disc"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tdisc", "'\tdisc"),
        ("＝1＋1", "'＝1＋1"),
        ("-", "-"),
        ("-1.5", "-1.5"),
        ("+1e-05", "+1e-05"),
        (-1.5, "-1.5"),
        ("disc, the first", "disc, the first"),
        ("dis=c", "dis=c"),
        (None, ""),
    ],
)
def test_cells(cell: object, written: str) -> None:
    assert list(csv.reader(io.StringIO(csv_text([["class", cell]]), newline=""))) == [["class", written]]


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=2), max_size=4))
def test_no_cell_begins_like_a_formula_and_all_read_back(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(rows), newline="")))
    assert len(read) == len(rows)
    for row, cells in zip(rows, read, strict=True):
        for text, cell in zip(row, cells, strict=True):
            assert cell in (text, f"'{text}")
            assert not cell.startswith(FORMULA) or cell == "-" or float(cell) is not None
