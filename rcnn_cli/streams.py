"""Standard output and error in any condition: open, closed, a pipe without a reader, on a full disk."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

from cache.files import cannot


class OutputLost(BaseException):
    """Standard output can no longer be written to. Not an Exception, so that neither our code nor click catches it."""

    def __init__(self, error: OSError) -> None:
        super().__init__("standard output: " + cannot("be written", error, "send it somewhere else"))
        self.pipe_closed = error.errno == errno.EPIPE


class Output(io.TextIOWrapper):
    """Standard output; raises OutputLost, because an OSError would not say which file it concerns.

    Characters that its encoding lacks, such as undecodable bytes in a file name, are escaped.
    """

    def write(self, text: str, /) -> int:
        """As in TextIOWrapper."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error) from error

    def flush(self) -> None:
        """As in TextIOWrapper."""
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from error


class Messages(io.TextIOWrapper):
    """Standard error; messages that cannot be written are dropped silently."""

    def write(self, text: str, /) -> int:
        """As in TextIOWrapper."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """As in TextIOWrapper."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> None:
    """Replaces this process's streams by Output and Messages, and closed ones by the null device: otherwise the next
    file opened would get the descriptor of the closed stream and receive its output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = as_kind(Output, sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = as_kind(Messages, sys.stderr, 2)


def as_kind(kind: type[Output] | type[Messages], stream: Any, number: int) -> io.TextIOWrapper:
    """The stream (if None, the file descriptor `number`) as Output or Messages."""
    if stream is None:
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    return kind(
        stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


def give_up_output() -> None:
    """Sends everything still to be written to the null device."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
