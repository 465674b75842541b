"""What a reader may do with a spoilt file: read it, or say in one sentence what is wrong; in finite time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import settings

from cache import CacheError
from rcnn_cli.sentences import BAD_INPUT, sentence
from stages.contract.errors import StageError

SECONDS = 30
"""A reader that takes longer hangs: the files are small."""
EXAMPLES = int(os.environ.get("RCNN_FUZZ_EXAMPLES", "0"))
"""How many examples `make fuzz` asks for; 0: a few, always the same."""


def fuzz(few: int) -> settings:
    """The settings of a fuzz test: in the suite `few` examples, always the same; in `make fuzz` many new ones."""
    return settings(settings(), max_examples=EXAMPLES or few, derandomize=not EXAMPLES)


def read_or_said(read: Callable[[], Any]) -> Any:
    """What `read` returns, None where it raised an error of the user's; whatever else it raises is a bug."""
    try:
        with in_finite_time():
            return read()
    except (StageError, CacheError) as error:
        text, code = sentence(error)
        assert text.isprintable()
        assert code == BAD_INPUT
        return None


@contextmanager
def in_finite_time() -> Iterator[None]:
    """Raises TimeoutError in a block that takes too long."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
