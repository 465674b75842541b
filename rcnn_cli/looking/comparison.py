"""`rcnn compare`: where two runs differ: settings, AP of each class, kinds of errors, and single images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from rcnn_cli.looking.evaluated import NAMES, Evaluated, error_settings, evaluation_node, open_evaluation
from rcnn_cli.recipes.differences import Difference, differences
from rcnn_cli.recipes.graph import Graph
from stages.contract.errors import StageError
from stages.detections import detections_of
from stages.diagnose import Settings as DiagnoseSettings
from stages.diagnose.false_positives import top_false_positives
from stages.eval.bootstrap import (
    CONFIDENCE,
    image_weights,
    percentile_interval,
    resampled_average_precision,
    resampled_mean,
)
from stages.eval.by_image import ImageCounts, by_image
from stages.eval.report import MEASURES, score_cuts
from stages.matching.detections import by_rank, match_devkit
from stages.matching.error_types import DIFFICULT, FOUND, LOCALISATION, TYPES
from stages.matching.ground_truth import listed

log = logging.getLogger("rcnn")

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
    has = [bool(graph.making("diagnosis")) for graph in (a, b)]
    first, second = error_settings(a), error_settings(b)
    if all(has) and (first.similar, first.poor_iou) != (second.similar, second.poor_iou):
        log.warning("the recipes' [diagnose] differ: A's decides the error types of both runs")
    return second if has == [False, True] else first


def check_comparable(one: Evaluated, other: Evaluated) -> None:
    """Raises StageError unless both evaluate the same images, annotations and classes by the same rules; says aloud
    what else makes the comparison unfair."""
    a, b = (f"{found.graph.recipe.path} [{found.name}]" for found in (one, other))
    if one.detections.image_ids != other.detections.image_ids or one.dataset.images_key != other.dataset.images_key:
        raise StageError(
            f"{a} and {b} evaluate different images ({len(one.detections.image_ids)} of {one.dataset.name} and "
            f"{len(other.detections.image_ids)} of {other.dataset.name}); compare runs on the same dataset"
        )
    if one.dataset.annotations_key != other.dataset.annotations_key:
        raise StageError(
            f"{a} and {b} evaluate the same images with different annotations, classes or order of classes "
            f"({listed(one.dataset.classes)}; {listed(other.dataset.classes)}); compare runs on the same dataset"
        )
    for setting in ("iou", "metric", "use_difficult"):
        values = getattr(one.node.settings, setting), getattr(other.node.settings, setting)
        if values[0] != values[1]:
            raise StageError(
                f"{a} and {b} evaluate by different rules: {setting} is {values[0]} and {values[1]}; "
                "use the same for both"
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
    classes = found.dataset.classes
    aps = np.zeros((len(classes), resamples))
    for row, (name, (_, objects)) in enumerate(zip(classes, found.objects.by_class(len(classes)), strict=True)):
        detections = detections_of(found.detections, name)
        matches = match_devkit(detections, objects, settings.iou)
        aps[row] = resampled_average_precision(detections, objects, matches, weights)[column]
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
