"""Folders that many tests read and one process builds: once per test run, however many workers pytest has.

A fixture of a module is built once by each worker that runs a test of it, and again by each module that needs the same.
Here whoever comes first builds, the others wait for it. What was built is shared, so it must stay as it is: a test that
changes its folder takes a copy, and at the end of each module the folders are compared with what was built.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHANGING = {"results", "claims", "digests"}
"""Folders of a work folder in which commands that only look write as well."""

CACHES = "caches"
"""The folder of a work folder to which nothing is added either: what a command computes goes into a copy."""

Build = Callable[[Path], object]


class BuiltOnce:
    """The folders of one test run, in `place`, which all of its workers share."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.used: set[str] = set()

    def folder(self, name: str, build: Build) -> Path:
        """The folder `name`, in which `build` was run by whichever process came first; not to be changed.

        A build that failed is not tried again: whoever asks for the folder fails with its traceback. One that was
        killed leaves nothing behind but its files, which are removed, and the next process builds.
        """
        self.place.mkdir(exist_ok=True)
        folder, failed, complete = (self.place / f"{name}{suffix}" for suffix in ("", ".failed", ".complete"))
        with locked(self.place / f"{name}.lock"):
            if not complete.exists() and not failed.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                try:
                    build(folder)
                except (Exception, pytest.fail.Exception):
                    failed.write_text(traceback.format_exc())
                else:
                    written = self.place / f"{name}.new"
                    written.write_text(json.dumps(files_of(folder)))
                    written.rename(complete)
        if failed.exists():
            pytest.fail(f"the folder {name!r} could not be built:\n{failed.read_text()}", pytrace=False)
        self.used.add(name)
        return folder

    def copy(self, name: str, build: Build, place: Path) -> Path:
        """A copy of that folder, as `place`, to be changed."""
        return Path(shutil.copytree(self.folder(name, build), place, dirs_exist_ok=True))

    def changed(self) -> list[str]:
        """The files of the folders asked for so far that are no longer as built, and those added to the caches."""
        found = []
        for name in sorted(self.used):
            built = json.loads((self.place / f"{name}.complete").read_text())
            there = files_of(self.place / name)
            added = {path for path in there.keys() - built.keys() if CACHES in Path(path).parts}
            changed = {path for path, state in built.items() if there.get(path) != state}
            found += [f"{name}/{path}" for path in sorted(added | changed)]
        self.used.clear()
        return found


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process in at a time. The lock of a process that is killed goes with it; a fork does not inherit it."""
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def files_of(folder: Path) -> dict[str, list[int]]:
    """(size, time of the last change) of each file that no command may change once it is there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not CHANGING & set(relative.parts):
            state = path.stat()
            found[str(relative)] = [state.st_size, state.st_mtime_ns]
    return found


def shared_place(base: Path) -> Path:
    """Where all workers of this run find the folders; `base` is pytest's folder for this process."""
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built-once"
