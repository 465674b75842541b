"""SHA-256 digests of a dataset's files, remembered so that files need not be read again the next time.

A remembered digest is valid as long as size, modification time, change time and inode are unchanged. No program can set
the change time, so a replaced file with the same size and modification time (such as an export unpacked over the last
one) is noticed. What these four do not show (bit rot, a file system without change times) needs a content check: with
the environment variable RCNN_CHECK_CONTENT, set by `--check-content`, every file is read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cache.errors import CacheError, DamagedFile
from cache.files import read_sealed, write_sealed
from stages.contract.errors import BadImage, ChangedInput
from stages.images.reading import Header, missing_image, read_header
from stages.input_files import read_whole

log = logging.getLogger("stages.datasets")

CHECK_CONTENT = "RCNN_CHECK_CONTENT"
SETTLED_NS = 2_000_000_000  # a file changed more recently may change again without a change in its times or size
READERS = 4
REMEMBERED = 32  # the most recent values of each kind


class FileEntry(NamedTuple):
    """What is known about a file: its state from `os.stat`, its SHA-256 (hex) and, for an image, its header."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    sha256: str
    header: Header | None = None

    @staticmethod
    def from_json(value: Any) -> FileEntry:
        """The entry stored as a list. Raises ValueError or TypeError for any other value."""
        *state, sha256, header = value
        size, modified_ns, changed_ns, inode = map(int, state)
        known = None if header is None else Header(*map(int, header))
        return FileEntry(size, modified_ns, changed_ns, inode, str(sha256), known)

    @property
    def state(self) -> tuple[int, int, int, int]:
        """The values that must be unchanged for the rest to be valid."""
        return self[:4]


def state_of(path: Path) -> tuple[int, int, int, int]:
    """The first four values of a `FileEntry`, to be taken before reading the file. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class DigestMemory:
    """Digests of the files below `folder`, stored in `memory` (a JSON file) with each file's state.

    Losing or damaging the memory costs time, but never correctness. Within one object (and its pickled copies) a file
    has one digest, which is compared whenever the file is read.
    """

    def __init__(self, folder: Path, memory: Path) -> None:
        self.folder = folder
        self.memory = memory
        self.found: dict[str, FileEntry] = {}
        self.remembered: dict[str, FileEntry] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "remembered": None}

    def of(self, files: Sequence[Path]) -> list[str]:
        """The SHA-256 digests (hex) of `files` below the folder. Raises BadImage if one cannot be read."""
        return [entry.sha256 for entry in self.entries(files, images=False)]

    def entries(self, files: Sequence[Path], *, images: bool) -> list[FileEntry]:
        """The entries of `files`, read if necessary, with headers if they are `images`. Raises BadImage."""
        before = self.known()
        with ThreadPoolExecutor(READERS) as pool:
            entries = list(pool.map(lambda path: self.entry(path, image=images), files))
        changed = {
            name: entry for name, entry in zip(map(self.name, files), entries, strict=True) if before.get(name) != entry
        }
        if changed:
            self.save({**self.load(), **self.settled(changed)})
        return entries

    def entry(self, path: Path, *, image: bool) -> FileEntry:
        """The entry of one file, read if necessary; nothing is saved. Raises BadImage and ChangedInput."""
        name = self.name(path)
        entry = self.found.get(name)
        if entry is None or (image and entry.header is None):
            read = self.look(path, self.known().get(name), image)
            if entry is not None and entry.sha256 != read.sha256:
                raise ChangedInput.of(path)
            entry = self.found[name] = read
        return entry

    def look(self, path: Path, known: FileEntry | None, image: bool) -> FileEntry:
        """The entry of the file: the `known` one if it is still valid, else from reading the file."""
        try:
            state = state_of(path)
            if known is not None and known.state == state and not (image and known.header is None):
                return known
            content = read_whole(path)
        except OSError as error:
            if image and isinstance(error, FileNotFoundError):
                raise missing_image(path) from None
            raise BadImage(path, f"cannot be read ({error.strerror})") from None
        return FileEntry(*state, hashlib.sha256(content).hexdigest(), read_header(content, path) if image else None)

    def read(self, path: Path) -> bytes:
        """The bytes of a file. Raises ChangedInput if they do not match its known digest, and OSError."""
        state, content = state_of(path), read_whole(path)
        sha256 = hashlib.sha256(content).hexdigest()
        if self.found.setdefault(self.name(path), FileEntry(*state, sha256)).sha256 != sha256:
            raise ChangedInput.of(path)
        return content

    def name(self, path: Path) -> str:
        """The file's key in the memory: its path relative to the folder."""
        return path.relative_to(self.folder).as_posix()

    def keep(self) -> None:
        """Saves the digests computed so far."""
        if self.found:
            self.save({**self.load(), **self.settled(self.found)})

    def known(self) -> dict[str, FileEntry]:
        """The remembered entries, loaded once; none if contents are to be checked."""
        if self.remembered is None:
            self.remembered = {} if checks_content() else self.load()
        return self.remembered

    def forget(self) -> None:
        """Forgets all digests, so that every file is read again."""
        self.found, self.remembered = {}, {}

    def load(self) -> dict[str, FileEntry]:
        """The entries in the memory; none if it is missing or cannot be interpreted."""
        try:
            return {name: FileEntry.from_json(value) for name, value in read_memory(self.memory, "files").items()}
        except (ValueError, TypeError):
            log.info("%s: cannot be interpreted, reading the files again", self.memory)
            return {}

    def settled(self, entries: dict[str, FileEntry]) -> dict[str, FileEntry]:
        """The entries of files that were last changed long enough ago to be trusted later."""
        limit = time.time_ns() - SETTLED_NS
        return {name: entry for name, entry in entries.items() if max(entry.modified_ns, entry.changed_ns) < limit}

    def save(self, entries: dict[str, FileEntry]) -> None:
        """Replaces the memory atomically; on a full or read-only disk nothing is remembered."""
        remember(self.memory, {"folder": str(self.folder), "files": entries})


