"""The models on top of the features: SVMs or softmax (R-CNN section 2.2, Appendix B), and box regressors (Appendix C)
or the network's own deltas (Fast R-CNN section 2.3) or edges (OverFeat section 4.2).

Notation: n proposals, K classes, feature dimension D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, decode_deltas
from stages.contract.errors import StageError
from stages.detect import NO_DELTAS, NO_PROBABILITIES
from stages.detections.candidates import Scored
from stages.detections.class_names import chosen_classes
from stages.networks import BACKGROUND, DELTAS, EDGES, SOFTMAX


class Scorer(Protocol):
    """Scores proposals for each of K classes from their features in one `layer`; `trained` is bool [K]."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def layer(self) -> str: ...

    @property
    def trained(self) -> NDArray[np.bool_]: ...

    def score(self, features: NDArray[np.floating], classes: slice = slice(None)) -> NDArray[np.float32]:
        """The scores of features [n, D] for the k `classes`, all by default: float32 [n, k]."""

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> Self:
        """The scorer of the classes `rows` alone, called `classes`."""


@dataclass(frozen=True)
class ClassProbabilities:
    """The softmax of a network fine-tuned for K classes (R-CNN Appendix B).

    The last of its outputs is the background, which is not a class: nothing is ever detected as background. With
    `columns`, the classes are only those K of the outputs, and the softmax is over these and the background.
    """

    classes: tuple[str, ...]
    layer: str = SOFTMAX
    columns: tuple[int, ...] | None = None

    @property
    def trained(self) -> NDArray[np.bool_]:
        """All classes: bool [K]."""
        return np.ones(len(self.classes), bool)

    def score(self, features: NDArray[np.floating], classes: slice = slice(None)) -> NDArray[np.float32]:
        """The probabilities of the k `classes`, float32 [n, k], from those of all outputs, the background last."""
        if self.columns is None:
            return features[:, :-1][:, classes].astype(np.float32)
        own = features[:, self.columns].astype(np.float32)
        left = own.sum(axis=1, dtype=np.float64) + features[:, -1]
        # Nothing is left where a class that was dropped has a probability of 1.
        return np.asarray(own[:, classes] / np.where(left > 0, left, 1)[:, None], np.float32)

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> ClassProbabilities:
        """The softmax over the outputs `rows` and the background, called `classes` (Faster R-CNN section 4.2)."""
        return replace(self, classes=classes, columns=tuple(rows))


def class_probabilities(class_names: Sequence[str]) -> ClassProbabilities:
    """The scorer of a network whose outputs are `class_names`. Raises StageError unless the last is the background."""
    if len(class_names) < 2 or class_names[-1] != BACKGROUND:
        raise StageError(f"detect: {NO_PROBABILITIES}")
    return ClassProbabilities(tuple(class_names[:-1]))


class Regressors(Protocol):
    """Refine boxes for each of K classes from the features of the proposals in one `layer`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def layer(self) -> str: ...

    def predict(self, boxes: Boxes, features: NDArray[np.floating], class_index: int) -> Boxes:
        """`boxes` [n, 4], whose features are [n, D], refined for a class: float32 [n, 4], not clipped to the image."""

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> Self:
        """The regressors of the classes `rows` alone, called `classes`."""


@dataclass(frozen=True)
class NetworkDeltas:
    """The deltas that a network trained as Fast R-CNN predicts for K classes, without the background.

    Its `layer` has four for each, class by class, in the units of `encode_deltas` with `short=0` (py-faster-rcnn,
    lib/fast_rcnn/bbox_transform.py). With `blocks`, the classes are only those of them.
    """

    classes: tuple[str, ...]
    layer: str = DELTAS
    blocks: tuple[int, ...] | None = None

    def predict(self, boxes: Boxes, features: NDArray[np.floating], class_index: int) -> Boxes:
        """`boxes` [n, 4] moved by the class's four of the deltas [n, 4 K]: float32 [n, 4], not clipped to the image."""
        block = class_index if self.blocks is None else self.blocks[class_index]
        return decode_deltas(boxes, features[:, 4 * block : 4 * block + 4], short=0)

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> NetworkDeltas:
        """The deltas of the classes `rows` alone, called `classes`."""
        return replace(self, classes=classes, blocks=tuple(rows))


