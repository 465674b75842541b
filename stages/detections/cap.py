"""The cap on the number of detections.

R-CNN (rcnn_test.m) keeps, of each class, the `average_per_image` x N best candidates in a test set of N images. It
counts candidates before non-maximum suppression and needs all images, so the detections cache holds every image's
candidates uncut, and the cut is made on reading. The result is the same: whether greedy suppression keeps a box depends
only on higher-scoring boxes, so suppressing the candidates above a score keeps exactly the same boxes as suppressing
all candidates and cutting at that score afterwards. This does not hold for merged boxes, which depend on all candidates
of their class: with `suppression = "merge"` it is the boxes after merging that are counted and kept. Nor does it hold
for `class_agnostic = true`, where a box that its own class's cut drops may have suppressed one of another class: there
it is the boxes after suppression.

Faster R-CNN's Python release (lib/fast_rcnn/test.py) counts per image: the best 100 of all classes together, after
suppression.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stages.detections.order import falling, scores_of

STREAMED = 1 << 20
"""Scores read between two trims to the best ones."""


class BestScores:
    """The `keep` best scores of each class in a stream; 8 bytes each, and twice that between trims."""

    def __init__(self, classes: int, keep: int) -> None:
        self.classes = classes
        self.keep = keep
        self.held = [np.zeros(0, np.int64)]
        self.size = 0
        self.limit = STREAMED
        self.dropped = np.zeros(classes, bool)

    def add(self, scores: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
        """Adds scores float32 [n] of the classes `labels` int32 [n]."""
        self.held.append((labels.astype(np.int64) << 32) + (falling(scores) + 2**31))
        self.size += len(scores)
        if self.size > self.limit:
            self.trim()

    def trim(self) -> None:
        """Drops all but the best scores."""
        every = np.sort(np.concatenate(self.held))
        labels = every >> 32
        rank = np.arange(len(every)) - np.searchsorted(labels, labels)
        self.dropped[labels[rank >= self.keep]] = True
        self.held = [every[rank < self.keep]]
        self.size = len(self.held[0])
        self.limit = 2 * self.size + STREAMED

    def thresholds(self) -> NDArray[np.float32]:
        """The `keep`-th best score of each class, or -inf if there were no more than `keep`: float32 [classes]."""
        self.trim()
        last = np.searchsorted(self.held[0], np.arange(1, self.classes + 1) << 32)[self.dropped] - 1
        thresholds = np.full(self.classes, -np.inf, np.float32)
        thresholds[self.dropped] = scores_of((self.held[0][last] & 0xFFFFFFFF) - 2**31)
        return thresholds


def class_thresholds(
    candidates: Iterable[tuple[NDArray[np.float32], NDArray[np.int32]]], classes: int, keep: int
) -> NDArray[np.float32]:
    """The `keep`-th best candidate score of each class, float32 [classes]; -inf if there are no more than `keep`.

    `candidates` yields (scores float32 [n], labels int32 [n]) image by image. R-CNN's rcnn_test.m, with `keep` = 40 x
    images: boxes that score below their class's threshold are dropped, those that equal it are kept.
    """
    best = BestScores(classes, keep)
    for scores, labels in candidates:
        best.add(scores, labels)
    return best.thresholds()


def image_threshold(scores: NDArray[np.float32], at_most: int) -> np.float32:
    """The `at_most`-th best of an image's `scores` float32 [n] over all classes; -inf if there are no more than that.

    py-faster-rcnn's lib/fast_rcnn/test.py: boxes that score less are dropped, those that equal it are kept.
    """
    if len(scores) <= at_most:
        return np.float32(-np.inf)
    return np.float32(np.partition(scores, -at_most)[-at_most])
