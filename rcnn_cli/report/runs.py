"""What a report shows of each evaluation: its numbers, its diagnosis, detections and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import CacheError, Reader
from rcnn_cli.looking.evaluated import Evaluated, open_evaluation, similar_sets
from rcnn_cli.recipes.detectors import detector_of, evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.report.selection import Rows, best_and_worst, best_of_each, letters, shares_right
from rcnn_cli.running.runner import complete, manifest_of, work_folder
from stages.detections import detections_of
from stages.diagnose import Settings
from stages.diagnose.stage import diagnosis, normal_count, summary_of
from stages.eval.pictures import evenly, rows_to_show
from stages.eval.report import PRECISION, read_curves, score_cuts
from stages.matching.average_precision import Curve
from stages.matching.error_types import BACKGROUND, FOUND, LOCALISATION, OTHER, SIMILAR, similar_labels

KINDS = {"true": FOUND, "Loc": LOCALISATION, "Sim": SIMILAR, "Oth": OTHER, "BG": BACKGROUND}
MISSED = "missed"
OVERALL_IMAGES, CLASS_IMAGES = 4, 2
SHEET_IMAGES = 8
MOST_CLASSES = 60
MOST_ITEMS = 20_000
MOST_OF_EACH = 60


@dataclass(frozen=True)
class CompleteEvaluation:
    """A complete evaluation of anything. `alone`: the report is on one recipe only."""

    graph: Graph
    node: Node
    reader: Reader
    alone: bool

    @property
    def name(self) -> str:
        """The evaluation's table, preceded by the recipe's name if there are several recipes."""
        return self.node.use.name if self.alone else f"{self.graph.recipe.name} · {self.node.use.name}"

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of its cache."""
        summary: dict[str, Any] = self.reader.manifest["summary"]
        return summary


@dataclass(frozen=True)
class Run(CompleteEvaluation):
    """A complete evaluation of detections. `letter`: its name in plots."""

    letter: str
    number: int

    @property
    def data(self) -> str:
        """The key of the images and annotations."""
        return str(self.reader.manifest["inputs"]["images"])

    @property
    def dataset(self) -> Any:
        """The dataset of the evaluation."""
        return self.graph.dataset(self.node.dataset, "dataset")

    @property
    def protocol(self) -> tuple[str, float, bool]:
        """What two evaluations must share to be comparable: data, IoU, treatment of difficult objects."""
        return self.data, self.node.settings.iou, self.node.settings.use_difficult

    @property
    def curves(self) -> dict[str, Curve]:
        """The precision-recall curve of every class."""
        return read_curves(self.reader)

    @property
    def detector(self) -> Node:
        """The node whose detections are evaluated."""
        return detector_of(self.node)


@dataclass(frozen=True, eq=False)
class Item:
    """A detection or a missed object in the gallery.

    `box`: float32 [4], in pixels of the image; `own`: the box of its object, [4], or None; `overlap`: the largest IoU
    with an object of the relevant class (its own, a similar or another one, by `kind`). `score` and `precision` are
    None for a missed object, `precision` also if unknown.
    """

    run: int
    class_name: str
    kind: str
    image: tuple[str, str]
    box: Any
    own: Any
    score: float | None
    precision: float | None
    overlap: float | None


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its detections: its numbers of `objects`, of objects `found` and of `false` detections, and the
    detections that count as (box float32 [4], kind, class, precision). Without `enough`, none was precise enough to
    count, and `detections` are the best ones, whatever their score."""

    image: tuple[str, str]
    objects: int
    found: int
    false: int
    detections: tuple[tuple[Any, str, str, float], ...]
    enough: bool = True

    @property
    def share(self) -> float:
        """The image's share right, as in `selection.shares_right`."""
        return self.found / (self.objects + self.false)


@dataclass(frozen=True)
class Look:
    """The detections and images of one evaluation to show. `totals`: the number of items of each kind, shown or not;
    `sheet`: evenly spaced images of the dataset; `scenes`: the best and worst images, for "" (all classes) and for each
    class."""

    items: tuple[Item, ...]
    totals: Mapping[str, int]
    sheet: tuple[Scene, ...]
    scenes: Mapping[str, tuple[tuple[Scene, ...], tuple[Scene, ...]]]


def load_recipes(paths: Sequence[Path], changes: Sequence[str], work: Path | None) -> list[Graph]:
    """The graphs of the recipes, each once; datasets that several of them read are opened once."""
    datasets: dict[str, Any] = {}
    distinct = {path.resolve(): path for path in paths}
    return [Graph(load_recipe(path, changes), work_folder(work), datasets) for path in distinct.values()]


