"""Accuracies of segmentations as a table, JSON and CSV, and their differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import Reader
from stages.eval_segmentation.confusion import resampled_accuracy
from stages.eval_segmentation.stage import confusions
from stages.resampling import CONFIDENCE, image_weights, percentile_interval
from stages.tables import aligned, csv_text, percent

MEAN = "mean"
Interval = tuple[float, float]


def format_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of accuracies in percent, a row for each class and a column for each segmentation, with the intervals of
    the mean; `summaries` maps a heading to a summary of `eval-segmentation`. Classes without pixels have "-"."""
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary["classes"]))
    rows = [["accuracy", *summaries]]
    for name in names:
        values = [summary["classes"].get(name, {}).get("accuracy") for summary in summaries.values()]
        rows.append([name, *map(percent, values)])
    rows.append([MEAN, *(with_interval(summary) for summary in summaries.values())])
    rows.append(["all pixels", *(percent(summary["pixel_accuracy"]) for summary in summaries.values())])
    rows.append(["images", *(f"{summary['images']:,}" for summary in summaries.values())])
    return "\n".join(aligned(rows, rules_before=[1, 1 + len(names), 2 + len(names)]))


def with_interval(summary: Mapping[str, Any]) -> str:
    """A mean accuracy in percent, with its interval if there is one: "23.4 [20.1, 26.0]"."""
    interval = summary.get("bootstrap", {}).get("mean_accuracy")
    bounds = f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else ""
    return percent(summary["mean_accuracy"]) + bounds


def paired_difference(first: Reader, second: Reader) -> tuple[float, Interval] | None:
    """How much higher the mean accuracy of `second` is than that of `first`, and the interval of that difference; None
    unless both were resampled in the same way."""
    summaries = [reader.manifest["summary"] for reader in (first, second)]
    samples = [summary.get("bootstrap", {}) for summary in summaries]
    same = all(samples[0].get(name) == samples[1].get(name) for name in ("images", "resamples", "seed"))
    if not samples[0] or not same or None in [summary["mean_accuracy"] for summary in summaries]:
        return None
    weights = image_weights(summaries[0]["images"], samples[0]["resamples"], samples[0]["seed"])
    means = [resampled_accuracy(confusions(reader), weights)[1] for reader in (first, second)]
    interval = percentile_interval(means[1] - means[0])
    assert interval is not None
    return summaries[1]["mean_accuracy"] - summaries[0]["mean_accuracy"], interval


def format_difference(first: str, second: str, difference: tuple[float, Interval]) -> str:
    """A paired difference in a sentence."""
    points, (low, high) = difference
    return (
        f"{second} - {first}: {100 * points:+.1f} points of mean accuracy, {100 * CONFIDENCE:g} % interval "
        f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    )


def write_results(reader: Reader, folder: Path) -> list[Path]:
    """Writes `results.json`, `classes.csv` and `confusion.csv` into `folder`; returns their paths. Existing files are
    replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = reader.manifest["summary"]
    results, classes, confusion = (folder / name for name in ("results.json", "classes.csv", "confusion.csv"))
    results.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    classes.write_text(csv_text(class_rows(summary)), encoding="utf-8")
    confusion.write_text(csv_text(confusion_rows(reader, list(summary["classes"]))), encoding="utf-8")
    return [results, classes, confusion]


def class_rows(summary: Mapping[str, Any]) -> list[list[Any]]:
    """A heading, one row per class and one for the mean: accuracy, pixels, and the ends of the interval, if any."""
    rows: list[list[Any]] = [["class", "accuracy", "pixels", "low", "high"]]
    for name, result in summary["classes"].items():
        rows.append([name, result["accuracy"], result["pixels"], *(result.get("interval") or (None, None))])
    interval = summary.get("bootstrap", {}).get("mean_accuracy") or (None, None)
    return [*rows, [MEAN, summary["mean_accuracy"], None, *interval]]


def confusion_rows(reader: Reader, names: Sequence[str]) -> list[list[Any]]:
    """A heading and, for each class of the truth, how many of its pixels are labelled as each."""
    total = confusions(reader).sum(axis=0)
    return [["truth", *names], *([name, *row] for name, row in zip(names, total.tolist(), strict=True))]
