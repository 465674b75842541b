"""An evaluation opened to be looked at: what each detection is, and what became of each object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import IncompleteCache, Reader
from rcnn_cli.recipes.detectors import detector_of, evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import complete
from stages.contract.errors import StageError
from stages.detections import DetectionSet, read_detections
from stages.diagnose import Settings as DiagnoseSettings
from stages.eval.average_precision import Curve, calibrated_precision
from stages.eval.report import read_curves
from stages.matching.error_types import (
    BACKGROUND,
    DIFFICULT,
    FOUND,
    LOCALISATION,
    OTHER,
    SIMILAR,
)
from stages.matching.judgement import judge
from stages.matching.objects import Objects, counted_objects, read_objects

NAMES = {
    FOUND: "true",
    DIFFICULT: "ignored",
    LOCALISATION: "Loc",
    SIMILAR: "Sim",
    OTHER: "Oth",
    BACKGROUND: "BG",
}
"""What a detection can be, in words."""


@dataclass(frozen=True)
class Evaluated:
    """One complete evaluation of a recipe in memory. n detections (rows of `detections.every`), m objects.

    `verdicts`, `own`, `overlaps` and `found_by` are those of `Judged`. `precision` float64 [n]: the detector's on its
    own curve at the detection's score (figures 8 to 11; nan for a class that was not evaluated). Objects lie in the
    order of `detections.image_ids`; with `use_difficult` none of them is difficult.
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


def evaluation_node(graph: Graph, name: str | None = None) -> Node:
    """The evaluation with the given name, by default the main one (see `rcnn_cli.recipes.detectors`).

    Raises StageError where there is none.
    """
    nodes = evaluations_of(graph)
    if not nodes:
        raise StageError(f"{graph.recipe.path}: evaluates nothing; add a table [eval]")
    if name is None:
        return nodes[0]
    chosen = [node for node in nodes if node.use.name == name]
    if not chosen:
        names = ", ".join(node.use.name for node in nodes)
        raise StageError(f"{graph.recipe.path}: has no evaluation '{name}'; it has {names}")
    return chosen[0]


def complete_evaluation(graph: Graph, name: str | None = None) -> Node:
    """`evaluation_node`, complete with its detections. Raises IncompleteCache, naming the command to run, if not."""
    node = evaluation_node(graph, name)
    for one in (detector_of(node), node):
        if not complete(graph, one):
            raise IncompleteCache(f"{one.name} is not complete; run `rcnn run {graph.recipe.path}` first")
    return node


def open_evaluation(
    graph: Graph, name: str | None = None, similar: Any = None, poor_iou: float | None = None
) -> Evaluated:
    """An evaluation of the recipe, with all that it was made from.

    `similar` are sets of similar classes, `poor_iou` the least IoU of a poor localisation, that stand for the recipe's
    own. Raises StageError where the recipe has none of that name, IncompleteCache, naming the command to run, where it
    or its detections are not complete.
    """
    node = complete_evaluation(graph, name)
    detector = detector_of(node)
    dataset = graph.dataset(node.dataset, "dataset")
    detections = read_detections(Reader(graph.folder(detector)))
    objects = counted_objects(read_objects(dataset, detections.image_ids), node.settings.use_difficult)
    reader = Reader(graph.folder(node))
    curves = read_curves(reader)
    errors = error_settings(graph)
    judged = judge(
        detections,
        objects,
        dataset.classes,
        node.settings.iou,
        errors.similar if similar is None else similar,
        errors.poor_iou if poor_iou is None else poor_iou,
    )
    return Evaluated(
        graph,
        node,
        detector,
        reader,
        dataset,
        detections,
        objects,
        curves,
        judged.verdicts,
        judged.own,
        judged.overlaps,
        precisions(detections, curves),
        judged.found_by,
    )


def precisions(detections: DetectionSet, curves: Mapping[str, Curve]) -> NDArray[np.float64]:
    """The precision of each class at its detections' scores (`calibrated_precision`), float64 [n]; nan without a
    curve."""
    precision = np.full(len(detections), np.nan)
    for name, rows in detections.class_rows.items():
        if name in curves:
            precision[rows] = calibrated_precision(curves[name], detections.every.scores[rows])
    return precision


def error_settings(graph: Graph) -> DiagnoseSettings:
    """What is similar, and what a poor localisation: as the recipe's first [diagnose] says, else the defaults."""
    nodes = graph.making("diagnosis")
    found: DiagnoseSettings = nodes[0].settings if nodes else DiagnoseSettings()
    return found


def similar_sets(graph: Graph) -> Any:
    """The sets of similar classes that the recipe's [diagnose] names, else VOC's."""
    return error_settings(graph).similar
