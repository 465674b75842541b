"""The models on top of the features: SVMs or softmax (R-CNN section 2.2, Appendix B), and box regressors (Appendix C)
or the network's own deltas (Fast R-CNN section 2.3).

Notation: n proposals, K classes, feature dimension D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, decode_deltas
from stages.contract.errors import StageError
from stages.detect import NO_DELTAS, NO_PROBABILITIES
from stages.detections.candidates import Scored
from stages.networks import BACKGROUND, DELTAS, SOFTMAX


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


@dataclass(frozen=True)
class ClassProbabilities:
    """The softmax of a network fine-tuned for K classes (R-CNN Appendix B).

    The last of its K + 1 outputs is the background, which is not a class: nothing is ever detected as background.
    """

    classes: tuple[str, ...]
    layer: str = SOFTMAX

    @property
    def trained(self) -> NDArray[np.bool_]:
        """All classes: bool [K]."""
        return np.ones(len(self.classes), bool)

    def score(self, features: NDArray[np.floating], classes: slice = slice(None)) -> NDArray[np.float32]:
        """The probabilities of the k `classes`, float32 [n, k], from the K + 1 with the background, [n, K + 1]."""
        return features[:, :-1][:, classes].astype(np.float32)


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


@dataclass(frozen=True)
class NetworkDeltas:
    """The deltas that a network trained as Fast R-CNN predicts for K classes, without the background.

    Its `layer` has four for each, class by class, in the units of `encode_deltas` with `short=0` (py-faster-rcnn,
    lib/fast_rcnn/bbox_transform.py).
    """

    classes: tuple[str, ...]
    layer: str = DELTAS

    def predict(self, boxes: Boxes, features: NDArray[np.floating], class_index: int) -> Boxes:
        """`boxes` [n, 4] moved by the class's four of the deltas [n, 4 K]: float32 [n, 4], not clipped to the image."""
        return decode_deltas(boxes, features[:, 4 * class_index : 4 * class_index + 4], short=0)


def network_deltas(class_names: Sequence[str]) -> NetworkDeltas:
    """The deltas of a network whose outputs are `class_names`. Raises StageError unless the last is the background."""
    if len(class_names) < 2 or class_names[-1] != BACKGROUND:
        raise StageError(f"detect: {NO_DELTAS}")
    return NetworkDeltas(tuple(class_names[:-1]))


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
