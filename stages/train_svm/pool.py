"""The rows that any class keeps as examples: in a file without a name, each row once, however many classes hold it.

A row of the features cache is named by its key, `image << 32 | row`. The file is gone when the process is, also after
SIGKILL; it is read and written without mapping it, so it does not count as memory.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cache.files import as_cache_error

Keys = NDArray[np.int64]
ROW_BITS = 32


def keys_of(image: int | NDArray[np.int64], rows: NDArray[np.int64]) -> Keys:
    """The keys of `rows` [k] of the image at position `image` (or of one image each): int64 [k]."""
    return np.asarray((np.asarray(image, np.int64) << ROW_BITS) | rows.astype(np.int64))


def images_and_rows(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The inverse of `keys_of`: positions of images and rows within them, int64 [k] each."""
    return keys >> ROW_BITS, keys & ((1 << ROW_BITS) - 1)


class FeaturePool:
    """Features [D] of held rows, in their stored dtype."""

    def __init__(self, folder: Path, dimension: int, dtype: str) -> None:
        """The file lies in `folder`, where there is room for a cache."""
        self.file = tempfile.TemporaryFile(dir=folder, prefix="features.tmp-", buffering=0)  # noqa: SIM115 - closed by __exit__
        self.folder = folder
        self.dimension = dimension
        self.dtype = np.dtype(dtype)
        self.row_bytes = dimension * self.dtype.itemsize
        self.slots: dict[int, int] = {}
        self.holders: dict[int, int] = {}
        self.free: list[int] = []

    def __enter__(self) -> FeaturePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.slots)

    def hold(self, keys: Keys, features: NDArray[np.floating]) -> None:
        """One more holder for each of the rows `keys` [k]; `features` [k, D] are written where nobody held them yet."""
        for key, row in zip(keys.tolist(), np.ascontiguousarray(features, self.dtype), strict=True):
            if key not in self.slots:
                self.slots[key] = self.free.pop() if self.free else len(self.slots)
                self.holders[key] = 0
                self.write(self.slots[key], row)
            self.holders[key] += 1

    def write(self, slot: int, row: NDArray[np.floating]) -> None:
        """One row into the file. Raises DiskFull when there is no room."""
        written, content = 0, row.data.cast("B")
        try:
            while written < self.row_bytes:
                written += os.pwrite(self.file.fileno(), content[written:], slot * self.row_bytes + written)
        except OSError as error:
            raise as_cache_error(self.folder, error) from error

    def release(self, keys: Keys) -> None:
        """One holder less for each of `keys`; a row that nobody holds makes room for another."""
        for key in keys.tolist():
            self.holders[key] -= 1
            if not self.holders[key]:
                del self.holders[key]
                self.free.append(self.slots.pop(key))

    def read(self, keys: Keys) -> NDArray[np.floating]:
        """The features of the rows `keys` [k], in that order: [k, D] in the stored dtype."""
        features = np.empty((len(keys), self.dimension), self.dtype)
        for key, row in zip(keys.tolist(), features, strict=True):
            view = row.data.cast("B")
            if os.preadv(self.file.fileno(), [view], self.slots[key] * self.row_bytes) != self.row_bytes:
                raise OSError(f"the scratch file of training features lost row {key}")
        return features
