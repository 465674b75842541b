"""What of a detector's findings is shown, and by which numbers: one rule for pictures and for what is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from rcnn_cli.recipes.detectors import detector_of, evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import complete
from stages.contract.errors import StageError
from stages.detect import SCORES
from stages.detections import Detections, best_first, detections_as_json, shortest
from stages.eval.average_precision import Curve, calibrated_precision
from stages.eval.report import PRECISION, read_curves, score_cuts
from stages.images.reading import Pixels
from stages.pictures.drawing import draw_detections, with_legend

FEW = 3
"""So many are shown where none is good enough."""


@dataclass(frozen=True)
class Showing:
    """How detections of K classes are shown. A detection is drawn if it scores its class's `cuts` float32 [K] or more
    (`rule` in words); where none of an image does, its FEW best are, in thin lines.

    `score` says what the scores are. `curves` are those of the evaluation that makes a precision of a score, by class;
    `measured` says on what; both are empty without one.
    """

    classes: tuple[str, ...]
    score: str
    cuts: NDArray[np.float32]
    rule: str
    curves: Mapping[str, Curve]
    measured: Mapping[str, str]

    def precision(self, found: Detections) -> NDArray[np.float64]:
        """The precision at each detection's score, float64 [n], nan where none is known."""
        values = np.full(len(found), np.nan)
        for label in np.unique(found.labels):
            if self.classes[label] in self.curves:
                rows = found.labels == label
                values[rows] = calibrated_precision(self.curves[self.classes[label]], found.scores[rows])
        return values

    def choose(self, found: Detections) -> tuple[NDArray[np.int64], bool]:
        """The rows to draw, the best first, and whether they are good enough."""
        order = best_first(found.scores, self.precision(found))
        enough = order[found.scores[order] >= self.cuts[found.labels[order]]]
        return (enough, True) if len(enough) else (order[:FEW], False)

    def picture(self, image: Pixels, found: Detections) -> Pixels:
        """The image with its detections and, below it, what the numbers are."""
        rows, enough = self.choose(found)
        shown, precision = found.where(rows), self.precision(found)[rows]
        numbers = [
            [f"{score:.2f}"] if np.isnan(value) else [f"{value:.2f} ({score:.2f})", f"{value:.2f}"]
            for value, score in zip(precision, shown.scores, strict=True)
        ]
        ranks = np.arange(len(rows), 0, -1, dtype=np.float32)
        drawn = draw_detections(image, shown.boxes, shown.labels, ranks, self.classes, numbers, thin=not enough)
        return with_legend(drawn, self.legend(len(rows), enough))

    def legend(self, shown: int, enough: bool) -> list[str]:
        """What stands below a picture with so many detections."""
        if not shown:
            return ["Nothing detected."]
        scores = f"{self.score}s" if not self.measured else f"precision on {self.measured['dataset']} ({self.score})"
        rule = f"Drawn: {self.rule} or more."
        if not enough:
            number = "one is" if shown == 1 else f"{shown} are"
            rule = f"None has {self.rule}: the best {number} drawn in thin lines, whatever the score."
        return [f"Numbers: {scores}. {rule}"]

    def drawn_line(self, found: Detections) -> str:
        """What is drawn, in a line: "cross, star"."""
        rows, enough = self.choose(found)
        names = ", ".join(self.classes[found.labels[row]] for row in rows)
        if enough:
            return names
        return f"none has {self.rule}, the best: {names}" if names else "nothing detected"

    def as_json(self, found: Detections) -> dict[str, Any]:
        """What the numbers are, which detections are drawn and why, and all of them, the best first."""
        rows, enough = self.choose(found)
        precision, drawn = self.precision(found), np.zeros(len(found), bool)
        drawn[rows] = True
        least = {
            name: shortest(cut) if np.isfinite(cut) else None for name, cut in zip(self.classes, self.cuts, strict=True)
        }
        return {
            "score": self.score,
            "precision": dict(self.measured) or None,
            "drawn": {"rule": f"{self.rule} or more", "least_score": least, "whatever_the_score": not enough},
            "detections": detections_as_json(found, self.classes, precision, drawn),
        }


def showing_of(
    graph: Graph, node: Node, classes: Sequence[str], threshold: float | None = None, precision: float | None = None
) -> Showing:
    """How the detections of a node are shown: from `threshold` on, or from `precision` on by its evaluation, by default
    from PRECISION on; without an evaluation from the least score that its kind of scores has for that.

    Raises StageError for a precision without an evaluation.
    """
    kind, evaluation = SCORES[node.settings.score], evaluation_for(graph, node)
    if precision is not None and evaluation is None:
        raise StageError(
            f"--precision: no evaluation of {node.name} is complete, so no precision is known; run "
            f"`rcnn run {graph.recipe.path}` with a table [eval], or give --threshold"
        )
    curves, measured = {}, {}
    if evaluation is not None:
        curves = read_curves(Reader(graph.folder(evaluation)))
        source = str(graph.recipe.datasets[evaluation.dataset]["source"])
        measured = {"evaluation": evaluation.use.name, "dataset": evaluation.dataset, "source": source}
    if threshold is None and evaluation is not None:
        least = PRECISION if precision is None else precision
        return Showing(
            tuple(classes), kind.name, score_cuts(curves, classes, least), f"a precision of {least:g}", curves, measured
        )
    least = kind.least if threshold is None else threshold
    cuts = np.full(len(classes), least, np.float32)
    return Showing(tuple(classes), kind.name, cuts, f"a score of {least:g}", curves, measured)


def evaluation_for(graph: Graph, detector: Node) -> Node | None:
    """The complete evaluation whose curves hold for a detector: of its own images, else of the same table on another
    split; of several the main one, else the first in the file. None where there is none."""
    ready = [node for node in evaluations_of(graph) if complete(graph, node)]
    own = [node for node in ready if detector_of(node) == detector]
    same = [node for node in ready if detector_of(node).use is detector.use]
    return next(iter([*own, *same]), None)
