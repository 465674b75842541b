"""Keeping large buffers: on Linux, glibc gives a network's activations back after every pass, and taking them again
(page faults, zeroed pages) costs more time than the arithmetic."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger("stages.networks.memory")

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEEP_BELOW = 1 << 30  # blocks up to 1 GiB come from the heap, not from mmap
NEVER_TRIM = (1 << 31) - 1


def keep_large_buffers() -> bool:
    """Tells this process's glibc to keep freed memory for the next pass; returns whether it could be told.

    Call it before the first large allocation. The process then holds its peak until it ends, never more: freed blocks
    are reused. Where the C library is another one (macOS, musl) nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        log.debug("this C library has no mallopt; large buffers are left to it")
        return False
    kept = [mallopt(M_MMAP_THRESHOLD, ctypes.c_int(KEEP_BELOW)), mallopt(M_TRIM_THRESHOLD, ctypes.c_int(NEVER_TRIM))]
    return all(kept)
