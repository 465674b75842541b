"""Bootstrap confidence intervals over images (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6
and 13: percentile intervals).

A resample draws as many images as there are, with replacement. Symbols: I images, B resamples, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


def image_weights(images: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each resample draws each image: float64 [I, B]; each column sums to I."""
    random = np.random.default_rng(seed)
    drawn = np.zeros((images, resamples))
    for column in range(resamples):
        drawn[:, column] = np.bincount(random.integers(0, images, images), minlength=images)
    return drawn


def resampled_mean(measures: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over classes in each resample, float64 [B], of a measure of every class float64 [K, B], such as AP: over
    the classes for which it is not nan, as without objects in the resample (nan if there are none)."""
    known = ~np.isnan(measures)
    count = known.sum(axis=0)
    total = np.where(known, measures, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def percentile_interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The central `confidence` interval of the resampled `values` [B], ignoring nan; None if all are nan."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
