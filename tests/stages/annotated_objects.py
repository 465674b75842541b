"""The objects of an image, as trainings on whole images take them."""

from __future__ import annotations

import numpy as np

from stages.training.whole_images import Objects


def objects(boxes: list[list[float]], labels: list[int], unused: list[bool] | None = None) -> Objects:
    """Objects with these boxes and labels, none of them a crowd."""
    none = [False] * len(boxes)
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int32),
        np.array(none, bool),
        np.array(unused or none, bool),
    )
