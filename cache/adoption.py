"""Reuse of records from finished caches of the same stage; they are bit for bit what would be computed.

Where a stage works item by item, a record depends on its item alone and so has a key of its own, given by the stage
(`Writer.finish`'s `item_keys`). A finished cache stores its items' keys in `items.json`. If the key of a new cache's
item is there, the record is copied instead of computed; a part of the new cache may mix copied and computed records,
in the order of the items. Skipped items are never reused.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedFile, IncompleteCache, LostSource
from cache.files import read_sealed, write_sealed
from cache.layout import ITEMS
from cache.manifest import finished_caches, is_finished
from cache.reader import Reader
from cache.schema import Record, Schema

log = logging.getLogger("cache")


def write_item_keys(folder: Path, cache_key: str, keys: Mapping[str, str]) -> None:
    """Writes items.json atomically, with its own SHA-256."""
    write_sealed(folder / ITEMS, {"key": cache_key, "items": dict(keys)})


def read_item_keys(folder: Path, cache_key: str) -> dict[str, str] | None:
    """The keys of a cache's items, by item id; None if the file is missing, corrupted or another cache's."""
    path = folder / ITEMS
    try:
        value, sealed = read_sealed(path, DamagedFile)
        if sealed and value["key"] == cache_key:
            items: dict[str, str] = value["items"]
            return items
    except FileNotFoundError:
        return None
    except (CacheError, KeyError):
        pass
    log.warning("%s: damaged; nothing is reused from this cache", path)
    return None


@dataclass
class Adoption:
    """Which records can be copied instead of computed: `places` maps item ids to the folders of finished caches.

    Can be pickled and is thread-safe. The caches that records are copied from stay open until `close`.
    """

    places: Mapping[str, Path]
    lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)
    readers: dict[Path, Reader] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"places": self.places}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["places"])  # type: ignore[misc]

    def missing(self, item_ids: Sequence[str]) -> tuple[str, ...]:
        """The items that have to be computed."""
        return tuple(item_id for item_id in item_ids if item_id not in self.places)

    def counts(self, item_ids: Sequence[str]) -> dict[str, int]:
        """How many of the items are copied from each cache, by its folder's name, the largest count first."""
        per_cache = Counter(self.places[item_id].name for item_id in item_ids if item_id in self.places)
        return dict(per_cache.most_common())

    def records(self, item_ids: Sequence[str]) -> Iterator[tuple[str, Record]]:
        """(id, record) of the items that can be copied. Raises LostSource, DamagedPart, CacheError."""
        with self.lock:
            folders = {self.places[item_id] for item_id in item_ids if item_id in self.places}
            for folder in sorted(folders):
                here = [item_id for item_id in item_ids if self.places.get(item_id) == folder]
                yield from self.open(folder).records(None, here)

    def open(self, folder: Path) -> Reader:
        """The cache in `folder`, opened once; checks on every call that it is still finished. Raises LostSource."""
        try:
            if folder not in self.readers:
                self.readers[folder] = Reader(folder)
            elif not is_finished(folder):
                raise IncompleteCache(f"{folder}: is no longer complete")
        except IncompleteCache as error:
            raise LostSource(
                f"{folder}: records were to be copied from this cache, but it is no longer complete; run the same "
                "command again"
            ) from error
        return self.readers[folder]

    def close(self) -> None:
        """Closes the caches that records were copied from."""
        with self.lock:
            for reader in self.readers.values():
                reader.close()
            self.readers.clear()


def find_adoption(own: Path, keys: Mapping[str, str], schema: Schema | None = None) -> Adoption:
    """Which items, by their `keys` (item id to key), can be copied from the finished caches beside the folder `own`.

    If several caches have an item, the one with the most matches wins. `schema`: the columns that records must have.
    """
    sources: list[tuple[Path, set[str]]] = []
    for folder, manifest in finished_caches(own.parent):
        if folder.name == own.name:
            continue
        try:
            stored_keys = read_item_keys(folder, manifest["key"])
            if stored_keys is None:
                continue
            same = {item_id for item_id, key in keys.items() if stored_keys.get(item_id) == key} - set(
                manifest["skipped"]
            )
            if same and (schema is None or Reader(folder).schema == schema):
                sources.append((folder, same))
        except CacheError:
            continue  # reading that cache reports what is wrong with it
    places: dict[str, Path] = {}
    for folder, same in sorted(sources, key=lambda source: -len(source[1])):
        places |= dict.fromkeys(same - places.keys(), folder)
    return Adoption(places)
