"""An evaluation opened to be looked at: what each detection is, and what became of each object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import IncompleteCache, Reader
from rcnn_cli.graph import Graph, Node
from rcnn_cli.runner import complete
from stages.detections import DetectionSet, detections_of, read_detections
from stages.diagnose import SIMILAR
from stages.diagnose.false_positives import (
    BACKGROUND,
    DIFFICULT,
    FALSE,
    FOUND,
    IGNORED,
    LOCALISATION,
    OTHER,
    TRUE,
    largest_overlaps,
    similar_labels,
    types_of,
)
from stages.diagnose.false_positives import SIMILAR as SIMILAR_CLASS
from stages.diagnose.objects import Objects, read_objects
from stages.errors import StageError
from stages.eval.average_precision import Curve, best_objects, match_detections
from stages.eval.average_precision import Objects as ClassObjects
from stages.eval.report import read_curves

NAMES = {
    FOUND: "true",
    DIFFICULT: "ignored",
    LOCALISATION: "Loc",
    SIMILAR_CLASS: "Sim",
    OTHER: "Oth",
    BACKGROUND: "BG",
}
"""What a detection can be, in words."""
POOR_IOU = 0.1


@dataclass(frozen=True)
class Evaluated:
    """One complete evaluation of a recipe in memory. n detections (rows of `detections.every`), m objects.

    `verdicts` int8 [n]: FOUND, DIFFICULT, LOCALISATION, SIMILAR, OTHER or BACKGROUND of stages.diagnose, true and
    ignored by the evaluation's own rules (VOCevaldet.m). `own` int64 [n]: the object of its class that a detection
    overlaps most, an index into `objects`, -1 where its image has none; `overlaps` float64 [n, 3]: the largest IoU with
    an object of its class, of a similar class, of another. `precision` float64 [n]: the detector's on its own curve at
    the detection's score (figures 8 to 11; nan for a class that was not evaluated). `found_by` int64 [m]: the row of
    the detection that found an object, -1 if it was missed. Objects lie in the order of `detections.image_ids`.
    """

    graph: Graph
    node: Node
    detector: Node
    reader: Reader
    dataset: Any
    detections: DetectionSet
    objects: Objects
    curves: Mapping[str, Curve]
    verdicts: NDArray[np.int8]
    own: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    precision: NDArray[np.float64]
    found_by: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The evaluation's table in the recipe: "eval"."""
        return self.node.use.name

    @property
    def summary(self) -> dict[str, Any]:
        """mAP, each class's AP and the rest that the eval stage recorded."""
        found: dict[str, Any] = self.reader.manifest["summary"]
        return found

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """The image of each detection, int64 [n], an index into `detections.image_ids`."""
        return np.repeat(np.arange(len(self.detections.image_ids)), np.diff(self.detections.offsets))


def evaluations_of(graph: Graph) -> list[Node]:
    """The recipe's evaluations, complete or not, in its order."""
    return [node for node in graph.nodes.values() if node.use.stage.makes == "evaluation"]


def evaluation_node(graph: Graph, name: str | None = None) -> Node:
    """The evaluation with the given name; else the one named "eval", else the recipe's last.

    Raises StageError where there is none.
    """
    nodes = evaluations_of(graph)
    if not nodes:
        raise StageError(f"{graph.recipe.path}: evaluates nothing; add a table [eval]")
    if name is None:
        return next((node for node in nodes if node.use.name == "eval"), nodes[-1])
    chosen = [node for node in nodes if node.use.name == name]
    if not chosen:
        names = ", ".join(node.use.name for node in nodes)
        raise StageError(f"{graph.recipe.path}: has no evaluation '{name}'; it has {names}")
    return chosen[0]


def open_evaluation(graph: Graph, name: str | None = None, similar: Any = None) -> Evaluated:
    """An evaluation of the recipe, with all that it was made from.

    `similar` are sets of similar classes that stand for the recipe's own.
    Raises StageError where the recipe has none of that name, IncompleteCache, naming the command to run, where it or
    its detections are not complete.
    """
    node = evaluation_node(graph, name)
    detector = node.sources["detections"]
    assert isinstance(detector, Node)
    for one in (detector, node):
        if not complete(graph, one):
            raise IncompleteCache(f"{one.name} is not complete; run `rcnn run {graph.recipe.path}` first")
    dataset = graph.dataset(node.split or "test", "boxes")
    detections = read_detections(Reader(graph.folder(detector)))
    objects = read_objects(dataset, detections.image_ids)
    if node.settings.use_difficult:
        objects = dataclasses.replace(objects, difficult=np.zeros(len(objects), bool))
    reader = Reader(graph.folder(node))
    curves = read_curves(reader)
    alike = similar_labels(dataset.classes, similar_sets(graph) if similar is None else similar)
    found = Evaluated(
        graph,
        node,
        detector,
        reader,
        dataset,
        detections,
        objects,
        curves,
        verdicts=np.full(len(detections), BACKGROUND, np.int8),
        own=np.full(len(detections), -1, np.int64),
        overlaps=np.zeros((len(detections), 3)),
        precision=np.full(len(detections), np.nan),
        found_by=np.full(len(objects), -1, np.int64),
    )
    for label, class_name in enumerate(dataset.classes):
        judge_class(found, label, class_name, alike[class_name], node.settings.iou)
    return found


def judge_class(found: Evaluated, label: int, name: str, similar: list[int], iou: float) -> None:
    """Fills in the rows of one class: what its detections are, and which of its objects they found."""
    rows = found.detections.class_rows.get(name, np.zeros(0, np.int64))
    ours = np.flatnonzero(found.objects.labels == label)
    detections = detections_of(found.detections, name)
    objects = ClassObjects(found.objects.images[ours], found.objects.boxes[ours], found.objects.difficult[ours])
    matches = match_detections(detections, objects, iou)
    best, _ = best_objects(detections, objects)
    overlaps = largest_overlaps(detections, found.objects, label, similar)
    verdicts = np.where(matches.found, TRUE, np.where(matches.ignored, IGNORED, FALSE)).astype(np.int8)
    found.verdicts[rows] = types_of(verdicts, overlaps, POOR_IOU)
    found.overlaps[rows] = overlaps
    has_object = best >= 0
    found.own[rows[has_object]] = ours[best[has_object]]
    found.found_by[ours[best[matches.found]]] = rows[matches.found]
    if name in found.curves:
        found.precision[rows] = precision_at(found.curves[name], detections.scores)


def precision_at(curve: Curve, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The precision of all detections that score at least each of `scores` [n]: float64 [n], nan where none counts."""
    last = np.searchsorted(-curve.scores, -scores, side="right") - 1
    known = np.concatenate([curve.precision, [np.nan]])
    return known[last]


def similar_sets(graph: Graph) -> Any:
    """The sets of similar classes that the recipe's [diagnose] names, else VOC's."""
    for node in graph.nodes.values():
        if node.use.stage.name == "diagnose":
            return node.settings.similar
    return SIMILAR
