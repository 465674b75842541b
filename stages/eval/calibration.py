"""Calibration of scores: whether of the detections with probability p, a share p is right.

The scores of a softmax are probabilities as they are; the margins of SVMs are not, and become so only by a regression
on detections whose outcome is known. Such a regression is measured on other images than those it was fitted to.

Symbols: n detections that count (true or false positives, ignored ones left out), I images, B bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.matching.average_precision import Curve, lowest_score_at, precision_recall

BINS = 10
"""Bins of equal width from 0 to 1, as in Guo et al., On calibration of modern neural networks (ICML 2017), figure 1."""
ASKED = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Precisions for which thresholds are chosen on one half of the images and tried on the other."""
SEED = 0
LIKELY = 0.3
"""The least probability of the detections whose calibration error is also given by itself."""
RAW, FITTED, CHOSEN = "scores as they are", "cross-fitted", "thresholds for a precision"
"""What a calibration consists of, in words."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: for each of B bins, from probability 0 up, how many detections fall into it (`detections`
    int64 [B]), their mean probability and their precision (`probability`, `precision` float64 [B], nan if none does).
    """

    detections: NDArray[np.int64]
    probability: NDArray[np.float64]
    precision: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The detection expected calibration error: the difference of precision and mean probability of the bins,
        weighted by their detections; nan without detections.

        Küppers et al., Multivariate confidence calibration for object detection (CVPR Workshops 2020), D-ECE, of the
        confidence alone.
        """
        return self.error_from(0.0)

    def from_probability(self, least: float) -> NDArray[np.bool_]:
        """Which bins begin at the probability `least` or above: bool [B]."""
        return np.linspace(0, 1, len(self.detections) + 1)[:-1] >= least - 1e-9

    def count_from(self, least: float) -> int:
        """The number of detections in the bins from probability `least` up."""
        return int(self.detections[self.from_probability(least)].sum())

    def error_from(self, least: float) -> float:
        """The error of the bins from probability `least` up: most detections are improbable, and easily known to be."""
        chosen, total = self.from_probability(least), self.count_from(least)
        gaps = np.abs(self.precision - self.probability)[chosen]
        return float(np.nansum(self.detections[chosen] * gaps) / total) if total else float("nan")

    def interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The 95 % interval of each bin's precision, float64 [B] each, nan without detections: Wilson's score interval
        (1927) for a share of that many detections."""
        n, z = np.where(self.detections > 0, self.detections, np.nan), 1.959964
        middle = (self.precision + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(self.precision * (1 - self.precision) / n + z**2 / (4 * n**2))
        return middle - half, middle + half


@dataclass(frozen=True)
class Obtained:
    """What thresholds that were chosen for a precision on one half of the images achieve on the other half, both halves
    taken together: the precision `asked` for, the `precision` there (nan if nothing is kept), how many detections are
    `kept`, and the share of the objects that they find (`recall`, nan without objects)."""

    asked: float
    precision: float
    recall: float
    kept: int


@dataclass(frozen=True)
class Calibration:
    """How far the scores of a detector can be believed. `raw`: the reliability of the scores as they are, None if they
    are no probabilities; `fitted`: that of cross-fitted probabilities; `unfitted`: how many detections have none, since
    the other half has none of their class; `obtained`: what thresholds chosen for a precision achieve."""

    raw: Reliability | None
    fitted: Reliability
    unfitted: int
    obtained: tuple[Obtained, ...]

    @property
    def diagrams(self) -> dict[str, Reliability]:
        """The reliability diagrams by the names of what they are of."""
        return ({RAW: self.raw} if self.raw else {}) | {FITTED: self.fitted}

    def rows(self) -> list[list[Any]]:
        """A table: each bin of each diagram (`low` and `high`, its bounds), then each precision asked for with what was
        obtained; what is unknown is empty."""
        rows: list[list[Any]] = [["what", "low", "high", "detections", "expected", "precision", "recall"]]
        for name, diagram in self.diagrams.items():
            edges = np.linspace(0, 1, len(diagram.detections) + 1).round(6).tolist()
            numbers = zip(edges[:-1], edges[1:], diagram.detections.tolist(), diagram.probability, diagram.precision,
                          strict=True)  # fmt: skip
            rows += [[name, low, high, count, known(p), known(q), None] for low, high, count, p, q in numbers]
        for one in self.obtained:
            rows.append([CHOSEN, None, None, one.kept, one.asked, known(one.precision), known(one.recall)])
        return rows


def measure_calibration(
    scores: NDArray[np.floating],
    correct: NDArray[np.bool_],
    labels: NDArray[np.integer],
    first: NDArray[np.bool_],
    positives: int,
    probabilities: bool,
) -> Calibration:
    """The calibration of n detections of all classes: `scores`, `correct`, `labels` and `first` (whether an image of
    the first half shows it), [n] each. `positives`: the objects to find; `probabilities`: whether scores are such."""
    fitted = cross_fitted(scores, correct, labels, first)
    known = ~np.isnan(fitted)
    return Calibration(
        reliability(scores, correct) if probabilities else None,
        reliability(fitted[known], correct[known]),
        int(np.sum(~known)),
        tuple(obtained_precisions(scores, correct, labels, first, positives)),
    )


def reliability(probabilities: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """The reliability diagram of n `probabilities` in [0, 1], given which detections are `correct` [n].

    Bins are closed on the right, the first one on both sides, as in Guo et al. and scikit-learn's calibration_curve.
    """
    values = np.asarray(probabilities, np.float64)
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], values, side="left")
    counts = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, weights=weights, minlength=bins) for weights in (values, correct.astype(np.float64))]
    mean, precision = (np.divide(one, counts, out=np.full(bins, np.nan), where=counts > 0) for one in sums)
    return Reliability(counts, mean, precision)


