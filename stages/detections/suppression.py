"""Suppression: which of a class's overlapping boxes are left (R-CNN section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, exceeds
from stages.detections.order import by_class
from stages.detections.sets import NO_ROWS, Detections


class Suppression(Protocol):
    """A method with its settings. `candidates` are m boxes, in each class from the best score down."""

    def survivors(self, candidates: Detections) -> NDArray[np.int64]:
        """The rows of the candidates that are left: int64 [k], ascending."""

    def removers(self, candidates: Detections, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """The candidate that each was removed for, int64 [m]; -1 for the rows `kept`, which are the survivors."""


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


@dataclass(frozen=True)
class GreedyNms:
    """`greedy_nms` of each class on its own, at the limit `iou`."""

    iou: float

    def survivors(self, candidates: Detections) -> NDArray[np.int64]:
        """The rows of the candidates that are left: int64 [k], ascending."""
        kept = [NO_ROWS]
        for _, rows in by_class(candidates.labels):
            kept.append(rows[greedy_nms(candidates.boxes[rows], candidates.scores[rows], self.iou)])
        return np.sort(np.concatenate(kept))

    def removers(self, candidates: Detections, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """The candidate that each was removed for, int64 [m]; -1 for the rows `kept`, which are the survivors.

        It is the best-scored of those that are kept, of the same class and better-scored, whose IoU with it exceeds the
        limit.
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
            over = exceeds(overlaps, self.iou)
            # Should the two functions round differently, the one that overlaps it most is what removed it.
            by[go] = stay[np.where(over.any(axis=1), over.argmax(axis=1), overlaps.argmax(axis=1))]
        return by


METHODS: Mapping[str, Callable[[Any], Suppression]] = {"nms": lambda settings: GreedyNms(settings.nms_iou)}
"""The methods by the value of the setting `suppression`, each made from the settings that belong to it."""
