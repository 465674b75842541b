"""Reading files named by the user: anything that is not a file, or far too large, is refused first.

Reading a named pipe would block, and a device may never end. Shell pipes (`<(...)`, /dev/stdin) are accepted.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MEGABYTE = 1_000_000
SHELL_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises OSError, worded to fit "cannot be read (...)", unless `path` is a file or a shell pipe."""
    name = os.fspath(path)
    if "\0" in name:
        raise OSError(errno.EINVAL, "its name contains a zero byte", name)
    mode = os.stat(name).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and name.startswith(SHELL_PIPES)):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", name)


def read_whole(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a file. Raises OSError as `check_is_file`, and if there are more than `most`."""
    check_is_file(path)
    with Path(path).open("rb") as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // MEGABYTE} MB", os.fspath(path))
    return content
