"""Reading features, cached or computed on demand: a layer's dimension and its normalising scale.

Per image, a features cache has `boxes` float32 [n, 4], `is_object` bool [n] (ground truth, which comes first), `label`
int32 [n] (the class of a ground-truth row, -1 for a proposal) and one column [n, D] per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.contract.errors import BadSetting
from stages.contract.inputs import ItemReader
from stages.contract.settings import nearest

NOT_LAYERS = {"boxes", "is_object", "label", "difficult"}


def layer_dimension(features: ItemReader, layer: str) -> int:
    """The dimension D of `layer`. Raises BadSetting, suggesting the nearest name, if the cache has no such layer."""
    layers = {
        name: column.shape[0]
        for name, column in features.schema.rows.items()
        if name not in NOT_LAYERS and len(column.shape) == 1
    }
    if layer not in layers:
        raise BadSetting(f"layer = '{layer}': the features cache has no such layer{nearest(layer, layers)}")
    return layers[layer]


def feature_scale(
    features: Reader, layer: str, *, target_norm: float = 20.0, seed: int = 3, images: int = 200, boxes: int = 200
) -> float:
    """The factor that scales the mean L2 norm of `layer` to `target_norm` (R-CNN's release, rcnn_feature_stats.m).

    The mean is taken over at most `images` random images and `boxes` random rows of each, ground truth included, drawn
    with `seed`. It is 1.0 if there are no rows or all are zero.
    """
    mean = mean_norm(
        features.item_ids,
        features.lengths(),
        lambda item_id, rows: features.rows(item_id, layer, rows),
        seed,
        images=images,
        boxes=boxes,
    )
    return target_norm / mean if mean > 0 else 1.0


def mean_norm(
    item_ids: Sequence[str],
    lengths: NDArray[np.int64],
    read: Callable[[str, NDArray[np.int64]], NDArray[np.floating]],
    seed: int,
    *,
    images: int = 200,
    boxes: int = 200,
) -> float:
    """The mean L2 norm of a sample of features, as in `feature_scale`; 0.0 if there are none.

    `lengths` int64 [items] are the images' numbers of rows, of which `read` reads some, in ascending order.
    """
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(item_ids))[:images])
    norms = [np.zeros(0)]
    for position in chosen:
        rows = np.sort(generator.permutation(int(lengths[position]))[:boxes])
        sample = read(item_ids[position], rows).astype(np.float64)
        norms.append(np.sqrt(np.square(sample).sum(axis=1)))
    every = np.concatenate(norms)
    return float(every.mean()) if len(every) else 0.0


def scaled(rows: NDArray[np.floating], scale: float) -> NDArray[np.float32]:
    """Stored features [n, D] times `scale`, float32 [n, D]."""
    return rows.astype(np.float32) * np.float32(scale)


def nonzero(rows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which values of `rows` [n, D] are non-zero, bool [n, D], from the bits: ten times faster for float16."""
    return (rows.view(f"u{rows.dtype.itemsize}") << 1) != 0
