"""Detections, of one image or a whole set, and how candidates become detections.

`sets` holds the arrays and `order` their orderings; `suppression` and `cap` decide which candidates are kept.
"""

from __future__ import annotations

from stages.detections.json_values import detections_as_json, shortest
from stages.detections.order import best_first, by_class
from stages.detections.sets import (
    NO_DETECTIONS,
    NO_ROWS,
    ClassDetections,
    Detections,
    DetectionSet,
    detections_from_arrays,
    detections_of,
    no_boxes,
    read_detections,
    read_thresholds,
)

__all__ = [
    "NO_DETECTIONS",
    "NO_ROWS",
    "ClassDetections",
    "DetectionSet",
    "Detections",
    "best_first",
    "by_class",
    "detections_as_json",
    "detections_from_arrays",
    "detections_of",
    "no_boxes",
    "read_detections",
    "read_thresholds",
    "shortest",
]
