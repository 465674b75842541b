"""How a command ends: messages on standard error, interruptions, and the exit code of an exception."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import click

from rcnn_cli.sentences import INTERRUPTED, TERMINATED, kept, verbose

PATIENCE = 10.0  # seconds that an interrupted process has to end in order
COUNTING = 2.0  # seconds more to count what it leaves


class Handler(logging.Handler):
    """Messages on standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if "tqdm" in sys.modules and sys.stderr.isatty():
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)


def set_up_logging(verbose: bool) -> None:
    """The project's own messages; those of libraries only if they are warnings.

    Of several processes that torchrun started the first one speaks for all.
    """
    from rcnn_cli.running.device import torchrun_ranks

    quiet = torchrun_ranks(os.environ)[0] > 0
    for name in ("rcnn", "stages", "cache"):
        logger = logging.getLogger(name)
        logger.handlers = [Handler()]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)


def stop(number: int, frame: Any) -> None:
    """SIGINT and SIGTERM end the process in order: claims are given back, finished work stays.

    An exception that a signal raises inside a library may get lost there: what has not ended after PATIENCE is ended.
    Where memory is too short for the thread that sees to it, the system's alarm does.
    """
    code = INTERRUPTED if number == signal.SIGINT else TERMINATED
    if not verbose():
        end_quietly()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE + 2 * COUNTING)
    watchdog = threading.Timer(PATIENCE, end_at_once, [code])
    watchdog.daemon = True
    with contextlib.suppress(RuntimeError, MemoryError):
        watchdog.start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(code)


def end_quietly() -> None:
    """From now on threads and destructors say nothing: what they use is taken from under them, in any order."""
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def end_at_once(code: int) -> None:
    """Ends this process and its children whatever they do; the next run sees that their claims are of the dead."""
    for child in children(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    late = threading.Timer(COUNTING, os._exit, [code])  # should the disk not answer
    late.daemon = True
    late.start()
    click.echo(f"rcnn: {'terminated' if code == TERMINATED else 'interrupted'}; {kept()}", err=True)
    os._exit(code)


def children(parent: int) -> list[int]:
    """The processes that `parent` started and that still run, theirs included (where /proc tells)."""
    try:
        tasks = sorted(Path(f"/proc/{parent}/task").glob("*/children"))
        own = [int(one) for task in tasks for one in task.read_text().split()]
    except OSError:
        return []
    return [*own, *(grandchild for child in own for grandchild in children(child))]
