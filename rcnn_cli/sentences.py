"""Errors as sentences and exit codes."""

from __future__ import annotations

import errno
import sys
import traceback

import click

from stages.errors import BadImage, StageError

OK, INCOMPLETE, BAD_INPUT, BUG, INTERRUPTED, TERMINATED, BROKEN_PIPE = 0, 1, 2, 70, 130, 143, 141


def sentence(error: BaseException, command: click.Command | None = None) -> tuple[str, int]:
    """What the user reads, and the exit code. `command` (else the one that is running) is the command that failed: only
    options that it has are advised."""
    from cache import CacheError

    if isinstance(error, BadImage) and has_option(command, "--skip-bad-images"):
        return f"{error}, or pass --skip-bad-images", BAD_INPUT
    if isinstance(error, StageError | CacheError):
        return str(error), BAD_INPUT
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return f"interrupted; {kept()}", INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{error.filename or 'the work folder'}: the disk is full; make room and run the same command again",
            BAD_INPUT,
        )
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; check who owns it", BAD_INPUT
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "TerminatedWorkerError"):
        fewer = [("--jobs", "--jobs 1"), ("--batch-size", "a smaller --batch-size")]
        ways = [words for option, words in fewer if has_option(command, option)] or ["a machine with more"]
        return f"memory ran out or a worker was killed ({first_line(error)}); try {' or '.join(ways)}", BAD_INPUT
    return f"this is a bug: {type(error).__name__}: {first_line(error)}; `rcnn -v ...` shows where", BUG


def has_option(command: click.Command | None, option: str) -> bool:
    """Whether the command, or else the one that is running, has the option; True where none is known to run."""
    context = click.get_current_context(silent=True)
    command = command or (context.command if context else None)
    return command is None or any(option in parameter.opts for parameter in command.params)


def kept() -> str:
    """What an interrupted process leaves, with the number of items of the cache that it was making."""
    runner = sys.modules.get("rcnn_cli.runner")
    of_one_cache = runner.kept_of_interrupted() if runner else ""
    return f"what is finished is kept{of_one_cache}; the same command goes on from there"


def explain(error: BaseException) -> str:
    """The sentence for an error after which the command goes on; `rcnn -v` shows where it was raised."""
    if verbose():
        traceback.print_exception(error)
    return sentence(error)[0]


def verbose() -> bool:
    """Whether `rcnn -v` was given."""
    return "-v" in sys.argv[1:2] or "--verbose" in sys.argv[1:2]


def first_line(error: BaseException) -> str:
    """The first line of an exception's text."""
    return (str(error).strip().splitlines() or [""])[0][:200]
