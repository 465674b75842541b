"""Average precision, as evaluations use it: see `stages.matching.average_precision`."""

from stages.matching.average_precision import (
    RECALL_LEVELS,
    Curve,
    average_precision_11_point,
    average_precision_area,
    calibrated_precision,
    interpolated,
    interpolated_steps,
    lowest_score_at,
    precision_recall,
    precision_recall_curve,
    precision_with_ties,
)

__all__ = [
    "RECALL_LEVELS",
    "Curve",
    "average_precision_11_point",
    "average_precision_area",
    "calibrated_precision",
    "interpolated",
    "interpolated_steps",
    "lowest_score_at",
    "precision_recall",
    "precision_recall_curve",
    "precision_with_ties",
]
