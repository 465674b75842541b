"""From one image's proposals and features to its detections (R-CNN section 2.2; rcnn_test.m, imdb_eval_voc.m).

Letters: n proposals, K classes, D the features' dimension, m candidates (at most `max_per_image` for each class).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes
from stages.contract.errors import StageError
from stages.detect import Settings
from stages.detections import Detections, by_class
from stages.detections.order import falling
from stages.detections.suppression import suppression_survivors
from stages.features.linear_models import BoxRegressors
from stages.networks import BACKGROUND, SOFTMAX


class Scorer(Protocol):
    """What scores proposals for each of K classes from their features in one `layer`; `trained` bool [K]."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def layer(self) -> str: ...

    @property
    def trained(self) -> NDArray[np.bool_]: ...

    def score(self, features: NDArray[np.floating], classes: slice = slice(None)) -> NDArray[np.float32]:
        """Scores float32 [n, k] of cached features [n, D], of `classes` alone."""


@dataclass(frozen=True)
class ClassProbabilities:
    """The softmax of a network fine-tuned for K classes, as it is (R-CNN Appendix B).

    The background is the last of its K + 1 outputs and no class: nothing is ever detected as background.
    """

    classes: tuple[str, ...]
    layer: str = SOFTMAX

    @property
    def trained(self) -> NDArray[np.bool_]:
        """All classes: bool [K]."""
        return np.ones(len(self.classes), bool)

    def score(self, features: NDArray[np.floating], classes: slice = slice(None)) -> NDArray[np.float32]:
        """The probabilities float32 [n, k] of `classes`, out of those [n, K + 1] with the background's."""
        return features[:, :-1][:, classes].astype(np.float32)


def class_probabilities(class_names: Sequence[str]) -> ClassProbabilities:
    """The scorer of a network whose outputs are `class_names`. Raises StageError unless the last is the background."""
    if len(class_names) < 2 or class_names[-1] != BACKGROUND:
        raise StageError(
            "detect: score = 'softmax' needs the features of a network that was trained with a class for the "
            "background; add a table [finetune] to the recipe, or set score = 'svm'"
        )
    return ClassProbabilities(tuple(class_names[:-1]))


BLOCK_CLASSES = 1024


@dataclass(frozen=True)
class Candidates:
    """The proposals that compete in each class, by class and within a class from the best score down.

    `rows` int64 [m] (which proposal), `labels` int32 [m], `scores` float32 [m].
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]


def detect_image(
    boxes: Boxes,
    features: Mapping[str, NDArray[Any]],
    image_size: tuple[int, int],
    scorer: Scorer,
    regressors: BoxRegressors | None,
    settings: Settings,
) -> Detections:
    """The detections in one image, before the cap that is counted over a whole test set.

    `boxes` float32 [n, 4] are the proposals alone (no ground truth), `features` one array [n, D] for each layer that
    `scorer` and `regressors` name, `image_size` (width, height). Without `regressors` boxes stay where they are.
    """
    candidates = best_candidates(features, scorer, settings.max_per_image)
    return suppress(candidates, boxes, features, image_size, regressors, settings)


def best_candidates(features: Mapping[str, NDArray[Any]], scorer: Scorer, at_most: int) -> Candidates:
    """The `at_most` best-scored proposals of every class, classes scored in one matrix product, 1,024 at a time.

    A class that had nothing to learn from has no candidates. Arguments as in `detect_image`.
    """
    found = [best_rows(scores, at_most, first) for first, scores in score_blocks(features, scorer)]
    every = Candidates(
        *(np.concatenate([getattr(one, name) for one in found]) for name in ("rows", "labels", "scores"))
    )
    trained = scorer.trained[every.labels]
    return Candidates(every.rows[trained], every.labels[trained], every.scores[trained])


def score_blocks(features: Mapping[str, NDArray[Any]], scorer: Scorer) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The first class and the scores float32 [n, k] of every block of at most 1,024 classes."""
    rows = features[scorer.layer].astype(np.float32)
    for first in range(0, len(scorer.classes), BLOCK_CLASSES):
        yield first, scorer.score(rows, slice(first, first + BLOCK_CLASSES))


def best_rows(scores: NDArray[np.float32], at_most: int, first: int = 0) -> Candidates:
    """The `at_most` best of every column of `scores` float32 [n, K]; of equals, the first ones. The columns are the
    classes from `first` on."""
    count, classes = scores.shape
    ranked = (falling(np.ascontiguousarray(scores.T)) << 32) + np.arange(count)
    if at_most < count:
        ranked.partition(at_most - 1)
    ranked = np.sort(ranked[:, :at_most])
    rows = ranked & 0xFFFFFFFF
    labels = np.repeat(np.arange(first, first + classes, dtype=np.int32), rows.shape[1])
    return Candidates(rows.ravel(), labels, scores[rows.ravel(), labels - first])


def suppress(
    candidates: Candidates,
    boxes: Boxes,
    features: Mapping[str, NDArray[Any]],
    image_size: tuple[int, int],
    regressors: BoxRegressors | None,
    settings: Settings,
) -> Detections:
    """What is left of `candidates` once they are moved, clipped and suppressed, each class on its own.

    Arguments as in `detect_image`. Suppression is greedy from the best score down; of equal scores the earlier
    candidate goes first.
    """
    moved = move(candidates, boxes, features, image_size, regressors)
    return moved.where(suppression_survivors(moved, settings.nms_iou))


def move(
    candidates: Candidates,
    boxes: Boxes,
    features: Mapping[str, NDArray[Any]],
    image_size: tuple[int, int],
    regressors: BoxRegressors | None,
) -> Detections:
    """The candidates, in their order, moved by the regressor of each one's class and clipped; none is suppressed.

    Arguments as in `detect_image`.
    """
    moved = boxes[candidates.rows]
    if regressors is not None:
        moved = regress(candidates, moved, features[regressors.layer], regressors)
    return Detections(clip_boxes(moved, *image_size), candidates.scores, candidates.labels)


def regress(candidates: Candidates, boxes: Boxes, features: NDArray[Any], regressors: BoxRegressors) -> Boxes:
    """`boxes` [m, 4] of the candidates moved by the regressor of each one's class; `features` [n, D] of proposals."""
    moved = boxes.copy()
    for label, mine in by_class(candidates.labels):
        moved[mine] = regressors.predict(boxes[mine], features[candidates.rows[mine]], label)
    return moved
