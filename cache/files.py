"""Atomic writing (temporary name, fsync, rename, fsync of the folder) and patient reading of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cache.errors import CacheError, DamagedFile, DiskFull

TEMPORARY = ".tmp-"
ATTEMPTS = 3  # at a write whose temporary file another process may delete
SEAL = "sha256"
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
PAUSES = (0.1, 0.5, 2.0)  # seconds between attempts to read from a network disk that may recover

Result = TypeVar("Result")
Change = tuple[int, int, int]


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process, host or thread uses."""
    return path.with_name(f"{path.name}{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def is_temporary(name: str) -> bool:
    """Whether this is the name of a file that is still being written, or was when its writer died."""
    return TEMPORARY in name


def writer_of(temporary: str) -> tuple[str, int]:
    """(host, process id) of a temporary file's writer, from the file's name; ("", 0) if the name is not ours."""
    host, _, process = temporary.rpartition(TEMPORARY)[2].rpartition("-")[0].rpartition("-")
    return (host, int(process)) if process.isdecimal() else ("", 0)


def write_atomically(
    path: Path, chunks: Sequence[bytes | memoryview], *, exclusive: bool = False, durable: bool = True
) -> bool:
    """Writes `chunks` to `path` so that the file is whole or absent, even after SIGKILL or a full disk.

    With `exclusive`, an existing file is left alone and False is returned. `durable=False` skips the fsync; a power
    failure may then undo the write. If another process deletes the temporary file, it is written again. Raises DiskFull
    or CacheError.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return write_once(path, chunks, exclusive, durable)
        except CacheError as error:
            if not isinstance(error.__cause__, FileNotFoundError) or not path.parent.is_dir():
                raise
    return write_once(path, chunks, exclusive, durable)


def write_once(path: Path, chunks: Sequence[bytes | memoryview], exclusive: bool, durable: bool) -> bool:
    """One attempt at `write_atomically`."""
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if exclusive:
            try:
                os.link(temporary, path)  # atomic on NFS too, where O_EXCL and locks may not be
            except FileExistsError:
                return False
        else:
            os.replace(temporary, path)
        if durable:
            fsync_folder(path.parent)
    except OSError as error:
        raise as_cache_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def as_cache_error(path: Path, error: OSError) -> CacheError:
    """The sentence for an operating system's error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(path)
    return CacheError(f"{path}: " + cannot("be written", error, "check the folder and its permissions"))


def write_json(path: Path, value: Any, *, exclusive: bool = False, durable: bool = True) -> bool:
    """`value` as indented JSON, atomically; options as `write_atomically`."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    content = text.encode("utf-8", "backslashreplace")  # for file names that are not UTF-8: JSON has that escape
    return write_atomically(path, [content], exclusive=exclusive, durable=durable)


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises CacheError if it is not JSON or cannot be read, FileNotFoundError if missing."""
    try:
        return parse_json(read_bytes(path))
    except ValueError as error:
        raise CacheError(f"{path}: is not valid JSON; delete this file and run the same command again") from error


def parse_json(content: bytes) -> Any:
    """The value of JSON in UTF-8. Raises ValueError, also for JSON nested too deeply or with too many digits."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_number(value: Any) -> bool:
    """Whether a JSON value is a float, finite or not, or an integer below 2^63 in absolute value."""
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


# Reading


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises as `patiently`."""
    return patiently(path, path.read_bytes)


def size_of(path: Path) -> int:
    """The file's length in bytes. Raises as `patiently`."""
    return patiently(path, lambda: os.stat(path).st_size)


def state_of(path: Path) -> tuple[int, ...]:
    """Device, inode, size and times: differ for any two files and for a changed file. Raises as `patiently`."""
    state = patiently(path, lambda: os.stat(path))
    return (state.st_dev, state.st_ino, *change_of(state))


def change_of(state: os.stat_result) -> Change:
    """(size, mtime, ctime), times in ns: changes when a file is written to or its inode is reused."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def is_there(path: Path) -> bool:
    """Whether the file exists. Raises CacheError if that cannot be determined (a network disk does not answer)."""
    try:
        size_of(path)
    except FileNotFoundError:
        return False
    return True


def patiently(path: Path, read: Callable[[], Result]) -> Result:
    """Calls `read`, retrying a few times on errors from which a disk, a network disk above all, may recover.

    Raises FileNotFoundError, and CacheError for any other operating-system error: a file that could not be read is not
    necessarily damaged.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError as error:
            if pause is None or error.errno not in PASSING:
                raise unreadable(path, error) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def unreadable(path: Path, error: OSError) -> CacheError:
    """The error for a file that exists but cannot be read."""
    return CacheError(
        f"{path}: " + cannot("be read", error, "check the disk or the network and run the same command again")
    )


# Operating-system errors

MACHINE = {
    errno.EACCES: "check its owner and permissions",
    errno.EPERM: "check its owner and permissions",
    errno.EIO: "check the disk, then run the same command again",
    errno.ESTALE: "check the network disk, then run the same command again",
    errno.ETIMEDOUT: "check the network disk, then run the same command again",
    errno.EMFILE: "raise the limit (`ulimit -n`) and run the same command again",
    errno.ENFILE: "close other programs and run the same command again",
    errno.ENOMEM: "memory ran out: use fewer --jobs",
}
"""What to do about errors whose cause is the machine rather than the named file."""


def cannot(be_done: str, error: OSError, advice: str) -> str:
    """The end of an error sentence about a file: "cannot be read (Input/output error); check the disk, then ...".

    `be_done`: what was attempted, e.g. "be read"; `advice`: what to do unless the machine is the cause.
    """
    return f"cannot {be_done} ({error.strerror or error}); {MACHINE.get(error.errno or 0, advice)}"


# JSON files that contain their own SHA-256


def seal_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted names, no spaces) of `value` without its seal."""
    rest = {name: member for name, member in value.items() if name != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_sealed(path: Path, value: Mapping[str, Any], *, exclusive: bool = False) -> bool:
    """`value` as JSON whose last member, "sha256", is the SHA-256 of the rest; options as `write_atomically`."""
    as_read = json.loads(json.dumps(value))  # names that are numbers become strings, tuples lists
    return write_json(path, {**as_read, SEAL: seal_of(as_read)}, exclusive=exclusive)


def read_sealed(path: Path, damaged: type[DamagedFile]) -> tuple[dict[str, Any], bool]:
    """(the object in `path` without its seal, whether it had one: earlier versions wrote none).

    Raises `damaged` if it is not a JSON object or does not match its seal, and as `patiently`.
    """
    try:
        value = parse_json(read_bytes(path))
    except ValueError as error:
        raise damaged(path, "it is not valid JSON") from error
    if not isinstance(value, dict):
        raise damaged(path, "it is not a JSON object")
    if SEAL not in value:
        return value, False
    if value.pop(SEAL) != seal_of(value):
        raise damaged(path, "its SHA-256 does not match the recorded one")
    return value, True


def fsync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable, if the filesystem supports that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
