"""Standard output and standard error as a command finds them: open, closed, a pipe without a reader, on a full disk."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

from cache.files import cannot


class OutputLost(BaseException):
    """Standard output cannot be written any more. No Exception: nobody goes on after it, and click lets it through."""

    def __init__(self, error: OSError) -> None:
        super().__init__("standard output: " + cannot("be written", error, "send it somewhere else"))
        self.nobody_reads = error.errno == errno.EPIPE


class Output(io.TextIOWrapper):
    """Standard output; raises OutputLost where an OSError would not say which file it is about.

    Characters that its encoding does not have, such as the bytes of a file's name that are no text, are escaped.
    """

    def write(self, text: str, /) -> int:
        """As of any text file."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error) from error

    def flush(self) -> None:
        """As of any text file."""
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from error


class Messages(io.TextIOWrapper):
    """Standard error; what cannot be written is lost, and nothing ends for that."""

    def write(self, text: str, /) -> int:
        """As of any text file."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """As of any text file."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> None:
    """Puts Output and Messages in the place of this process's own streams, and the null device where one is closed:
    otherwise the next file that is opened would be taken for it by whoever writes to its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = of_kind(Output, sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = of_kind(Messages, sys.stderr, 2)


def of_kind(kind: type[Output] | type[Messages], stream: Any, number: int) -> io.TextIOWrapper:
    """The stream, or where it is None the file `number`, as Output or Messages."""
    if stream is None:
        return kind(open(number, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")
    return kind(
        stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


def give_up_output() -> None:
    """Sends what is left to write, and all that follows, nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
