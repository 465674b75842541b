"""The files in a cache's folder, by their names: nobody outside this package knows them.

Nothing here needs numpy or h5py: the shell completes the names of items while a finger is on the key.
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
    """The index of the part whose file has this name, None if it is the name of no part."""
    match = PART_NAME.fullmatch(name)
    return int(match[1]) if match else None


def index_set_aside(name: str) -> int | None:
    """The index of the part that was set aside as damaged under this name, None for any other file."""
    return None if is_temporary(name) or ASIDE not in name else part_index(name.partition(ASIDE)[0])


def names_in(folder: Path) -> frozenset[str]:
    """The names of all that a folder holds; none if it is not there. Raises CacheError if it cannot be listed."""
    try:
        return frozenset(patiently(folder, lambda: os.listdir(folder)))
    except FileNotFoundError:
        return frozenset()


def kind_of(path: Path) -> str | None:
    """The kind of a file, from its name: "plan", "manifest", "items", "view", "part"; None for any other."""
    named = {PLAN: "plan", MANIFEST: "manifest", ITEMS: "items", VIEW: "view"}
    return "part" if part_index(path.name) is not None else named.get(path.name)


def planned_items(folder: Path) -> list[str]:
    """The ids of the items of the cache in `folder`, as its plan lists them, unchecked.

    Raises OSError, ValueError or KeyError where they cannot be read.
    """
    item_ids: list[str] = json.loads((folder / PLAN).read_bytes())["item_ids"]
    return item_ids
