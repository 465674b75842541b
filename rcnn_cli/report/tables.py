"""The tables of a report, as values for the template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcnn_cli.looking import ilsvrc2013
from rcnn_cli.looking.ilsvrc2013 import is_ilsvrc2013
from rcnn_cli.looking.recall import Measured, as_values, count_words
from rcnn_cli.report.papers import PROTOCOL, TABLE_2, is_voc_2007_test
from rcnn_cli.report.runs import Run
from stages.diagnose.report import GAINS
from stages.eval.report import (
    COCO_ROWS,
    HEADLINES,
    LOCALISATION_ROWS,
    MEASURES,
    format_difference,
    notes_on_classes,
    paired_difference,
)
from stages.matching.proposals import SIZES
from stages.tables import percent

MOST_ROWS = 500


def precision_table(runs: Sequence[Run]) -> dict[str, Any]:
    """The APs of comparable runs: one row per class (at most MOST_ROWS, those with the most objects) and per mean; the
    best in each row is marked."""
    summaries = [run.summary for run in runs]
    measure = summaries[0]["metric"]
    column = MEASURES[measure]
    classes = list(dict.fromkeys(name for summary in summaries for name in summary["classes"]))
    objects = {
        name: next(each["classes"][name]["positives"] for each in summaries if name in each["classes"])
        for name in classes
    }
    shown = set(sorted(classes, key=lambda name: -objects[name])[:MOST_ROWS])
    rows = [
        row(name, [summary["classes"].get(name, {}) for summary in summaries], column, objects[name], measure)
        for name in classes
        if name in shown
    ]
    means = [
        row(f"mAP, {words}", summaries, key, sum(objects.values()), measure, interval_of=boot(key))
        for words, key in (("11-point", "map_11"), ("area", "map_area"))
    ]
    coco = [
        row(words, [summary.get("coco", {}) for summary in summaries], key, None, "")
        for key, words in COCO_ROWS.items()
        if any("coco" in summary for summary in summaries)
    ]
    errors = [
        row(
            words,
            [summary.get("localisation", {}) for summary in summaries],
            key,
            next(summary["localisation"]["cases"] for summary in summaries if "localisation" in summary),
            "",
            best_of=min,
        )
        for key, words in LOCALISATION_ROWS.items()
        if any("localisation" in summary for summary in summaries)
    ]
    key = "map_11" if measure == "voc07" else "map_area"
    ranked = sorted((run for run in runs if run.summary[key] is not None), key=lambda run: run.summary[key])
    ends = [{"run": run, "map": percent(run.summary[key])} for run in ranked]
    return {
        "runs": runs,
        "best": ends[-1] if len(ends) > 1 else None,
        "worst": ends[0] if len(ends) > 1 else None,
        "measure": HEADLINES[measure],
        "iou": summaries[0]["iou"],
        "classes": rows,
        "means": means,
        "coco": coco,
        "errors": errors,
        "left_out": len(classes) - len(rows),
        "bootstrap": next((each["bootstrap"] for each in summaries if "bootstrap" in each), None),
        "differences": differences(runs),
        "notes": notes_on_classes({run.letter: run.summary for run in runs}),
        "papers": papers(runs),
    }


def boot(key: str) -> Callable[[Mapping[str, Any]], Any]:
    """A function that returns the interval of the mean `key` from a summary, or None."""
    return lambda summary: summary.get("bootstrap", {}).get(key)


def row(
    name: str,
    values: Sequence[Mapping[str, Any]],
    key: str,
    objects: int | None,
    measure: str,
    interval_of: Callable[[Mapping[str, Any]], Any] | None = None,
    best_of: Callable[..., Any] = max,
) -> dict[str, Any]:
    """A row with one cell per entry of `values`: its text, its interval, whether it is the best, by `best_of`."""
    texts = [percent(numbers.get(key)) for numbers in values]
    known = [float(text) for text in texts if text != "-"]
    best = best_of(known, default=None) if len(values) > 1 else None
    cells = []
    for numbers, text in zip(values, texts, strict=True):
        interval = interval_of(numbers) if interval_of else (numbers.get("interval") if measure else None)
        words = f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""
        cells.append({"text": text, "interval": words, "best": text != "-" and float(text) == best})
    return {"name": name, "objects": objects, "cells": cells}


def differences(runs: Sequence[Run]) -> list[str]:
    """How each run's mAP differs from the first one's, if both were resampled in the same way."""
    first, *others = runs
    sentences = []
    for run in others:
        difference = paired_difference(first.reader, run.reader)
        if difference:
            sentences.append(format_difference(first.letter, run.letter, difference, first.summary["bootstrap"]))
    return sentences


def papers(runs: Sequence[Run]) -> dict[str, Any] | None:
    """R-CNN's Table 2, or Table 4 for ILSVRC2013, with the runs' mAP, lowest first; None if the data or the IoU differ
    from the paper's."""
    if runs[0].summary["iou"] != 0.5:
        return None
    if is_voc_2007_test(runs[0].dataset):
        key, protocol, data = "map_11", PROTOCOL, "VOC 2007 test, 11-point"
        published: Sequence[tuple[str, float]] = TABLE_2
    elif is_ilsvrc2013(runs[0].dataset.classes):
        key, protocol, data = "map_area", ilsvrc2013.PROTOCOL, "ILSVRC2013 detection"
        published = [(name, value) for name, value, _ in ilsvrc2013.TABLE_4]
    else:
        return None
    known = [run for run in runs if run.summary[key] is not None]
    ours = [(f"{run.letter} {run.name}", 100 * run.summary[key], True) for run in known]
    every = [*ours, *((name, value, False) for name, value in published)]
    ordered = sorted(every, key=lambda entry: entry[1])
    rows = [{"name": name, "map": f"{value:.1f}", "ours": own} for name, value, own in ordered]
    return {"rows": rows, "protocol": protocol, "data": data}


def gains(summary: Mapping[str, Any]) -> dict[str, float]:
    """How much each remedy raises a diagnosis's mean AP, in [0, 1], by its heading in `rcnn diagnose`."""
    after = {heading: summary["remedies"][remedy] for heading, remedy in GAINS.items()}
    return {heading: value - summary["ap"] for heading, value in after.items() if value is not None}


def recall_table(measured: Sequence[Measured], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row per cache of proposals and number of boxes, recall in percent."""
    rows = []
    for proposals, name in zip(measured, names, strict=True):
        numbers = as_values(proposals)
        for count, boxes in numbers["boxes_per_image"].items():
            groups = {each["group"]: each for each in numbers["recall"] if count_words(each["proposals"]) == count}
            every = groups["all"]
            values = [every["recall"]["0.5"], every["recall"]["0.7"], every["average_recall"]]
            values += [groups[size]["average_recall"] for size in SIZES]
            cells = [percent(value) for value in values]
            rows.append(
                {"name": name, "count": count, "boxes": f"{boxes:,.0f}", "objects": every["objects"], "cells": cells}
            )
    return rows
