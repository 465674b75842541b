"""Errors as sentences and exit codes."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path

import click

from cache.errors import CacheError, first_line
from cache.files import MACHINE
from stages.contract.errors import BadImage, StageError

OK, INCOMPLETE, BAD_INPUT, BUG, INTERRUPTED, TERMINATED, BROKEN_PIPE = 0, 1, 2, 70, 130, 143, 141

NAMES = {
    errno.EROFS: "name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name another place",
    errno.EEXIST: "name another place",
    errno.ENOENT: "run the same command again if it should be there",
    errno.ELOOP: "its symbolic links form a loop; name the file itself",
}
"""What to do about files of the wrong kind or in the wrong place: these errors are not bugs."""
NO_MEMORY = (
    "failed to map segment", "allocate", "start new thread", "insufficient memory", "bad_alloc", "not enough memory",
    "out of memory",
)  # fmt: skip
"""What libraries say, in exceptions of any type, when the system gives them no more memory."""
NEARLY_ALL = 0.75


def sentence(error: BaseException, command: click.Command | None = None) -> tuple[str, int]:
    """What the user reads, on one line, and the exit code. `command` (else the one that is running) is the command that
    failed: only options that it has are advised."""
    text, code = unescaped_sentence(error, command)
    return on_one_line(text), code


def on_one_line(text: str) -> str:
    """The text with line breaks, control characters and halves of surrogates, which data may hold, escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def unescaped_sentence(error: BaseException, command: click.Command | None) -> tuple[str, int]:
    """`sentence` before its text is put on one line."""
    if isinstance(error, BadImage) and has_option(command, "--skip-bad-images"):
        return f"{error}, or pass --skip-bad-images", BAD_INPUT
    if isinstance(error, StageError | CacheError):
        return str(error), BAD_INPUT
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return f"interrupted; {kept()}", INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{error.filename or 'the work folder'}: the disk is full; free some space and run the same command again",
            BAD_INPUT,
        )
    if memory_ran_out(error):
        fewer = [("--jobs", "--jobs 1"), ("--batch-size", "a smaller --batch-size")]
        ways = [words for option, words in fewer if has_option(command, option)] or ["a machine with more"]
        return f"memory ran out or a worker was killed ({first_line(error)}); try {' or '.join(ways)}", BAD_INPUT
    if isinstance(error, OSError) and (advice := {**NAMES, **MACHINE}.get(error.errno or 0)):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; {advice}", BAD_INPUT
    return f"this is a bug: {type(error).__name__}: {first_line(error)}; `rcnn -v ...` shows where", BUG


def memory_ran_out(error: BaseException) -> bool:
    """Whether the error, or one that led to it, means that there was no memory left.

    Under a limit of the address space (`ulimit -v`) libraries fail in ways of their own: with nearly all of it taken an
    unknown error is taken for one of them.
    """
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, MemoryError) or type(chain).__name__ in ("OutOfMemoryError", "TerminatedWorkerError"):
            return True
        if isinstance(chain, OSError) and chain.errno == errno.ENOMEM:
            return True
        if any(words in str(chain).lower() for words in NO_MEMORY):
            return True
        chain = chain.__cause__ or chain.__context__
    return isinstance(error, ImportError | RuntimeError | SystemError) and address_space_taken() > NEARLY_ALL


def address_space_taken() -> float:
    """The largest share of its limit of address space that this process has had; 0 without a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        status = Path("/proc/self/status").read_text()
    except (ImportError, OSError):
        return 0.0
    except MemoryError:  # not even for this
        return 1.0
    if limit == resource.RLIM_INFINITY:
        return 0.0
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPeak:")), 0)
    return 1024 * peak / limit


def has_option(command: click.Command | None, option: str) -> bool:
    """Whether the command, or else the one that is running, has the option; True where none is known to run."""
    context = click.get_current_context(silent=True)
    command = command or (context.command if context else None)
    return command is None or any(option in parameter.opts for parameter in command.params)


def kept() -> str:
    """What an interrupted process leaves, with the number of items of the cache that it was making."""
    runner = sys.modules.get("rcnn_cli.running.runner")
    of_one_cache = runner.kept_of_interrupted() if runner else ""
    return f"finished work is kept{of_one_cache}; the same command resumes from there"


def explain(error: BaseException) -> str:
    """The sentence for an error after which the command goes on; `rcnn -v` shows where it was raised."""
    if verbose():
        traceback.print_exception(error)
    return sentence(error)[0]


def verbose() -> bool:
    """Whether `rcnn -v` was given."""
    return "-v" in sys.argv[1:2] or "--verbose" in sys.argv[1:2]
