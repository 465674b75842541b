"""Hard negative mining: which negatives are hard, and when a class is retrained, as in rcnn_train.m.

Symbols: n regions in an image, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stages.train_svm import Settings
from stages.train_svm.pool import ROW_BITS, Keys, keys_of
from stages.train_svm.solver import Solution

BLOCK_CLASSES = 32

LOG_COLUMNS = {
    "image": "int32",
    "positives": "int32",
    "negatives": "int32",
    "added": "int32",
    "evicted": "int32",
    "objective": "float64",
    "loss_positives": "float64",
    "loss_negatives": "float64",
    "regulariser": "float64",
    "iterations": "int32",
    "converged": "bool",
}
"""One row per training round: the image it followed, the examples used, hard negatives added since the last round,
negatives evicted after it, and the objective."""


@dataclass
class ClassMiner:
    """The state of one class during the pass over the images.

    `positives` and `negatives` are keys of rows; `weights` float64 [D] and `bias` are the current SVM (zero before the
    first training); `added` counts negatives added since the last training; `next_image` is the position of the first
    image not yet visited.
    """

    name: str
    label: int
    positives: Keys
    weights: NDArray[np.float64]
    bias: float = 0.0
    negatives: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    added: int = 0
    next_image: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    @property
    def examples(self) -> Keys:
        """The keys of the positives, then of the negatives: int64 [n]."""
        return np.concatenate([self.positives, self.negatives])

    def add(self, image: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Adds the hard negatives `rows` (int64 [n]) of `image`; returns those that are new, int64 [m]."""
        known = self.negatives[np.searchsorted(self.negatives, image << ROW_BITS) :]  # images come in order
        keys = keys_of(image, rows)
        new = ~np.isin(keys, known) if len(known) else np.ones(len(keys), bool)
        self.negatives = np.concatenate([self.negatives, keys[new]])
        self.added += int(new.sum())
        return rows[new]


def mined_images(exhaustive: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.int64]:
    """The positions of the images in which negatives are mined, ascending: those of the n images that are annotated
    `exhaustive`ly, bool [n], or `count` of them drawn at random if `count` > 0 (R-CNN section 4.3)."""
    allowed = np.flatnonzero(exhaustive)
    if not 0 < count < len(allowed):
        return allowed
    return np.sort(np.random.default_rng(seed).choice(allowed, count, replace=False))


def hard_negatives(
    scores: NDArray[np.float32], negatives: NDArray[np.bool_], first: bool, hard_threshold: float
) -> NDArray[np.bool_]:
    """The hard ones among `negatives` [n, k]: those scored strictly above the threshold, or all in the first image.

    `scores` float32 [n, k]; the result is bool [n, k]."""
    return negatives & (first | (scores > np.float32(hard_threshold)))


def is_due(miner: ClassMiner, is_end: bool, retrain_after: int) -> bool:
    """Whether to train the class after an image: the first or last (`is_end`), or more than `retrain_after` new
    negatives."""
    return bool(len(miner.negatives)) and (miner.added > retrain_after or is_end)


def easy_negatives(scores: NDArray[np.float64], evict_threshold: float, max_negatives: int) -> NDArray[np.bool_]:
    """Which of the m cached negatives to evict after training, from their `scores` [m] under the new SVM: bool [m].

    These are the ones strictly below `evict_threshold` and, if `max_negatives` > 0, all but the `max_negatives`
    highest-scoring ones (of equal scores, those added last are evicted).
    """
    easy = scores < evict_threshold
    if max_negatives:
        easy[np.argsort(-scores, kind="stable")[max_negatives:]] = True
    return easy


def finish_round(miner: ClassMiner, image: int, solution: Solution, settings: Settings) -> Keys:
    """Sets the class's SVM, logs the round and evicts easy negatives; returns the evicted keys, int64 [k]."""
    easy = easy_negatives(solution.negative_scores, settings.evict_threshold, settings.max_negatives)
    evicted = miner.negatives[easy]
    miner.log.append(
        {
            "image": image,
            "positives": len(miner.positives),
            "negatives": len(miner.negatives),
            "added": miner.added,
            "evicted": len(evicted),
            "objective": solution.objective.total,
            "loss_positives": solution.objective.positives,
            "loss_negatives": solution.objective.negatives,
            "regulariser": solution.objective.regulariser,
            "iterations": solution.iterations,
            "converged": solution.converged,
        }
    )
    miner.weights, miner.bias = solution.weights, solution.bias
    miner.negatives, miner.added = miner.negatives[~easy], 0
    return evicted


def log_table(log: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """The training rounds of a class, by column: arrays [rounds]."""
    return {name: np.array([entry[name] for entry in log], dtype) for name, dtype in LOG_COLUMNS.items()}


class BlockScorer:
    """Scores several classes such that each class's bits do not depend on which others are scored with it.

    A matrix product may round differently with a different number of columns, so class k is always column k % 32 of
    block k // 32, and blocks are always 32 wide, with zeros for classes not trained here.
    """

    def __init__(self, dimension: int, miners: Sequence[ClassMiner] = ()) -> None:
        self.dimension = dimension
        self.weights: dict[int, NDArray[np.float32]] = {}
        self.biases: dict[int, NDArray[np.float32]] = {}
        for miner in miners:
            self.update(miner)

    def update(self, miner: ClassMiner) -> None:
        """Sets the class's column to its current SVM."""
        block, column = divmod(miner.label, BLOCK_CLASSES)
        if block not in self.weights:
            self.weights[block] = np.zeros((self.dimension, BLOCK_CLASSES), np.float32)
            self.biases[block] = np.zeros(BLOCK_CLASSES, np.float32)
        self.weights[block][:, column] = miner.weights
        self.biases[block][column] = miner.bias

    def scores(self, features: NDArray[np.float32], block: int) -> NDArray[np.float32]:
        """Scores float32 [n, 32] of scaled `features` [n, D] for the classes of a block."""
        return np.asarray(features @ self.weights[block] + self.biases[block])

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(array.nbytes for blocks in (self.weights, self.biases) for array in blocks.values())
