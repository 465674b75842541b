"""Functions that Numba compiles, once for each type of processor.

The machine code is kept beside the modules or, where that folder cannot be written, in the user's cache folder.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

from stages.contract.errors import StageError

logger = logging.getLogger("stages.propose")

Function = TypeVar("Function", bound=Callable[..., Any])
PATIENCE = 5.0
"""Seconds after which a first call is taken to compile: loading the machine code takes half a second when idle."""
UNREADABLE = (EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError, KeyError)
"""What Numba raises for damaged files."""
NOT_KEPT = (
    "in every process, as neither the installation nor the user's cache folder can be written to; set NUMBA_CACHE_DIR "
    "to a folder that can"
)


def folder_to_keep_it() -> str | None:
    """The folder for the machine code; None if there is none that can be written to."""

    def nothing() -> None:
        """Something to compile."""

    try:
        return str(njit(cache=True)(nothing).stats.cache_path)
    except RuntimeError:  # Numba's, where it finds no folder
        return None


FOLDER = folder_to_keep_it()
KEPT = FOLDER is not None


def compiled(function: Function) -> Function:
    """The function, compiled on its first call. Arithmetic is as NumPy's: no operation is fused or reordered."""
    return cast(Function, njit(cache=KEPT)(function))


def compile_aloud(what: str, first_call: Callable[[], object]) -> None:
    """Makes the `first_call` of functions to be compiled, and says so if that takes long.

    Raises StageError if the machine code that is kept is damaged, or cannot be kept for want of room.
    """
    message = f"compiling {what} for this processor; this takes about 20 s, {'once' if KEPT else NOT_KEPT}"
    notice = threading.Timer(PATIENCE, logger.info, [message])
    notice.daemon = True
    notice.start()
    try:
        first_call()
    except UNREADABLE as error:
        raise StageError(
            f"{FOLDER}: the machine code that is kept there is damaged; delete its .nbi and .nbc files and run again"
        ) from error
    except OSError as error:
        raise StageError(
            f"{FOLDER}: machine code cannot be kept there ({error.strerror or error}); set NUMBA_CACHE_DIR to a folder "
            "with room for it"
        ) from error
    finally:
        notice.cancel()
