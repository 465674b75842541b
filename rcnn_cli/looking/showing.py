"""Which detections are shown and with which numbers: one rule for pictures, text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from rcnn_cli.recipes.detectors import detector_of, evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import complete
from stages.contract.errors import StageError
from stages.detect import score_of
from stages.detections import Detections, best_first, detections_as_json, shortest
from stages.eval.report import PRECISION, read_curves, score_cuts
from stages.images.reading import Pixels
from stages.matching.average_precision import Curve, calibrated_precision
from stages.pictures.drawing import draw_detections, with_legend

FEW = 3
"""How many detections are shown if none is good enough."""

MANY = 12
"""From more detections than these, a line says how many there are of each class."""


def counts_line(classes: Iterable[str]) -> str:
    """How many there are of each class, most first: "star 12, cross 3"."""
    return ", ".join(f"{name} {count:,}" for name, count in Counter(classes).most_common())


@dataclass(frozen=True)
class Showing:
    """How detections of K classes are shown. A detection is drawn if its score is at least its class's in `cuts`,
    float32 [K] (`rule` says this in words); if none in an image is, the `few` best are drawn in thin lines.

    `score` names the kind of score. `curves`, by class, turn scores into precisions, and `measured` names their
    evaluation; both are empty if there is none. Larger images are drawn on as if they had this `side`.
    """

    classes: tuple[str, ...]
    score: str
    cuts: NDArray[np.float32]
    rule: str
    curves: Mapping[str, Curve]
    measured: Mapping[str, str]
    few: int = FEW
    side: int | None = None

    def precision(self, detections: Detections) -> NDArray[np.float64]:
        """The precision at each detection's score: float64 [n], NaN if unknown."""
        values = np.full(len(detections), np.nan)
        for label in np.unique(detections.labels):
            if self.classes[label] in self.curves:
                rows = detections.labels == label
                values[rows] = calibrated_precision(self.curves[self.classes[label]], detections.scores[rows])
        return values

    def choose(self, detections: Detections) -> tuple[NDArray[np.int64], bool]:
        """(the rows to draw, int64 [k], best first; whether they are good enough)."""
        enough = self.good_enough(detections)
        if len(enough):
            return enough, True
        return best_first(detections.scores, self.precision(detections))[: self.few], False

    def good_enough(self, detections: Detections) -> NDArray[np.int64]:
        """The rows that score at least their class's cut: int64 [k], best first."""
        order = best_first(detections.scores, self.precision(detections))
        return order[detections.scores[order] >= self.cuts[detections.labels[order]]]

    def picture(self, image: Pixels, detections: Detections) -> Pixels:
        """The image with its detections and, below it, an explanation of the numbers: uint8 RGB [H, W, 3]."""
        rows, enough = self.choose(detections)
        return with_legend(self.drawing(image, detections), self.legend(len(rows), enough))

    def drawing(self, image: Pixels, detections: Detections) -> Pixels:
        """The image with its detections, of its own size: uint8 RGB [H, W, 3]."""
        rows, enough = self.choose(detections)
        shown, precision = detections.where(rows), self.precision(detections)[rows]
        numbers = [
            [f"{score:.2f}"] if np.isnan(value) else [f"{value:.2f} ({score:.2f})", f"{value:.2f}"]
            for value, score in zip(precision, shown.scores, strict=True)
        ]
        ranks = np.arange(len(rows), 0, -1, dtype=np.float32)
        thin, side = not enough, self.side
        return draw_detections(image, shown.boxes, shown.labels, ranks, self.classes, numbers, thin, side)

    def legend(self, shown: int, enough: bool) -> list[str]:
        """The lines below a picture with `shown` detections."""
        if not shown:
            return ["Nothing detected."]
        scores = f"{self.score}s" if not self.measured else f"precision on {self.measured['dataset']} ({self.score})"
        rule = f"Drawn: {self.rule} or more."
        if not enough:
            number = "one is" if shown == 1 else f"{shown} are"
            rule = f"None has {self.rule} or more: the best {number} drawn in thin lines, whatever the score."
        return [f"Numbers: {scores}. {rule}"]

    def drawn_line(self, detections: Detections) -> str:
        """The classes of the detections that are drawn, on one line: "cross, star"; of more than MANY how many there
        are of each class, "star 12, cross 3"."""
        rows, enough = self.choose(detections)
        classes = [self.classes[label] for label in detections.labels[rows]]
        names = ", ".join(classes) if len(rows) <= MANY else counts_line(classes)
        if enough:
            return names
        return f"none has {self.rule} or more; the best: {names}" if names else "nothing detected"

    def as_json(self, detections: Detections) -> dict[str, Any]:
        """JSON values: what the numbers are, which detections are drawn and why, and all detections, best first."""
        rows, enough = self.choose(detections)
        precision, drawn = self.precision(detections), np.zeros(len(detections), bool)
        drawn[rows] = True
        least = {
            name: shortest(cut) if np.isfinite(cut) else None for name, cut in zip(self.classes, self.cuts, strict=True)
        }
        return {
            "score": self.score,
            "precision": dict(self.measured) or None,
            "drawn": {"rule": f"{self.rule} or more", "least_score": least, "whatever_the_score": not enough},
            "detections": detections_as_json(detections, self.classes, precision, drawn),
        }


