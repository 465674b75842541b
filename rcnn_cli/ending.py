"""Log messages on standard error, and ending in good order on SIGINT and SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rcnn_cli.sentences import INTERRUPTED, TERMINATED, kept, verbose

PATIENCE = 10.0  # seconds that an interrupted process has to end in good order
COUNTING = 2.0  # further seconds to count the finished items

received: list[int] = []
"""The signals that told this process to end. Whatever fails afterwards fails because of them: libraries turn the
exception that a signal handler raises into others."""


class Handler(logging.Handler):
    """Prints log messages on standard error, above any progress bar."""

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
    """Shows the project's own log messages, and only warnings of libraries.

    Of the processes that torchrun started, only the first prints messages.
    """
    from rcnn_cli.running.device import torchrun_ranks

    quiet = torchrun_ranks(os.environ)[0] > 0
    for name in ("rcnn", "stages", "cache"):
        logger = logging.getLogger(name)
        logger.handlers = [Handler()]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)


def stop(number: int, frame: Any) -> None:
    """Handles SIGINT and SIGTERM by ending the process in good order: claims are released, finished work is kept.

    A library may swallow the exception that a signal handler raises: a process still running after PATIENCE is killed
    by a thread, or by the system's alarm if there is not enough memory to start that thread.
    """
    received.append(number)
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


@contextlib.contextmanager
def first_interrupt() -> Iterator[threading.Event]:
    """An event that the first SIGINT sets, where it would interrupt; a second one does. For what is ended by Ctrl-C and
    still to be finished in good order, however long that takes."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def told_to_end(error: BaseException) -> BaseException:
    """The exception that `stop` raised, where a signal told this process to end and `error` is what became of it; else
    `error`."""
    if not received:
        return error
    told: BaseException = KeyboardInterrupt() if received[0] == signal.SIGINT else SystemExit(TERMINATED)
    told.__cause__ = error
    return told


def end_quietly() -> None:
    """Silences threads and destructors: during shutdown the objects that they use disappear in any order."""
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def end_at_once(code: int) -> None:
    """Kills this process and its children, whatever they are doing; the next run takes over their claims."""
    for child in children(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    late = threading.Timer(COUNTING, os._exit, [code])  # in case the disk does not answer
    late.daemon = True
    late.start()
    click.echo(f"rcnn: {'terminated' if code == TERMINATED else 'interrupted'}{kept()}", err=True)
    os._exit(code)


def children(parent: int) -> list[int]:
    """The ids of all running descendants of the process `parent`, from /proc; empty on systems without it."""
    try:
        tasks = sorted(Path(f"/proc/{parent}/task").glob("*/children"))
        own = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []
    return [*own, *(grandchild for child in own for grandchild in children(child))]
