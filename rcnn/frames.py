"""Tables of pandas, which is an extra of the package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from cache.schema import Column
from stages.contract.errors import StageError

LONGEST = 8
"""Numbers of the longest vector that becomes columns of a table."""
CORNERS = ("x1", "y1", "x2", "y2")
PARTS = {"boxes": CORNERS, "image_size": ("width", "height")}
"""What the numbers of these columns are called."""


def pandas() -> Any:
    """The module. Raises StageError where it is not installed."""
    try:
        return importlib.import_module("pandas")
    except ModuleNotFoundError:
        raise StageError("pandas is not installed; install it with `pip install 'rcnn[pandas]'`") from None


def fits(column: Column) -> bool:
    """Whether a row of the column is one number or a short vector."""
    return not column.shape or (len(column.shape) == 1 and column.shape[0] <= LONGEST)


def names_of(name: str, column: Column) -> Sequence[str]:
    """What the columns of a table are called that hold a cache's column."""
    if not column.shape:
        return (name,)
    parts = PARTS.get(name, ())
    return parts if len(parts) == column.shape[0] else [f"{name}_{number}" for number in range(column.shape[0])]


def table_columns(name: str, column: Column, values: Any, named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The columns of a table that hold the `values` [n, ...] of a cache's column, by name.

    `named` has the names of the values of a column of labels: the column of names stands beside it ("class" beside
    "label"), None where a label is negative.
    """
    if column.shape:
        return dict(zip(names_of(name, column), values.T, strict=True))
    words = named.get(name)
    if words is None:
        return {name: values}
    texts = [words[value] if 0 <= value < len(words) else None for value in values.tolist()]
    return {name: values, ("class" if name == "label" else f"{name}_name"): texts}
