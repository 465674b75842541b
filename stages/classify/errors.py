"""Top-1 and top-5 errors. Symbols: n images, K classes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

NORMAL_QUANTILE = 1.959963984540054
"""Of a two-sided interval of 95 %."""


def ranks(scores: NDArray[np.floating], labels: NDArray[np.integer], competing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rank of each image's class among the `competing` classes, bool [K], 0 for the best: int64 [n].

    `scores` are [n, K], `labels` [n]. Of equal scores the earlier class ranks higher.
    """
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ahead = (scores > own) | ((scores == own) & earlier)
    return np.asarray((ahead & competing).sum(axis=1), np.int64)


def best_classes(scores: NDArray[np.floating], competing: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """The `count` best of the `competing` classes of an image with these `scores` [K], the best first: int64 [count],
    fewer if fewer compete."""
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    return np.asarray(order[competing[order]][:count], np.int64)


def share_interval(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` in `total` independent trials (Wilson 1927)."""
    squared, share = NORMAL_QUANTILE**2, count / total
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    half = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / total + squared / (4 * total**2)) / (1 + squared / total)
    return max(0.0, centre - half), min(1.0, centre + half)
