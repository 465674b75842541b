"""Class scores as a table, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from stages.classify.errors import best_classes, ranks
from stages.classify.stage import TOP, competing
from stages.tables import aligned, csv_text, percent

BEST = max(TOP)


def format_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of classifications side by side, errors in percent with their 95 % intervals; `summaries` maps a heading
    to a summary of `classify`."""
    rows: list[list[str]] = [["", *summaries]]
    for count in TOP:
        rows.append([f"top-{count} error", *(with_interval(summary, count) for summary in summaries.values())])
    for name, words in (("images", "images"), ("views", "views per image"), ("networks", "networks averaged")):
        rows.append([words, *(f"{summary[name]:,}" for summary in summaries.values())])
    return "\n".join(aligned(rows, rules_before=[1, 1 + len(TOP)]))


def with_interval(summary: Mapping[str, Any], count: int) -> str:
    """A top-`count` error in percent with its interval: "12.0 [9.4, 15.2]"."""
    interval = summary[f"top_{count}_interval"]
    bounds = f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else ""
    return percent(summary[f"top_{count}_error"]) + bounds


def write_results(reader: Reader, folder: Path) -> list[Path]:
    """Writes `results.json`, `classes.csv` and `images.csv` into `folder`; returns their paths. Existing files are
    replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = reader.manifest["summary"]
    results, classes, images = (folder / name for name in ("results.json", "classes.csv", "images.csv"))
    results.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    classes.write_text(csv_text(class_rows(summary)), encoding="utf-8")
    images.write_text(csv_text(image_rows(reader)), encoding="utf-8")
    return [results, classes, images]


def class_rows(summary: Mapping[str, Any]) -> list[list[Any]]:
    """A heading, one row per class and one for all images."""
    columns = ("images", *(f"top_{count}_error" for count in TOP))
    rows = [[name, *(errors[column] for column in columns)] for name, errors in summary["classes"].items()]
    return [["class", *columns], *rows, ["all", *(summary[column] for column in columns)]]


def image_rows(reader: Reader) -> list[list[Any]]:
    """A heading and one row per image that was not skipped: its class, the rank of that class (1 for the best), and the
    best five classes with their scores."""
    names: Sequence[str] = reader.manifest["summary"]["class_names"]
    compete = competing(names)
    heading: list[Any] = ["image", "class", "rank"]
    for place in range(1, BEST + 1):
        heading += [f"class_{place}", f"score_{place}"]
    rows = [heading]
    for image_id, record in reader.records():
        if not record["views"]:
            continue
        scores, label = record["scores"], record["label"]
        rank = int(ranks(scores[None], np.array([label]), compete)[0]) + 1
        row: list[Any] = [image_id, names[int(label)], rank]
        for best in best_classes(scores, compete, BEST).tolist():
            row += [names[best], f"{scores[best]:.6g}"]
        rows.append(row + [""] * (len(heading) - len(row)))
    return rows
