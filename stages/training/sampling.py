"""Drawing the examples of one image without replacement: regions (Fast R-CNN) or anchors (Faster R-CNN).

A generator seeded with (seed, iteration, image) makes a draw depend on nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def draw_examples(
    positive: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    count: int,
    most_positive: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """At most `count` of n examples, at most `most_positive` of them positive: rows int64 [k], the positives first.

    `positive` and `negative` bool [n]. Negatives take the places that positives leave. Where there are too few
    negatives, there are fewer examples, not more positives.

    Fast R-CNN section 2.3 (lib/roi_data_layer/minibatch.py): 64 regions of an image, 16 of them positive. Faster R-CNN
    section 3.1.3 (lib/rpn/anchor_target_layer.py): 256 anchors, at most 128 positive.
    """
    positives = draw(np.flatnonzero(positive), min(most_positive, count), random)
    negatives = draw(np.flatnonzero(negative), count - len(positives), random)
    return np.concatenate([positives, negatives])


def draw(rows: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """At most `count` of the `rows` [n], drawn without replacement, ascending: int64 [min(n, count)]."""
    if len(rows) <= count:
        return rows
    return np.sort(random.choice(rows, count, replace=False))
