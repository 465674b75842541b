"""SHA-256 digests of a dataset's files, remembered so that a second opening need not read them again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.errors import BadImage

log = logging.getLogger("stages.datasets")

SETTLED_NS = 2_000_000_000  # a file younger than this may change again without its time or size showing it
READERS = 4
Entry = tuple[int, int, str]


class DigestMemory:
    """Digests of the files below `folder`, kept in `memory` (a JSON file) with each file's size and modification time.

    Losing or damaging the memory costs time, never truth: an entry counts only while size and time both agree, and is
    kept only for files that had been at rest for two seconds.
    """

    def __init__(self, folder: Path, memory: Path) -> None:
        self.folder = folder
        self.memory = memory

    def of(self, files: Sequence[Path]) -> list[str]:
        """The SHA-256 digests (hex) of `files`, which lie below the folder. Raises BadImage for one not readable."""
        known = self.load()
        with ThreadPoolExecutor(READERS) as pool:
            fresh = dict(pool.map(lambda path: self.digest(path, known), files))
        changed = {name: entry for name, entry in fresh.items() if known.get(name) != entry}
        if changed:
            self.save({**known, **self.settled(changed)})
        return [fresh[self.name(path)][2] for path in files]

    def name(self, path: Path) -> str:
        """The file's key in the memory: its path relative to the folder."""
        return path.relative_to(self.folder).as_posix()

    def digest(self, path: Path, known: dict[str, Entry]) -> tuple[str, Entry]:
        """The file's name and its (size, modification time, digest), read from the file unless already known."""
        try:
            status = path.stat()
            entry = known.get(self.name(path))
            if entry is not None and entry[:2] == (status.st_size, status.st_mtime_ns):
                return self.name(path), entry
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadImage(path, f"cannot be read ({error.strerror})") from None
        return self.name(path), (status.st_size, status.st_mtime_ns, digest)

    def load(self) -> dict[str, Entry]:
        """The remembered entries; none if there is no memory, or it cannot be understood."""
        try:
            entries = json.loads(self.memory.read_text("utf-8"))["files"]
            return {name: (int(size), int(time_ns), str(digest)) for name, (size, time_ns, digest) in entries.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            log.info("%s: not understood, reading the files again", self.memory)
            return {}

    def settled(self, entries: dict[str, Entry]) -> dict[str, Entry]:
        """Those entries whose file was modified long enough ago to be trusted later."""
        limit = time.time_ns() - SETTLED_NS
        return {name: entry for name, entry in entries.items() if entry[1] < limit}

    def save(self, entries: dict[str, Entry]) -> None:
        """Replaces the memory in one step; a full or read-only disk only means that nothing is remembered."""
        remember(self.memory, {"folder": str(self.folder), "files": entries})


def remember(memory: Path, value: object) -> None:
    """Writes `value` as JSON to the file `memory` in one step; only logs a warning if that cannot be done."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=memory.name, suffix=".tmp", dir=memory.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, sort_keys=True)
        os.replace(temporary, memory)
    except OSError as error:
        log.warning("%s: could not be written, so files will be read again (%s)", memory, error.strerror)


def remembered_names(digests: DigestMemory, files: Sequence[Path], read: Callable[[Path], set[str]]) -> list[str]:
    """The sorted union of the names that `read` finds in each of `files`, remembered by the files' content."""
    key = combined("names", digests.of(files))
    memory = digests.memory.with_suffix(".names.json")
    try:
        known = json.loads(memory.read_text("utf-8"))
        if known["key"] == key:
            return [str(name) for name in known["names"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    names = sorted(set().union(*map(read, files)))
    remember(memory, {"key": key, "names": names})
    return names


def memory_of(folder: Path, work: Path) -> DigestMemory:
    """The memory of a dataset's folder, in `work`/digests."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return DigestMemory(folder, work / "digests" / f"{folder.name}-{name}.json")


def combined(kind: str, lines: Iterable[str]) -> str:
    """One SHA-256 digest (hex) over a list of lines; `kind` keeps different lists apart."""
    return hashlib.sha256("\n".join([kind, *lines]).encode()).hexdigest()
