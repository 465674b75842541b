"""Keeping large buffers: on Linux, glibc returns the memory of a network's activations to the system after every pass,
and getting it back (page faults, zeroed pages) takes longer than the computation."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger("stages.networks.memory")

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEEP_BELOW = 1 << 30  # blocks up to 1 GiB come from the heap, not from mmap
NEVER_TRIM = (1 << 31) - 1


def keep_large_buffers() -> bool:
    """Makes glibc keep freed memory for reuse in this process; returns whether that worked.

    Call it before the first large allocation. The process then holds its peak memory until it ends, but never more,
    since freed blocks are reused. With another C library (macOS, musl), nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        log.debug("this C library has no mallopt, so freed buffers are not kept")
        return False
    kept = [mallopt(M_MMAP_THRESHOLD, ctypes.c_int(KEEP_BELOW)), mallopt(M_TRIM_THRESHOLD, ctypes.c_int(NEVER_TRIM))]
    return all(kept)
