"""Files that appear whole or not at all: written to a temporary name, fsynced, renamed, the folder fsynced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DiskFull

TEMPORARY = ".tmp-"
SWEPT = 3  # times that a temporary file may be swept up under its writer


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process, host or thread uses."""
    return path.with_name(f"{path.name}{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def is_temporary(name: str) -> bool:
    """Whether a file of this name was still being written."""
    return TEMPORARY in name


def writer_of(temporary: str) -> tuple[str, int]:
    """(host, process id) of whoever was writing a temporary file; ("", 0) if its name is none of ours."""
    host, _, process = temporary.rpartition(TEMPORARY)[2].rpartition("-")[0].rpartition("-")
    return (host, int(process)) if process.isdecimal() else ("", 0)


def write_atomically(
    path: Path, chunks: Sequence[bytes | memoryview], *, exclusive: bool = False, durable: bool = True
) -> bool:
    """Writes `chunks` to `path` so that it is there whole or not at all, also after SIGKILL or a full disk.

    With `exclusive`, an existing file is left as it is and False is returned. `durable=False` spares the fsync, where a
    power failure may undo it. Should another process sweep up the temporary file, it is written again. Raises DiskFull
    or CacheError.
    """
    for _ in range(SWEPT - 1):
        try:
            return write_once(path, chunks, exclusive, durable)
        except CacheError as error:
            if not isinstance(error.__cause__, FileNotFoundError) or not path.parent.is_dir():
                raise
    return write_once(path, chunks, exclusive, durable)


def write_once(path: Path, chunks: Sequence[bytes | memoryview], exclusive: bool, durable: bool) -> bool:
    """`write_atomically`, tried once."""
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
    return CacheError(f"{path}: cannot be written ({error.strerror or error}); check the folder and its permissions")


def write_json(path: Path, value: Any, *, exclusive: bool = False, durable: bool = True) -> bool:
    """`value` as indented JSON, atomically; options as `write_atomically`."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return write_atomically(path, [text.encode()], exclusive=exclusive, durable=durable)


def read_json(path: Path) -> Any:
    """The JSON value in `path`; CacheError if it is not JSON, FileNotFoundError if it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CacheError(f"{path}: is not valid JSON; delete this file and run the same command again") from error


def fsync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable, where the filesystem can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
