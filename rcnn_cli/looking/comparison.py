"""`rcnn compare`: where two runs differ: settings, AP of each class, kinds of errors, and single images."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from rcnn_cli.looking.evaluated import NAMES, Evaluated, error_settings, evaluation_node, open_evaluation
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.differences import Difference, differences
from rcnn_cli.recipes.graph import Graph
from stages.contract.errors import StageError
from stages.detections import detections_of
from stages.diagnose import Settings as DiagnoseSettings
from stages.diagnose.false_positives import DIFFICULT, FOUND, LOCALISATION, TYPES, by_rank, top_false_positives
from stages.eval.average_precision import match_detections
from stages.eval.bootstrap import (
    CONFIDENCE,
    image_weights,
    percentile_interval,
    resampled_average_precision,
    resampled_mean,
)
from stages.eval.by_image import ImageCounts, by_image
from stages.eval.report import HEADLINES, MEASURES, PRECISION, score_cuts
from stages.eval.stage import objects_by_class
from stages.matching.ground_truth import listed
from stages.tables import aligned, csv_text, percent

log = logging.getLogger("rcnn")

SHOWN = 8
FILES = ("compare.json", "compare.csv", "images.csv", "better.png", "worse.png")
NEWS = ("newly_found", "lost", "newly_false", "no_longer_false")


@dataclass(frozen=True)
class Side:
    """One of the two runs: its evaluation, opened, and what it shows: its detections from precision 0.5 on."""

    name: str
    found: Evaluated

    @cached_property
    def cuts(self) -> NDArray[np.float32]:
        """For each of the detector's classes the lowest score with a precision of 0.5, float32 [K]."""
        return score_cuts(self.found.curves, self.found.detections.classes)

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """Which detections count image by image: bool [n]."""
        every = self.found.detections.every
        return every.scores >= self.cuts[every.labels]

    @cached_property
    def true(self) -> NDArray[np.bool_]:
        """Those of them that found an object."""
        return self.shown & (self.found.verdicts == FOUND)

    @cached_property
    def false(self) -> NDArray[np.bool_]:
        """Those of them that are false."""
        return self.shown & (self.found.verdicts >= LOCALISATION)

    @cached_property
    def counts(self) -> ImageCounts:
        """What it does on each image."""
        found = self.found
        return by_image(found.images, self.true, self.false, found.precision, len(found.detections.image_ids))

    @cached_property
    def has_found(self) -> NDArray[np.bool_]:
        """Which objects are found by what is shown: bool [m]."""
        by = self.found.found_by
        return (by >= 0) & self.true[by] if len(self.true) else np.zeros(len(by), bool)

    def kinds(self, image: int) -> Counter[str]:
        """The false positives that are shown in an image, by type and class: "Loc disc"."""
        rows = np.flatnonzero(self.false & (self.found.images == image))
        classes, labels = self.found.detections.classes, self.found.detections.every.labels
        return Counter(f"{NAMES[int(self.found.verdicts[row])]} {classes[labels[row]]}" for row in rows)


def open_sides(a: Graph, b: Graph, evaluation: str | None, evaluation_b: str | None) -> tuple[Side, Side]:
    """Both evaluations, judged by the same sets of similar classes. `evaluation_b` is by default as `evaluation`.

    Raises StageError where they cannot be compared: the same evaluation twice, other images, annotations, classes or
    rules.
    """
    first, second = evaluation_node(a, evaluation), evaluation_node(b, evaluation_b or evaluation)
    if a.identity(first).key == b.identity(second).key:
        raise StageError(
            f"{a.recipe.path} [{first.use.name}] and {b.recipe.path} [{second.use.name}] are the same evaluation: "
            f"nothing differs; name another recipe, or another table with --evaluation-b"
        )
    errors = common_errors(a, b)
    one = open_evaluation(a, first.use.name, errors.similar, errors.poor_iou)
    other = open_evaluation(b, second.use.name, errors.similar, errors.poor_iou)
    check_comparable(one, other)
    return Side(f"{a.recipe.name} {one.name}", one), Side(f"{b.recipe.name} {other.name}", other)


