"""Linear models on features, read from their caches: one SVM and one box regressor per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.boxes import Boxes, decode_deltas

NEVER_DETECTED = -1e3
"""The constant score of a class that had no examples to train on."""


@dataclass(frozen=True)
class LinearSvms:
    """K linear SVMs on one `layer`.

    `weights` float32 [K, D] apply to features as cached (the normalising `scale` is folded in); `biases` float32 [K].
    A class without examples scores NEVER_DETECTED everywhere.
    """

    classes: tuple[str, ...]
    layer: str
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    scale: float

    @property
    def trained(self) -> NDArray[np.bool_]:
        """Which classes had examples to train on: bool [K]."""
        return self.biases > NEVER_DETECTED

    def score(self, features: NDArray[np.floating], classes: slice = slice(None)) -> NDArray[np.float32]:
        """Scores float32 [n, k] of cached features [n, D] (any float dtype) for `classes`, in one product (R-CNN
        section 2.2)."""
        rows = features.astype(np.float32, copy=False)
        return np.asarray(rows @ self.weights[classes].T + self.biases[classes])

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> LinearSvms:
        """The SVMs `rows` alone, called `classes`."""
        return replace(self, classes=classes, weights=self.weights[list(rows)], biases=self.biases[list(rows)])


def read_svms(reader: Reader) -> LinearSvms:
    """The SVMs of a train-svm cache. Raises CacheError if it is damaged."""
    weights = np.empty((len(reader), *reader.schema.per_item["weights"].shape), np.float32)
    biases = np.empty(len(reader), np.float32)
    for number, (_, record) in enumerate(reader.records(["weights", "bias", "scale"])):
        scale = float(record["scale"])
        weights[number], biases[number] = record["weights"] * scale, record["bias"]
    return LinearSvms(reader.item_ids, reader.manifest["settings"]["layer"], weights, biases, scale)


@dataclass(frozen=True)
class BoxRegressors:
    """K class-specific box regressors on one `layer` (R-CNN Appendix C).

    `maps` float32 [K, D + 1, 4] map cached features with a 1 appended to deltas (t_x, t_y, t_w, t_h): ridge
    coefficients, inverse whitening, mean target and the normalising `scale` combined.
    """

    classes: tuple[str, ...]
    layer: str
    maps: NDArray[np.float32]
    scale: float

    def deltas(self, features: NDArray[np.floating], class_index: int) -> NDArray[np.float32]:
        """The deltas that class `class_index` predicts from cached features [n, D]: float32 [n, 4]."""
        weights = self.maps[class_index]
        return np.asarray(features.astype(np.float32) @ weights[:-1] + weights[-1])

    def predict(self, boxes: Boxes, features: NDArray[np.floating], class_index: int) -> Boxes:
        """`boxes` [n, 4] after the class's regression, float32 [n, 4]; not clipped to the image."""
        return decode_deltas(boxes, self.deltas(features, class_index))

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> BoxRegressors:
        """The regressors `rows` alone, called `classes`."""
        return replace(self, classes=classes, maps=self.maps[list(rows)])


def read_regressors(reader: Reader) -> BoxRegressors:
    """The regressors of a train-bbox cache. Raises CacheError if it is damaged."""
    records = [record for _, record in reader.records(["coefficients", "unwhiten", "mean", "scale"])]
    scale = float(records[0]["scale"])
    maps = np.stack([affine_map(record) for record in records])
    return BoxRegressors(reader.item_ids, reader.manifest["settings"]["layer"], maps, scale)


def affine_map(record: dict[str, np.ndarray]) -> NDArray[np.float32]:
    """(scale · x, 1) B T⁻¹ + μ as a single matrix float32 [D + 1, 4] applied to (x, 1)."""
    combined = record["coefficients"] @ record["unwhiten"]
    combined[:-1] *= record["scale"]
    combined[-1] += record["mean"]
    return combined.astype(np.float32)
