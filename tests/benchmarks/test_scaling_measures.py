"""What `benchmarks.scaling` measures by calling the stages' own functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.scaling import pass_seconds
from cache import Column, Identity, Reader, Record, Schema, Writer


def test_a_pass_of_scoring_runs_on_cached_features(tmp_path: Path) -> None:
    flags = {"is_object": Column("bool"), "label": Column("int32")}
    schema = Schema("image", {"boxes": Column("float32", (4,)), **flags, "fc7": Column("float16", (8,))})

    def record(rows: int) -> Record:
        return {
            "boxes": np.zeros((rows, 4), np.float32),
            "is_object": np.zeros(rows, bool),
            "label": np.full(rows, -1, np.int32),
            "fc7": np.ones((rows, 8), np.float16),
        }

    writer = Writer(tmp_path, Identity("extract", 1), ["a", "b"], schema, part_size=1)
    for part, rows in zip(writer.claim(), (3, 5), strict=False):
        writer.write(part, [record(rows)])
    writer.finish({}, lambda _: {"layers": {"fc7": {}}})
    writer.release()
    assert pass_seconds(Reader(tmp_path)) >= 0
