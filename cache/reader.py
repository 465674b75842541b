"""Reading a cache: an item, some rows, or everything in order, with one part open at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError, DamagedManifest, DamagedPart, DamagedPlan, IncompleteCache
from cache.files import is_there
from cache.layout import MANIFEST, PLAN, part_name
from cache.manifest import read_manifest
from cache.parts import OpenPart
from cache.plan import Plan, read_plan
from cache.schema import Record


@dataclass(frozen=True)
class Survey:
    """What one pass over a cache's parts gives: `lengths`, the number of rows of each item, int64 [items], per ragged
    table, by the prefix of its columns' names ("" at the root); `skipped`, the reason by item id."""

    lengths: Mapping[str, np.ndarray]
    skipped: Mapping[str, str]


class Reader:
    """A finished cache, open for reading. Several threads may read, one at a time; can be pickled, and every process
    opens its own files."""

    def __init__(self, folder: Path, *, require_complete: bool = True) -> None:
        """Raises IncompleteCache if the cache in `folder` is missing or, with `require_complete`, unfinished;
        DamagedPlan, DamagedManifest; CacheError if it cannot be read."""
        self.folder = Path(folder)
        manifest = read_manifest(self.folder / MANIFEST)
        if manifest is None and require_complete:
            raise IncompleteCache(f"{self.folder}: is not a finished cache; run the stage that makes it")
        try:
            self.plan = read_plan(self.folder)
        except FileNotFoundError as error:
            raise IncompleteCache(
                f"{self.folder}: has no plan.json, so it is not a cache; run the stage again"
            ) from error
        if manifest is not None:
            check_agreement(self.folder, self.plan, manifest)
        self.manifest: dict[str, Any] = manifest or {}
        self.key = self.plan.key
        self.schema = self.plan.schema
        self.part_size = self.plan.part_size
        self.item_ids = self.plan.item_ids
        self.current: tuple[int, OpenPart] | None = None
        self.lock = threading.RLock()  # reading another part closes the open one

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "current": None, "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.RLock())

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def positions(self) -> dict[str, int]:
        """Each item's position in the cache, by its id."""
        return self.plan.positions

    @property
    def part_count(self) -> int:
        """The number of parts."""
        return self.plan.part_count

    def open_part(self, index: int) -> OpenPart:
        """The part with this index; the one opened before is closed, so only one thread may use it. Raises DamagedPart,
        CacheError if it cannot be read."""
        if self.current is not None and self.current[0] == index:
            return self.current[1]
        self.close()
        path, item_ids = self.folder / part_name(index), self.plan.items_of(index)
        try:
            part = OpenPart(path, self.schema, self.plan.identity.stage, self.key, index, len(item_ids))
        except FileNotFoundError as error:
            raise missing_part(path) from error
        if part.item_ids != item_ids:
            part.close()
            raise DamagedPart(path, f"it holds different {self.schema.item}s from those that the plan assigns to it")
        self.current = (index, part)
        return part

    def survey(self) -> Survey:
        """Lengths and skipped items from all parts, each opened once, after checking the SHA-256 of those that this
        process has not verified yet (unless the disk is trusted).

        Raises DamagedPart, CacheError if one cannot be read.
        """
        skipped: dict[str, str] = {}

        def verified(part: OpenPart) -> None:
            part.trying(part.verify)
            skipped.update(part.skipped)

        return Survey(self.all_lengths(verified), skipped)

    def all_lengths(self, look: Callable[[OpenPart], None] = lambda part: None) -> dict[str, np.ndarray]:
        """`Survey.lengths`: opens each part once and calls `look` with it first.

        Raises DamagedPart, CacheError if one cannot be read.
        """
        lengths: dict[str, list[np.ndarray]] = {prefix: [] for prefix, _ in self.schema.ragged()}
        for index in range(self.part_count):
            with self.lock:
                part = self.open_part(index)
                look(part)
                for prefix, blocks in lengths.items():
                    blocks.append(np.diff(part.offsets[prefix]))
        return {prefix: np.concatenate(blocks).astype(np.int64) for prefix, blocks in lengths.items()}

    def close(self) -> None:
        """Closes the open part."""
        with self.lock:
            if self.current is not None:
                self.current[1].close()
                self.current = None

    def position(self, item_id: str) -> int:
        """The item's position in the cache. Raises CacheError if the cache does not have it."""
        try:
            return self.plan.positions[item_id]
        except KeyError:
            raise CacheError(
                f"{self.folder}: has no {self.schema.item} '{item_id}'; "
                f"it was made for {len(self.item_ids)} others, beginning with '{self.item_ids[0]}'"
            ) from None

    def check_columns(self, columns: Sequence[str] | None) -> Sequence[str]:
        """`columns`, or all columns for None. Raises CacheError for one that the cache does not have."""
        known = self.schema.columns()
        if columns is None:
            return list(known)
        for name in columns:
            if name not in known:
                raise CacheError(f"{self.folder}: has no column '{name}'; it has {', '.join(known)}")
        return columns

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One item's record, or only the named columns of it."""
        wanted = self.check_columns(columns)
        index, position = divmod(self.position(item_id), self.part_size)
        with self.lock:
            return self.open_part(index).record(position, wanted)

    def digest(self, item_id: str) -> str | None:
        """What an item was made from, as its writer recorded it (e.g. its image file's SHA-256); None if unknown."""
        index, position = divmod(self.position(item_id), self.part_size)
        with self.lock:
            return self.open_part(index).digest(position)

    def rows(self, item_id: str, column: str, indices: np.ndarray) -> np.ndarray:
        """The rows `indices` (int [k], in any order) of an item's ragged column: [k, ...]. Raises CacheError."""
        self.check_columns([column])
        index, position = divmod(self.position(item_id), self.part_size)
        with self.lock:
            part = self.open_part(index)
            where = part.span(column, position)
            if not isinstance(where, slice):
                raise CacheError(f"{self.folder}: column '{column}' has one row per {self.schema.item}; use read")
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
        chosen = range(len(self.item_ids)) if item_ids is None else sorted(map(self.position, item_ids))
        for item in chosen:
            index, position = divmod(item, self.part_size)
            with self.lock:
                record = self.open_part(index).record(position, wanted)
            yield self.item_ids[item], record

    def per_item(self, column: str) -> Iterator[np.ndarray]:
        """The values of a column with one row per item, part by part: [items of the part, ...]."""
        self.check_columns([column])
        for index in range(self.part_count):
            with self.lock:
                values = self.open_part(index).read(column, slice(None))
            yield values

    def lengths(self, table: str = "") -> np.ndarray:
        """Each item's number of rows in the root table (or in `table`): int64 [items]; zeros without that table."""
        prefix = f"{table}/" if table else ""
        if prefix not in dict(self.schema.ragged()):
            return np.zeros(len(self.item_ids), np.int64)
        return self.all_lengths()[prefix]

    def skipped(self) -> dict[str, str]:
        """The items that were skipped on request, each with the reason."""
        return dict(self.survey().skipped)


