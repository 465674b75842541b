"""The feature rows that classes use as examples, in an unnamed scratch file: each row once, shared by all its classes.

A row of the features cache is identified by its key, `image << 32 | row`. The file vanishes with the process, even on
SIGKILL; it is not memory-mapped, so it does not count as memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cache.files import as_cache_error

Keys = NDArray[np.int64]
ROW_BITS = 32


def keys_of(image: int | NDArray[np.int64], rows: NDArray[np.int64]) -> Keys:
    """The keys int64 [k] of `rows` [k] in the image at position `image` (one image for all, or an array [k])."""
    return np.asarray((np.asarray(image, np.int64) << ROW_BITS) | rows.astype(np.int64))


def images_and_rows(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The inverse of `keys_of`: image positions and rows within the images, int64 [k] each."""
    return keys >> ROW_BITS, keys & ((1 << ROW_BITS) - 1)


class FeaturePool:
    """Features [D] of held rows, in their stored dtype. Memory: 4 bytes per row of an image that has held rows, and 4
    per held row; the features themselves are in the file."""

    def __init__(self, folder: Path, dimension: int, dtype: str) -> None:
        """Creates the file in `folder`, the cache's own, on a disk with room for large files."""
        self.file = tempfile.TemporaryFile(dir=folder, prefix="features.tmp-", buffering=0)  # noqa: SIM115 - closed by __exit__
        self.folder = folder
        self.dimension = dimension
        self.dtype = np.dtype(dtype)
        self.row_bytes = dimension * self.dtype.itemsize
        self.slots: dict[int, NDArray[np.int32]] = {}  # by image: the place of each row in the file, -1 if not held
        self.holders = np.zeros(0, np.int32)
        self.used = 0
        self.free = np.zeros(0, np.int32)

    def __enter__(self) -> FeaturePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return self.used - len(self.free)

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(array.nbytes for array in (self.holders, self.free, *self.slots.values()))

    def hold(self, keys: Keys, features: NDArray[np.floating], holders: int | NDArray[np.integer] = 1) -> None:
        """Adds `holders` to each of the distinct rows `keys` [k]; writes `features` [k, D] of rows not yet held."""
        slots = self.slots_of(keys)
        new = np.flatnonzero(slots < 0)
        slots[new] = self.take(len(new))
        self.place(keys[new], slots[new])
        self.write(slots[new], np.ascontiguousarray(features[new], self.dtype))
        self.holders[slots] += holders

    def release(self, keys: Keys) -> None:
        """Removes one holder per occurrence of each of `keys` [k]; rows with no holders left free their slots."""
        different, counts = np.unique(keys, return_counts=True)
        slots = self.slots_of(different)
        self.holders[slots] -= counts
        gone = self.holders[slots] == 0
        self.place(different[gone], np.full(int(gone.sum()), -1, np.int32))
        self.free = np.concatenate([self.free, slots[gone]])

    def read(self, keys: Keys) -> NDArray[np.floating]:
        """The features [k, D] of the rows `keys` [k], in the stored dtype. Raises KeyError for a row not held."""
        slots = self.slots_of(keys, held=True)
        features = np.empty((len(keys), self.dimension), self.dtype)
        for low, high in stretches(slots):
            view, done = features[low:high].reshape(-1).view(np.uint8).data, 0
            while done < len(view):
                got = os.preadv(self.file.fileno(), [view[done:]], int(slots[low]) * self.row_bytes + done)
                if not got:
                    raise OSError(f"the scratch file of training features ends before row {keys[low]}")
                done += got
        return features

    def slots_of(self, keys: Keys, held: bool = False) -> NDArray[np.int32]:
        """The slot in the file of each of `keys` [k], int32 [k]; -1 if not held, or KeyError with `held`."""
        slots = np.full(len(keys), -1, np.int32)
        for image, where, rows in by_image(keys):
            table = self.slots.get(image, slots[:0])
            known = rows < len(table)
            slots[where[known]] = table[rows[known]]
        if held and slots.min(initial=0) < 0:
            raise KeyError(int(keys[slots.argmin()]))
        return slots

    def place(self, keys: Keys, slots: NDArray[np.int32]) -> None:
        """Records the slots of the rows `keys` [k]."""
        for image, where, rows in by_image(keys):
            table = self.slots.get(image, slots[:0])
            longer = np.full(max(0, int(rows.max()) + 1 - len(table)), -1, np.int32)
            self.slots[image] = table = np.concatenate([table, longer]) if len(longer) else table
            table[rows] = slots[where]

    def take(self, count: int) -> NDArray[np.int32]:
        """Takes `count` free slots, ascending: int32 [count]."""
        again, self.free = np.split(self.free, [min(count, len(self.free))])
        fresh = np.arange(self.used, self.used + count - len(again), dtype=np.int32)
        self.used += len(fresh)
        if self.used > len(self.holders):
            more = np.zeros(max(self.used - len(self.holders), len(self.holders) // 4), np.int32)
            self.holders = np.concatenate([self.holders, more])
        return np.concatenate([np.sort(again), fresh])

    def write(self, slots: NDArray[np.int32], features: NDArray[np.floating]) -> None:
        """Writes `features` [k, D] into their slots. Raises DiskFull."""
        try:
            for low, high in stretches(slots):
                view, done = features[low:high].reshape(-1).view(np.uint8).data, 0
                while done < len(view):
                    done += os.pwrite(self.file.fileno(), view[done:], int(slots[low]) * self.row_bytes + done)
        except OSError as error:
            raise as_cache_error(self.folder, error) from error


def by_image(keys: Keys) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Per image in `keys`: the image, the positions of its keys (int64 [n]), and their rows (int64 [n])."""
    images, rows = images_and_rows(keys)
    order = np.argsort(images, kind="stable")
    for low, high in pairwise(np.flatnonzero(np.diff(images[order], prepend=-1, append=-1))):
        where = order[low:high]
        yield int(images[where[0]]), where, rows[where]


def stretches(slots: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """The half-open ranges (first, end) over which `slots` [k] are consecutive."""
    if len(slots):
        yield from pairwise([0, *(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)])
