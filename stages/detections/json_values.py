"""Detections as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.detections.order import best_first
from stages.detections.sets import Detections

BOXES = "x1, y1, x2, y2 in pixels of the image, zero-based, half-open: width = x2 - x1"
"""What files say of the boxes in them."""


def shortest(score: np.float32) -> float:
    """The shortest decimal that rounds to this float32 score, so that comparisons with it give the same result."""
    return float(str(np.float32(score)))


def detections_as_json(
    detections: Detections,
    classes: Sequence[str],
    precision: NDArray[np.floating],
    drawn: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Detections as JSON values, in the order of `best_first`; boxes are (x1, y1, x2, y2), zero-based and half-open.

    `precision` [n] becomes null where it is nan; `drawn` [n] says whether the picture shows a detection."""
    return [
        {
            "class": classes[detections.labels[row]],
            "score": shortest(detections.scores[row]),
            "precision": None if np.isnan(precision[row]) else float(precision[row]),
            "box": [round(float(corner), 2) for corner in detections.boxes[row]],
            "drawn": bool(drawn[row]),
        }
        for row in best_first(detections.scores, precision)
    ]