def showing_of(
    graph: Graph, node: Node, classes: Sequence[str], threshold: float | None = None, precision: float | None = None
) -> Showing:
    """How a node's detections are shown: those with at least the score `threshold`, or else at least `precision`
    (default: PRECISION) by its evaluation, or, without an evaluation, the default score of its kind of scores.

    Raises StageError for a precision without an evaluation.
    """
    evaluation = evaluation_for(graph, node)
    if precision is not None and evaluation is None:
        raise StageError(
            f"--precision: no evaluation of {node.name} is complete, so no precision is known; run "
            f"`rcnn run {graph.recipe.arguments}` with a table [eval], or pass --threshold"
        )
    curves, measured = {}, {}
    if evaluation is not None:
        curves = read_curves(Reader(graph.folder(evaluation)))
        measured = measured_on(graph, evaluation)
    return shown_by(node.settings, classes, curves, measured, threshold, precision)


def measured_on(graph: Graph, evaluation: Node) -> dict[str, str]:
    """What names an evaluation: its table, its dataset and that dataset's source."""
    source = str(graph.recipe.datasets[evaluation.dataset]["source"])
    return {"evaluation": evaluation.use.name, "dataset": evaluation.dataset, "source": source}


def shown_by(
    settings: Any,
    classes: Sequence[str],
    curves: Mapping[str, Curve],
    measured: Mapping[str, str],
    threshold: float | None = None,
    precision: float | None = None,
) -> Showing:
    """How detections made with the `settings` of detect are shown, as `showing_of` says; `curves` and `measured` are
    those of an evaluation, empty without one."""
    kind = score_of(settings)
    if threshold is None and measured:
        least = PRECISION if precision is None else precision
        cuts, rule = score_cuts(curves, classes, least), f"a precision of {least:g}"
    else:
        least = kind.least if threshold is None else threshold
        cuts, rule = np.full(len(classes), least, np.float32), f"a score of {least:g}"
    return Showing(tuple(classes), kind.name, cuts, rule, curves, measured)


def evaluation_for(graph: Graph, detector: Node) -> Node | None:
    """The complete evaluation whose curves apply to a detector: of this node, else of the same table on another split;
    if there are several, the main one, else the first in the file. None if there is none."""
    ready = [node for node in evaluations_of(graph) if complete(graph, node)]
    own = [node for node in ready if detector_of(node) == detector]
    same = [node for node in ready if detector_of(node).use is detector.use]
    return next(iter([*own, *same]), None)
