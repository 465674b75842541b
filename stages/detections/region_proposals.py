"""From a region proposal network's outputs to proposals (Faster R-CNN section 3.3; lib/rpn/proposal_layer.py)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes, decode_deltas, exceeds, iou_matrix
from stages.detections.suppression import greedy_nms


class Limits(TypedDict, total=False):
    """What is left of the anchors; LIMITS are the defaults."""

    least_side: float
    before_suppression: int
    iou: float | None
    at_most: int


LIMITS: Limits = {"least_side": 16.0, "before_suppression": 6000, "iou": 0.7, "at_most": 300}


def region_proposals(
    anchors: Boxes,
    deltas: NDArray[np.floating],
    scores: NDArray[np.float32],
    width: int,
    height: int,
    **limits: Unpack[Limits],
) -> tuple[Boxes, NDArray[np.float32]]:
    """The best-scored proposals in an input of `width` x `height` pixels: boxes float32 [k, 4] and their scores float32
    [k], highest first.

    `anchors` [n, 4], moved by `deltas` [n, 4], have `scores` float32 [n] for showing an object. In this order: they are
    moved, clipped, and dropped if a side is shorter than `least_side` pixels; the `before_suppression` best are kept
    (0: all), of which those that overlap a better one by more than `iou` are dropped (None: none); the `at_most` best
    are left (0: all). Ties go to the first anchor. In the release the least side is 16 pixels of the image, times its
    scale.

    The release keeps 12,000 and 2,000 for joint training, all and 2,000 for the alternating one. Raises ValueError for
    scores or deltas that are not finite.
    """
    moved, proposed = proposed_anchors(anchors, deltas, scores, width, height, **limits)
    return moved[proposed], scores[proposed]


def proposed_anchors(
    anchors: Boxes,
    deltas: NDArray[np.floating],
    scores: NDArray[np.float32],
    width: int,
    height: int,
    **limits: Unpack[Limits],
) -> tuple[Boxes, NDArray[np.int64]]:
    """(the boxes that the anchors are moved to, float32 [n, 4]; the anchors whose boxes are proposals, int64 [k], by
    falling score), with the arguments of `region_proposals`."""
    chosen: Limits = {**LIMITS, **limits}
    iou, at_most = chosen["iou"], chosen["at_most"]
    moved, _, best = best_boxes(anchors, deltas, scores, width, height, chosen)
    apart = best if iou is None else best[greedy_nms(moved[best], scores[best], iou, at_most)]
    return moved, apart[: at_most or len(apart)]


class Step(StrEnum):
    """Where the way of an anchor ends."""

    TOO_SMALL = "too small"
    NOT_AMONG_BEST = "not among the best before suppression"
    SUPPRESSED = "suppressed"
    BELOW_LIMIT = "not among the best after suppression"
    PROPOSED = "proposed"


@dataclass(frozen=True)
class Fate:
    """What becomes of an anchor: the `step` at which its way ends; its `rank` by score, from 1, among those that
    reached this step (None if it is too small); the anchor that suppressed it, `by` (None: it was not suppressed)."""

    step: Step
    rank: int | None = None
    by: int | None = None


@dataclass(frozen=True)
class AnchorSteps:
    """What becomes of n anchors on the way to proposals: `moved` float32 [n, 4], the boxes that they are moved to, and
    the anchors that are left after each step, int64, highest score first: those whose boxes are `large` enough, the
    `best` of them, those that are not suppressed (`apart`), and those that are `proposed`. `iou` as in
    `region_proposals`."""

    moved: Boxes
    large: NDArray[np.int64]
    best: NDArray[np.int64]
    apart: NDArray[np.int64]
    proposed: NDArray[np.int64]
    iou: float | None

    def fate(self, anchor: int) -> Fate:
        """What becomes of an anchor."""
        for step, left in (
            (Step.PROPOSED, self.proposed),
            (Step.BELOW_LIMIT, self.apart),
            (Step.SUPPRESSED, self.best),
            (Step.NOT_AMONG_BEST, self.large),
        ):
            places = np.flatnonzero(left == anchor)
            if len(places):
                by = self.suppressed_by(anchor) if step is Step.SUPPRESSED else None
                return Fate(step, int(places[0]) + 1, by)
        return Fate(Step.TOO_SMALL)

    def suppressed_by(self, anchor: int) -> int:
        """The anchor, one of `apart`, whose box suppressed that of `anchor`, which is one of `best` and not of `apart`:
        the highest-scored one that overlaps it by more than `iou`."""
        assert self.iou is not None
        before = self.apart[np.isin(self.apart, self.best[: int(np.flatnonzero(self.best == anchor)[0])])]
        overlaps = iou_matrix(self.moved[before], self.moved[anchor][None])[:, 0].astype(np.float32)
        over = exceeds(overlaps, self.iou)
        # Should the two functions round differently, the box that overlaps it most is taken.
        return int(before[over.argmax() if over.any() else overlaps.argmax()])


def anchor_steps(
    anchors: Boxes,
    deltas: NDArray[np.floating],
    scores: NDArray[np.float32],
    width: int,
    height: int,
    **limits: Unpack[Limits],
) -> AnchorSteps:
    """`region_proposals` step by step, with the same arguments and defaults."""
    chosen: Limits = {**LIMITS, **limits}
    iou, at_most = chosen["iou"], chosen["at_most"]
    moved, large, best = best_boxes(anchors, deltas, scores, width, height, chosen)
    apart = best if iou is None else best[greedy_nms(moved[best], scores[best], iou)]
    return AnchorSteps(moved, large, best, apart, apart[: at_most or len(apart)], iou)


def best_boxes(
    anchors: Boxes,
    deltas: NDArray[np.floating],
    scores: NDArray[np.float32],
    width: int,
    height: int,
    limits: Limits,
) -> tuple[Boxes, NDArray[np.int64], NDArray[np.int64]]:
    """(the boxes that the anchors are moved to, clipped, float32 [n, 4]; those of them that are large enough, int64
    [m], highest score first; those that go into suppression, int64 [b]), with all of `limits`. Raises ValueError as
    `region_proposals`."""
    if not (np.isfinite(scores).all() and np.isfinite(deltas).all()):
        raise ValueError("the scores and deltas of a region proposal network must be finite")
    with np.errstate(over="ignore"):  # a side of infinite length is clipped
        moved = clip_boxes(decode_deltas(anchors, deltas, short=0), width, height)
    large = np.flatnonzero((moved[:, 2:] - moved[:, :2] >= limits["least_side"]).all(axis=1))
    large = large[np.argsort(-scores[large], kind="stable")]
    return moved, large, large[: limits["before_suppression"] or len(large)]
