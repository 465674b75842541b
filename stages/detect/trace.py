"""How one image's proposals become detections, every step kept (R-CNN section 2.2; rcnn_test.m, imdb_eval_voc.m).

Letters: n proposals, K classes, m candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.detect import Settings
from stages.detections import Detections
from stages.detections.candidates import Candidates, Scored, best_candidates, candidates_above
from stages.detections.cap import image_threshold
from stages.detections.suppression import METHODS, Suppression


@dataclass(frozen=True)
class Trace:
    """One image on its way through `detect`.

    `scored`, the n proposals; `candidates`, the m that compete; `moved`, these regressed and clipped, in the same
    order; `survivors` int64 [s], the candidates that the `suppression` leaves, ascending; `threshold`, the score below
    which the cap on an image drops them (-inf: it drops none).
    """

    scored: Scored
    candidates: Candidates
    moved: Detections
    suppression: Suppression
    survivors: NDArray[np.int64]
    threshold: np.float32

    @cached_property
    def detections(self) -> Detections:
        """The detections in the image, before a cap that is counted over a whole test set."""
        return self.moved.where(self.survivors).where(self.moved.scores[self.survivors] >= self.threshold)

    @cached_property
    def removed_by(self) -> NDArray[np.int64]:
        """The candidate that suppressed each of the m, int64 [m], -1 for those that are left."""
        return self.suppression.removers(self.moved, self.survivors)

    def kept(self, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
        """The candidates that are detections with their class's entry of `thresholds` float32 [K] or more (the cap that
        is counted over a whole test set), ascending."""
        scores = self.moved.scores[self.survivors]
        least = np.maximum(thresholds[self.moved.labels[self.survivors]], self.threshold)
        return self.survivors[scores >= least]

    def candidate(self, proposal: int, label: int) -> int | None:
        """The candidate that a proposal is in a class, None where it does not compete."""
        matching = np.flatnonzero((self.candidates.rows == proposal) & (self.candidates.labels == label))
        return int(matching[0]) if len(matching) else None

    def after_regression(self, proposal: int, label: int) -> Boxes:
        """The box float32 [4] that a proposal becomes in a class, whether or not it competes there."""
        candidate = self.candidate(proposal, label)
        if candidate is not None:
            return self.moved.boxes[candidate]
        return self.scored.boxes_of(np.array([proposal]), np.array([label], np.int32))[0]

    def rank(self, proposal: int, label: int) -> int:
        """The proposal's place among all in a class, from 1 on; equal scores in the order of the proposals."""
        own = self.scored.scores[:, label]
        return 1 + int(np.sum(own > own[proposal]) + np.sum(own[:proposal] == own[proposal]))


def detect_image(scored: Scored, settings: Settings) -> Trace:
    """From an image's scored proposals to its detections.

    Those that compete (of each class the best, or those above a score: `settings.cap`) are moved and clipped, each
    class is suppressed on its own, and with `cap = "image"` the best of all classes are left.
    """
    candidates = (
        best_candidates(scored, settings.max_per_image)
        if settings.cap == "set"
        else candidates_above(scored, settings.least_score)
    )
    moved = Detections(scored.boxes_of(candidates.rows, candidates.labels), candidates.scores, candidates.labels)
    suppression = METHODS[settings.suppression](settings)
    survivors = suppression.survivors(moved)
    at_most = settings.all_classes_at_most if settings.cap == "image" else len(survivors)
    threshold = image_threshold(moved.scores[survivors], at_most)
    return Trace(scored, candidates, moved, suppression, survivors, threshold)
