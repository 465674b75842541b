"""What an exported detector takes along of its evaluation: condensed curves, and the summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cache import Column, Schema
from cache.held import Content
from stages.eval.operating_points import best_f1, operating_points
from stages.matching.average_precision import Curve, interpolated

STEPS = 1000
"""A long curve is condensed to so many levels of precision."""

SCHEMA = Schema(
    item="class",
    rows={"score": Column("float32"), "recall": Column("float64"), "precision": Column("float64")},
    per_item={"positives": Column("int64"), "detections": Column("int64")},
)


def condensed(curve: Curve) -> Curve:
    """The curve with as few points as tell precisions and thresholds apart: those after which precision is never as
    high again, the last, and that of the best F1.

    `best_f1`, `lowest_score_at` and `calibrated_precision` stay the same. Of more than STEPS points, only the last at
    each thousandth of precision are kept: then `lowest_score_at` stays the same for whole thousandths, and
    `calibrated_precision` falls by less than one.
    """
    points = operating_points(curve)
    if not len(points.scores):
        return curve
    kept = np.diff(interpolated(points.precision), append=-1.0) < 0
    if kept.sum() > STEPS:
        steps = np.flatnonzero(kept)
        level = np.floor(points.precision[steps] * STEPS + 1e-9)
        kept[steps[np.diff(level, append=-1.0) == 0]] = False
    best = best_f1(curve)
    if best is not None:
        kept |= points.scores == np.float32(best[0])
    return replace(curve, scores=points.scores[kept], recall=points.recall[kept], precision=points.precision[kept])


def condensed_content(curves: Mapping[str, Curve], manifest: Mapping[str, Any]) -> Content:
    """The condensed `curves` of an `evaluation` cache with this manifest; `read_curves` reads them back."""
    kept = {name: condensed(curve) for name, curve in curves.items()}
    counts = {name: [getattr(curve, name) for curve in kept.values()] for name in SCHEMA.per_item}
    columns = {
        "offsets": np.concatenate([[0], np.cumsum([len(curve.scores) for curve in kept.values()])]).astype(np.int64),
        "score": np.concatenate([curve.scores for curve in kept.values()]),
        "recall": np.concatenate([curve.recall for curve in kept.values()]),
        "precision": np.concatenate([curve.precision for curve in kept.values()]),
        **{name: np.array(values, np.int64) for name, values in counts.items()},
    }
    return Content(manifest["stage"], manifest["settings"], manifest["summary"], SCHEMA, tuple(kept), columns)
