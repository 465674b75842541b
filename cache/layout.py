"""The names of the files in a cache's folder, known only to this package.

Nothing here needs numpy or h5py: shell completion of item ids has to be instant.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from cache.files import is_temporary, patiently

PLAN = "plan.json"
MANIFEST = "manifest.json"
ITEMS = "items.json"
VIEW = "data.h5"
CLAIMS = "claims"
ADOPTED = "adopted-"
CHECKPOINT = "checkpoint-"
ASIDE = ".damaged-"
PART = "part-"
PART_NAME = re.compile(rf"{PART}(\d{{5,}})\.h5")


def part_name(index: int) -> str:
    """`part-00012.h5`."""
    return f"{PART}{index:05d}.h5"


def part_index(name: str) -> int | None:
    """The index in the file name of a part; None if the name is not a part's."""
    match = PART_NAME.fullmatch(name)
    return int(match[1]) if match else None


def index_set_aside(name: str) -> int | None:
    """The index in the file name of a part set aside as damaged; None for any other name."""
    return None if is_temporary(name) or ASIDE not in name else part_index(name.partition(ASIDE)[0])


def names_in(folder: Path) -> frozenset[str]:
    """The names in a folder; empty if it does not exist. Raises CacheError if it cannot be listed."""
    try:
        return frozenset(patiently(folder, lambda: os.listdir(folder)))
    except FileNotFoundError:
        return frozenset()


def kind_of(path: Path) -> str | None:
    """The kind of a file, from its name: "plan", "manifest", "items", "view" or "part"; None for any other."""
    kinds = {PLAN: "plan", MANIFEST: "manifest", ITEMS: "items", VIEW: "view"}
    return "part" if part_index(path.name) is not None else kinds.get(path.name)


def planned_items(folder: Path) -> list[str]:
    """The item ids in the plan of the cache in `folder`, unchecked. Raises OSError, ValueError, KeyError."""
    item_ids: list[str] = json.loads((folder / PLAN).read_bytes())["item_ids"]
    return item_ids
