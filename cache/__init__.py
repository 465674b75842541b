"""HDF5 caches of a pipeline's stages: named by what made them, written in atomic parts, resumable, shardable.

This package has never heard of a bounding box: a cache is a list of items (ids) with columns of numbers.
"""

import os

# Parts never change once they have their name, so nobody needs HDF5's file locks, which some network filesystems lack.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

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
)
from cache.identity import Identity, differences
from cache.reader import Reader
from cache.reader import open_cache as open  # noqa: A004  said as `cache.open`
from cache.schema import Column, Record, Schema
from cache.writer import Part, Shard, Writer, set_aside

__all__ = [
    "Adoption",
    "CacheError",
    "Column",
    "DamagedFile",
    "DamagedManifest",
    "DamagedPart",
    "DamagedPlan",
    "DiskFull",
    "Identity",
    "IncompleteCache",
    "LostSource",
    "Part",
    "Reader",
    "Record",
    "Schema",
    "Shard",
    "Writer",
    "differences",
    "find_adoption",
    "open",
    "set_aside",
]
