"""Features as sparse matrices, as liblinear takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from stages.features.reading import nonzero, scaled

BLOCK_ROWS = 256


def sparse_rows(rows: NDArray[np.floating], scale: float) -> csr_matrix:
    """Stored features [n, D] times `scale`, as a sparse float64 matrix [n, D].

    liblinear copies its input at 16 bytes per non-zero; after a ReLU most values are zero, and a dense float64 copy
    would take more memory than that.
    """
    blocks = [rows[low : low + BLOCK_ROWS] for low in range(0, len(rows), BLOCK_ROWS)]
    total = sum(np.count_nonzero(nonzero(block)) for block in blocks)
    values, columns, starts = np.empty(total, np.float64), np.empty(total, np.int32), [np.zeros(1, np.int64)]
    for block in blocks:
        flat = np.flatnonzero(nonzero(block))
        low = int(starts[-1][-1])
        where = slice(low, low + len(flat))
        columns[where] = flat % rows.shape[1]
        values[where] = scaled(block.reshape(-1)[flat], scale)
        starts.append(low + np.searchsorted(flat, rows.shape[1] * np.arange(1, len(block) + 1)))
    return csr_matrix((values, columns, np.concatenate(starts).astype(np.int32)), shape=rows.shape)
