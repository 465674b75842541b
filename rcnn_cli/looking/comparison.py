"""`rcnn compare`: how two runs differ in settings, AP per class, types of errors and single images."""

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
from stages.eval.bootstrap import resampled_average_precision
from stages.eval.by_image import ImageCounts, by_image
from stages.eval.report import MEASURES, score_cuts
from stages.matching.detections import by_rank, match_devkit
from stages.matching.error_types import DIFFICULT, FOUND, LOCALISATION, TYPES
from stages.matching.ground_truth import listed
from stages.resampling import CONFIDENCE, image_weights, percentile_interval, resampled_mean

log = logging.getLogger("rcnn")

NEWS = ("newly_found", "lost", "newly_false", "no_longer_false")


@dataclass(frozen=True)
class Side:
    """One of the two runs: its evaluation, and the detections *shown*: those with a precision of at least 0.5."""

    name: str
    evaluated: Evaluated

    @cached_property
    def cuts(self) -> NDArray[np.float32]:
        """For each of the detector's K classes, the lowest score with a precision of 0.5: float32 [K]."""
        return score_cuts(self.evaluated.curves, self.evaluated.detections.classes)

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """Which of the n detections are shown: bool [n]."""
        every = self.evaluated.detections.every
        return every.scores >= self.cuts[every.labels]

    @cached_property
    def true(self) -> NDArray[np.bool_]:
        """Which detections are shown and true: bool [n]."""
        return self.shown & (self.evaluated.verdicts == FOUND)

    @cached_property
    def false(self) -> NDArray[np.bool_]:
        """Which detections are shown and false: bool [n]."""
        return self.shown & (self.evaluated.verdicts >= LOCALISATION)

    @cached_property
    def counts(self) -> ImageCounts:
        """What the run finds and gets wrong in each image."""
        evaluated = self.evaluated
        return by_image(
            evaluated.images, self.true, self.false, evaluated.precision, len(evaluated.detections.image_ids)
        )

    @cached_property
    def has_found(self) -> NDArray[np.bool_]:
        """Which of the m objects a shown detection finds: bool [m]."""
        by = self.evaluated.found_by
        return (by >= 0) & self.true[by] if len(self.true) else np.zeros(len(by), bool)

    def kinds(self, image: int) -> Counter[str]:
        """How many false positives are shown in an image, by type and class ("Loc disc")."""
        rows = np.flatnonzero(self.false & (self.evaluated.images == image))
        classes, labels = self.evaluated.detections.classes, self.evaluated.detections.every.labels
        return Counter(f"{NAMES[int(self.evaluated.verdicts[row])]} {classes[labels[row]]}" for row in rows)


def open_sides(a: Graph, b: Graph, evaluation: str | None, evaluation_b: str | None) -> tuple[Side, Side]:
    """Both evaluations, judged by the same sets of similar classes. `evaluation_b` defaults to `evaluation`.

    Raises StageError if they cannot be compared: the same evaluation twice, or different images, annotations, classes
    or rules.
    """
    first, second = evaluation_node(a, evaluation), evaluation_node(b, evaluation_b or evaluation)
    if a.identity(first).key == b.identity(second).key:
        raise StageError(
            f"{a.recipe.path} [{first.use.name}] and {b.recipe.path} [{second.use.name}] are the same evaluation: "
            f"there is nothing to compare; name another recipe, or another table with --evaluation-b"
        )
    errors = common_errors(a, b)
    evaluated_a = open_evaluation(a, first.use.name, errors.similar, errors.poor_iou)
    evaluated_b = open_evaluation(b, second.use.name, errors.similar, errors.poor_iou)
    check_comparable(evaluated_a, evaluated_b)
    return (
        Side(f"{a.recipe.name} {evaluated_a.name}", evaluated_a),
        Side(f"{b.recipe.name} {evaluated_b.name}", evaluated_b),
    )


