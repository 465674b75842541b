"""Scores of regions by support vector regression; those of training images by the regressions that did not see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.contract.errors import StageError
from stages.features.linear_models import LinearSvms, read_svms


@dataclass(frozen=True)
class Regressions:
    """One regression per class, and for each fold of the training images those without it.

    `fold_weights` float32 [F, K, D] on features as cached, `fold_biases` float32 [F, K]; `fold_of_image` by image id.
    """

    whole: LinearSvms
    fold_weights: NDArray[np.float32]
    fold_biases: NDArray[np.float32]
    fold_of_image: Mapping[str, int]

    def score(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """The predicted overlap of each region with each class, float32 [n, K], from cached features [n, D]."""
        return self.whole.score(features)

    def score_held_out(self, image_id: str, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """As `score`, for a training image: by the regressions trained without its fold. Raises StageError for another
        image."""
        fold = self.fold_of_image.get(image_id)
        if fold is None:
            raise StageError(
                f"segment: held_out = true, but the regressions were not trained on image '{image_id}'; give it the "
                "split of train-svr, or leave held_out out"
            )
        rows = features.astype(np.float32, copy=False)
        return np.asarray(rows @ self.fold_weights[fold].T + self.fold_biases[fold])


def read_regressions(reader: Reader) -> Regressions:
    """The regressions of a train-svr cache. Raises CacheError if it is damaged."""
    whole = read_svms(reader)
    folds = int(reader.manifest["settings"]["folds"])
    if not folds:
        nothing = np.zeros((0, len(whole.classes), 0), np.float32)
        return Regressions(whole, nothing, np.zeros(nothing.shape[:2], np.float32), {})
    records = [record for _, record in reader.records(["fold_weights", "fold_biases"])]
    weights = np.stack([record["fold_weights"] for record in records], axis=1) * np.float32(whole.scale)
    biases = np.stack([record["fold_biases"] for record in records], axis=1)
    return Regressions(whole, weights, biases, reader.manifest["summary"]["fold_of_image"])