def common_errors(a: Graph, b: Graph) -> DiagnoseSettings:
    """The settings of the diagnosis that both are judged by: A's, or B's where only B has one; a difference is told."""
    has = [any(node.use.stage.makes == "diagnosis" for node in graph.nodes.values()) for graph in (a, b)]
    first, second = error_settings(a), error_settings(b)
    if all(has) and (first.similar, first.poor_iou) != (second.similar, second.poor_iou):
        log.warning("the recipes' [diagnose] differ: the types of both runs' errors are told by that of A")
    return second if has == [False, True] else first


def check_comparable(one: Evaluated, other: Evaluated) -> None:
    """Raises StageError unless both evaluate the same images, annotations and classes by the same rules; says aloud
    what else makes the comparison unfair."""
    a, b = (f"{found.graph.recipe.path} [{found.name}]" for found in (one, other))
    if one.detections.image_ids != other.detections.image_ids or one.dataset.images_key != other.dataset.images_key:
        raise StageError(
            f"{a} and {b} evaluate other images ({len(one.detections.image_ids)} of {one.dataset.name} and "
            f"{len(other.detections.image_ids)} of {other.dataset.name}); compare runs on one dataset"
        )
    if one.dataset.annotations_key != other.dataset.annotations_key:
        raise StageError(
            f"{a} and {b} evaluate the same images with other annotations, or other classes or another order of them "
            f"({listed(one.dataset.classes)}; {listed(other.dataset.classes)}); compare runs on one dataset"
        )
    for setting in ("iou", "metric", "use_difficult"):
        values = getattr(one.node.settings, setting), getattr(other.node.settings, setting)
        if values[0] != values[1]:
            raise StageError(
                f"{a} and {b} evaluate by other rules: {setting} is {values[0]} and {values[1]}; evaluate both alike"
            )
    for name, found in ((a, one), (b, other)):
        skipped = Reader(found.graph.folder(found.detector)).manifest.get("skipped", {})
        if skipped:
            log.warning("%s: %d images were skipped as unreadable: their objects count as missed", name, len(skipped))
        unknown = [one for one in found.dataset.classes if one not in found.detections.classes]
        if unknown:
            log.warning("%s: the detector does not know %s: all of those objects are missed", name, listed(unknown))


def compare(a: Side, b: Side, resamples: int) -> dict[str, Any]:
    """All that differs, as JSON values; differences are B less A, None stands for a number that does not exist."""
    one, other = a.found, b.found
    measure = MEASURES[one.node.settings.metric]
    seed = one.node.settings.bootstrap_seed
    sampled = [resampled_aps(side.found, resamples, seed) for side in (a, b)]
    classes = []
    for row, name in enumerate(one.dataset.classes):
        aps = [side.found.summary["classes"][name][measure] for side in (a, b)]
        classes.append(
            {
                "class": name,
                "objects": one.summary["classes"][name]["positives"],
                **with_difference(aps, [side[row] for side in sampled]),
            }
        )
    return {
        "a": told_side(a),
        "b": told_side(b),
        "metric": one.node.settings.metric,
        "iou": one.node.settings.iou,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "differences": [as_values(each) for each in differences(one.graph, one.node, other.graph, other.node)],
        "map": with_difference(
            [side.found.summary["map"] for side in (a, b)], [resampled_mean(side) for side in sampled]
        ),
        "classes": classes,
        "errors": [errors_of(side) for side in (a, b)],
        "images": told_images(a, b),
    }


def resampled_aps(found: Evaluated, resamples: int, seed: int) -> NDArray[np.float64]:
    """The headline AP of every class of the dataset in every resample: float64 [classes, B]."""
    settings = found.node.settings
    weights = image_weights(len(found.detections.image_ids), resamples, seed)
    column = list(MEASURES).index(settings.metric)
    objects = objects_by_class(found.dataset, found.detections.image_ids, settings.use_difficult)
    aps = np.zeros((len(found.dataset.classes), resamples))
    for row, name in enumerate(found.dataset.classes):
        detections = detections_of(found.detections, name)
        matches = match_detections(detections, objects[name], settings.iou)
        aps[row] = resampled_average_precision(detections, objects[name], matches, weights)[column]
    return aps


