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
    MERGED = "merged"
    TAKEN = "taken"


@dataclass(frozen=True)
class Miss:
    """Why an object was missed.

    `proposal` is the one that decided it, if any; `candidate` its candidate for the class (None: it does not compete);
    `by` the candidate that suppressed that, or the highest-scored of those it was merged with; `detection` the row of
    `trace.outcome.detections` that did so, or that is matched to another object; `other` the class that scores higher
    there. `covering` counts the proposals that overlap the object enough.
    """

    reason: Reason
    covering: int = 0
    proposal: int | None = None
    candidate: int | None = None
    by: int | None = None
    detection: int | None = None
    other: int | None = None


def why_missed(trace: Trace, box: Boxes, label: int | None, least: NDArray[np.floating], iou: float) -> Miss:
    """Why no detection that counts covers the object `box`, float32 [4], of class `label` (None: not one of the
    detector's classes).

    A detection counts if it scores at least its class's entry of `least` [K], and covers the object if their IoU is at
    least `iou`. Going backwards through the steps, the first at which the object was still covered decides:

    - TAKEN: a detection that counts covers it, but overlaps another object more and is matched to that;
    - SUPPRESSED: the highest-scoring candidate that covers it would count, but a higher-scoring one suppressed it.
      MERGED: it was merged into a box that counts, but does not cover the object;
    - LOCALISATION: a candidate that would count covered it before regression, but not afterwards;
    - LOW_SCORE: the highest-scoring candidate that covers it scores too low to count; or no candidate covers it, though
      some proposals do. WRONG_CLASS: the same, but another class scores higher there, and high enough to count;
    - NO_PROPOSAL: no proposal overlaps it by `iou`, nor does any after regression.

    Of candidates that are merged, it is the score of the box they went into that counts.
    """
    if label is None or not trace.scored.trained[label]:
        return Miss(Reason.UNKNOWN)
    overlaps = iou_matrix(trace.scored.boxes, box[None])[:, 0]
    covers = reaches(overlaps, iou)
    covering = int(covers.sum())
    own = np.flatnonzero(trace.candidates.labels == label)
    rows = trace.candidates.rows[own]
    lies = reaches(iou_matrix(trace.moved.boxes[own], box[None])[:, 0], iou)
    enough = trace.outcome.scores[own] >= least[label]
    before = covers[rows]
    detections = trace.outcome.detections
    counting = (detections.labels == label) & (detections.scores >= least[label])
    on_it = np.flatnonzero(counting & reaches(iou_matrix(detections.boxes, box[None])[:, 0], iou))
    if len(on_it):
        leader = int(trace.outcome.leaders[on_it[0]])
        return Miss(Reason.TAKEN, covering, int(trace.candidates.rows[leader]), leader, detection=int(on_it[0]))
    if np.any(lies & enough):
        first = own[lies & enough][0]
        reason, into = Reason.MERGED if trace.merges else Reason.SUPPRESSED, int(trace.outcome.groups[first])
        by = int(trace.outcome.leaders[into])
        return Miss(reason, covering, int(trace.candidates.rows[first]), int(first), by, into)
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
    scores = trace.deciding_scores(proposal)
    rivals = np.where(scores >= least, scores, -np.inf)
    rivals[[label, *np.flatnonzero(~trace.scored.trained)]] = -np.inf
    other = int(rivals.argmax())
    candidate = trace.candidate(proposal, label)
    if rivals[other] > scores[label]:
        return Miss(Reason.WRONG_CLASS, covering, proposal, candidate, other=other)
    return Miss(Reason.LOW_SCORE, covering, proposal, candidate)
