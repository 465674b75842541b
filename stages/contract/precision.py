"""What a stage computes in each precision that the device has, and how long it takes: what `rcnn plan` compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrecisionTrial:
    """The same `regions` in every precision, by its name.

    `seconds` of processor time per region; `features`: by layer, float32 [regions, D].
    """

    regions: int
    seconds: Mapping[str, float]
    features: Mapping[str, Mapping[str, NDArray[np.float32]]]
