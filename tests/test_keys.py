"""Keys of the shipped recipes' caches, and the bytes of a part: a change that means to change no result changes none of
them. Where a key must change, keys.json is written anew (`python -m tests.test_keys`) and CHANGELOG.md says why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import Column, Identity, Schema, Writer
from cache.identity import key_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from stages.contract.card import Input
from tests.pipeline import PROJECT

RECIPES = sorted((PROJECT / "recipes").glob("*.toml"))
PART = "d9c5d38682c78d1f"
KEYS = Path(__file__).parent / "keys.json"


class WithoutData(Graph):
    """A graph whose datasets and networks are known by their names, so that it needs neither images nor weights."""

    def source_key(self, wanted: Input, source: Any) -> str:
        """The key of what fills an input."""
        if isinstance(source, Node):
            return self.identity(source).key
        return key_of([str(source.name), wanted.annotations, wanted.crowds])


def keys_of(path: Path, work: Path) -> dict[str, str]:
    """The key of each of a recipe's caches."""
    graph = WithoutData(load_recipe(path), work)
    return {name: graph.identity(node).key for name, node in graph.nodes.items()}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_keys_stay(path: Path, tmp_path: Path) -> None:
    assert keys_of(path, tmp_path) == json.loads(KEYS.read_text())[path.stem]


@pytest.mark.skipif(h5py.version.hdf5_version != "2.0.0", reason="another HDF5 may lay out its files otherwise")
def test_the_bytes_of_a_part_stay(tmp_path: Path) -> None:
    schema = Schema(rows={"boxes": Column("float32", (4,))}, per_item={"image_size": Column("int32", (2,))})
    writer = Writer(tmp_path / "cache", Identity("propose", 1), ["a", "b"], schema)
    for part in writer.claim():
        boxes = (np.arange(8, dtype=np.float32).reshape(2, 4), np.zeros((0, 4), np.float32))
        writer.write(part, [{"boxes": rows, "image_size": np.array([9, 8], np.int32)} for rows in boxes])
    writer.release()
    content = (tmp_path / "cache" / "part-00000.h5").read_bytes()
    assert hashlib.sha256(content).hexdigest()[:16] == PART


if __name__ == "__main__":
    found = {path.stem: keys_of(path, Path("work")) for path in RECIPES}
    KEYS.write_text(json.dumps(found, indent=1) + "\n")
