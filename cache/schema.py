"""The columns of a cache: some have one row per item (image, class), some are ragged.

A *record* is one item: a dict from column names to arrays. The ragged columns of a table have equally many rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.errors import CacheError

Record = dict[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """A column's type and the shape of one row: Column("float16", (4096,))."""

    dtype: str = "float32"
    shape: tuple[int, ...] = ()

    def zeros(self, rows: int) -> np.ndarray:
        """`rows` rows of zeros, [rows, *shape]."""
        return np.zeros((rows, *self.shape), self.dtype)


@dataclass(frozen=True)
class Schema:
    """The columns of a cache.

    `rows`: ragged columns, at the root of the file, that share `offsets` (one slice per item). `tables`: further ragged
    tables, each a group with its own `offsets`; a record names their columns "table/column". `per_item`: one row per
    item. `item` names what an item is: the ids are the dataset `{item}_ids`.
    """

    item: str = "image"
    rows: Mapping[str, Column] = field(default_factory=dict)
    per_item: Mapping[str, Column] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Column]] = field(default_factory=dict)

    def ragged(self) -> Iterator[tuple[str, Mapping[str, Column]]]:
        """(prefix, columns) of each ragged table: "" for the rows at the root, "candidates/" for a table."""
        if self.rows:
            yield "", self.rows
        for table, columns in self.tables.items():
            yield f"{table}/", columns

    def columns(self) -> dict[str, Column]:
        """Every column by its full name."""
        ragged = {prefix + name: column for prefix, columns in self.ragged() for name, column in columns.items()}
        return {**ragged, **self.per_item}

    def prefix_of(self, column: str) -> str | None:
        """The ragged table that `column` belongs to, None if it has one row per item."""
        return next(
            (prefix for prefix, columns in self.ragged() if column in {prefix + name for name in columns}), None
        )

    def empty(self) -> Record:
        """A record without rows (zeros in columns with one row per item), as for a skipped image."""
        ragged = {
            prefix + name: column.zeros(0) for prefix, columns in self.ragged() for name, column in columns.items()
        }
        return {**ragged, **{name: np.zeros(column.shape, column.dtype) for name, column in self.per_item.items()}}

    def check(self, record: Mapping[str, np.ndarray], item_id: str) -> None:
        """Raises CacheError, naming item and column, unless `record` has exactly these columns, dtypes and shapes."""
        expected = self.columns()
        if set(record) != set(expected):
            missing, extra = sorted(set(expected) - set(record)), sorted(set(record) - set(expected))
            raise CacheError(f"{self.item} '{item_id}': columns missing {missing}, unknown {extra}; this is a bug")
        for name, column in self.per_item.items():
            self.check_column(item_id, name, record[name], column, ())
        for prefix, columns in self.ragged():
            rows = record[prefix + next(iter(columns))].shape[:1]
            for name, column in columns.items():
                self.check_column(item_id, prefix + name, record[prefix + name], column, rows)

    def check_column(self, item_id: str, name: str, values: np.ndarray, column: Column, rows: tuple[int, ...]) -> None:
        """Raises CacheError unless `values` has `column`'s dtype and the shape [*rows, *column.shape]."""
        wanted = (*rows, *column.shape)
        if values.dtype != np.dtype(column.dtype) or values.shape != wanted:
            raise CacheError(
                f"{self.item} '{item_id}': column '{name}' is {values.dtype} {list(values.shape)} "
                f"instead of {column.dtype} {list(wanted)}; this is a bug"
            )

    def as_json(self) -> dict[str, Any]:
        """The JSON that the plan records."""

        def described(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
            return {name: [column.dtype, list(column.shape)] for name, column in columns.items()}

        return {
            "item": self.item,
            "rows": described(self.rows),
            "per_item": described(self.per_item),
            "tables": {table: described(columns) for table, columns in self.tables.items()},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Schema:
        """The inverse of `as_json`."""

        def columns(described: Mapping[str, Sequence[Any]]) -> dict[str, Column]:
            return {name: Column(dtype, tuple(shape)) for name, (dtype, shape) in described.items()}

        tables = {table: columns(described) for table, described in value["tables"].items()}
        return Schema(value["item"], columns(value["rows"]), columns(value["per_item"]), tables)
