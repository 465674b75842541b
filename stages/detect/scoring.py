"""The models on top of the features: SVMs or softmax, and box regressors (R-CNN section 2.2, Appendices B and C).

Notation: n proposals, K classes, feature dimension D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.detect import NO_PROBABILITIES
from stages.detections.candidates import Scored
from stages.features.linear_models import BoxRegressors
from stages.networks import BACKGROUND, SOFTMAX


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


@dataclass(frozen=True)
class Head:
    """A detector's models: a `scorer` and, unless boxes are to stay those of the proposals, box `regressors`.

    Raises StageError if the two have different classes.
    """

    scorer: Scorer
    regressors: BoxRegressors | None = None

    def __post_init__(self) -> None:
        if self.regressors and self.regressors.classes != self.scorer.classes:
            raise StageError(
                "detect: the classes of the box regressors differ from those of the SVMs or softmax; train both on the "
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
    regressors: BoxRegressors, features: NDArray[Any], boxes: Boxes, rows: NDArray[np.int64], label: int
) -> Boxes:
    """The `boxes` [m, 4] of the proposals `rows` [m], regressed for class `label`: float32 [m, 4], not clipped.

    `features` [n, D] are those of all proposals.
    """
    return regressors.predict(boxes, features[rows], label)
