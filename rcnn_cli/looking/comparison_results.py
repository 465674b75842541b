"""What `rcnn compare` prints and writes: tables, JSON, CSV and two sheets of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rcnn_cli.looking.comparison import NEWS, Side, changed_images
from rcnn_cli.outputs import OutputFolder
from stages.eval.report import HEADLINES, PRECISION
from stages.matching.error_types import TYPES
from stages.tables import aligned, csv_text, percent

SHOWN = 8
FILES = ("compare.json", "compare.csv", "images.csv", "better.png", "worse.png")


def tell(a: Side, b: Side, told: dict[str, Any], folder: Path | None, as_json: bool) -> str:
    """Writes JSON, CSVs and sheets into `folder`; the text, or the JSON, that is to be printed."""
    from rcnn_cli.looking.comparison_sheet import comparison_sheet
    from stages.file_names import file_name
    from stages.pictures.drawing import save_image

    label = file_name("compare-{}-{}".format(*(side.name.replace(" ", "-") for side in (a, b))))
    output = OutputFolder(folder or a.found.graph.work / "results" / label, given=folder is not None)
    output.check(FILES)
    text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
    output.write("compare.json", text + "\n")
    for name, rows in (("compare.csv", class_rows(told)), ("images.csv", image_rows(told))):
        output.write(name, csv_text(rows))
    for name, images in changed_images(told).items():
        if not images:
            output.remove(f"{name}.png")
            continue
        with output.file(f"{name}.png") as path:
            save_image(comparison_sheet(a, b, images[:SHOWN]), path)
    return text if as_json else f"{format_comparison(told)}\n\nNumbers and sheets of images: {output.path}/"


def class_rows(told: Mapping[str, Any]) -> list[list[Any]]:
    """A heading, a row for each class and one for the mean."""
    rows: list[list[Any]] = [["class", "objects", "a", "b", "difference", "low", "high", "differs"]]
    for one in [*told["classes"], {"class": "mean", "objects": None, **told["map"]}]:
        low, high = one["interval"] or (None, None)
        columns = [one[name] for name in rows[0][:5]]
        rows.append([*columns, low, high, int(one["differs"])])
    return rows


def image_rows(told: Mapping[str, Any]) -> list[list[Any]]:
    """A heading and a row for each image."""
    pairs = ("found", "false", "worth")
    heads = [f"{name}_{side}" for name in pairs for side in "ab"]
    rows: list[list[Any]] = [["image", "objects", *heads, "gain", *NEWS]]
    for one in told["images"]:
        values = [value for name in pairs for value in one[name]]
        rows.append([one["image"], one["objects"], *values, one["gain"], *("; ".join(one[name]) for name in NEWS)])
    return rows


def format_comparison(told: Mapping[str, Any]) -> str:
    """What is printed."""
    sections = [format_sides(told), format_differences(told), format_classes(told), format_errors(told)]
    return "\n\n".join([*sections, format_images(told)])


def format_sides(told: Mapping[str, Any]) -> str:
    """What A and B are."""
    lines = [
        f"{letter.upper()}: {told[letter]['recipe']} [{told[letter]['evaluation']}], {told[letter]['detector']}"
        for letter in ("a", "b")
    ]
    return "\n".join([*lines, f"on {told['a']['images']:,} images of {told['a']['dataset']}"])


def format_differences(told: Mapping[str, Any]) -> str:
    """The settings, a line each."""
    texts = [one["text"] for one in told["differences"]]
    if not texts:
        return "No setting differs: the runs use the same recipe with different files or versions."
    return "\n".join(["Settings that differ, A -> B:", *(f"  {text}" for text in texts)])


def format_classes(told: Mapping[str, Any]) -> str:
    """AP side by side."""
    share = f"{100 * told['confidence']:g} %"
    rows = [["class", "objects", "A", "B", "B - A", f"{share} interval", ""]]
    for one in [*told["classes"], {"class": "mAP", "objects": "", **told["map"]}]:
        mark = "*" if one["differs"] else ""
        difference = points(one["difference"])
        rows.append(
            [one["class"], str(one["objects"]), percent(one["a"]), percent(one["b"]), difference, span(one), mark]
        )
    measure = f"AP, {HEADLINES[told['metric']]}, found at an IoU of {told['iou']:g}, in percent"
    lines = [measure, *aligned(rows, rules_before=(1, len(rows) - 1))]
    if not told["resamples"]:
        return "\n".join([*lines, "no intervals: --resamples 0"])
    count = sum(one["interval"] is not None for one in told["classes"])
    chance = (1 - told["confidence"]) * count
    return "\n".join(
        [
            *lines,
            f"* zero lies outside the interval ({told['resamples']:,} resamples of the images, paired). If A and B",
            f"  were equally good, about {chance:.1f} of the {count} classes would still be marked, by chance.",
        ]
    )


def points(difference: float | None) -> str:
    """A difference in percent with its sign."""
    return "-" if difference is None else f"{100 * difference:+.1f}"


def span(one: Mapping[str, Any]) -> str:
    """The interval of a difference."""
    return f"[{points(one['interval'][0])}, {points(one['interval'][1])}]" if one["interval"] else "-"


def format_errors(told: Mapping[str, Any]) -> str:
    """The errors of both."""
    rows = [["", *TYPES, "", "found", "missed", *TYPES]]
    for letter, one in zip("AB", told["errors"], strict=True):
        top, shown = ([str(one[part][kind]) for kind in TYPES] for part in ("top", "shown"))
        rows.append([letter, *top, "", str(one["found"]), str(one["missed"]), *shown])
    return "\n".join(
        [
            "False positives by type: for each class the best-scored, as many as it has objects; then those above",
            f"each class's own cut, where its precision falls to {PRECISION}",
            *aligned(rows, rules_before=(1,)),
        ]
    )


def format_images(told: Mapping[str, Any]) -> str:
    """The images that changed most."""
    changed = changed_images(told)
    same = len(told["images"]) - sum(map(len, changed.values()))
    counted = ", ".join(f"{len(images)} {name}" for name, images in changed.items())
    first = f"Images: {counted}; in {same} both find the same objects and make the same mistakes."
    if not any(changed.values()):
        return first
    lines = [
        first,
        "An image's worth: the precisions of its true detections above the cuts, minus those of its false ones.",
        "How much higher or lower it is in B:",
    ]
    for name, images in changed.items():
        rows = [image_line(one) for one in images[:SHOWN]]
        if rows:
            lines += [f"{name} ({name}.png)", *(f"  {line}" for line in columns(rows))]
    return "\n".join(lines)


def image_line(one: Mapping[str, Any]) -> list[str]:
    """One image in words."""
    found, false = (" -> ".join(map(str, one[name])) for name in ("found", "false"))
    news = [
        f"{words} {', '.join([*(f'+{name}' for name in one[more]), *(f'-{name}' for name in one[less])])}"
        for words, more, less in (("objects", "newly_found", "lost"), ("false", "newly_false", "no_longer_false"))
        if one[more] or one[less]
    ]
    return [
        one["image"],
        f"{one['gain']:+.2f}",
        f"found {found} of {one['objects']}",
        f"false {false}",
        "; ".join(news),
    ]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of words in columns, to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
