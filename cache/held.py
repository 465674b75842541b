"""A cache held in memory: its content as plain arrays, and a reader that gives the records of a finished cache of them.

For caches that travel inside another file: whoever reads records does not see the difference.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError
from cache.identity import Identity, canonical_json
from cache.parts import OpenPart, offsets_of
from cache.plan import Plan
from cache.reader import Reader
from cache.schema import Column, Schema

Columns = Mapping[str, np.ndarray]
OFFSETS = "offsets"
TYPES = frozenset(
    ["bool", "float16", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
)
"""The types of columns."""


@dataclass(frozen=True)
class Content:
    """All that readers of a cache may ask for: which stage made it, with which settings and summary, its items, and its
    columns as one array each, named as in data.h5: `offsets` int64 [items + 1] beside the columns of a ragged table."""

    stage: str
    settings: Mapping[str, Any]
    summary: Any
    schema: Schema
    item_ids: tuple[str, ...]
    columns: Columns

    @staticmethod
    def of(reader: Reader) -> Content:
        """The content of a finished cache. Raises DamagedPart, CacheError if it cannot be read."""
        records = [record for _, record in reader.records()]
        columns: dict[str, np.ndarray] = {}
        for prefix, names in reader.schema.ragged():
            lengths = [len(record[prefix + next(iter(names))]) for record in records]
            columns[prefix + OFFSETS] = offsets_of(lengths)
            columns |= {prefix + name: np.concatenate([one[prefix + name] for one in records]) for name in names}
        columns |= {name: np.stack([record[name] for record in records]) for name in reader.schema.per_item}
        manifest = reader.manifest
        return Content(
            manifest["stage"], manifest["settings"], manifest["summary"], reader.schema, reader.item_ids, columns
        )

    def described(self) -> dict[str, Any]:
        """All but the columns, as JSON."""
        return {
            "stage": self.stage,
            "settings": dict(self.settings),
            "summary": self.summary,
            "schema": self.schema.as_json(),
            "items": list(self.item_ids),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Content:
        """The inverse of `described`, without columns. Raises KeyError, TypeError, ValueError or AttributeError for
        anything else."""
        item_ids = tuple(value["items"])
        if not item_ids or len(set(item_ids)) != len(item_ids) or not all(isinstance(one, str) for one in item_ids):
            raise ValueError("its items are not distinct names")
        if not isinstance(value["stage"], str) or not isinstance(value["settings"], dict):
            raise TypeError("its stage or its settings are not what a manifest has")
        schema = Schema.from_json(value["schema"])
        if not isinstance(schema.item, str) or not all(map(is_column, schema.columns().values())):
            raise ValueError("its columns have no known type and shape")
        return Content(value["stage"], value["settings"], value["summary"], schema, item_ids, {})

    def with_columns(self, columns: Columns) -> Content:
        """The same with these arrays. Raises CacheError, naming a column, unless they are what schema and items say."""
        for name, column in self.schema.columns().items():
            prefix = self.schema.prefix_of(name)
            rows = len(self.item_ids) if prefix is None else int(checked_offsets(self, columns, prefix)[-1])
            check_array(columns, name, column.dtype, (rows, *column.shape))
        return replace(self, columns=columns)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 (hex) of everything here."""
        digest = hashlib.sha256(canonical_json(self.described()).encode("utf-8", "surrogatepass"))
        for name in sorted(self.columns):
            values = np.ascontiguousarray(self.columns[name])
            digest.update(canonical_json([name, values.dtype.str, list(values.shape)]).encode())
            digest.update(values.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def is_column(column: Column) -> bool:
    """Whether a column read from JSON has one of TYPES and a shape."""
    sizes = all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in column.shape)
    return column.dtype in TYPES and sizes


def checked_offsets(content: Content, columns: Columns, prefix: str) -> np.ndarray:
    """The offsets of a ragged table. Raises CacheError unless they divide its rows among the items."""
    name = prefix + OFFSETS
    check_array(columns, name, "int64", (len(content.item_ids) + 1,))
    offsets = columns[name]
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise CacheError(f"column '{name}' does not divide rows among items")
    return offsets


def check_array(columns: Columns, name: str, dtype: str, shape: Sequence[int]) -> None:
    """Raises CacheError unless there is a column `name` with this type and shape."""
    values = columns.get(name)
    if values is None:
        raise CacheError(f"column '{name}' is missing")
    if values.dtype != np.dtype(dtype) or values.shape != tuple(shape):
        raise CacheError(f"column '{name}' is {values.dtype} {list(values.shape)} instead of {dtype} {list(shape)}")


class HeldPart(OpenPart):
    """All items of a cache in memory, as its only part."""

    def __init__(self, content: Content, place: Path) -> None:
        self.path = place
        self.schema = content.schema
        self.columns = content.columns
        self.offsets = {prefix: content.columns[prefix + OFFSETS] for prefix, _ in content.schema.ragged()}
        self.item_ids = content.item_ids
        self.has_digests = False
        self.file = None
        self.skipped = {}

    def read(self, column: str, where: Any) -> np.ndarray:
        """`column[where]`, a copy that is aligned as one read from HDF5."""
        return np.array(self.columns[column][where])

    def verify(self) -> None:
        """There is no file whose bytes could have changed."""


class HeldReader(Reader):
    """A finished cache in memory."""

    def __init__(self, content: Content, place: Path, key: str) -> None:
        """`place` is what messages call it; `key` tells its content from any other."""
        self.content = content
        self.folder = place
        self.plan = Plan(
            Identity(content.stage, 0, content.settings), content.item_ids, content.schema, len(content.item_ids)
        )
        self.manifest = {**content.described(), "skipped": {}}
        self.key = key
        self.schema = content.schema
        self.part_size = self.plan.part_size
        self.item_ids = content.item_ids
        self.current = None
        self.lock = threading.RLock()

    def open_part(self, index: int) -> OpenPart:
        """The only part."""
        return HeldPart(self.content, self.folder)
