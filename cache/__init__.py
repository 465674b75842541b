"""HDF5 caches of a pipeline's stages: named by what made them, written in atomic parts, resumable, shardable.

This package knows nothing about bounding boxes: a cache is a list of items (ids) with columns of numbers.

Names are imported on first use, so that code that only needs keys or file names does not wait for HDF5.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Finished parts never change, so HDF5's file locks, which some network filesystems lack, are not needed.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

if TYPE_CHECKING:
    from cache.adoption import Adoption, find_adoption
    from cache.errors import (
        CacheError,
        DamagedFile,
        DamagedManifest,
        DamagedPart,
        DamagedPlan,
        DiskFull,
        IncompleteCache,
        LostSource,
        NewerVersion,
    )
    from cache.identity import Identity, differences
    from cache.reader import Reader
    from cache.reader import open_cache as open  # noqa: A004  used as `cache.open`
    from cache.schema import Column, Record, Schema
    from cache.state import CacheState, caches_in, nearest_relative, remove_cache
    from cache.writer import Part, Shard, Writer, set_aside

__all__ = [
    "Adoption",
    "CacheError",
    "CacheState",
    "Column",
    "DamagedFile",
    "DamagedManifest",
    "DamagedPart",
    "DamagedPlan",
    "DiskFull",
    "Identity",
    "IncompleteCache",
    "LostSource",
    "NewerVersion",
    "Part",
    "Reader",
    "Record",
    "Schema",
    "Shard",
    "Writer",
    "caches_in",
    "differences",
    "find_adoption",
    "nearest_relative",
    "open",
    "remove_cache",
    "set_aside",
]
MODULES = ("errors", "identity", "schema", "reader", "adoption", "writer", "state")  # first those without HDF5


def __getattr__(name: str) -> Any:
    """Imports a public name from the module that defines it."""
    attribute = "open_cache" if name == "open" else name
    for module in MODULES if name in __all__ else ():
        namespace = vars(importlib.import_module(f"cache.{module}"))
        if attribute in namespace:
            globals()[name] = namespace[attribute]
            return namespace[attribute]
    raise AttributeError(f"module 'cache' has no attribute {name!r}")
