"""Functions that Numba compiles, once for each type of processor.

The machine code is kept beside the modules or, where that folder cannot be written, in the user's cache folder.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

logger = logging.getLogger("stages.propose")

Function = TypeVar("Function", bound=Callable[..., Any])
PATIENCE = 2.0
"""Seconds after which a first call is taken to compile: loading the machine code takes half a second."""
NOT_KEPT = (
    "in every process, as neither the installation nor the user's cache folder can be written to; set NUMBA_CACHE_DIR "
    "to a folder that can"
)


def can_be_kept() -> bool:
    """Whether there is a folder for the machine code."""

    def nothing() -> None:
        """Something to compile."""

    try:
        njit(cache=True)(nothing)
    except RuntimeError:  # Numba's, where it finds no folder
        return False
    return True


KEPT = can_be_kept()


def compiled(function: Function) -> Function:
    """The function, compiled on its first call. Arithmetic is as NumPy's: no operation is fused or reordered."""
    return cast(Function, njit(cache=KEPT)(function))


def compile_aloud(what: str, first_call: Callable[[], object]) -> None:
    """Makes the `first_call` of functions to be compiled, and says so if that takes long."""
    message = f"compiling {what} for this processor; this takes about 20 s, {'once' if KEPT else NOT_KEPT}"
    notice = threading.Timer(PATIENCE, logger.info, [message])
    notice.daemon = True
    notice.start()
    try:
        first_call()
    finally:
        notice.cancel()
