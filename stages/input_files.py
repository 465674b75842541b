"""Reading files named by the user: anything that is not a file, or far too large, is refused first.

Reading a named pipe would block, and a device may never end. Shell pipes (`<(...)`, /dev/stdin) are accepted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from stages.contract.errors import StageError

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


def named_file(text: str, kind: str, setting: str) -> Path:
    """The file that a `setting` names by `text`, with `~` and `$VARIABLES` expanded; messages call it a `kind`.

    Raises StageError if it does not exist, naming a variable that is not set.
    """
    path = Path(os.path.expandvars(text)).expanduser()
    if path.is_file():
        return path
    for match in re.finditer(r"\$(?:(\w+)|\{(\w+)\})", text):
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise StageError(f"{text}: the environment variable {name} is not set; set it, or correct {setting}")
    if path.is_dir():
        raise StageError(f"{path}: is a folder, not a {kind}; correct {setting}")
    raise StageError(f"{path}: no such {kind}; correct {setting}")


def read_whole(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """The bytes of a file. Raises OSError as `check_is_file`, and if there are more than `most`."""
    check_is_file(path)
    with Path(path).open("rb") as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // MEGABYTE} MB", os.fspath(path))
    return content
