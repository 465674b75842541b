"""The output of `rcnn compare`: tables, JSON, CSV and two sheets of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rcnn_cli.looking.comparison import NEWS, Side, changed_images
from rcnn_cli.outputs import OutputFolder
from stages.eval.report import HEADLINES, PRECISION
from stages.matching.error_types import TYPES
from stages.plurals import number_of
from stages.tables import aligned, csv_text, percent

SHOWN = 8
FILES = ("compare.json", "compare.csv", "images.csv", "better.png", "worse.png")


def tell(a: Side, b: Side, comparison: dict[str, Any], folder: Path | None, as_json: bool) -> str:
    """Writes JSON, CSVs and sheets into `folder`; returns the text, or the JSON, to print. Raises StageError."""
    from rcnn_cli.looking.comparison_sheet import comparison_sheet
    from stages.file_names import file_name
    from stages.pictures.drawing import save_image

    label = file_name("compare-{}-{}".format(*(side.name.replace(" ", "-") for side in (a, b))))
    output = OutputFolder(folder or a.evaluated.graph.work / "results" / label, given=folder is not None)
    output.check(FILES)
    text = json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False)
    output.write("compare.json", text + "\n")
    for name, rows in (("compare.csv", class_rows(comparison)), ("images.csv", image_rows(comparison))):
        output.write(name, csv_text(rows))
    for name, images in changed_images(comparison).items():
        if not images:
            output.remove(f"{name}.png")
            continue
        with output.file(f"{name}.png") as path:
            save_image(comparison_sheet(a, b, images[:SHOWN]), path)
    return text if as_json else f"{format_comparison(comparison)}\n\nNumbers and sheets of images: {output.path}/"


def class_rows(comparison: Mapping[str, Any]) -> list[list[Any]]:
    """A heading, a row for each class and one for the mean."""
    rows: list[list[Any]] = [["class", "objects", "a", "b", "difference", "low", "high", "differs"]]
    for each in [*comparison["classes"], {"class": "mean", "objects": None, **comparison["map"]}]:
        low, high = each["interval"] or (None, None)
        columns = [each[name] for name in rows[0][:5]]
        rows.append([*columns, low, high, int(each["differs"])])
    return rows


def image_rows(comparison: Mapping[str, Any]) -> list[list[Any]]:
    """images.csv: the heading and one row per image."""
    pairs = ("found", "false", "worth")
    heads = [f"{name}_{side}" for name in pairs for side in "ab"]
    rows: list[list[Any]] = [["image", "objects", *heads, "gain", *NEWS]]
    for image in comparison["images"]:
        values = [value for name in pairs for value in image[name]]
        news = ["; ".join(image[name]) for name in NEWS]
        rows.append([image["image"], image["objects"], *values, image["gain"], *news])
    return rows


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """The whole comparison as text."""
    sections = [
        format_sides(comparison),
        format_differences(comparison),
        format_classes(comparison),
        format_errors(comparison),
    ]
    return "\n\n".join([*sections, format_images(comparison)])


def format_sides(comparison: Mapping[str, Any]) -> str:
    """The lines that say what A and B are."""
    lines = [
        f"{letter}: {side['recipe']} [{side['evaluation']}], {side['detector']}"
        for letter, side in (("A", comparison["a"]), ("B", comparison["b"]))
    ]
    return "\n".join([*lines, f"on {number_of(comparison['a']['images'], 'image')} of {comparison['a']['dataset']}"])


def format_differences(comparison: Mapping[str, Any]) -> str:
    """The settings that differ, one line per setting."""
    texts = [difference["text"] for difference in comparison["differences"]]
    if not texts:
        return "No settings differ: the runs use the same recipe with different files or versions."
    return "\n".join(["Settings that differ, A -> B:", *(f"  {text}" for text in texts)])


def format_classes(comparison: Mapping[str, Any]) -> str:
    """The table of APs, side by side."""
    share = f"{100 * comparison['confidence']:g} %"
    rows = [["class", "objects", "A", "B", "B - A", f"{share} interval", ""]]
    for each in [*comparison["classes"], {"class": "mAP", "objects": "", **comparison["map"]}]:
        mark = "*" if each["differs"] else ""
        aps = [percent(each["a"]), percent(each["b"]), points(each["difference"])]
        rows.append([each["class"], str(each["objects"]), *aps, span(each), mark])
    measure = f"AP, {HEADLINES[comparison['metric']]}, at an IoU of {comparison['iou']:g}, in percent"
    lines = [measure, *aligned(rows, rules_before=(1, len(rows) - 1))]
    if not comparison["resamples"]:
        return "\n".join([*lines, "no intervals: --resamples 0"])
    count = sum(each["interval"] is not None for each in comparison["classes"])
    chance = (1 - comparison["confidence"]) * count
    return "\n".join(
        [
            *lines,
            f"* zero is outside the interval ({comparison['resamples']:,} paired resamples of the images). If A and B",
            f"  were equally good, about {chance:.1f} of the {count} classes would still be marked by chance.",
        ]
    )


def points(difference: float | None) -> str:
    """A difference in [-1, 1] as percentage points with its sign: "+1.2"."""
    return "-" if difference is None else f"{100 * difference:+.1f}"


def span(row: Mapping[str, Any]) -> str:
    """The interval of a row's difference as text: "[-0.5, +2.0]"."""
    return f"[{points(row['interval'][0])}, {points(row['interval'][1])}]" if row["interval"] else "-"


def format_errors(comparison: Mapping[str, Any]) -> str:
    """The table of both runs' errors."""
    rows = [["", *TYPES, "", "found", "missed", *TYPES]]
    for letter, errors in zip("AB", comparison["errors"], strict=True):
        top, shown = ([str(errors[part][kind]) for kind in TYPES] for part in ("top", "shown"))
        rows.append([letter, *top, "", str(errors["found"]), str(errors["missed"]), *shown])
    return "\n".join(
        [
            "False positives by type: first each class's top-scoring ones, as many as it has objects; then objects",
            f"found and missed and false positives above each class's cut, where its precision falls to {PRECISION}",
            *aligned(rows, rules_before=(1,)),
        ]
    )


def format_images(comparison: Mapping[str, Any]) -> str:
    """The lines about the images that changed most."""
    changed = changed_images(comparison)
    same = len(comparison["images"]) - sum(map(len, changed.values()))
    counted = ", ".join(f"{len(images)} {name}" for name, images in changed.items())
    first = f"Images: {counted}; in {same}, both find the same objects and make the same mistakes."
    if not any(changed.values()):
        return first
    lines = [
        first,
        "An image's worth is the sum of the precisions of its true detections above the cuts, minus those of its",
        "false ones. Its change from A to B:",
    ]
    for name, images in changed.items():
        rows = [image_line(image) for image in images[:SHOWN]]
        if rows:
            lines += [f"{name} ({name}.png)", *(f"  {line}" for line in columns(rows))]
    return "\n".join(lines)


def image_line(image: Mapping[str, Any]) -> list[str]:
    """One image as the columns of a line."""
    found, false = (" -> ".join(map(str, image[name])) for name in ("found", "false"))
    news = [
        f"{words} {', '.join([*(f'+{name}' for name in image[more]), *(f'-{name}' for name in image[less])])}"
        for words, more, less in (("objects", "newly_found", "lost"), ("false", "newly_false", "no_longer_false"))
        if image[more] or image[less]
    ]
    return [
        image["image"],
        f"{image['gain']:+.2f}",
        f"found {found} of {image['objects']}",
        f"false {false}",
        "; ".join(news),
    ]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the words of `rows` in left-aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
