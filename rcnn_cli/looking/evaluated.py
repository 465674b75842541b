"""An evaluation in memory: what each detection is, and whether each object is found."""

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
from stages.detect import score_of
from stages.detections import DetectionSet, read_detections
from stages.diagnose import Settings as DiagnoseSettings
from stages.eval.calibration import Calibration, half_of_images, measure_calibration
from stages.eval.confusion import MOST_CLASSES, Confusion, measure_confusion
from stages.eval.report import read_curves
from stages.matching.average_precision import Curve, calibrated_precision
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
"""The short names of a detection's verdicts."""


@dataclass(frozen=True)
class Evaluated:
    """A complete evaluation of a recipe in memory, with n detections (rows of `detections.every`) and m objects.

    `verdicts`, `own`, `overlaps` and `found_by` are those of `Judged`. `precision`, float64 [n]: the detector's
    precision at the detection's score, from its curve (as in figures 8 to 11; NaN for a class that was not evaluated).
    Objects are in the order of `detections.image_ids`; with `use_difficult` none counts as difficult.
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
        """The eval stage's summary: mAP, the AP of each class and more."""
        summary: dict[str, Any] = self.reader.manifest["summary"]
        return summary

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """The image of each detection, int64 [n], an index into `detections.image_ids`."""
        return np.repeat(np.arange(len(self.detections.image_ids)), np.diff(self.detections.offsets))


def evaluation_node(graph: Graph, name: str | None = None) -> Node:
    """The evaluation with this name, by default the main one (see `rcnn_cli.recipes.detectors`).

    Raises StageError if there is none.
    """
    nodes = evaluations_of(graph)
    if not nodes:
        advice = "this is for detections, not for label maps" if graph.making("accuracy") else "add a table [eval]"
        raise StageError(f"{graph.recipe.path}: has no evaluation of detections; {advice}")
    if name is None:
        return nodes[0]
    chosen = [node for node in nodes if node.use.name == name]
    if not chosen:
        names = ", ".join(node.use.name for node in nodes)
        raise StageError(f"{graph.recipe.path}: has no evaluation '{name}'; it has {names}")
    return chosen[0]


def complete_evaluation(graph: Graph, name: str | None = None) -> Node:
    """`evaluation_node`, checked to be complete. Raises IncompleteCache, naming the command to run, if it is not."""
    node = evaluation_node(graph, name)
    for needed in (detector_of(node), node):
        if not complete(graph, needed):
            raise IncompleteCache(f"{needed.name} is not complete; run `rcnn run {graph.recipe.arguments}` first")
    return node


def open_evaluation(
    graph: Graph, name: str | None = None, similar: Any = None, poor_iou: float | None = None
) -> Evaluated:
    """An evaluation of the recipe, with everything it was made from.

    `similar` (sets of similar classes) and `poor_iou` (the least IoU of a poor localisation) override the recipe's.
    Raises StageError if the recipe has no such evaluation, IncompleteCache, naming the command to run, if it or its
    detections are not complete.
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
    """The precision at each detection's score, by its class's curve (`calibrated_precision`): float64 [n]; NaN without
    a curve."""
    precision = np.full(len(detections), np.nan)
    for name, rows in detections.class_rows.items():
        if name in curves:
            precision[rows] = calibrated_precision(curves[name], detections.every.scores[rows])
    return precision


def error_settings(graph: Graph) -> DiagnoseSettings:
    """The settings of the recipe's first [diagnose], else the defaults: similar classes, IoU of poor localisation."""
    nodes = graph.making("diagnosis")
    settings: DiagnoseSettings = nodes[0].settings if nodes else DiagnoseSettings()
    return settings


def similar_sets(graph: Graph) -> Any:
    """The sets of similar classes in the recipe's [diagnose], else VOC's."""
    return error_settings(graph).similar


def confusion_of(evaluated: Evaluated) -> Confusion | None:
    """The confusion matrix at each class's best F1, or at the evaluation's `confusion_threshold`; None for more than
    MOST_CLASSES classes."""
    if len(evaluated.dataset.classes) > MOST_CLASSES:
        return None
    return measure_confusion(
        evaluated.detections,
        evaluated.precision,
        evaluated.curves,
        evaluated.objects,
        evaluated.dataset.classes,
        evaluated.node.settings.iou,
        evaluated.node.settings.confusion_threshold,
    )


def calibration_of(evaluated: Evaluated) -> Calibration:
    """How far the scores of the detections that count can be believed, by halves of the images."""
    counted = np.flatnonzero(evaluated.verdicts != DIFFICULT)
    every = evaluated.detections.every
    half = half_of_images(len(evaluated.detections.image_ids))
    return measure_calibration(
        every.scores[counted],
        evaluated.verdicts[counted] == FOUND,
        every.labels[counted],
        half[evaluated.images[counted]],
        int(np.sum(~evaluated.objects.difficult)),
        score_of(evaluated.detector.settings).probability,
    )
