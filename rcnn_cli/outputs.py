"""Output files in folders that the user names: a command replaces only files that it wrote itself.

Each folder has a list of them, `.rcnn-files`, in the format of sha256sum. A file that is in the list and still has that
content was written by rcnn and may be replaced; any other belongs to the user. A marker inside each file would not do:
CSV has no place for one, and an edited file would keep it.
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
COPIES = ".rcnn-copies"
"""The list of a folder of copied images: these are not drawings, and a command may be given them again."""


class OutputFolder:
    """A folder for a command's output. With `given` (named by the user, not part of the work folder), only files in its
    list, `listed_in`, are replaced. The command's `inputs` never are."""

    def __init__(self, path: Path, *, given: bool = True, inputs: Iterable[Path] = (), listed_in: str = LIST) -> None:
        self.path = path
        self.list = path / listed_in
        self.given = given
        self.inputs = {file_id for source in inputs if (file_id := file_id_of(source)) is not None}
        self.digests: dict[str, set[str]] = {}
        self.read_up_to = 0

    def check(self, names: Iterable[str]) -> None:
        """Raises StageError if one of the files `names` could not be written; called before any work is done."""
        if not self.path.is_dir() and os.path.lexists(self.path):
            raise StageError(f"-o {self.path}: is a file, not a folder; choose another folder")
        check_writable("-o", self.path)
        for name in names:
            self.check_file(self.path / name)

    def check_file(self, path: Path) -> None:
        """Raises StageError if the file exists and must not be replaced."""
        if not os.path.lexists(path):
            return
        if path.is_dir():
            raise StageError(
                f"{path}: is a folder, but a file with this name would be written; choose another place with -o"
            )
        if file_id_of(path) in self.inputs:
            raise StageError(f"{path}: is read by this command and would be overwritten; choose another folder with -o")
        if self.given and not self.is_own(path):
            raise StageError(
                f"{path}: already exists and was not written by rcnn, or has changed since; move it away, or choose "
                f"another folder with -o"
            )

    def is_own(self, path: Path) -> bool:
        """Whether rcnn wrote the file into this folder and it has not changed since."""
        return path in self.own_among([path])

    def own_among(self, paths: Iterable[Path]) -> set[Path]:
        """The `paths` that rcnn wrote and that have not changed since; only files with listed names are read."""
        listed, own = self.listed(), set()
        for path in paths:
            with contextlib.suppress(OSError):
                if path.name in listed and digest_of(path) in listed[path.name]:
                    own.add(path)
        return own

    def listed(self) -> dict[str, set[str]]:
        """The list: by file name, the SHA-256s of the contents that rcnn has written.

        The list only grows, and a folder may have 100,000 files: lines already read are not read again.
        """
        with contextlib.suppress(FileNotFoundError), self.list.open("rb") as file:
            file.seek(self.read_up_to)
            for line in file:
                digest, _, name = line.decode("utf-8", "replace").rstrip("\n").partition("  ")
                self.digests.setdefault(name, set()).add(digest)
                self.read_up_to += len(line) * line.endswith(b"\n")
        return self.digests

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A path to write to; it becomes the file `name` if the block ends without an exception.

        Raises StageError if the file must not be replaced or the folder cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StageError(
                f"-o {self.path}: " + cannot("be created as a folder", error, "choose another place")
            ) from error
        path = self.path / name
        self.check_file(path)
        temporary = self.path / f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{name}"  # with the extension: it tells the format
        try:
            yield temporary
            digest = digest_of(temporary)
            if digest not in self.listed().get(name, ()):
                with self.list.open(
                    "a", encoding="utf-8"
                ) as file:  # before the rename: if killed in between, the file still counts as ours
                    file.write(f"{digest}  {name}\n")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def write(self, name: str, text: str) -> None:
        """Writes `text` to the file `name`, in UTF-8. Raises as `file`."""
        with self.file(name) as path, path.open("w", encoding="utf-8", newline="") as file:
            file.write(text)

    def remove(self, name: str) -> None:
        """Deletes a file that an earlier run wrote and this one does not. Raises as `file`."""
        self.check_file(self.path / name)
        (self.path / name).unlink(missing_ok=True)


def check_output_file(option: str, path: Path, inputs: Iterable[Path], is_own: Callable[[Path], bool]) -> None:
    """Raises StageError if the file `path`, given as `option`, must not be written: it is one of the `inputs`, a
    folder, in a folder that cannot be written to, or an existing file that the command did not write (`is_own`)."""
    check_writable(option, path.parent)
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise StageError(f"{option} {path}: is a folder; name a file")
    if file_id_of(path) in {file_id_of(source) for source in inputs} - {None}:
        raise StageError(f"{option} {path}: is read by this command and would be overwritten; choose another file")
    if not is_own(path):
        raise StageError(f"{option} {path}: already exists and was not written by this command; choose another file")


def check_writable(option: str, folder: Path) -> None:
    """Raises StageError if no file can be created in `folder` or, if it does not exist yet, in its nearest existing
    parent. Tries it: permissions say nothing about /sys or a read-only disk."""
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=existing, prefix=TEMPORARY):
            pass
    except OSError as error:
        raise StageError(
            f"{option} {folder}: {existing} " + cannot("be written to", error, "choose another place")
        ) from error


def file_id_of(path: Path) -> tuple[int, int] | None:
    """(device, inode), the same for all names of a file (links, letter case); None if it does not exist."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_dev, state.st_ino


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
