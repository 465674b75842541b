"""What each evaluation gives to a report: its numbers, its diagnosis, the detections and images to be shown."""

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
from stages.eval.average_precision import Curve
from stages.eval.pictures import evenly, rows_to_show
from stages.eval.report import PRECISION, read_curves, score_cuts
from stages.matching.error_types import BACKGROUND, FOUND, LOCALISATION, OTHER, SIMILAR, similar_labels

KINDS = {"true": FOUND, "Loc": LOCALISATION, "Sim": SIMILAR, "Oth": OTHER, "BG": BACKGROUND}
MISSED = "missed"
OVERALL_IMAGES, CLASS_IMAGES = 4, 2
SHEET_IMAGES = 8
MOST_CLASSES = 60
MOST_ITEMS = 20_000
MOST_OF_EACH = 60


@dataclass(frozen=True)
class Run:
    """A complete evaluation. `letter` stands for it in plots, `data` is the key of images and annotations."""

    letter: str
    number: int
    graph: Graph
    node: Node
    reader: Reader
    alone: bool

    @property
    def name(self) -> str:
        """The evaluation's table, after the recipe's name where there are several recipes."""
        return self.node.use.name if self.alone else f"{self.graph.recipe.name} · {self.node.use.name}"

    @property
    def summary(self) -> dict[str, Any]:
        """What the eval stage recorded."""
        found: dict[str, Any] = self.reader.manifest["summary"]
        return found

    @property
    def data(self) -> str:
        """The key of the images and annotations."""
        return str(self.reader.manifest["inputs"]["images"])

    @property
    def dataset(self) -> Any:
        """The dataset that it is an evaluation on."""
        return self.graph.dataset(self.node.dataset, "dataset")

    @property
    def protocol(self) -> tuple[str, float, bool]:
        """What must be equal for two evaluations to be compared: data, IoU, difficult objects."""
        return self.data, self.node.settings.iou, self.node.settings.use_difficult

    @property
    def curves(self) -> dict[str, Curve]:
        """Every class's curve."""
        return read_curves(self.reader)

    @property
    def detector(self) -> Node:
        """The node whose detections are evaluated."""
        return detector_of(self.node)


@dataclass(frozen=True, eq=False)
class Item:
    """A detection or a missed object in the gallery.

    `box` float32 [4]; `own` [4] is its object's, None without one; `overlap` the largest IoU with an object of the kind
    that its kind speaks of. `score` and `precision` are None for a missed object, `precision` also where none is known.
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
    """An image with its detections: how many `objects` it has, how many were `found`, how many detections are `false`,
    and the detections that counted: (box float32 [4], kind, class, precision). Without `enough` none was precise enough
    to count, and these are its best whatever their score."""

    image: tuple[str, str]
    objects: int
    found: int
    false: int
    detections: tuple[tuple[Any, str, str, float], ...]
    enough: bool = True

    @property
    def share(self) -> float:
        """selection.shares_right."""
        return self.found / (self.objects + self.false)


@dataclass(frozen=True)
class Look:
    """What of one evaluation is to be looked at. `totals` says of each kind how many there are in all; `sheet` are
    images at equal distances in the dataset; `scenes` maps "" (all classes) and the classes to the best and the worst
    images."""

    items: tuple[Item, ...]
    totals: Mapping[str, int]
    sheet: tuple[Scene, ...]
    scenes: Mapping[str, tuple[tuple[Scene, ...], tuple[Scene, ...]]]


def load_recipes(paths: Sequence[Path], changes: Sequence[str], work: Path | None) -> list[Graph]:
    """The graphs of the recipes, each once; data that several of them read are opened once."""
    datasets: dict[str, Any] = {}
    distinct = {path.resolve(): path for path in paths}
    return [Graph(load_recipe(path, changes), work_folder(work), datasets) for path in distinct.values()]


def complete_runs(graphs: Sequence[Graph]) -> list[Run]:
    """The complete evaluations of the recipes, in their order."""
    found = [(graph, node) for graph in graphs for node in evaluations_of(graph) if complete(graph, node)]
    names = letters(len(found))
    return [
        Run(names[number], number, graph, node, Reader(graph.folder(node)), len(graphs) == 1)
        for number, (graph, node) in enumerate(found)
    ]


def by_protocol(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that can be compared with one another, in one list each."""
    protocols = dict.fromkeys(run.protocol for run in runs)
    return [[run for run in runs if run.protocol == one] for one in protocols]


