"""How the anchors of one image become proposals, and which of them belong to an object: for looking at them.

Symbols: n anchors of an image's map, A of each cell. Boxes are in pixels of the network's input unless they are said to
be in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.anchors import inside
from stages.boxes import Boxes, clip_boxes, iou_matrix
from stages.detections.region_proposals import AnchorSteps
from stages.matching.anchors import POSITIVE, anchor_labels
from stages.training.anchor_settings import AnchorTraining


@dataclass(frozen=True)
class AnchorTrace:
    """One image's n anchors on their way to proposals.

    `anchors` float32 [n, 4], cell by cell, `per_cell` (A) of each; `scores` float32 [n] for showing an object; `steps`:
    what becomes of them. `scale` is the factor from the image, of `image_size` (width, height), to the network's input,
    of `input_size`.
    """

    anchors: Boxes
    per_cell: int
    scores: NDArray[np.float32]
    steps: AnchorSteps
    scale: float
    image_size: tuple[int, int]
    input_size: tuple[int, int]

    @property
    def proposals(self) -> Boxes:
        """The proposals in pixels of the image, highest score first: float32 [k, 4]."""
        return self.in_image(self.steps.moved[self.steps.proposed])

    def in_image(self, boxes: Boxes) -> Boxes:
        """Boxes [k, 4] in pixels of the image, clipped to it: float32 [k, 4]."""
        return clip_boxes(boxes / np.float32(self.scale), *self.image_size)

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """Which of the A anchors of a cell each of the proposals comes from: int64 [k]."""
        return self.steps.proposed % self.per_cell

    def around(self, box: NDArray[np.floating], rules: AnchorTraining) -> AnchorsOfObject:
        """The anchors around an object, `box` [4] in pixels of the image, by the `rules` of training."""
        target = (np.asarray(box, np.float32) * np.float32(self.scale))[None]
        trained = np.flatnonzero(inside(self.anchors, *self.input_size, rules.border))
        labels = anchor_labels(
            self.anchors[trained],
            target,
            rules.positive_overlap,
            rules.negative_overlap,
            rules.best_of_object,
            untouched_objects=False,
        )
        positive = trained[labels == POSITIVE]
        return AnchorsOfObject(
            positive[np.argsort(-self.scores[positive], kind="stable")],
            iou_matrix(self.anchors, target)[:, 0],
            iou_matrix(self.steps.moved, target)[:, 0],
            self.scores,
        )


@dataclass(frozen=True)
class AnchorsOfObject:
    """The anchors around an object: `positive` int64 [p], those that training makes positive for it, the highest score
    first; the IoU of all n with it, float [n], as they are (`overlaps`) and once moved (`after`); their `scores`."""

    positive: NDArray[np.int64]
    overlaps: NDArray[np.floating]
    after: NDArray[np.floating]
    scores: NDArray[np.float32]

    @property
    def best(self) -> int:
        """The anchor that overlaps the object most; of several, the highest-scored."""
        return int(np.lexsort((-self.scores, -self.overlaps))[0])

    @property
    def best_after(self) -> int:
        """The anchor that overlaps the object most once moved; of several, the highest-scored."""
        return int(np.lexsort((-self.scores, -self.after))[0])


@dataclass(frozen=True)
class ProposalSizes:
    """The average size of each anchor's proposals (Faster R-CNN Table 1), in pixels of the network's input: `anchors`
    float32 [A, 4], those of the first cell; `counts` int64 [A] of their proposals; `means` float64 [A, 2] (width,
    height), nan where there are none."""

    anchors: Boxes
    counts: NDArray[np.int64]
    means: NDArray[np.float64]


def proposal_sizes(traces: Iterable[AnchorTrace]) -> ProposalSizes:
    """The average over the proposals of some images. Raises ValueError if there are no images."""
    totals: ProposalSizes | None = None
    for trace in traces:
        count = trace.per_cell
        boxes = trace.steps.moved[trace.steps.proposed].astype(np.float64)
        sides = boxes[:, 2:] - boxes[:, :2]
        sums = np.stack([np.bincount(trace.shapes, sides[:, axis], count) for axis in (0, 1)], axis=1)
        counts = np.bincount(trace.shapes, minlength=count)
        before = totals or ProposalSizes(trace.anchors[:count], np.zeros(count, np.int64), np.zeros((count, 2)))
        totals = ProposalSizes(before.anchors, before.counts + counts, before.means + sums)
    if totals is None:
        raise ValueError("no images")
    with np.errstate(invalid="ignore"):
        return ProposalSizes(totals.anchors, totals.counts, totals.means / totals.counts[:, None])