def missing_part(path: Path) -> CacheError:
    """The error for a missing part: DamagedPart, unless the whole folder is gone (e.g. an unmounted disk)."""
    if is_there(path.parent / PLAN):
        return DamagedPart(path, "the file is missing")
    return CacheError(f"{path.parent}: the folder is gone or its disk is not mounted; run the same command again")


def check_agreement(folder: Path, plan: Plan, manifest: Mapping[str, Any]) -> None:
    """Raises DamagedManifest, or DamagedPlan if the plan has no SHA-256, unless both describe the same parts."""
    listed = [(part["name"], part["items"]) for part in manifest["parts"]]
    planned = [(part_name(index), len(plan.items_of(index))) for index in range(plan.part_count)]
    if manifest["key"] != plan.key:
        raise DamagedManifest(folder / MANIFEST, "it belongs to a different cache than the plan.json beside it")
    if listed != planned:
        if plan.sealed:
            raise DamagedManifest(folder / MANIFEST, "its parts differ from those of the plan.json beside it")
        raise DamagedPlan(folder / PLAN, "its parts differ from those of the manifest.json beside it")


def open_cache(path: Path | str) -> Reader:
    """The finished cache in the folder `path` (or in the folder of the file `path`, e.g. its data.h5), for reading:

        with cache.open("work/caches/extract/shapes-train.3fa9c1d2be04") as features:
            record = features.read(features.item_ids[0], ["boxes", "fc5"])

    Every part is checked as it is read; one is open at a time. Raises as `Reader`.
    """
    place = Path(path)
    return Reader(place.parent if place.is_file() else place)
