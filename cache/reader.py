"""Reading a cache: an item, some rows, or everything in order, with one part open at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError, DamagedPart, IncompleteCache
from cache.files import read_json
from cache.manifest import read_manifest
from cache.parts import OpenPart, part_name
from cache.schema import Record, Schema


class Reader:
    """A finished cache, open for reading. May be pickled; every process opens its own files."""

    def __init__(self, folder: Path, *, require_complete: bool = True) -> None:
        """Raises IncompleteCache if the cache in `folder` is missing or (unless told otherwise) unfinished."""
        self.folder = Path(folder)
        manifest = read_manifest(self.folder / "manifest.json")
        if manifest is None and require_complete:
            raise IncompleteCache(f"{self.folder}: is not a finished cache; run the stage that makes it")
        try:
            plan = read_json(self.folder / "plan.json")
        except FileNotFoundError as error:
            raise IncompleteCache(
                f"{self.folder}: has no plan.json, so it is not a cache; run the stage again"
            ) from error
        self.manifest: dict[str, Any] = manifest or {}
        self.key: str = plan["key"]
        self.schema = Schema.from_json(plan["schema"])
        self.part_size: int = plan["part_size"]
        self.item_ids: tuple[str, ...] = tuple(plan["item_ids"])
        self.positions = {item_id: position for position, item_id in enumerate(self.item_ids)}
        self.current: tuple[int, OpenPart] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "current": None}

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def part_count(self) -> int:
        """How many parts there are."""
        return -(-len(self.item_ids) // self.part_size)

    def open_part(self, index: int) -> OpenPart:
        """The part with this index; the one opened before is closed. Raises DamagedPart or IncompleteCache."""
        if self.current is not None and self.current[0] == index:
            return self.current[1]
        self.close()
        path = self.folder / part_name(index)
        try:
            part = OpenPart(path, self.schema)
        except FileNotFoundError as error:
            raise DamagedPart(path, "the file is missing") from error
        if part.item_ids != self.item_ids[index * self.part_size : (index + 1) * self.part_size]:
            raise DamagedPart(path, f"it holds other {self.schema.item}s than its place says")
        self.current = (index, part)
        return part

    def close(self) -> None:
        """Closes the open part."""
        if self.current is not None:
            self.current[1].close()
            self.current = None

    def position(self, item_id: str) -> int:
        """The item's place in the cache. Raises CacheError for an item that it does not have."""
        try:
            return self.positions[item_id]
        except KeyError:
            raise CacheError(
                f"{self.folder}: has no {self.schema.item} '{item_id}'; "
                f"it was made for {len(self.item_ids)} others, beginning with '{self.item_ids[0]}'"
            ) from None

    def check_columns(self, columns: Sequence[str] | None) -> Sequence[str]:
        """All columns for None. Raises CacheError for one that the cache does not have."""
        known = self.schema.columns()
        if columns is None:
            return list(known)
        for name in columns:
            if name not in known:
                raise CacheError(f"{self.folder}: has no column '{name}'; it has {', '.join(known)}")
        return columns

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One item's record, or the named columns of it."""
        wanted = self.check_columns(columns)
        index, position = divmod(self.position(item_id), self.part_size)
        return self.open_part(index).record(position, wanted)

    def digest(self, item_id: str) -> str | None:
        """What an item was made from, as its writer was told (the SHA-256 of its image file, say); None if unknown."""
        index, position = divmod(self.position(item_id), self.part_size)
        return self.open_part(index).digest(position)

    def rows(self, item_id: str, column: str, indices: np.ndarray) -> np.ndarray:
        """The rows `indices` (int [k], any order) of one ragged column of an item: [k, ...]."""
        self.check_columns([column])
        index, position = divmod(self.position(item_id), self.part_size)
        part = self.open_part(index)
        where = part.span(column, position)
        if not isinstance(where, slice):
            raise CacheError(f"{self.folder}: column '{column}' has one row for each {self.schema.item}; use read")
        chosen = np.asarray(indices, np.int64)
        if not len(chosen):
            return part.read(column, slice(0, 0))
        low, high = int(chosen.min()), int(chosen.max())
        if low < 0 or where.start + high >= where.stop:
            raise CacheError(f"{self.folder}: '{item_id}' has no row {high if low >= 0 else low} in '{column}'")
        block = part.read(column, slice(where.start + low, where.start + high + 1))
        return block[chosen - low]

    def records(
        self, columns: Sequence[str] | None = None, item_ids: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Record]]:
        """(id, record) of every item, or of `item_ids`, in the cache's order, one at a time."""
        wanted = self.check_columns(columns)
        chosen = range(len(self.item_ids)) if item_ids is None else sorted(self.position(one) for one in item_ids)
        for place in chosen:
            index, position = divmod(place, self.part_size)
            yield self.item_ids[place], self.open_part(index).record(position, wanted)

    def lengths(self, table: str = "") -> np.ndarray:
        """Rows of each item in the root table (or in `table`): int64 [items]; zeros where there is no such table."""
        prefix = f"{table}/" if table else ""
        if prefix not in dict(self.schema.ragged()):
            return np.zeros(len(self.item_ids), np.int64)
        blocks = [np.diff(self.open_part(index).offsets[prefix]) for index in range(self.part_count)]
        return np.concatenate(blocks).astype(np.int64)

    def skipped(self) -> dict[str, str]:
        """Items that were skipped on request and why."""
        return {item: why for index in range(self.part_count) for item, why in self.open_part(index).skipped.items()}
