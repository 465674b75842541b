"""Folders that one process builds for all: who builds, what the others get, and builds that fail or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.built_once import BuiltOnce, files_of, shared_place
from tests.pipeline import PROJECT

PROCESS = """
import os, sys, time
from pathlib import Path
from tests.built_once import BuiltOnce

def build(folder):
    with (folder.parent / "builders").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    (folder / "half").touch()
    time.sleep(float(sys.argv[2]))
    (folder / "whole").touch()

folder = BuiltOnce(Path(sys.argv[1])).folder("name", build)
print(sorted(path.name for path in folder.iterdir()))
"""


def start(place: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that asks for a folder whose build takes so long."""
    line = [sys.executable, "-c", PROCESS, str(place), str(seconds)]
    return subprocess.Popen(line, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def builders(place: Path) -> list[int]:
    """The processes that have begun to build, in order."""
    return [int(line) for line in (place / "builders").read_text().split()] if (place / "builders").exists() else []


def test_one_of_several_processes_builds_and_all_get_the_whole(tmp_path: Path) -> None:
    processes = [start(tmp_path / "place", 0.3) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["['half', 'whole']\n"] * 3
    assert len(builders(tmp_path / "place")) == 1


def test_when_the_builder_is_killed_another_begins_anew(tmp_path: Path) -> None:
    place = tmp_path / "place"
    first = start(place, 60)
    while not (place / "name" / "half").exists():
        time.sleep(0.01)
    second = start(place, 0)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=60)[0] == "['half', 'whole']\n"
    assert builders(place) == [first.pid, second.pid]


def test_a_build_that_failed_fails_everybody_with_its_traceback_and_is_not_tried_again(tmp_path: Path) -> None:
    builds = []

    def build(folder: Path) -> None:
        builds.append(folder)
        raise OSError("wrong")

    for _ in range(2):
        with pytest.raises(pytest.fail.Exception, match=r"'name' could not be built(.|\n)*OSError: wrong"):
            BuiltOnce(tmp_path).folder("name", build)
    assert len(builds) == 1


def test_what_was_changed_is_named_and_copies_may_be(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "results").mkdir()
        for name in ("a", "b", "c", "results/table"):
            (folder / name).write_text(name)

    shared = BuiltOnce(tmp_path / "place")
    folder = shared.folder("name", build)
    copy = shared.copy("name", build, tmp_path / "copy")
    assert files_of(copy) == files_of(folder)
    for path in (copy / "a", folder / "results/table", folder / "new"):
        path.write_text("changed")
    assert shared.changed() == []
    shared.folder("name", build)
    (folder / "a").write_text("changed")
    (folder / "c").unlink()
    assert shared.changed() == ["name/a", "name/c"]


def test_what_was_added_to_the_caches_is_named(tmp_path: Path) -> None:
    shared = BuiltOnce(tmp_path / "place")
    folder = shared.folder("name", lambda folder: (folder / "work/caches/propose").mkdir(parents=True))
    for path in (folder / "work/caches/propose/part-00000.h5", folder / "work/recipe.toml"):
        path.touch()
    assert shared.changed() == ["name/work/caches/propose/part-00000.h5"]


def test_workers_of_one_run_share_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert shared_place(tmp_path / "gw0") == shared_place(tmp_path / "gw1") == tmp_path / "built-once"
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert shared_place(tmp_path / "run") == tmp_path / "run" / "built-once"
