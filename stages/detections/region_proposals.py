"""From a region proposal network's outputs to proposals (Faster R-CNN section 3.3; lib/rpn/proposal_layer.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes, decode_deltas
from stages.detections.suppression import greedy_nms


def region_proposals(
    anchors: Boxes,
    deltas: NDArray[np.floating],
    scores: NDArray[np.float32],
    width: int,
    height: int,
    *,
    least_side: float = 16.0,
    before_suppression: int = 6000,
    iou: float | None = 0.7,
    at_most: int = 300,
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
    if not (np.isfinite(scores).all() and np.isfinite(deltas).all()):
        raise ValueError("the scores and deltas of a region proposal network must be finite")
    with np.errstate(over="ignore"):  # a side of infinite length is clipped
        moved = clip_boxes(decode_deltas(anchors, deltas, short=0), width, height)
    large = np.flatnonzero((moved[:, 2:] - moved[:, :2] >= least_side).all(axis=1))
    order = large[np.argsort(-scores[large], kind="stable")]
    order = order[: before_suppression or len(order)]
    if iou is not None:
        order = order[greedy_nms(moved[order], scores[order], iou)]
    order = order[: at_most or len(order)]
    return moved[order], scores[order]
