"""A small cache to fill in tests: items with ragged rows, a further table and one row an item, made from their ids."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import Column, Identity, Record, Schema, Shard, Writer
from cache.manifest import read_manifest

SCHEMA = Schema(
    item="image",
    rows={"boxes": Column("float32", (4,)), "fc7": Column("float16", (8,))},
    per_item={"image_size": Column("int32", (2,))},
    tables={"candidates": {"score": Column("float32")}},
)
IDENTITY = Identity("extract", 1, {"padding": 16}, {"images": "0123456789ab"})


def sample_ids(count: int) -> list[str]:
    """image-0000, image-0001, ..."""
    return [f"image-{number:04d}" for number in range(count)]


def sample_record(item_id: str) -> Record:
    """A record that depends on the id alone; some have no rows."""
    random = np.random.default_rng(zlib.crc32(item_id.encode()))
    rows, candidates = int(random.integers(0, 5)), int(random.integers(0, 3))
    return {
        "boxes": random.random((rows, 4), np.float32),
        "fc7": random.random((rows, 8), np.float32).astype(np.float16),
        "image_size": random.integers(1, 500, 2).astype(np.int32),
        "candidates/score": random.random(candidates, np.float32),
    }


def open_writer(folder: Path, ids: Sequence[str], part_size: int = 4, shard: str = "1/1", **options: Any) -> Writer:
    """A writer for the sample cache."""
    return Writer(folder, IDENTITY, ids, SCHEMA, part_size=part_size, shard=Shard.parse(shard), **options)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a finished cache."""
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None, f"{folder}: no manifest.json"
    return manifest


def fill(folder: Path, ids: Sequence[str], part_size: int = 4, shard: str = "1/1", **options: Any) -> Writer:
    """Fills the shard's parts; finishes the cache if all parts are there."""
    writer = open_writer(folder, ids, part_size, shard, **options)
    for part in writer.claim():
        writer.write(part, [sample_record(item_id) for item_id in part.item_ids])
    if not writer.unfinished():
        writer.finish({"command": ["test"]})
    writer.release()
    return writer