def by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs on the same images and annotations, in one list each."""
    return [[run for run in runs if run.data == data] for data in dict.fromkeys(run.data for run in runs)]


def similar_of(runs: Sequence[Run]) -> Any:
    """The sets of similar classes for runs on the same data: those of the first recipe with a diagnosis, so that all
    are judged alike."""
    for run in runs:
        if any(node.use.stage.name == "diagnose" for node in run.graph.nodes.values()):
            return similar_sets(run.graph)
    return similar_sets(runs[0].graph)


def evaluated(run: Run, similar: Any) -> Evaluated | str:
    """The evaluation with its detections, or the sentence that says why they are not there."""
    try:
        return open_evaluation(run.graph, run.node.use.name, similar)
    except CacheError as error:
        return str(error)


def diagnosis_of(run: Run, similar: Any, found: Evaluated) -> tuple[dict[str, Any], str | None]:
    """A diagnosis of the run, and the key of the recipe's cache that it is from; None if it is made here, by the same
    rules."""
    for node in run.graph.nodes.values():
        reads = (node.dataset, node.sources.get("detections")) == (run.node.dataset, run.detector)
        if node.use.stage.name != "diagnose" or not reads:
            continue
        alike = node.settings.similar == similar and node.settings.iou == run.node.settings.iou
        if alike and not run.node.settings.use_difficult and manifest_of(run.graph, node):
            reader = Reader(run.graph.folder(node))
            return reader.manifest["summary"], reader.key
    settings = Settings(iou=run.node.settings.iou, similar=similar)
    labels = similar_labels(found.dataset.classes, similar)
    normal = normal_count(settings, found.objects, len(found.detections.image_ids))
    records = {
        name: diagnosis(detections_of(found.detections, name), found.objects, label, labels[name], normal, settings)
        for label, name in enumerate(found.dataset.classes)
    }
    return summary_of(settings, records), None


def look(run: Run, found: Evaluated, most: int) -> Look:
    """The detections and images of an evaluation that are to be shown: `most` of each class and kind."""
    rows = counted_rows(found)
    kinds = {name: rows[found.verdicts[rows] == code] for name, code in KINDS.items()}
    missed = np.flatnonzero((found.found_by < 0) & ~found.objects.difficult)
    items: list[Item] = []
    for name, of_kind in kinds.items():
        labels = found.detections.every.labels[of_kind].astype(np.int64)
        best = of_kind[best_of_each(labels, found.detections.every.scores[of_kind], most)]
        items += [detection_item(run, found, name, int(row)) for row in best]
    boxes = found.objects.boxes.astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    largest = missed[best_of_each(found.objects.labels[missed].astype(np.int64), areas[missed], most)]
    items += [missed_item(run, found, int(row)) for row in largest]
    totals = {**{name: len(of_kind) for name, of_kind in kinds.items()}, MISSED: len(missed)}
    return Look(tuple(items), totals, sheet_of(run, found, rows), scenes_of(run, found, rows))


def counted_rows(found: Evaluated) -> Rows:
    """The rows of the detections of the dataset's classes."""
    known = [name in found.dataset.classes for name in found.detections.classes]
    return np.flatnonzero(np.array(known, bool)[found.detections.every.labels])


def detection_item(run: Run, found: Evaluated, kind: str, row: int) -> Item:
    """One detection for the gallery."""
    every, precision = found.detections.every, float(found.precision[row])
    with_object = kind in ("true", "Loc") and found.own[row] >= 0
    column = {"true": [0], "Loc": [0], "Sim": [1], "Oth": [2], "BG": [0, 1, 2]}[kind]
    return Item(
        run.number,
        found.detections.classes[every.labels[row]],
        kind,
        (run.data, found.detections.image_ids[found.images[row]]),
        every.boxes[row],
        found.objects.boxes[found.own[row]] if with_object else None,
        float(every.scores[row]),
        None if np.isnan(precision) else precision,
        float(found.overlaps[row, column].max()),
    )


