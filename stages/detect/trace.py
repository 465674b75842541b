"""How one image's proposals become detections, step by step (R-CNN section 2.2; rcnn_test.m, imdb_eval_voc.m).

Notation: n proposals, K classes, m candidates, s detections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.detect import BEST, MERGE, Settings
from stages.detections import Detections
from stages.detections.candidates import Candidates, Scored, best_candidates, candidates_above, with_best_classes
from stages.detections.cap import class_thresholds, image_threshold
from stages.detections.suppression import METHODS, Merged, Outcome, Suppression


@dataclass(frozen=True)
class Trace:
    """One image on its way through `detect`.

    `scored`: the n proposals. `candidates`: the m that compete. `moved`: the candidates after regression and clipping,
    in the same order. `outcome`: the s detections that suppression makes of them. `thresholds` float32 [K]: the score
    below which the limits on an image drop detections of each class (-inf: none).
    """

    scored: Scored
    candidates: Candidates
    moved: Detections
    outcome: Outcome
    thresholds: NDArray[np.float32]

    @cached_property
    def detections(self) -> Detections:
        """The detections in the image, before any cap over the whole test set."""
        return self.outcome.detections.above(self.thresholds)

    @property
    def merges(self) -> bool:
        """Whether candidates are merged, so that detections are not candidates."""
        return isinstance(self.outcome, Merged)

    def counted(self, settings: Settings) -> Detections | Candidates:
        """What the cap over the whole test set counts: the candidates, the boxes that they are merged into, or, with
        `suppress_first` or `class_agnostic`, the detections."""
        if settings.suppress_first or settings.class_agnostic:
            return self.detections
        return self.outcome.detections if self.merges else self.candidates

    @cached_property
    def absorbed_by(self) -> NDArray[np.int64]:
        """The candidate that suppressed each of the m, or that leads the box it was merged into: int64 [m]; -1 for the
        leaders."""
        leaders = self.outcome.leaders[self.outcome.groups]
        return np.where(leaders == np.arange(len(leaders)), -1, leaders)

    def kept(self, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
        """The detections of `outcome` that score at least their class's entry of `thresholds`, float32 [K] (from the
        cap over the whole test set): rows, ascending."""
        detections = self.outcome.detections
        return np.flatnonzero(detections.scores >= np.maximum(thresholds, self.thresholds)[detections.labels])

    def deciding_scores(self, proposal: int) -> NDArray[np.float32]:
        """The scores that decide whether a proposal is detected as each class, float32 [K]: its own; those of the boxes
        that its candidates were merged into, and -inf where it does not compete."""
        if not self.merges:
            return self.scored.scores[proposal]
        scores = np.full(len(self.scored.classes), -np.inf, np.float32)
        own = np.flatnonzero(self.candidates.rows == proposal)
        scores[self.candidates.labels[own]] = self.outcome.scores[own]
        return scores

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
    suppression works on each class separately, or on all at once (`class_agnostic`); with `cap = "image"`, the best of
    all classes are kept, and with `suppress_first`, the best of each class.
    """
    candidates = chosen_candidates(scored, settings)
    moved = Detections(scored.boxes_of(candidates.rows, candidates.labels), candidates.scores, candidates.labels)
    outcome = METHODS[settings.suppression](settings).outcome(moved)
    thresholds = thresholds_of(outcome.detections, len(scored.classes), settings)
    return Trace(scored, candidates, moved, outcome, thresholds)


def thresholds_of(detections: Detections, classes: int, settings: Settings) -> NDArray[np.float32]:
    """The score below which an image's detections of each class are dropped, float32 [classes]; -inf: none are."""
    if settings.suppress_first:
        return class_thresholds([(detections.scores, detections.labels)], classes, settings.max_per_image)
    at_most = settings.all_classes_at_most if settings.cap == "image" else len(detections)
    return np.full(classes, image_threshold(detections.scores, at_most))


def chosen_candidates(scored: Scored, settings: Settings) -> Candidates:
    """The proposals that compete: of the classes that do so at their scale, the best, or those above a score."""
    if settings.classes_per_scale:
        scored = with_best_classes(scored, settings.classes_per_scale)
    if settings.suppress_first:
        candidates = candidates_above(scored, settings.least_candidate_score)
    elif settings.cap == "set":
        candidates = best_candidates(scored, settings.max_per_image)
    else:
        candidates = candidates_above(scored, settings.least_score)
    return candidates.where(candidates.scores > -np.inf) if settings.classes_per_scale else candidates


def suppression_across_tiles(settings: Settings) -> Suppression:
    """What becomes of overlapping detections of several tiles of an image: the same as of candidates, except that boxes
    that are merged keep the best of their scores, which are sums over each tile's own windows already."""
    merges = settings.suppression == MERGE
    return METHODS[settings.suppression](replace(settings, merge_scores=BEST) if merges else settings)