def common_errors(a: Graph, b: Graph) -> DiagnoseSettings:
    """The diagnosis settings by which both are judged: A's, or B's if only B has a [diagnose]; warns if they differ."""
    has = [bool(graph.making("diagnosis")) for graph in (a, b)]
    first, second = error_settings(a), error_settings(b)
    if all(has) and (first.similar, first.poor_iou) != (second.similar, second.poor_iou):
        log.warning("the recipes' [diagnose] tables differ; A's is used for the error types of both runs")
    return second if has == [False, True] else first


def check_comparable(first: Evaluated, second: Evaluated) -> None:
    """Raises StageError unless both evaluate the same images, annotations and classes by the same rules; warns of
    anything else that makes the comparison unfair."""
    a, b = (f"{evaluated.graph.recipe.path} [{evaluated.name}]" for evaluated in (first, second))
    if (
        first.detections.image_ids != second.detections.image_ids
        or first.dataset.images_key != second.dataset.images_key
    ):
        raise StageError(
            f"{a} and {b} evaluate different images ({len(first.detections.image_ids)} of {first.dataset.name} and "
            f"{len(second.detections.image_ids)} of {second.dataset.name}); compare runs on the same dataset"
        )
    if first.dataset.annotations_key != second.dataset.annotations_key:
        raise StageError(
            f"{a} and {b} evaluate the same images with different annotations, classes or order of classes "
            f"({listed(first.dataset.classes)}; {listed(second.dataset.classes)}); compare runs on the same dataset"
        )
    for setting in ("iou", "metric", "use_difficult"):
        values = getattr(first.node.settings, setting), getattr(second.node.settings, setting)
        if values[0] != values[1]:
            raise StageError(
                f"{a} and {b} evaluate by different rules: {setting} is {values[0]} in A, {values[1]} in B; "
                "use the same for both"
            )
    for name, evaluated in ((a, first), (b, second)):
        skipped = Reader(evaluated.graph.folder(evaluated.detector)).manifest.get("skipped", {})
        if skipped:
            whose = "image was skipped: its" if len(skipped) == 1 else "images were skipped: their"
            log.warning("%s: %d unreadable %s objects count as missed", name, len(skipped), whose)
        unknown = [each for each in evaluated.dataset.classes if each not in evaluated.detections.classes]
        if unknown:
            log.warning(
                "%s: classes unknown to the detector, so all their objects are missed: %s", name, listed(unknown)
            )


def compare(a: Side, b: Side, resamples: int) -> dict[str, Any]:
    """The whole comparison as JSON values; differences are B minus A, None is a number that does not exist."""
    first, second = a.evaluated, b.evaluated
    measure = MEASURES[first.node.settings.metric]
    seed = first.node.settings.bootstrap_seed
    sampled = [resampled_aps(side.evaluated, resamples, seed) for side in (a, b)]
    classes = []
    for row, name in enumerate(first.dataset.classes):
        aps = [side.evaluated.summary["classes"][name][measure] for side in (a, b)]
        classes.append(
            {
                "class": name,
                "objects": first.summary["classes"][name]["positives"],
                **with_difference(aps, [side[row] for side in sampled]),
            }
        )
    return {
        "a": side_as_json(a),
        "b": side_as_json(b),
        "metric": first.node.settings.metric,
        "iou": first.node.settings.iou,
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "differences": [as_values(each) for each in differences(first.graph, first.node, second.graph, second.node)],
        "map": with_difference(
            [side.evaluated.summary["map"] for side in (a, b)], [resampled_mean(side) for side in sampled]
        ),
        "classes": classes,
        "errors": [errors_of(side) for side in (a, b)],
        "images": images_as_json(a, b),
    }


