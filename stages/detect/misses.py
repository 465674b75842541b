"""Why an object was missed: the step of `detect` at which it was lost."""

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
    """Why an object was missed.

    `proposal` is the one that decided it, if any; `candidate` its candidate for the class (None: it does not compete);
    `by` the candidate that suppressed that; `other` the class that scores higher there.
    `covering` counts the proposals that overlap the object enough.
    """

    reason: Reason
    covering: int = 0
    proposal: int | None = None
    candidate: int | None = None
    by: int | None = None
    other: int | None = None


def why_missed(trace: Trace, box: Boxes, label: int | None, least: NDArray[np.floating], iou: float) -> Miss:
    """Why no detection that counts covers the object `box`, float32 [4], of class `label` (None: not one of the
    detector's classes).

    A detection counts if it scores at least its class's entry of `least` [K], and covers the object if their IoU is at
    least `iou`. Going backwards through the steps, the first at which the object was still covered decides:

    - TAKEN: a detection that counts covers it, but overlaps another object more and is matched to that;
    - SUPPRESSED: the highest-scoring candidate that covers it would count, but a higher-scoring one suppressed it;
    - LOCALISATION: a candidate that would count covered it before regression, but not afterwards;
    - LOW_SCORE: the highest-scoring candidate that covers it scores too low to count; or no candidate covers it, though
      some proposals do. WRONG_CLASS: the same, but another class scores higher there, and high enough to count;
    - NO_PROPOSAL: no proposal overlaps it by `iou`, nor does any after regression.
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
    """The miss of an object that was decided at `proposal`, which scores too low for its class `label`."""
    rivals = np.where(trace.scored.scores[proposal] >= least, trace.scored.scores[proposal], -np.inf)
    rivals[[label, *np.flatnonzero(~trace.scored.trained)]] = -np.inf
    other = int(rivals.argmax())
    candidate = trace.candidate(proposal, label)
    if rivals[other] > trace.scored.scores[proposal, label]:
        return Miss(Reason.WRONG_CLASS, covering, proposal, candidate, other=other)
    return Miss(Reason.LOW_SCORE, covering, proposal, candidate)
