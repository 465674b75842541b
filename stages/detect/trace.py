"""How the detections in one image come about: every step that `detect` takes, kept, and why an object was missed.

Letters: n proposals, K classes, m candidates (as in scoring.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, iou_matrix
from stages.detect import Settings
from stages.detect.scoring import Candidates, Scorer, best_candidates, move, score_blocks
from stages.detections import Detections
from stages.detections.suppression import removers, suppression_survivors
from stages.features.linear_models import BoxRegressors


@dataclass(frozen=True)
class Trace:
    """One image on its way through `detect`.

    `boxes` float32 [n, 4] and `features` (one [n, D] a layer) of the proposals; `scores` float32 [n, K] of each for
    each class; `candidates`, the m that compete; `moved`, these regressed and clipped, in the same order; `removed_by`
    int64 [m], the candidate that suppressed each, -1 for those that are left. `trained` bool [K] as in Scorer.
    """

    classes: tuple[str, ...]
    boxes: Boxes
    features: Mapping[str, NDArray[Any]]
    image_size: tuple[int, int]
    regressors: BoxRegressors | None
    trained: NDArray[np.bool_]
    scores: NDArray[np.float32]
    candidates: Candidates
    moved: Detections
    removed_by: NDArray[np.int64]

    def kept(self, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
        """The candidates that are detections: not suppressed, and with their class's entry of `thresholds` [K] or more
        (the cap that is counted over a whole test set)."""
        enough = self.moved.scores >= thresholds[self.moved.labels]
        return np.flatnonzero((self.removed_by < 0) & enough)

    def detections(self, thresholds: NDArray[np.float32]) -> Detections:
        """The detections in the image, as `detect` caches them and `read_detections` cuts them."""
        return self.moved.where(self.kept(thresholds))

    def candidate(self, proposal: int, label: int) -> int | None:
        """The candidate that a proposal is in a class, None where it does not compete."""
        found = np.flatnonzero((self.candidates.rows == proposal) & (self.candidates.labels == label))
        return int(found[0]) if len(found) else None

    def after_regression(self, proposal: int, label: int) -> Boxes:
        """The box float32 [4] that a proposal becomes in a class, whether or not it competes there."""
        candidate = self.candidate(proposal, label)
        if candidate is not None:
            return self.moved.boxes[candidate]
        alone = Candidates(np.array([proposal]), np.array([label], np.int32), self.scores[[proposal], label])
        return move(alone, self.boxes, self.features, self.image_size, self.regressors).boxes[0]

    def rank(self, proposal: int, label: int) -> int:
        """The proposal's place among all in a class, from 1 on; equal scores in the order of the proposals."""
        own = self.scores[:, label]
        return 1 + int(np.sum(own > own[proposal]) + np.sum(own[:proposal] == own[proposal]))


def trace_image(
    boxes: Boxes,
    features: Mapping[str, NDArray[Any]],
    image_size: tuple[int, int],
    scorer: Scorer,
    regressors: BoxRegressors | None,
    settings: Settings,
) -> Trace:
    """`scoring.detect_image` with every step kept; the same arguments, and `detections` are the same."""
    scores = [block for _, block in score_blocks(features, scorer)]
    candidates = best_candidates(features, scorer, settings.max_per_image)
    moved = move(candidates, boxes, features, image_size, regressors)
    return Trace(
        scorer.classes,
        boxes,
        features,
        image_size,
        regressors,
        scorer.trained,
        np.hstack([np.zeros((len(boxes), 0), np.float32), *scores]),
        candidates,
        moved,
        removers(moved, suppression_survivors(moved, settings.nms_iou), settings.nms_iou),
    )


class Reason(StrEnum):
    """Why an object was missed."""

    UNKNOWN = "unknown class"
    NO_PROPOSAL = "no proposal"
    LOW_SCORE = "low score"
    WRONG_CLASS = "wrong class"
    LOCALISATION = "poor localisation"
    SUPPRESSED = "suppressed"
    TAKEN = "taken"


@dataclass(frozen=True)
class Miss:
    """Why an object was missed: at which of its proposals it was decided (None without any), which candidate that is
    (None if it does not compete), `by` which candidate that was suppressed, which `other` class scores higher there.

    `covering` counts the proposals that overlap the object enough.
    """

    reason: Reason
    covering: int = 0
    proposal: int | None = None
    candidate: int | None = None
    by: int | None = None
    other: int | None = None


def why_missed(trace: Trace, box: Boxes, label: int | None, least: NDArray[np.floating], iou: float) -> Miss:
    """Why no detection that counts lies on the object `box` float32 [4] of class `label` (None: not a class of the
    detector's).

    A detection counts from its class's entry of `least` [K] on, and lies on the object from an IoU of `iou` on. The
    steps are gone through backwards, and the first at which the object was still there decides:

    - TAKEN: a detection that counts lies on it, but on another object more, for which it is held;
    - SUPPRESSED: the best-scored candidate that lies on it would count, but a better-scored box suppressed it;
    - LOW_SCORE: that candidate does not score enough; or none lies on it because none of the proposals that cover it
      is among the candidates. WRONG_CLASS: the same, but there another class scores higher, and enough to count;
    - LOCALISATION: a candidate that would count lay on it before regression, but not afterwards;
    - NO_PROPOSAL: no proposal overlaps it by `iou`, and regression made none do so.
    """
    if label is None or not trace.trained[label]:
        return Miss(Reason.UNKNOWN)
    overlaps = iou_matrix(trace.boxes, box[None])[:, 0]
    covers = overlaps >= iou
    covering = int(covers.sum())
    mine = np.flatnonzero(trace.candidates.labels == label)
    rows = trace.candidates.rows[mine]
    lies = iou_matrix(trace.moved.boxes[mine], box[None])[:, 0] >= iou
    enough = trace.moved.scores[mine] >= least[label]
    before = covers[rows]
    if np.any(lies & enough & (trace.removed_by[mine] < 0)):
        first = mine[lies & enough & (trace.removed_by[mine] < 0)][0]
        return Miss(Reason.TAKEN, covering, int(trace.candidates.rows[first]), int(first))
    if np.any(lies & enough):
        first = mine[lies & enough][0]
        return Miss(
            Reason.SUPPRESSED, covering, int(trace.candidates.rows[first]), int(first), int(trace.removed_by[first])
        )
    if np.any(before & enough):
        first = mine[before & enough][0]
        return Miss(Reason.LOCALISATION, covering, int(trace.candidates.rows[first]), int(first))
    if np.any(lies):
        return scored_too_low(trace, int(trace.candidates.rows[mine[lies][0]]), label, least, covering)
    if covering:
        best = np.flatnonzero(covers)[trace.scores[covers, label].argmax()]
        return scored_too_low(trace, int(best), label, least, covering)
    nearest = int(overlaps.argmax()) if len(overlaps) else None
    return Miss(Reason.NO_PROPOSAL, 0, nearest, None if nearest is None else trace.candidate(nearest, label))


def scored_too_low(trace: Trace, proposal: int, label: int, least: NDArray[np.floating], covering: int) -> Miss:
    """The miss of an object at one of its proposals, whose score in the class `label` is too low."""
    rivals = np.where(trace.scores[proposal] >= least, trace.scores[proposal], -np.inf)
    rivals[[label, *np.flatnonzero(~trace.trained)]] = -np.inf
    other = int(rivals.argmax())
    candidate = trace.candidate(proposal, label)
    if rivals[other] > trace.scores[proposal, label]:
        return Miss(Reason.WRONG_CLASS, covering, proposal, candidate, other=other)
    return Miss(Reason.LOW_SCORE, covering, proposal, candidate)
