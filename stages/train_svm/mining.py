"""Which negatives are hard, and when a class is trained again (fidelity to rcnn_train.m).

Letters: n regions of one image, k classes.
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
"""One row a round of training: after which image, the examples it used, hard negatives added since the last round,
negatives evicted after it, what was minimised."""


@dataclass
class ClassMiner:
    """One class on its way through the images.

    `positives` and `negatives` are keys of rows; `weights` float64 [D] and `bias` the SVM so far (zero before the first
    training); `added` the negatives since then; `next_image` the position of the first image it has not seen.
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
        """Keys of the positives, then of the negatives."""
        return np.concatenate([self.positives, self.negatives])

    def add(self, image: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Takes the hard negatives `rows` (int64 [n]) of `image`; returns those that it did not have, int64 [k]."""
        known = self.negatives[np.searchsorted(self.negatives, image << ROW_BITS) :]  # images come in order
        keys = keys_of(image, rows)
        new = ~np.isin(keys, known) if len(known) else np.ones(len(keys), bool)
        self.negatives = np.concatenate([self.negatives, keys[new]])
        self.added += int(new.sum())
        return rows[new]


def hard_negatives(
    scores: NDArray[np.float32], negatives: NDArray[np.bool_], first: bool, hard_threshold: float
) -> NDArray[np.bool_]:
    """Which to add: of the `negatives` [n, k] those scored strictly above the threshold, in the first image all."""
    return negatives & (first | (scores > np.float32(hard_threshold)))


def is_due(miner: ClassMiner, image: int, last_image: int, retrain_after: int) -> bool:
    """Whether the class is trained after `image`: the first, the last, or more than `retrain_after` negatives added."""
    return bool(len(miner.negatives)) and (miner.added > retrain_after or image in (0, last_image))


def easy_negatives(scores: NDArray[np.float64], evict_threshold: float, max_negatives: int) -> NDArray[np.bool_]:
    """Which cached negatives are evicted after training, from their scores [m] under the new SVM: bool [m].

    Those strictly below `evict_threshold`, and with `max_negatives` > 0 also the lowest-scored above that number (of
    equal ones those added last).
    """
    easy = scores < evict_threshold
    if max_negatives:
        easy[np.argsort(-scores, kind="stable")[max_negatives:]] = True
    return easy


def finish_round(miner: ClassMiner, image: int, solution: Solution, settings: Settings) -> Keys:
    """Takes over a trained SVM, logs the round and evicts easy negatives; returns the keys of the evicted."""
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
    """The rounds of a class as columns."""
    return {name: np.array([entry[name] for entry in log], dtype) for name, dtype in LOG_COLUMNS.items()}


class BlockScorer:
    """Scores of several classes whose bits do not depend on which classes they are.

    A matrix product may round differently with another number of columns. So class k always sits in column k % 32 of
    block k // 32, and a block is always 32 wide, with zeros for classes that are not trained here.
    """

    def __init__(self, dimension: int, miners: Sequence[ClassMiner] = ()) -> None:
        self.dimension = dimension
        self.weights: dict[int, NDArray[np.float32]] = {}
        self.biases: dict[int, NDArray[np.float32]] = {}
        for miner in miners:
            self.update(miner)

    def update(self, miner: ClassMiner) -> None:
        """Takes over the class's SVM."""
        block, column = divmod(miner.label, BLOCK_CLASSES)
        if block not in self.weights:
            self.weights[block] = np.zeros((self.dimension, BLOCK_CLASSES), np.float32)
            self.biases[block] = np.zeros(BLOCK_CLASSES, np.float32)
        self.weights[block][:, column] = miner.weights
        self.biases[block][column] = miner.bias

    def scores(self, features: NDArray[np.float32], block: int) -> NDArray[np.float32]:
        """Scores float32 [n, 32] of scaled features [n, D] by the classes of a block."""
        return np.asarray(features @ self.weights[block] + self.biases[block])

    @property
    def nbytes(self) -> int:
        """What the scorer holds in memory."""
        return sum(one.nbytes for held in (self.weights, self.biases) for one in held.values())
