"""Plans, manifests, parts, views and checkpoints of caches: spoilt, they are read or refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import Reader
from cache.files import SEAL, seal_of
from rcnn_cli.looking.inspection import inspect_file
from tests.cache.samples import fill, open_writer, sample_ids
from tests.fuzz.mutations import Mutation, as_json, mutated, mutated_tree, mutations, written
from tests.fuzz.verdict import fuzz, read_or_said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cache."""
    folder = tmp_path_factory.mktemp("cache") / "sample.0123"
    fill(folder, sample_ids(6))
    return folder


def cache_read(folder: Path) -> None:
    """Reads a cache as a stage and `rcnn inspect` do, and goes on writing it."""
    reader = read_or_said(lambda: Reader(folder, require_complete=False))
    if reader is not None:
        read_or_said(lambda: [record for _, record in reader.records()])
        read_or_said(reader.close)
    read_or_said(lambda: inspect_file(folder))
    for path in sorted(folder.glob("*.h5")):
        read_or_said(lambda path=path: inspect_file(path))  # type: ignore[misc]
    writer = read_or_said(lambda: open_writer(folder, sample_ids(6)))
    if writer is not None:
        read_or_said(writer.unfinished)
        read_or_said(writer.release)


def copied(made: Path, place: Path) -> Path:
    """A fresh copy of the cache."""
    folder = place / "copy.0123"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    return folder


FILES = ["plan.json", "manifest.json", "part-00000.h5", "part-00001.h5", "data.h5"]


@fuzz(15)
@given(st.sampled_from(FILES), mutations())
def test_files_of_a_cache(made: Path, place: Path, name: str, wanted: list[Mutation]) -> None:
    folder = copied(made, place)
    written(
        folder / name,
        mutated((folder / name).read_bytes(), wanted, [b"9" * 5000, b"null", b"-1", b"[]", b'"\\ud800"', b"\0"]),
    )
    cache_read(folder)


@fuzz(15)
@given(st.sampled_from(FILES[:2]), st.data())
def test_plans_and_manifests_with_odd_values(made: Path, place: Path, name: str, data: st.DataObject) -> None:
    """Beyond their SHA-256: without one, as versions before wrote them, or with the right one."""
    folder = copied(made, place)
    tree = json.loads((folder / name).read_bytes())
    del tree[SEAL]
    content = as_json(data.draw(mutated_tree(tree)))
    with contextlib.suppress(ValueError, RecursionError):  # what as_json writes need not be JSON that Python reads
        odd = json.loads(content)
        if isinstance(odd, dict) and data.draw(st.booleans()):
            content = json.dumps({**odd, SEAL: seal_of(odd)}).encode()
    written(folder / name, content)
    cache_read(folder)


@fuzz(15)
@given(mutations())
def test_checkpoints(made: Path, place: Path, wanted: list[Mutation]) -> None:
    folder = copied(made, place)
    (folder / "manifest.json").unlink()
    (folder / "part-00000.h5").unlink()
    writer = open_writer(folder, sample_ids(6))
    checkpoint = writer.checkpoint(writer.parts[0])
    checkpoint.save({"weights": np.ones((2, 4)), "step": np.array(3)})
    written(checkpoint.path, mutated(checkpoint.path.read_bytes(), wanted, [b"\0" * 8]))
    read_or_said(checkpoint.load)
    writer.release()
