"""Files that a command leaves where the user says: nothing that it did not write itself is ever replaced.

A folder has a list of them, `.rcnn-files`, in the format of sha256sum. What is in the list and still has that content
is the project's own, and the same command replaces it; whatever else is there belongs to the user. The list has no
room for doubt that a mark inside each file would leave: CSV has no place for one, and an edited file keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cache.files import TEMPORARY, cannot
from stages.contract.errors import StageError

LIST = ".rcnn-files"


class OutputFolder:
    """A folder for a command's files. With `given` (by the user, not the work folder's own) only files that are in its
    list are replaced; an input of the command never is."""

    def __init__(self, path: Path, *, given: bool = True, inputs: Iterable[Path] = ()) -> None:
        self.path = path
        self.given = given
        self.inputs = {place for one in inputs if (place := place_of(one)) is not None}
        self.digests: dict[str, set[str]] = {}
        self.read_up_to = 0

    def check(self, names: Iterable[str]) -> None:
        """Raises StageError where one of the files `names` could not be written: to be called before the work."""
        if not self.path.is_dir() and os.path.lexists(self.path):
            raise StageError(f"-o {self.path}: is a file, not a folder; name another one")
        check_writable("-o", self.path)
        for name in names:
            self.check_file(self.path / name)

    def check_file(self, path: Path) -> None:
        """Raises StageError if the file is there and must not be replaced."""
        if not os.path.lexists(path):
            return
        if path.is_dir():
            raise StageError(f"{path}: is a folder, where a file of this name would be written; name another place")
        if place_of(path) in self.inputs:
            raise StageError(f"{path}: is read by this command and would be overwritten; name another folder with -o")
        if self.given and not self.is_own(path):
            raise StageError(
                f"{path}: already exists and was not written by rcnn, or has changed since; move it away, or name "
                f"another folder with -o"
            )

    def is_own(self, path: Path) -> bool:
        """Whether the file is one that rcnn wrote into this folder, unchanged since."""
        return path in self.own_among([path])

    def own_among(self, paths: Iterable[Path]) -> set[Path]:
        """Those of the folder's files that rcnn wrote, unchanged since; only files of listed names are read."""
        listed, own = self.listed(), set()
        for path in paths:
            with contextlib.suppress(OSError):
                if path.name in listed and digest_of(path) in listed[path.name]:
                    own.add(path)
        return own

    def listed(self) -> dict[str, set[str]]:
        """The list: by name, the SHA-256 of each content that rcnn wrote.

        The list only grows, and a folder may have 100,000 files: lines that were read before are not read again.
        """
        with contextlib.suppress(FileNotFoundError), (self.path / LIST).open("rb") as file:
            file.seek(self.read_up_to)
            for line in file:
                digest, _, name = line.decode("utf-8", "replace").rstrip("\n").partition("  ")
                self.digests.setdefault(name, set()).add(digest)
                self.read_up_to += len(line) * line.endswith(b"\n")
        return self.digests

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A path to write to; what was written becomes the file `name` once the block ends without an exception.

        Raises StageError for a file that must not be replaced, or a folder that cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StageError(
                f"-o {self.path}: " + cannot("be created as a folder", error, "choose another place")
            ) from error
        path = self.path / name
        self.check_file(path)
        temporary = self.path / f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{name}"  # its ending says which format to write
        try:
            yield temporary
            digest = digest_of(temporary)
            if digest not in self.listed().get(name, ()):
                with (self.path / LIST).open("a", encoding="utf-8") as file:  # before the file: a kill leaves it ours
                    file.write(f"{digest}  {name}\n")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        """The file `name` with `text`, in UTF-8."""
        with self.file(name) as path, path.open("w", encoding="utf-8", newline="") as file:
            file.write(text)

    def remove(self, name: str) -> None:
        """Removes a file that an earlier run left and this one does not have. Raises StageError as `file` does."""
        self.check_file(self.path / name)
        (self.path / name).unlink(missing_ok=True)


def check_output_file(option: str, path: Path, inputs: Iterable[Path], is_own: Callable[[Path], bool]) -> None:
    """Raises StageError if the file `path`, which the user gave as `option`, must not be written: it is one of the
    `inputs`, a folder, in a folder that cannot be written, or there already and not the project's own (`is_own`)."""
    check_writable(option, path.parent)
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise StageError(f"{option} {path}: is a folder; name a file")
    if place_of(path) in {place_of(one) for one in inputs} - {None}:
        raise StageError(f"{option} {path}: is read by this command and would be overwritten; name another file")
    if not is_own(path):
        raise StageError(f"{option} {path}: already exists and was not written by this command; name another file")


def check_writable(option: str, folder: Path) -> None:
    """Raises StageError if no file can be made in `folder` or, where it is not there yet, in the folder that it would
    be made in. It is tried: permissions do not tell of /sys, nor of a disk that may only be read."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=there, prefix=TEMPORARY):
            pass
    except OSError as error:
        raise StageError(
            f"{option} {folder}: {there} " + cannot("be written", error, "choose another place")
        ) from error


def place_of(path: Path) -> tuple[int, int] | None:
    """What a file is known by whatever its name (links, upper and lower case): device and inode, None without one."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
