"""Regions to objects by their masks: overlaps counted in pixels, and the best with each class."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stages.masks import Mask


def mask_overlaps(
    regions: Iterable[Mask], objects: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The intersection over union of the masks of n regions, bool [H, W] each, and those of m `objects` [m, H, W]:
    float64 [n, m]; 0 where the union is empty.

    Only the pixels in `counted` bool [H, W] count, which leaves out those of which the truth says nothing.
    """
    of_objects = [mask & counted for mask in objects]
    areas = np.array([np.count_nonzero(mask) for mask in of_objects], np.float64)
    rows = []
    for region in regions:
        own = region & counted
        common = np.array([np.count_nonzero(own & mask) for mask in of_objects], np.float64)
        union = np.count_nonzero(own) + areas - common
        rows.append(np.divide(common, union, out=np.zeros(len(areas)), where=union > 0))
    return np.array(rows, np.float64).reshape(len(rows), len(objects))


def class_targets(overlaps: NDArray[np.float64], labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    """The best overlap of each region with an object of each class: float32 [n, K], 0 for classes without objects.

    `overlaps` float64 [n, m] are those with the objects, whose classes are `labels` int32 [m].
    """
    targets = np.zeros((len(overlaps), classes), np.float32)
    for column, label in enumerate(labels.tolist()):
        np.maximum(targets[:, label], overlaps[:, column], out=targets[:, label])
    return targets
