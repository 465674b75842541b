"""Average precision in bootstrap resamples of the images (stages/resampling.py).

An image drawn twice counts twice, with its detections and objects. Whether a detection is true, false or ignored
depends on its own image alone, so matching is done once and resamples only weight its outcome. All classes, and all
detectors on the same images, share the same resamples, so means over classes and differences between detectors are
resampled jointly. Symbols: I images, B resamples, K classes, n detections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.detections import ClassDetections
from stages.matching.average_precision import RECALL_LEVELS
from stages.matching.detections import DevkitMatches
from stages.matching.objects import ClassObjects

BLOCK = 1 << 22  # entries in an array of true positives x resamples, of which a few are held at a time


def resampled_average_precision(
    detections: ClassDetections, objects: ClassObjects, matches: DevkitMatches, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One class's (11-point AP, area AP) in each resample of `weights` [I, B]: float64 [B] each, nan in a resample
    without objects to find.

    Identical to re-evaluating the drawn images, with repeated images next to each other, if no two detections in an
    image have equal scores; among tied ones, all copies of one come before those of the next.
    """
    block = max(1, BLOCK // max(1, int(matches.found.sum())))
    starts = range(0, weights.shape[1], block)
    parts = [resample_block(detections, objects, matches, weights[:, start : start + block]) for start in starts]
    eleven, areas = zip(*parts, strict=True) if parts else ((np.zeros(0),), (np.zeros(0),))
    return np.concatenate(eleven), np.concatenate(areas)


def resample_block(
    detections: ClassDetections, objects: ClassObjects, matches: DevkitMatches, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`resampled_average_precision` for a block of resamples that fits in memory: `weights` [I, b], results [b].

    Only points at true positives matter: between them precision falls and recall stays constant.
    """
    from scipy.sparse import csr_array

    counted = matches.order[~matches.ignored[matches.order]]
    images, found = detections.images[counted], matches.found[counted]
    hits, misses = np.flatnonzero(found), np.flatnonzero(~found)
    before = np.searchsorted(hits, misses)  # the next true positive
    useful = before < len(hits)
    ones = np.ones(int(useful.sum()))
    gaps = csr_array((ones, (before[useful], images[misses[useful]])), shape=(len(hits), len(weights)))
    true = np.cumsum(weights[images[hits]], axis=0)
    false = np.cumsum(gaps @ weights, axis=0)
    positives = np.bincount(objects.images[~objects.difficult], minlength=len(weights)) @ weights
    some = positives > 0
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
    envelope = np.vstack([np.maximum.accumulate(precision[::-1], axis=0)[::-1], np.zeros((1, len(some)))])
    recall = np.divide(true, positives, out=np.zeros_like(true), where=some)
    columns = np.arange(len(some))
    best = [envelope[(recall < level).sum(axis=0), columns] for level in RECALL_LEVELS]
    areas = np.sum(np.diff(recall, axis=0, prepend=0.0) * envelope[:-1], axis=0)
    return np.where(some, np.mean(best, axis=0), np.nan), np.where(some, areas, np.nan)
