"""Suppression: which of a class's overlapping boxes are left (R-CNN section 2.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, exceeds
from stages.detections.order import by_class
from stages.detections.sets import NO_ROWS, Detections


def greedy_nms(boxes: Boxes, scores: NDArray[np.float32], iou: float) -> NDArray[np.int64]:
    """Rows that greedy non-maximum suppression keeps of `boxes` float32 [n, 4] with `scores` float32 [n], ascending.

    From the best score down (of equals the first row first) a box goes if its IoU with one that is kept exceeds `iou`.
    R-CNN's nms.m; the IoU is computed, and compared as by `stages.boxes.exceeds`, in float32.
    """
    import torch
    from torchvision.ops import nms

    limit = float(np.float32(iou))  # torchvision compares with a double: an IoU of exactly 0.3 would exceed 0.3
    kept = nms(torch.from_numpy(np.ascontiguousarray(boxes)), torch.from_numpy(scores), limit)
    return np.sort(kept.numpy())


def suppression_survivors(candidates: Detections, iou: float) -> NDArray[np.int64]:
    """Rows of `candidates` that `greedy_nms` keeps, each class on its own: int64, ascending."""
    kept = [NO_ROWS]
    for _, rows in by_class(candidates.labels):
        kept.append(rows[greedy_nms(candidates.boxes[rows], candidates.scores[rows], iou)])
    return np.sort(np.concatenate(kept))


def removers(candidates: Detections, kept: NDArray[np.int64], iou: float) -> NDArray[np.int64]:
    """Which candidate each of m was suppressed for, int64 [m]; -1 for those in `kept`, as `suppression_survivors` gives
    them.

    It is the best-scored of those that are kept, of the same class and better-scored, whose IoU with it exceeds `iou`.
    In each class `candidates` come from the best score down.
    """
    import torch
    from torchvision.ops import box_iou

    by = np.full(len(candidates), -1, np.int64)
    for _, rows in by_class(candidates.labels):
        stay, go = np.intersect1d(rows, kept), np.setdiff1d(rows, kept)
        if not len(go):
            continue
        overlaps = box_iou(torch.from_numpy(candidates.boxes[go]), torch.from_numpy(candidates.boxes[stay])).numpy()
        overlaps[stay[None, :] > go[:, None]] = -1.0
        over = exceeds(overlaps, iou)
        # Should the two functions round differently, the one that overlaps it most is what removed it.
        by[go] = stay[np.where(over.any(axis=1), over.argmax(axis=1), overlaps.argmax(axis=1))]
    return by
