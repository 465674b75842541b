"""How one image's proposals become detections, step by step (R-CNN section 2.2; rcnn_test.m, imdb_eval_voc.m).

Notation: n proposals, K classes, m candidates.
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

    `scored`: the n proposals. `candidates`: the m that compete. `moved`: the candidates after regression and clipping,
    in the same order. `survivors`, int64 [s]: the candidates left by `suppression`, ascending. `threshold`: the score
    below which the cap per image drops survivors (-inf: none).
    """

    scored: Scored
    candidates: Candidates
    moved: Detections
    suppression: Suppression
    survivors: NDArray[np.int64]
    threshold: np.float32

    @cached_property
    def detections(self) -> Detections:
        """The detections in the image, before any cap over the whole test set."""
        return self.moved.where(self.survivors).where(self.moved.scores[self.survivors] >= self.threshold)

    @cached_property
    def removed_by(self) -> NDArray[np.int64]:
        """The candidate that suppressed each of the m, int64 [m]; -1 for the survivors."""
        return self.suppression.removers(self.moved, self.survivors)

    def kept(self, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
        """The detections that score at least their class's entry of `thresholds`, float32 [K] (from the cap over the
        whole test set), as candidates, ascending."""
        scores = self.moved.scores[self.survivors]
        least = np.maximum(thresholds[self.moved.labels[self.survivors]], self.threshold)
        return self.survivors[scores >= least]

    def candidate(self, proposal: int, label: int) -> int | None:
        """The number of a proposal's candidate for a class; None if it does not compete there."""
        matching = np.flatnonzero((self.candidates.rows == proposal) & (self.candidates.labels == label))
        return int(matching[0]) if len(matching) else None

    def after_regression(self, proposal: int, label: int) -> Boxes:
        """A proposal's box after regression for a class, float32 [4], whether or not it competes there."""
        candidate = self.candidate(proposal, label)
        if candidate is not None:
            return self.moved.boxes[candidate]
        return self.scored.boxes_of(np.array([proposal]), np.array([label], np.int32))[0]

    def rank(self, proposal: int, label: int) -> int:
        """The proposal's rank among all proposals for a class, from 1; ties in the order of the proposals."""
        own = self.scored.scores[:, label]
        return 1 + int(np.sum(own > own[proposal]) + np.sum(own[:proposal] == own[proposal]))


def detect_image(scored: Scored, settings: Settings) -> Trace:
    """From an image's scored proposals to its detections.

    The candidates (each class's best proposals, or those above a score: see `settings.cap`) are regressed and clipped;
    suppression works on each class separately; with `cap = "image"`, the best of all classes are kept.
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
