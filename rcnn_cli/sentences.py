"""Errors as sentences and exit codes."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from cache.errors import Error, first_line
from cache.files import MACHINE
from stages.contract.errors import BadImage

OK, INCOMPLETE, BAD_INPUT, BUG, INTERRUPTED, TERMINATED, BROKEN_PIPE = 0, 1, 2, 70, 130, 143, 141

NAMES = {
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "choose another place",
    errno.EEXIST: "choose another place",
    errno.ENOENT: "run the same command again if it should be there",
    errno.ELOOP: "its symbolic links form a loop; name the file itself",
}
"""What to do about files of the wrong kind or in the wrong place: these errors are not bugs."""
NO_MEMORY = (
    "failed to map segment", "allocate", "start new thread", "insufficient memory", "bad_alloc", "not enough memory",
    "out of memory",
)  # fmt: skip
"""What libraries say, in exceptions of any type, when they run out of memory."""
MAKING_NO_CACHES = (
    "plan", "status", "predict", "figures", "recall", "units", "compare", "explain", "inspect", "wait",
)  # fmt: skip
"""The commands that start again from the beginning."""
SKIP = "--skip-bad-images"
NEARLY_ALL = 0.75  # share of the address space's limit


def sentence(error: BaseException, command: click.Command | None = None, words: Sequence[str] = ()) -> tuple[str, int]:
    """(the error as one line for the user, the exit code). `command` is the one that failed (default: the one that is
    running), called with `words`: only options that it has are suggested, and --skip-bad-images only if it was not
    given."""
    text, code = unescaped_sentence(error, command, words)
    return on_one_line(text), code


def on_one_line(text: str) -> str:
    """The text with line breaks, control characters and surrogates, which data may contain, escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def unescaped_sentence(error: BaseException, command: click.Command | None, words: Sequence[str]) -> tuple[str, int]:
    """`sentence` before escaping."""
    if isinstance(error, BadImage) and has_option(command, SKIP) and SKIP not in words and not skipping():
        return f"{error}, or pass {SKIP}", BAD_INPUT
    if isinstance(error, Error):
        return str(error), BAD_INPUT
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return f"interrupted{kept()}", INTERRUPTED
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{error.filename or 'the work folder'}: the disk is full; free some space and run the same command again",
            BAD_INPUT,
        )
    if memory_ran_out(error):
        options = [("--jobs", "--jobs 1"), ("--batch-size", "a smaller --batch-size")]
        advice = [words for option, words in options if has_option(command, option)] or ["a machine with more memory"]
        return f"memory ran out or a worker was killed ({first_line(error)}); try {' or '.join(advice)}", BAD_INPUT
    if isinstance(error, OSError) and (remedy := {**NAMES, **MACHINE}.get(error.errno or 0)):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; {remedy}", BAD_INPUT
    return f"this is a bug: {type(error).__name__}: {first_line(error)}; `rcnn -v ...` shows where", BUG


def memory_ran_out(error: BaseException) -> bool:
    """Whether the error, or one that led to it, means that memory ran out.

    Under a limit on the address space (`ulimit -v`), libraries fail in many ways: once nearly all of it is used, any
    ImportError, RuntimeError or SystemError counts as a lack of memory.
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
    return isinstance(error, ImportError | RuntimeError | SystemError) and address_space_used() > NEARLY_ALL


def address_space_used() -> float:
    """This process's peak address space as a share of its limit; 0 without a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        status = Path("/proc/self/status").read_text()
    except (ImportError, OSError):
        return 0.0
    except MemoryError:  # not even enough memory for this
        return 1.0
    if limit == resource.RLIM_INFINITY:
        return 0.0
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPeak:")), 0)
    return 1024 * peak / limit


def has_option(command: click.Command | None, option: str) -> bool:
    """Whether the command (default: the one that is running) has the option; True if none is running."""
    context = click.get_current_context(silent=True)
    command = command or (context.command if context else None)
    return command is None or any(option in parameter.opts for parameter in command.params)


def skipping() -> bool:
    """Whether a command is running (none is, once its error has reached `main`) that was given --skip-bad-images."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("skip_bad_images"))


def kept() -> str:
    """That finished work is kept, with the number of items done in the cache that was being made; "" for a command
    that keeps none. The end of a sentence."""
    if command_called(sys.argv[1:]) in MAKING_NO_CACHES:
        return ""
    runner = sys.modules.get("rcnn_cli.running.runner")
    of_one_cache = runner.kept_of_interrupted() if runner else ""
    return f"; finished work is kept{of_one_cache}; the same command resumes from there"


def command_called(words: Sequence[str]) -> str:
    """The command in the `words` of a command line; "" for none."""
    return next((word for word in words if not word.startswith("-")), "")  # the options before it are flags


def explain(error: BaseException) -> str:
    """The sentence for an error after which the command continues; `rcnn -v` also prints its traceback."""
    if verbose():
        traceback.print_exception(error)
    return sentence(error)[0]


def verbose() -> bool:
    """Whether `rcnn -v` was given."""
    return "-v" in sys.argv[1:2] or "--verbose" in sys.argv[1:2]
