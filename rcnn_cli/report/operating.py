"""How a run's detector is best used: thresholds, confusions and calibration, as values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rcnn_cli.looking.evaluated import Evaluated, calibration_of, confusion_of
from rcnn_cli.report import charts
from rcnn_cli.report.runs import MOST_CLASSES, Run
from rcnn_cli.report.tables import MOST_ROWS
from stages.detect import score_of
from stages.eval.calibration import FITTED, LIKELY, RAW, Calibration, known
from stages.eval.confusion import BACKGROUND, MISSED, Confusion
from stages.eval.operating_pictures import FITTED_SERIES, RAW_SERIES
from stages.eval.operating_points import best_f1, operating_points, points_at
from stages.matching.average_precision import Curve
from stages.tables import percent

MOST_CONFUSED = 100
MOST_PAIRS = 10
"""The most classes of which the page has the whole confusion matrix, and how many pairs of classes it lists."""


def operating_panels(
    runs: Sequence[Run], mains: Sequence[Run], opened: Mapping[int, Evaluated]
) -> list[dict[str, Any]]:
    """For each run that could be opened: its best thresholds, confusion matrix and calibration, and, of the main runs,
    the curves of its classes."""
    panels = []
    room = MOST_CLASSES
    for run in runs:
        if run.number not in opened:
            continue
        evaluated = opened[run.number]
        curves = {name: curve for name, curve in run.curves.items() if curve.positives}
        drawn = sorted(curves, key=lambda name: -curves[name].positives)[:room] if run in mains else []
        names = [name for name in curves if name in drawn]
        room -= len(names)
        panels.append(
            {
                "run": run,
                "score": score_of(run.detector.settings).name,
                "rows": threshold_table(curves),
                "panels": [
                    {
                        "title": name,
                        "note": best_in_words(curves[name]),
                        "svg": charts.thresholds(f"{run.letter} {number}", curves[name]),
                    }
                    for number, name in enumerate(names)
                ],
                "left_out": len(curves) - len(names) if names else 0,
                "confusion": confusion_table(confusion_of(evaluated), run),
                "calibration": calibration_table(run, calibration_of(evaluated)),
            }
        )
    return panels


def threshold_table(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """Each class's objects and, at the threshold of its best F1, the precision, recall and F1 in percent ("-" without
    true positives); of many classes, those with the most objects."""
    chosen = set(sorted(curves, key=lambda name: -curves[name].positives)[:MOST_ROWS])
    rows = []
    for name, curve in curves.items():
        if name not in chosen:
            continue
        row = {"name": name, "objects": curve.positives, "threshold": "-", "cells": ["-"] * 3}
        best = best_f1(curve)
        if best is not None:
            points = operating_points(curve)
            place = points_at(points, np.array([best[0]]))[0]
            values = (points.precision[place], points.recall[place], points.f1[place])
            row |= {"threshold": f"{best[0]:.3f}", "cells": [percent(float(value)) for value in values]}
        rows.append(row)
    return rows


def best_in_words(curve: Curve) -> str:
    """A class's best F1 and its threshold, in words."""
    best = best_f1(curve)
    return f"best F1 {100 * best[1]:.0f} % at {best[0]:.2f}" if best else "no true positive"


def confusion_table(confusion: Confusion | None, run: Run) -> dict[str, Any]:
    """The confusion matrix with each row in percent, if it is not too large, and the pairs confused most."""
    if confusion is None:
        return {"columns": [], "rows": [], "pairs": [], "fixed": None, "undetected": []}
    shares, sums = confusion.shares, confusion.counts.sum(axis=1)
    rows = []
    if len(confusion.classes) <= MOST_CONFUSED:
        for number, name in enumerate([*confusion.classes, BACKGROUND]):
            rows.append(
                {
                    "name": name,
                    "total": int(sums[number]),
                    "cells": [cell(int(count), float(share)) for count, share in
                              zip(confusion.counts[number], shares[number], strict=True)],
                }
            )  # fmt: skip
    pairs = confusion.frequent(MOST_PAIRS)
    return {
        "columns": [*confusion.classes, MISSED],
        "rows": rows,
        "pairs": [{"true": true, "as": other, "count": count, "of": of, "share": percent(count / of)}
                  for true, other, count, of in pairs],
        "fixed": run.node.settings.confusion_threshold,
        "undetected": [name for name, threshold in zip(confusion.classes, confusion.thresholds, strict=True)
                       if not np.isfinite(threshold)],
    }  # fmt: skip


def cell(count: int, share: float) -> dict[str, Any]:
    """A cell of the matrix: the percent of its row, "" for nothing; the count; a shade, so that rare ones show, too."""
    text = "" if not count else f"{100 * share:.0f}" if share >= 0.005 else "<1"
    return {"text": text, "count": count, "shade": f"{share**0.5:.2f}"}


def calibration_table(run: Run, calibration: Calibration) -> dict[str, Any]:
    """The diagrams as plots, their errors in percent, and the precisions obtained in percent."""
    series = {RAW: RAW_SERIES, FITTED: FITTED_SERIES}
    return {
        "reliability": charts.reliability(run.letter, calibration),
        "obtained": charts.obtained(run.letter, calibration),
        "likely": LIKELY,
        "diagrams": [
            {
                "name": name,
                "series": series[name],
                "detections": int(one.detections.sum()),
                "error": percent(known(one.error)),
                "likely": percent(known(one.error_from(LIKELY))),
                "count": one.count_from(LIKELY),
            }
            for name, one in calibration.diagrams.items()
        ],
        "rows": [
            [percent(one.asked), percent(known(one.precision)), percent(known(one.recall)), f"{one.kept:,}"]
            for one in calibration.obtained
        ],
    }
