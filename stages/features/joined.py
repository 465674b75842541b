"""The features of the same regions from several caches, concatenated (R-CNN section 5: full+fg)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.contract.errors import StageError
from stages.contract.inputs import Inputs, ItemReader
from stages.features.layers import ROLES
from stages.features.reading import layer_dimension, mean_norm


class JoinedFeatures:
    """One `layer` of one cache or more of the features of the same images and regions, side by side.

    `readers` may also compute their items on demand, except for `rows` and `scale`.
    """

    def __init__(self, readers: Sequence[ItemReader], layer: str) -> None:
        """Raises BadSetting if one has no such layer, StageError if they are of different images."""
        self.readers = tuple(readers)
        self.layer = layer
        self.dimensions = tuple(layer_dimension(reader, layer) for reader in self.readers)
        self.item_ids = self.readers[0].item_ids
        for other in self.readers[1:]:
            if other.item_ids != self.item_ids:
                raise StageError(
                    f"the features to concatenate are of {len(other.item_ids)} other images than the first "
                    f"{len(self.item_ids)}; give both tables the same split"
                )

    @staticmethod
    def of(inputs: Inputs, layer: str) -> JoinedFeatures:
        """The features in the roles of ROLES. Raises as the constructor."""
        return JoinedFeatures([inputs.item_reader(role) for role in ROLES if role in inputs], layer)

    @property
    def dimension(self) -> int:
        """The number of features of a region."""
        return sum(self.dimensions)

    def read(self, item_id: str) -> tuple[dict[str, np.ndarray], NDArray[np.floating]]:
        """An image's `boxes`, `is_object` and `label`, and the features of all its n regions, [n, D].

        Raises StageError if the caches have different regions.
        """
        columns = ("boxes", "is_object", "label", self.layer)
        records = [reader.read(item_id, columns) for reader in self.readers]
        self.check(item_id, records)
        return records[0], np.concatenate([record[self.layer] for record in records], axis=1)

    def regions(self, item_id: str) -> dict[str, np.ndarray]:
        """An image's `boxes`, `is_object` and `label`, without features. Raises StageError if the caches differ."""
        records = [reader.read(item_id, ("boxes", "is_object", "label")) for reader in self.readers]
        self.check(item_id, records)
        return records[0]

    def check(self, item_id: str, records: Sequence[dict[str, np.ndarray]]) -> None:
        """Raises StageError unless the records of an image have the same regions."""
        for other in records[1:]:
            if not all(np.array_equal(records[0][name], other[name]) for name in ("boxes", "is_object", "label")):
                raise StageError(
                    f"image '{item_id}': the features to concatenate are of different regions; both tables of extract "
                    "need the same proposals and the same objects"
                )

    def rows(self, item_id: str, rows: NDArray[np.integer]) -> NDArray[np.floating]:
        """The features of some `rows` of an image, in ascending order: [m, D]."""
        return np.concatenate([self.cached(reader).rows(item_id, self.layer, rows) for reader in self.readers], axis=1)

    def scale(self, target_norm: float, seed: int) -> float:
        """The factor that scales the mean L2 norm of the concatenated features to `target_norm`: see
        `stages.features.reading.feature_scale`."""
        first = self.cached(self.readers[0])
        mean = mean_norm(self.item_ids, first.lengths(), self.rows, seed)
        return target_norm / mean if mean > 0 else 1.0

    @staticmethod
    def cached(reader: ItemReader) -> Reader:
        """A reader of a cache, which has rows."""
        assert isinstance(reader, Reader)
        return reader
