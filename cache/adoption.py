"""Records that a new cache reuses from finished ones of the same stage, bit for bit what would be computed.

Where a stage works item by item, an item's record depends on that item alone, and so it has a key of its own: whoever
opens the cache says which (`Writer`'s `item_keys`). A finished cache keeps the keys of its items in `items.json`. An
item of a new cache whose key is found there need not be computed: its record is copied, each part of the new cache
holding what is copied and what is computed, in the order of the items. A skipped item is never taken over.
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
    """Writes the keys of a cache's items, whole or not at all, with the SHA-256 of what it writes."""
    write_sealed(folder / ITEMS, {"key": cache_key, "items": dict(keys)})


def read_item_keys(folder: Path, cache_key: str) -> dict[str, str] | None:
    """The keys of a cache's items by their ids; None if they are not there, or not what was written for this cache."""
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
    """Where records lie that need not be computed: `places` maps ids of items to folders of finished caches.

    May be pickled, and asked from several threads. The caches that records are copied from stay open until `close`.
    """

    places: Mapping[str, Path]
    guard: Any = field(default_factory=threading.Lock, repr=False, compare=False)
    readers: dict[Path, Reader] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"places": self.places}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["places"])  # type: ignore[misc]

    def missing(self, item_ids: Sequence[str]) -> tuple[str, ...]:
        """Those of the items that have to be computed."""
        return tuple(item_id for item_id in item_ids if item_id not in self.places)

    def counts(self, item_ids: Sequence[str]) -> dict[str, int]:
        """How many of the items are taken over from which cache, by its folder's name; the most first."""
        found = Counter(self.places[item_id].name for item_id in item_ids if item_id in self.places)
        return dict(found.most_common())

    def records(self, item_ids: Sequence[str]) -> Iterator[tuple[str, Record]]:
        """(id, record) of those of the items that are taken over. Raises LostSource, DamagedPart, CacheError."""
        with self.guard:
            folders = {self.places[item_id] for item_id in item_ids if item_id in self.places}
            for folder in sorted(folders):
                yield from self.open(folder).records(None, [one for one in item_ids if self.places.get(one) == folder])

    def open(self, folder: Path) -> Reader:
        """The cache in `folder`, opened the first time; that it still is a finished one is looked at each time."""
        try:
            if folder not in self.readers:
                self.readers[folder] = Reader(folder)
            elif not is_finished(folder):
                raise IncompleteCache(f"{folder}: is no longer a finished cache")
        except IncompleteCache as error:
            raise LostSource(
                f"{folder}: records were to be copied from here, but it is no longer a finished cache; run the same "
                "command again"
            ) from error
        return self.readers[folder]

    def close(self) -> None:
        """Closes the caches that records were copied from."""
        with self.guard:
            for reader in self.readers.values():
                reader.close()
            self.readers.clear()


def find_adoption(own: Path, keys: Mapping[str, str], schema: Schema | None = None) -> Adoption:
    """The records for items with these `keys` (by id) in the finished caches beside the folder `own`.

    Where several have one, the cache with the most is taken. `schema`: what the records must have.
    """
    found: list[tuple[Path, set[str]]] = []
    for folder, manifest in finished_caches(own.parent):
        if folder.name == own.name:
            continue
        try:
            theirs = read_item_keys(folder, manifest["key"])
            if theirs is None:
                continue
            same = {item_id for item_id, key in keys.items() if theirs.get(item_id) == key} - set(manifest["skipped"])
            if same and (schema is None or Reader(folder).schema == schema):
                found.append((folder, same))
        except CacheError:
            continue  # whoever reads that cache says what is wrong with it
    places: dict[str, Path] = {}
    for folder, same in sorted(found, key=lambda one: -len(one[1])):
        places |= dict.fromkeys(same - places.keys(), folder)
    return Adoption(places)
