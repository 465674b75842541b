"""What `rcnn inspect` says of files, and how `rcnn cache ls` tells ages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cache import Column, Identity, Schema, Writer
from rcnn_cli.looking.inspection import inspect_file
from rcnn_cli.running.caches import age, list_caches
from stages.contract.errors import StageError
from tests.command_lines import PROJECT


def test_json_on_a_screen(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"map_11": 0.5, "classes": {f"class {one}": one for one in range(9)}, "n": [1] * 99}))
    assert inspect_file(path).splitlines() == [
        f"{path}: JSON",
        "  map_11: 0.5",
        f"  classes: 9 keys, {', '.join(f'class {one}' for one in range(9))}",
        "  n: a list of 99, the first is 1",
    ]
    path.write_text("[1, 2]")
    assert inspect_file(path) == f"{path}: JSON, [1, 2]"


def test_a_grid() -> None:
    lines = inspect_file(PROJECT / "recipes/grids/shapes-table2.toml").splitlines()
    assert lines[0].endswith("a grid of 7 cells")
    assert lines[1] == "  pool4: no [finetune], train-svm.layer = pool4"


@pytest.mark.parametrize(("name", "content"), [("a.csv", "a,b\n"), ("a.json", "{"), ("a.png", "text"), ("a.pth", "x")])
def test_what_it_does_not_know_is_a_sentence_without_options_that_it_does_not_have(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StageError) as error:
        inspect_file(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: is not ")
    assert "--" not in str(error.value)
    with pytest.raises(StageError, match="is not a cache's folder"):
        inspect_file(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (3_599, "59 minutes ago"),
        (7_200, "2 hours ago"),
        (86_399, "23 hours ago"),
        (3 * 86_400 + 5, "3 days ago"),
    ],
)
def test_ages(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_the_list_of_caches_has_their_age(tmp_path: Path) -> None:
    schema = Schema(item="image", per_item={"n": Column("int32")})
    writers = [
        Writer(tmp_path / f"caches/extract/{name}", Identity("extract", 1, {"a": name}, {}, {}), ("1",), schema)
        for name in ("done", "half")
    ]
    for part in writers[0].claim():
        writers[0].write(part, [{"n": np.array(1, np.int32)}])
    writers[0].finish({"finished": "2026-03-01T12:00:00Z"}, lambda reader: {})
    for path in (tmp_path / "caches/extract/half").rglob("*"):
        os.utime(path, (1_772_366_400 + 86_400,) * 2)  # a day after 2026-03-01 12:00 UTC
    done, half = list_caches(tmp_path, 1_772_366_400 + 2 * 86_400).splitlines()
    assert done.split()[:7] == ["complete", "2026-03-01", "12:00", "2", "days", "ago", "caches/extract/done"]
    assert half.split()[:7] == ["partial", "2026-03-02", "12:00", "1", "day", "ago", "caches/extract/half"]


def test_the_list_of_caches_does_without_the_time_of_a_manifest(tmp_path: Path) -> None:
    """Whoever writes a cache with `cache.Writer` need not record when it was finished."""
    folder = tmp_path / "caches/extract/c"
    writer = Writer(folder, Identity("extract", 1, {}, {}, {}), ("1",), Schema(per_item={"n": Column("int32")}))
    for part in writer.claim():
        writer.write(part, [{"n": np.array(1, np.int32)}])
    writer.finish({})
    for path in folder.rglob("*"):
        os.utime(path, (1_772_366_400,) * 2)  # 2026-03-01 12:00 UTC
    line = list_caches(tmp_path, 1_772_366_400 + 60)
    assert line.split()[:6] == ["complete", "2026-03-01", "12:00", "1", "minute", "ago"]
    (folder / "part-00000.h5").unlink()
    assert list_caches(tmp_path, 1_772_366_400 + 60).startswith("damaged ")


def test_a_summary_is_told_in_words_that_say_what_was_measured(tmp_path: Path) -> None:
    """The manifest keeps its names, which programs read."""
    identity = Identity("pretrain", 1, {}, {})
    writer = Writer(tmp_path / "cache", identity, ["network"], Schema("network", {"weights": Column("float32")}))
    for part in writer.claim():
        writer.write(part, [{"weights": np.zeros(2, np.float32)}])
    manifest = writer.finish({}, lambda reader: {"loss": 0.5, "accuracy": 0.75})
    assert manifest["summary"] == {"loss": 0.5, "accuracy": 0.75}
    lines = inspect_file(tmp_path / "cache").splitlines()
    assert 'summary: {"loss": 0.5, "accuracy on the held-out images": 0.75}' in lines