def remember(memory: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as JSON, with its SHA-256, to the file `memory`, atomically; only warns if that fails."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(memory, value)
    except (OSError, CacheError) as error:
        log.warning("%s: could not be written, so files will be read again (%s)", memory, error)


def read_memory(memory: Path, table: str) -> dict[str, Any]:
    """The entries of `table` in a file written by `remember`; none if it is missing or damaged."""
    try:
        value, sealed = read_sealed(memory, DamagedFile)
    except FileNotFoundError:
        return {}
    except CacheError as error:
        reason = error.reason if isinstance(error, DamagedFile) else error
        log.info("%s: not trusted (%s); the files are read again", memory, reason)
        return {}
    entries = value.get(table)
    return entries if sealed and isinstance(entries, dict) else {}


def remembered_names(digests: DigestMemory, files: Sequence[Path], read: Callable[[Path], set[str]]) -> list[str]:
    """The sorted union of the names that `read` returns for each of `files`, remembered by the files' content.

    `read` should use `digests.read`, so that it sees the content whose digest is remembered.
    """
    key = combined("names", digests.of(files))
    names = remembered(digests, "classes", key, lambda: sorted(set().union(*map(read, files))))
    return [str(name) for name in names]


def remembered(digests: DigestMemory, kind: str, key: str, compute: Callable[[], Any], keep: int = REMEMBERED) -> Any:
    """The JSON value that `compute` returns, remembered next to the digests; `key` covers everything that determines
    it, and the last `keep` values of a `kind` are kept.

    Losing or damaging the memory only costs time.
    """
    memory = digests.memory.with_suffix(f".{kind}.json")
    entries = read_memory(memory, "entries")
    if key not in entries:
        entries = dict([*list(entries.items())[1 - keep :], (key, compute())])
        remember(memory, {"entries": entries})
    return entries[key]


def remembered_of_file(path: Path, work: Path, kind: str, compute: Callable[[], Any]) -> Any:
    """The JSON value that `compute` returns for a file, remembered in `work` as long as the file looks unchanged.

    Nothing is remembered for a file that changed a moment ago. Raises OSError, and what `compute` raises.
    """
    state = state_of(path)
    _, modified_ns, changed_ns, _ = state
    if checks_content() or max(modified_ns, changed_ns) > time.time_ns() - SETTLED_NS:
        return compute()
    return remembered(memory_of(path.parent, work), kind, combined(kind, [ascii(path.name), *map(str, state)]), compute)


def checks_content() -> bool:
    """Whether every file is to be read, even if its digest is remembered."""
    return os.environ.get(CHECK_CONTENT, "0") not in ("", "0")


def memory_of(folder: Path, work: Path) -> DigestMemory:
    """The memory for a dataset's folder, in `work`/digests."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return DigestMemory(folder, work / "digests" / f"{folder.name}-{name}.json")


def combined(kind: str, lines: Iterable[str]) -> str:
    """A single SHA-256 digest (hex) over lines; `kind` distinguishes different lists."""
    return hashlib.sha256("\n".join([kind, *lines]).encode()).hexdigest()
