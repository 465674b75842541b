"""Checkpoints of a part's classes partway through the images, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stages.train_svm.mining import LOG_COLUMNS, ClassMiner, log_table
from stages.train_svm.pool import ROW_BITS


def as_arrays(miners: Iterable[ClassMiner]) -> dict[str, np.ndarray]:
    """The state of the miners as arrays, named after class and column, such as `weights` [D] and `negatives` [m].

    Features and positives are not included; they are read from the caches again."""
    arrays: dict[str, np.ndarray] = {}
    for miner in miners:
        state = {
            "weights": miner.weights,
            "bias": np.float64(miner.bias),
            "negatives": miner.negatives,
            "added": np.int64(miner.added),
            "next_image": np.int64(miner.next_image),
            **{f"log.{name}": column for name, column in log_table(miner.log).items()},
        }
        arrays.update({f"{miner.label}.{name}": np.asarray(value) for name, value in state.items()})
    return arrays


def restore(miners: Sequence[ClassMiner], arrays: dict[str, np.ndarray], images: int) -> None:
    """Restores `miners`, whose weights already have the right shape, from `as_arrays`; `images` is their total number.

    Raises KeyError, TypeError or ValueError for arrays from another training."""
    for miner in miners:
        state = {name: arrays[f"{miner.label}.{name}"] for name in ("weights", "bias", "negatives", "added")}
        check(state["weights"], miner.weights.shape, miner.weights.dtype)
        check(state["negatives"], (len(state["negatives"]),), np.dtype(np.int64))
        miner.weights, miner.negatives = state["weights"], state["negatives"]
        miner.bias, miner.added = float(state["bias"]), int(state["added"])
        miner.next_image = int(arrays[f"{miner.label}.next_image"])
        seen = miner.negatives >> ROW_BITS
        if not 0 <= miner.next_image <= images or ((seen < 0) | (seen >= miner.next_image)).any():
            raise ValueError(f"it was made from other images than these {images}")
        columns = {name: arrays[f"{miner.label}.log.{name}"].tolist() for name in LOG_COLUMNS}
        miner.log = [dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=True)]


def check(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises ValueError unless the array [...] has this shape and dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{array.dtype} {list(array.shape)} instead of {dtype} {list(shape)}")