def complete_runs(graphs: Sequence[Graph]) -> list[Run]:
    """The recipes' complete evaluations, in order."""
    evaluations = [(graph, node) for graph in graphs for node in evaluations_of(graph) if complete(graph, node)]
    names = letters(len(evaluations))
    return [
        Run(graph, node, Reader(graph.folder(node)), len(graphs) == 1, names[number], number)
        for number, (graph, node) in enumerate(evaluations)
    ]


def by_protocol(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups of comparable ones."""
    protocols = dict.fromkeys(run.protocol for run in runs)
    return [[run for run in runs if run.protocol == protocol] for protocol in protocols]


def by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups with the same images and annotations."""
    return [[run for run in runs if run.data == data] for data in dict.fromkeys(run.data for run in runs)]


def similar_of(runs: Sequence[Run]) -> Any:
    """The sets of similar classes for runs on the same data: those of the first recipe with a diagnosis, so that all
    runs are judged by the same sets."""
    for run in runs:
        if any(node.use.stage.name == "diagnose" for node in run.graph.nodes.values()):
            return similar_sets(run.graph)
    return similar_sets(runs[0].graph)


def evaluated(run: Run, similar: Any) -> Evaluated | str:
    """The evaluation with its detections, or a sentence that says why it cannot be opened."""
    try:
        return open_evaluation(run.graph, run.node.use.name, similar)
    except CacheError as error:
        return str(error)


def diagnosis_of(run: Run, similar: Any, evaluated: Evaluated) -> tuple[dict[str, Any], str | None]:
    """(a diagnosis of the run, the key of the recipe's cache that it is from, or None if it is computed here by the
    same rules)."""
    for node in run.graph.nodes.values():
        reads = (node.dataset, node.sources.get("detections")) == (run.node.dataset, run.detector)
        if node.use.stage.name != "diagnose" or not reads:
            continue
        same_rules = node.settings.similar == similar and node.settings.iou == run.node.settings.iou
        if same_rules and not run.node.settings.use_difficult and manifest_of(run.graph, node):
            reader = Reader(run.graph.folder(node))
            return reader.manifest["summary"], reader.key
    settings = Settings(iou=run.node.settings.iou, similar=similar)
    labels = similar_labels(evaluated.dataset.classes, similar)
    normal = normal_count(settings, evaluated.objects, len(evaluated.detections.image_ids))
    records = {
        name: diagnosis(
            detections_of(evaluated.detections, name), evaluated.objects, label, labels[name], normal, settings
        )
        for label, name in enumerate(evaluated.dataset.classes)
    }
    return summary_of(settings, records), None


def look(run: Run, evaluated: Evaluated, most: int) -> Look:
    """The detections and images of an evaluation to show: at most `most` of each class and kind."""
    rows = counted_rows(evaluated)
    kinds = {name: rows[evaluated.verdicts[rows] == code] for name, code in KINDS.items()}
    missed = np.flatnonzero((evaluated.found_by < 0) & ~evaluated.objects.difficult)
    items: list[Item] = []
    for name, of_kind in kinds.items():
        labels = evaluated.detections.every.labels[of_kind].astype(np.int64)
        best = of_kind[best_of_each(labels, evaluated.detections.every.scores[of_kind], most)]
        items += [detection_item(run, evaluated, name, int(row)) for row in best]
    boxes = evaluated.objects.boxes.astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    largest = missed[best_of_each(evaluated.objects.labels[missed].astype(np.int64), areas[missed], most)]
    items += [missed_item(run, evaluated, int(row)) for row in largest]
    totals = {**{name: len(of_kind) for name, of_kind in kinds.items()}, MISSED: len(missed)}
    return Look(tuple(items), totals, sheet_of(run, evaluated, rows), scenes_of(run, evaluated, rows))


def counted_rows(evaluated: Evaluated) -> Rows:
    """The rows of the detections whose class is in the dataset: int64 [k]."""
    known = [name in evaluated.dataset.classes for name in evaluated.detections.classes]
    return np.flatnonzero(np.array(known, bool)[evaluated.detections.every.labels])


def detection_item(run: Run, evaluated: Evaluated, kind: str, row: int) -> Item:
    """The detection `row` as an item of the gallery."""
    every, precision = evaluated.detections.every, float(evaluated.precision[row])
    with_object = kind in ("true", "Loc") and evaluated.own[row] >= 0
    column = {"true": [0], "Loc": [0], "Sim": [1], "Oth": [2], "BG": [0, 1, 2]}[kind]
    return Item(
        run.number,
        evaluated.detections.classes[every.labels[row]],
        kind,
        (run.data, evaluated.detections.image_ids[evaluated.images[row]]),
        every.boxes[row],
        evaluated.objects.boxes[evaluated.own[row]] if with_object else None,
        float(every.scores[row]),
        None if np.isnan(precision) else precision,
        float(evaluated.overlaps[row, column].max()),
    )


def missed_item(run: Run, evaluated: Evaluated, row: int) -> Item:
    """The missed object `row` as an item of the gallery."""
    image = (run.data, evaluated.detections.image_ids[evaluated.objects.images[row]])
    name, box = evaluated.dataset.classes[evaluated.objects.labels[row]], evaluated.objects.boxes[row]
    return Item(run.number, name, MISSED, image, box, box, None, None, None)


def scenes_of(run: Run, evaluated: Evaluated, rows: Rows) -> dict[str, tuple[tuple[Scene, ...], tuple[Scene, ...]]]:
    """The best and worst images, over all classes ("") and for each of the MOST_CLASSES classes with the most objects.

    A detection counts if its class's precision at its score is at least PRECISION.
    """
    classes, images = list(evaluated.dataset.classes), len(evaluated.detections.image_ids)
    cuts = score_cuts(evaluated.curves, evaluated.detections.classes)
    every = evaluated.detections.every
    shown = rows[every.scores[rows] >= cuts[every.labels[rows]]]
    shown = shown[np.isin(evaluated.verdicts[shown], list(KINDS.values()))]
    names = np.array([classes.index(name) if name in classes else -1 for name in evaluated.detections.classes])
    shown_labels = names[every.labels[shown]]
    plain = np.flatnonzero(~evaluated.objects.difficult)
    positives = np.bincount(evaluated.objects.labels[plain], minlength=len(classes))
    chosen = [int(label) for label in np.argsort(-positives, kind="stable")[:MOST_CLASSES] if positives[label]]
    scenes = {}
    for label, count in [(-1, OVERALL_IMAGES), *((label, CLASS_IMAGES) for label in sorted(chosen))]:
        ours = shown if label < 0 else shown[shown_labels == label]
        own = plain if label < 0 else plain[evaluated.objects.labels[plain] == label]
        true = evaluated.verdicts[ours] == FOUND
        objects = np.bincount(evaluated.objects.images[own], minlength=images)
        right = np.bincount(evaluated.images[ours[true]], minlength=images)
        false = np.bincount(evaluated.images[ours[~true]], minlength=images)
        chosen_images = best_and_worst(shares_right(right, objects, false), objects + false, count)
        scenes["" if label < 0 else classes[label]] = tuple(
            tuple(scene(run, evaluated, int(image), ours, int(objects[image])) for image in of_end)
            for of_end in chosen_images
        )
    return scenes  # type: ignore[return-value]


def sheet_of(run: Run, evaluated: Evaluated, rows: Rows) -> tuple[Scene, ...]:
    """SHEET_IMAGES evenly spaced images, the same for every run on the same data, with the detections that have at
    least PRECISION or, if there are none, the best ones: see `stages.eval.pictures.rows_to_show`."""
    rows = rows[np.isin(evaluated.verdicts[rows], list(KINDS.values()))]
    readable = np.flatnonzero((evaluated.detections.image_sizes > 0).all(axis=1)).tolist()
    plain = evaluated.objects.images[~evaluated.objects.difficult]
    objects = np.bincount(plain, minlength=len(evaluated.detections.image_ids))
    scenes = []
    for image in evenly(readable, SHEET_IMAGES):
        ours = rows[evaluated.images[rows] == image]
        scores, least = evaluated.detections.every.scores[ours], max(1, int(objects[image]))
        best, enough = rows_to_show(evaluated.precision[ours], scores, PRECISION, least)
        scenes.append(replace(scene(run, evaluated, image, ours[best], int(objects[image])), enough=enough))
    return tuple(scenes)


def scene(run: Run, evaluated: Evaluated, image: int, rows: Rows, objects: int) -> Scene:
    """One image with those of its detections that are in `rows`."""
    names = {code: name for name, code in KINDS.items()}
    every = evaluated.detections.every
    ours = rows[evaluated.images[rows] == image]
    detections = tuple(
        (every.boxes[row], names[evaluated.verdicts[row]], evaluated.detections.classes[every.labels[row]],
         float(evaluated.precision[row]))
        for row in ours
    )  # fmt: skip
    right = sum(kind == "true" for _, kind, _, _ in detections)
    key = (run.data, evaluated.detections.image_ids[image])
    return Scene(key, objects, right, len(detections) - right, detections)
