"""Why an object was missed: the step of `detect` at which it was still there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, iou_matrix, reaches
from stages.detect.trace import Trace


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
    if label is None or not trace.scored.trained[label]:
        return Miss(Reason.UNKNOWN)
    overlaps = iou_matrix(trace.scored.boxes, box[None])[:, 0]
    covers = reaches(overlaps, iou)
    covering = int(covers.sum())
    own = np.flatnonzero(trace.candidates.labels == label)
    rows = trace.candidates.rows[own]
    lies = reaches(iou_matrix(trace.moved.boxes[own], box[None])[:, 0], iou)
    enough = trace.moved.scores[own] >= least[label]
    before = covers[rows]
    if np.any(lies & enough & (trace.removed_by[own] < 0)):
        first = own[lies & enough & (trace.removed_by[own] < 0)][0]
        return Miss(Reason.TAKEN, covering, int(trace.candidates.rows[first]), int(first))
    if np.any(lies & enough):
        first = own[lies & enough][0]
        return Miss(
            Reason.SUPPRESSED, covering, int(trace.candidates.rows[first]), int(first), int(trace.removed_by[first])
        )
    if np.any(before & enough):
        first = own[before & enough][0]
        return Miss(Reason.LOCALISATION, covering, int(trace.candidates.rows[first]), int(first))
    if np.any(lies):
        return scored_too_low(trace, int(trace.candidates.rows[own[lies][0]]), label, least, covering)
    if covering:
        best = np.flatnonzero(covers)[trace.scored.scores[covers, label].argmax()]
        return scored_too_low(trace, int(best), label, least, covering)
    nearest = int(overlaps.argmax()) if len(overlaps) else None
    return Miss(Reason.NO_PROPOSAL, 0, nearest, None if nearest is None else trace.candidate(nearest, label))


def scored_too_low(trace: Trace, proposal: int, label: int, least: NDArray[np.floating], covering: int) -> Miss:
    """The miss of an object at one of its proposals, whose score in the class `label` is too low."""
    rivals = np.where(trace.scored.scores[proposal] >= least, trace.scored.scores[proposal], -np.inf)
    rivals[[label, *np.flatnonzero(~trace.scored.trained)]] = -np.inf
    other = int(rivals.argmax())
    candidate = trace.candidate(proposal, label)
    if rivals[other] > trace.scored.scores[proposal, label]:
        return Miss(Reason.WRONG_CLASS, covering, proposal, candidate, other=other)
    return Miss(Reason.LOW_SCORE, covering, proposal, candidate)