def with_difference(values: Sequence[float | None], sampled: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Two values, how much the second is more, and the intervals of all three; `differs` where zero lies outside."""
    first, second = values
    interval = percentile_interval(sampled[1] - sampled[0])
    return {
        "a": first,
        "b": second,
        "difference": None if first is None or second is None else second - first,
        "interval": interval,
        "interval_a": percentile_interval(sampled[0]),
        "interval_b": percentile_interval(sampled[1]),
        "differs": interval is not None and not interval[0] <= 0 <= interval[1],
    }


def told_side(side: Side) -> dict[str, Any]:
    """Which run this is."""
    found = side.found
    return {
        "name": side.name,
        "recipe": str(found.graph.recipe.path),
        "evaluation": found.name,
        "detector": found.detector.name,
        "dataset": found.dataset.name,
        "images": len(found.detections.image_ids),
        "keys": {"evaluation": found.reader.key, "detections": found.graph.identity(found.detector).key},
    }


def as_values(difference: Difference) -> dict[str, Any]:
    """A difference as JSON values."""
    return {**vars(difference), "text": str(difference)}


def errors_of(side: Side) -> dict[str, Any]:
    """What a run finds, misses and gets wrong.

    `top` are the false positives by type down to the rank at which each class has as many as it has objects (as in
    `rcnn diagnose`); `shown`, `found` and `missed` are of the detections from precision 0.5 on.
    """
    found = side.found
    top: Counter[str] = Counter()
    for name, rows in found.detections.class_rows.items():
        if name in found.curves:
            order = by_rank(detections_of(found.detections, name))
            top.update(top_false_positives(found.verdicts[rows][order], found.curves[name].positives))
    to_find = ~found.objects.difficult
    return {
        "top": {kind: top[kind] for kind in TYPES},
        "shown": {kind: int(np.sum(side.shown & (found.verdicts == code))) for kind, code in TYPES.items()},
        "found": int(np.sum(side.has_found & to_find)),
        "missed": int(np.sum(~side.has_found & to_find)),
        "ignored": int(np.sum(side.shown & (found.verdicts == DIFFICULT))),
    }


def told_images(a: Side, b: Side) -> list[dict[str, Any]]:
    """Every image, in the dataset's order: what both do on it, and what B finds, loses and gets wrong besides."""
    objects, names = a.found.objects, a.found.dataset.classes
    to_find = ~objects.difficult
    every = np.bincount(objects.images[to_find], minlength=len(a.found.detections.image_ids))
    told = []
    for image, image_id in enumerate(a.found.detections.image_ids):
        own = np.flatnonzero((objects.images == image) & to_find)
        gained = [names[objects.labels[one]] for one in own if b.has_found[one] and not a.has_found[one]]
        lost = [names[objects.labels[one]] for one in own if a.has_found[one] and not b.has_found[one]]
        wrong_a, wrong_b = a.kinds(image), b.kinds(image)
        told.append(
            {
                "image": image_id,
                "objects": int(every[image]),
                **{name: [int(getattr(side.counts, name)[image]) for side in (a, b)] for name in ("found", "false")},
                "worth": [float(side.counts.worth[image]) for side in (a, b)],
                "gain": float(b.counts.worth[image] - a.counts.worth[image]),
                "newly_found": gained,
                "lost": lost,
                "newly_false": sorted((wrong_b - wrong_a).elements()),
                "no_longer_false": sorted((wrong_a - wrong_b).elements()),
            }
        )
    return told


def changed_images(told: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The images that got better, from the most on, and those that got worse: of those in which something is newly
    found, lost, newly false or false no longer."""
    changed = [one for one in told["images"] if any(one[news] for news in NEWS)]
    return {
        "better": sorted((one for one in changed if one["gain"] > 0), key=lambda one: -one["gain"]),
        "worse": sorted((one for one in changed if one["gain"] < 0), key=lambda one: one["gain"]),
    }


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
        return "No setting differs: the runs are of one recipe, with other files or versions."
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
            "False positives by type: of each class the best-scored, as many as it has objects; then what lies above",
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
        "By how much it is higher or lower in B:",
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