@dataclass(frozen=True)
class NetworkEdges:
    """The edges that a network trained as OverFeat predicts in the frames of its windows (section 4.2).

    Its `layer` has four, shared by all classes, or four for each of the K classes without the background (`per_class`):
    x1, y1, x2, y2 from the window's corner, in units of its sides. With `blocks`, the classes are only those of them.
    """

    classes: tuple[str, ...]
    per_class: bool
    layer: str = EDGES
    blocks: tuple[int, ...] | None = None

    def predict(self, boxes: Boxes, features: NDArray[np.floating], class_index: int) -> Boxes:
        """The boxes that the edges [n, 4] or [n, 4 K] give in windows `boxes` [n, 4], for a class: float32 [n, 4], not
        clipped to the image. An edge beyond the opposite one is moved to it."""
        block = 0 if not self.per_class else class_index if self.blocks is None else self.blocks[class_index]
        edges = features[:, 4 * block : 4 * block + 4].astype(np.float32)
        corners, sides = np.tile(boxes[:, :2], 2), np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = corners + edges * sides
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        return moved

    def chosen(self, rows: Sequence[int], classes: tuple[str, ...]) -> NetworkEdges:
        """The edges of the classes `rows` alone, called `classes`."""
        return replace(self, classes=classes, blocks=tuple(rows))


def network_regression(class_names: Sequence[str], dimensions: Mapping[str, int]) -> NetworkDeltas | NetworkEdges:
    """What a network whose outputs are `class_names` predicts of boxes: its features have the lengths `dimensions`, by
    layer. Raises StageError unless the last class is the background."""
    if len(class_names) < 2 or class_names[-1] != BACKGROUND:
        raise StageError(f"detect: {NO_DELTAS}")
    classes = tuple(class_names[:-1])
    if EDGES in dimensions:
        return NetworkEdges(classes, per_class=dimensions[EDGES] != 4)
    return NetworkDeltas(classes)


@dataclass(frozen=True)
class Head:
    """A detector's models: a `scorer` and, unless boxes are to stay those of the proposals, box `regressors`.

    Raises StageError if the two have different classes.
    """

    scorer: Scorer
    regressors: Regressors | None = None

    def __post_init__(self) -> None:
        if self.regressors and self.regressors.classes != self.scorer.classes:
            raise StageError(
                "detect: the classes of the box regression differ from those of the SVMs or softmax; train both on the "
                "same dataset"
            )

    def chosen(self, entries: Sequence[str]) -> Head:
        """The detector of the classes that `entries` choose, under their new names (none: all, as they are). Raises as
        `chosen_classes`."""
        if not entries:
            return self
        rows, names = zip(*chosen_classes(entries, self.scorer.classes), strict=True)
        regressors = None if self.regressors is None else self.regressors.chosen(rows, names)
        return Head(self.scorer.chosen(rows, names), regressors)

    @property
    def layers(self) -> set[str]:
        """The layers whose features are needed."""
        return {self.scorer.layer} | ({self.regressors.layer} if self.regressors else set())

    def check_layers(self, extracted: Iterable[str]) -> None:
        """Raises StageError if a layer that is needed is not among those `extracted`."""
        missing = sorted(self.layers - set(extracted))
        if missing:
            raise StageError(
                f"detect: the features lack layer '{missing[0]}', which scoring or box regression needs; "
                f"add it to [extract] layers in the recipe"
            )

    def scored(self, boxes: Boxes, features: Mapping[str, NDArray[Any]], image_size: tuple[int, int]) -> Scored:
        """One image's proposals: `boxes` float32 [n, 4] without ground truth, `features` [n, D] by layer, `image_size`
        (width, height)."""
        return Scored(
            boxes,
            self.scorer.classes,
            self.scorer.trained,
            partial(self.scorer.score, features[self.scorer.layer].astype(np.float32)),
            None if self.regressors is None else partial(regressed, self.regressors, features[self.regressors.layer]),
            image_size,
        )


def regressed(
    regressors: Regressors, features: NDArray[Any], boxes: Boxes, rows: NDArray[np.int64], label: int
) -> Boxes:
    """The `boxes` [m, 4] of the proposals `rows` [m], regressed for class `label`: float32 [m, 4], not clipped.

    `features` [n, D] are those of all proposals.
    """
    return regressors.predict(boxes, features[rows], label)