def half_of_images(images: int, seed: int = SEED) -> NDArray[np.bool_]:
    """A random half of I images: bool [I]; of an odd number, the smaller part."""
    half = np.zeros(images, bool)
    half[np.random.default_rng(seed).permutation(images)[: images // 2]] = True
    return half


def cross_fitted(
    scores: NDArray[np.floating], correct: NDArray[np.bool_], labels: NDArray[np.integer], first: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The probability that each detection is right, by detections of its class in the other half: float64 [n].

    For each class (`labels` [n]) and half (`first` [n], whether a detection is in the first), an isotonic regression
    of being `correct` on the score: the best-fitting probability that never falls as the score rises (Zadrozny and
    Elkan, KDD 2002). It assumes no scale of the scores. nan where the other half has no detection of the class.
    """
    from sklearn.isotonic import IsotonicRegression

    probabilities = np.full(len(scores), np.nan)
    for fitted, applied in halves_of_classes(labels, first):
        regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        regression.fit(scores[fitted].astype(np.float64), correct[fitted].astype(np.float64))
        probabilities[applied] = regression.predict(scores[applied].astype(np.float64))
    return probabilities


def halves_of_classes(
    labels: NDArray[np.integer], first: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each class and half, (the rows of the other half, to fit; its own rows, to apply), if neither is empty."""
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        here, there = rows[first[rows]], rows[~first[rows]]
        if len(here) and len(there):
            yield there, here
            yield here, there


def obtained_precisions(
    scores: NDArray[np.floating],
    correct: NDArray[np.bool_],
    labels: NDArray[np.integer],
    first: NDArray[np.bool_],
    positives: int,
    asked: Sequence[float] = ASKED,
) -> list[Obtained]:
    """For each precision that is `asked` for: what thresholds chosen for it achieve on images not used to choose them.

    A class's threshold is `lowest_score_at` that precision on its detections of one half. `labels` [n] are the classes,
    `first` [n] says which half a detection is in, `positives` is the number of objects to find.
    """
    halves = [
        (half_curve(scores[fitted], correct[fitted]), applied) for fitted, applied in halves_of_classes(labels, first)
    ]
    results = []
    for precision in asked:
        kept = found = 0
        for curve, applied in halves:
            cut = lowest_score_at(precision, curve)
            if cut is not None:
                above = scores[applied] >= cut
                kept += int(above.sum())
                found += int(correct[applied][above].sum())
        results.append(
            Obtained(precision, found / kept if kept else np.nan, found / positives if positives else np.nan, kept)
        )
    return results


def half_curve(scores: NDArray[np.floating], correct: NDArray[np.bool_]) -> Curve:
    """The precision-recall curve of one class's detections, in which only the precision matters."""
    order, positives = np.argsort(-scores, kind="stable"), max(1, int(correct.sum()))
    recall, precision = precision_recall(correct[order], positives)
    return Curve(scores[order].astype(np.float32), recall, precision, positives, len(scores))


def known(value: float) -> float | None:
    """The number, or None for nan."""
    return None if np.isnan(value) else float(value)