def missed_item(run: Run, found: Evaluated, row: int) -> Item:
    """One missed object for the gallery."""
    image = (run.data, found.detections.image_ids[found.objects.images[row]])
    name, box = found.dataset.classes[found.objects.labels[row]], found.objects.boxes[row]
    return Item(run.number, name, MISSED, image, box, box, None, None, None)


def scenes_of(run: Run, found: Evaluated, rows: Rows) -> dict[str, tuple[tuple[Scene, ...], tuple[Scene, ...]]]:
    """The best and the worst images, over all classes and of each of the MOST_CLASSES with the most objects.

    A detection counts if at least PRECISION of its class's detections are right at its score.
    """
    classes, images = list(found.dataset.classes), len(found.detections.image_ids)
    cuts = score_cuts(found.curves, found.detections.classes)
    every = found.detections.every
    shown = rows[every.scores[rows] >= cuts[every.labels[rows]]]
    shown = shown[np.isin(found.verdicts[shown], list(KINDS.values()))]
    names = np.array([classes.index(name) if name in classes else -1 for name in found.detections.classes])
    shown_labels = names[every.labels[shown]]
    plain = np.flatnonzero(~found.objects.difficult)
    positives = np.bincount(found.objects.labels[plain], minlength=len(classes))
    chosen = [int(label) for label in np.argsort(-positives, kind="stable")[:MOST_CLASSES] if positives[label]]
    scenes = {}
    for label, count in [(-1, OVERALL_IMAGES), *((label, CLASS_IMAGES) for label in sorted(chosen))]:
        ours = shown if label < 0 else shown[shown_labels == label]
        own = plain if label < 0 else plain[found.objects.labels[plain] == label]
        true = found.verdicts[ours] == FOUND
        objects = np.bincount(found.objects.images[own], minlength=images)
        right = np.bincount(found.images[ours[true]], minlength=images)
        false = np.bincount(found.images[ours[~true]], minlength=images)
        chosen_images = best_and_worst(shares_right(right, objects, false), objects + false, count)
        scenes["" if label < 0 else classes[label]] = tuple(
            tuple(scene(run, found, int(image), ours, int(objects[image])) for image in of_end)
            for of_end in chosen_images
        )
    return scenes  # type: ignore[return-value]


def sheet_of(run: Run, found: Evaluated, rows: Rows) -> tuple[Scene, ...]:
    """SHEET_IMAGES images at equal distances, the same for every run on the same data, with the detections of a
    precision of PRECISION or more, or, where there are none, the best: see `stages.eval.pictures.rows_to_show`."""
    rows = rows[np.isin(found.verdicts[rows], list(KINDS.values()))]
    readable = np.flatnonzero((found.detections.image_sizes > 0).all(axis=1)).tolist()
    plain = found.objects.images[~found.objects.difficult]
    objects = np.bincount(plain, minlength=len(found.detections.image_ids))
    scenes = []
    for image in evenly(readable, SHEET_IMAGES):
        ours = rows[found.images[rows] == image]
        scores, least = found.detections.every.scores[ours], max(1, int(objects[image]))
        best, enough = rows_to_show(found.precision[ours], scores, PRECISION, least)
        scenes.append(replace(scene(run, found, image, ours[best], int(objects[image])), enough=enough))
    return tuple(scenes)


def scene(run: Run, found: Evaluated, image: int, rows: Rows, objects: int) -> Scene:
    """One image with its detections among `rows`."""
    names = {code: name for name, code in KINDS.items()}
    every = found.detections.every
    ours = rows[found.images[rows] == image]
    detections = tuple(
        (every.boxes[row], names[found.verdicts[row]], found.detections.classes[every.labels[row]],
         float(found.precision[row]))
        for row in ours
    )  # fmt: skip
    right = sum(kind == "true" for _, kind, _, _ in detections)
    key = (run.data, found.detections.image_ids[image])
    return Scene(key, objects, right, len(detections) - right, detections)
