"""Which precision is faster on this machine, and what it changes: the part of `rcnn plan` that compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import complete, open_inputs
from stages.contract.execution import Execution
from stages.plurals import number_of

if TYPE_CHECKING:
    from stages.contract.precision import PrecisionTrial
    from stages.features.linear_models import LinearSvms

REFERENCE = "float32"
NOTICEABLE = 1.05  # ratios of times below this are noise


@dataclass(frozen=True)
class ScoreChange:
    """By how much the scores of the SVMs in a `table` differ from those with float32's features: the median and the
    largest absolute difference, over regions and the classes that the sample has examples of."""

    table: str
    median: float
    largest: float


@dataclass(frozen=True)
class PrecisionComparison:
    """`precision` beside float32 on some `regions`, for a table of the recipe that has `chosen` one of them.

    `seconds` and `seconds_float32`: processor time per region. `features`: by layer, the median over the regions of the
    difference's L2 norm as a share of that of float32's features.
    """

    table: str
    chosen: str
    precision: str
    regions: int
    seconds: float
    seconds_float32: float
    features: Mapping[str, float]
    scores: tuple[ScoreChange, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times as long as float32 it takes."""
        return self.seconds / self.seconds_float32

    def lines(self) -> tuple[str, str]:
        """For people: which is faster, and what differs."""
        differences = [f"features by {listed_layers(self.features)}"]
        differences += [
            f"scores of {change.table} by {plain(change.median)} (at most {plain(change.largest)})"
            for change in self.scores
        ]
        return (
            f"{self.table}: {self.times()}.",
            f"{self.precision} differs from {REFERENCE}: {', '.join(differences)}; medians, measured on "
            f"{number_of(self.regions, 'region')}.",
        )

    def times(self) -> str:
        """Which is faster, and the setting to change if that is not the chosen one."""
        if max(self.ratio, 1 / self.ratio) < NOTICEABLE:
            return f"{self.precision} takes as long as {REFERENCE} here"
        slower, faster = (self.precision, REFERENCE) if self.ratio > 1 else (REFERENCE, self.precision)
        advice = f'; {self.table}.precision = "{faster}" would be faster' if self.chosen == slower else ""
        return f"{slower} takes {max(self.ratio, 1 / self.ratio):.2f} times as long as {faster} here{advice}"


def listed_layers(shares: Mapping[str, float]) -> str:
    """Each layer's share in percent: "0.41 % (fc7), 0.3 % (pool5)"."""
    return ", ".join(f"{plain(100 * share)} % ({layer})" for layer, share in shares.items())


def plain(value: float) -> str:
    """A number with two significant digits and no exponent: "0.00007"."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def compare_precisions(graph: Graph, nodes: Sequence[Node], execution: Execution) -> Iterator[PrecisionComparison]:
    """The comparisons for the uses among `nodes` whose stage can try its precisions, one for each use and its settings.

    What the nodes read must be complete in `graph`. SVMs that are complete there score the features.
    """
    for node in {(node.use.name, repr(node.settings)): node for node in nodes}.values():
        attempt = node.use.stage.function("try_precisions")
        trial = attempt(node.settings, open_inputs(graph, node, execution), execution) if attempt else None
        if trial is not None:
            yield from comparisons(node, trial, dict(trained_svms(graph, node)))


def trained_svms(graph: Graph, features: Node) -> Iterator[tuple[str, LinearSvms]]:
    """The SVMs that were trained on features of the same table, by the names of their own tables."""
    from cache import Reader
    from stages.features.linear_models import read_svms

    for node in graph.making("svm"):
        trained_on = node.made_from("features")
        if trained_on is not None and trained_on.use is features.use and complete(graph, node):
            yield node.name, read_svms(Reader(graph.folder(node)))


def comparisons(node: Node, trial: PrecisionTrial, svms: Mapping[str, LinearSvms]) -> Iterator[PrecisionComparison]:
    """Each precision of a trial beside float32."""
    reference = trial.features[REFERENCE]
    for name, features in trial.features.items():
        if name == REFERENCE:
            continue
        scores = [
            score_change(table, svm, reference[svm.layer], features[svm.layer])
            for table, svm in svms.items()
            if svm.layer in features and svm.trained.any()
        ]
        yield PrecisionComparison(
            node.use.name,
            node.settings.precision,
            name,
            trial.regions,
            trial.seconds[name],
            trial.seconds[REFERENCE],
            {layer: relative_difference(reference[layer], values) for layer, values in features.items()},
            tuple(scores),
        )


def relative_difference(reference: NDArray[np.float32], values: NDArray[np.float32]) -> float:
    """The median over rows of |values - reference| / |reference| (L2 norms), both [n, D]; zero rows are left out."""
    norms = np.linalg.norm(reference, axis=1)
    differences = np.linalg.norm(values - reference, axis=1)
    return float(np.median(differences[norms > 0] / norms[norms > 0])) if (norms > 0).any() else 0.0


def score_change(
    table: str, svms: LinearSvms, reference: NDArray[np.float32], values: NDArray[np.float32]
) -> ScoreChange:
    """By how much the scores of `values` [n, D] differ from those of `reference`, over the trained classes."""
    differences = np.abs(svms.score(values) - svms.score(reference))[:, svms.trained]
    return ScoreChange(table, float(np.median(differences)), float(differences.max()))