def resampled_aps(evaluated: Evaluated, resamples: int, seed: int) -> NDArray[np.float64]:
    """The AP of each class, by the evaluation's metric, in each of B resamples: float64 [classes, B]."""
    settings = evaluated.node.settings
    weights = image_weights(len(evaluated.detections.image_ids), resamples, seed)
    column = list(MEASURES).index(settings.metric)
    classes = evaluated.dataset.classes
    aps = np.zeros((len(classes), resamples))
    for row, (name, (_, objects)) in enumerate(zip(classes, evaluated.objects.by_class(len(classes)), strict=True)):
        detections = detections_of(evaluated.detections, name)
        matches = match_devkit(detections, objects, settings.iou)
        aps[row] = resampled_average_precision(detections, objects, matches, weights)[column]
    return aps


def with_difference(values: Sequence[float | None], sampled: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Two values, their difference (second minus first) and the intervals of all three; `differs`: zero is outside."""
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


def side_as_json(side: Side) -> dict[str, Any]:
    """A run as JSON values: recipe, evaluation, detector, dataset, keys."""
    evaluated = side.evaluated
    return {
        "name": side.name,
        "recipe": str(evaluated.graph.recipe.path),
        "evaluation": evaluated.name,
        "detector": evaluated.detector.name,
        "dataset": evaluated.dataset.name,
        "images": len(evaluated.detections.image_ids),
        "keys": {"evaluation": evaluated.reader.key, "detections": evaluated.graph.identity(evaluated.detector).key},
    }


def as_values(difference: Difference) -> dict[str, Any]:
    """A difference as JSON values."""
    return {**vars(difference), "text": str(difference)}


def errors_of(side: Side) -> dict[str, Any]:
    """What a run finds, misses and gets wrong.

    `top`: each class's top-ranked false positives, as many as it has objects, by type (as in `rcnn diagnose`). `shown`,
    `found`, `missed` and `ignored` refer to the detections shown.
    """
    evaluated = side.evaluated
    top: Counter[str] = Counter()
    for name, rows in evaluated.detections.class_rows.items():
        if name in evaluated.curves:
            order = by_rank(detections_of(evaluated.detections, name))
            top.update(top_false_positives(evaluated.verdicts[rows][order], evaluated.curves[name].positives))
    to_find = ~evaluated.objects.difficult
    return {
        "top": {kind: top[kind] for kind in TYPES},
        "shown": {kind: int(np.sum(side.shown & (evaluated.verdicts == code))) for kind, code in TYPES.items()},
        "found": int(np.sum(side.has_found & to_find)),
        "missed": int(np.sum(~side.has_found & to_find)),
        "ignored": int(np.sum(side.shown & (evaluated.verdicts == DIFFICULT))),
    }


def images_as_json(a: Side, b: Side) -> list[dict[str, Any]]:
    """Every image, in the dataset's order: what both runs do on it, and what B newly finds, loses and gets wrong."""
    objects, names = a.evaluated.objects, a.evaluated.dataset.classes
    to_find = ~objects.difficult
    every = np.bincount(objects.images[to_find], minlength=len(a.evaluated.detections.image_ids))
    outcomes = []
    for image, image_id in enumerate(a.evaluated.detections.image_ids):
        own = np.flatnonzero((objects.images == image) & to_find)
        gained = [names[objects.labels[row]] for row in own if b.has_found[row] and not a.has_found[row]]
        lost = [names[objects.labels[row]] for row in own if a.has_found[row] and not b.has_found[row]]
        wrong_a, wrong_b = a.kinds(image), b.kinds(image)
        outcomes.append(
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
    return outcomes


def changed_images(comparison: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The images that got better and those that got worse, the largest change first, among those in which something is
    newly found, lost, newly false or no longer false."""
    changed = [image for image in comparison["images"] if any(image[news] for news in NEWS)]
    return {
        "better": sorted((image for image in changed if image["gain"] > 0), key=lambda image: -image["gain"]),
        "worse": sorted((image for image in changed if image["gain"] < 0), key=lambda image: image["gain"]),
    }
