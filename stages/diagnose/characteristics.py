"""Normalised AP of the objects with one characteristic (Hoiem et al., analyzeTrueDetections.m; R-CNN's figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.diagnose.false_positives import precision_at_objects
from stages.matching.detections import HoiemMatches
from stages.matching.error_types import IGNORED, TRUE
from stages.matching.objects import Objects

CHARACTERISTICS: dict[str, tuple[str, ...]] = {
    "occlusion": ("visible", "occluded"),
    "truncation": ("whole", "truncated"),
    "area": ("extra-small", "small", "medium", "large", "extra-large"),
    "aspect ratio": ("extra-tall", "tall", "medium", "wide", "extra-wide"),
    "viewpoint": ("Frontal", "Rear", "Left", "Right"),
}
"""The bins of each characteristic that VOC's annotations tell."""
BINS = tuple((name, one) for name, bins in CHARACTERISTICS.items() for one in bins)
PERCENTILES = np.array([1 / 10, 3 / 10, 7 / 10, 9 / 10])
FEWEST = 5
"""A bin of fewer objects counts neither as a class's best nor as its worst (displayAverageSensitivityImpactPlot.m)."""


@dataclass(frozen=True)
class Normalised:
    """A normalised AP, its standard error over the objects, and how many they are; nan where it does not exist."""

    ap: float
    error: float
    positives: int


@dataclass(frozen=True)
class Sensitivity:
    """The worst and the best bin's normalised AP and the normalised AP of all objects, of one class or as a mean."""

    lowest: float
    highest: float
    overall: float

    @property
    def sensitivity(self) -> float:
        """How much the characteristic matters: the best less the worst."""
        return self.highest - self.lowest

    @property
    def impact(self) -> float:
        """What would be gained if all objects were as easy as the best bin's."""
        return self.highest - self.overall


def normalised_ap(verdicts: NDArray[np.int8], positives: int, normal: float) -> Normalised:
    """The normalised AP of a class or of a part of its objects, for N = `normal`; `verdicts` int8 [n] by rank.

    The error is the standard deviation of the objects' precisions over the root of their number; it takes two objects.
    """
    values = precision_at_objects(verdicts, positives, normal)
    ap = float(values.mean()) if positives else float("nan")
    error = float(values.std(ddof=1) / np.sqrt(positives)) if positives > 1 else float("nan")
    return Normalised(ap, error, positives)


def percentile_bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin 0 to 4 of each of a class's objects, int64 [m]: the lowest 10 %, the next 20, 40, 20 and 10 %.

    `values` float64 [m], positive. A bin ends with the value of rank m/10, 3m/10, ... (rounded to the nearest, halves
    up), so that equal values share the lower bin, and in a class of very few objects bins are empty.
    """
    ranks = np.floor(PERCENTILES * len(values) + 0.5).astype(int)
    bounds = np.concatenate([[0.0], np.sort(values)])[ranks]
    return np.searchsorted(bounds, values, side="left").astype(np.int64)


def bins_of(objects: Objects) -> dict[str, NDArray[np.int64]]:
    """For each characteristic the bin of each of one class's objects, int64 [m]; -1 for a difficult object and where
    the annotation does not say."""
    plain = ~objects.difficult
    sides = objects.boxes[plain, 2:].astype(np.float64) - objects.boxes[plain, :2]
    width, height = sides[:, 0], sides[:, 1]
    poses = {pose: number for number, pose in enumerate(CHARACTERISTICS["viewpoint"])}
    of_plain = {
        "occlusion": objects.occluded[plain].astype(np.int64),
        "truncation": objects.truncated[plain].astype(np.int64),
        "area": percentile_bins(width * height),
        "aspect ratio": percentile_bins(width / np.maximum(height, np.finfo(float).tiny)),
        "viewpoint": np.array([poses.get(str(pose), -1) for pose in objects.poses[plain]], np.int64),
    }
    found = {name: np.full(len(objects), -1, np.int64) for name in CHARACTERISTICS}
    for name, bins in of_plain.items():
        found[name][plain] = bins
    return found


def normalised_ap_of_bins(
    matches: HoiemMatches, objects: Objects, order: NDArray[np.int64], normal: float
) -> list[Normalised]:
    """The normalised AP of the objects in each of BINS; a detection of an object outside the bin is ignored.

    `matches` and `order` (int64 [n], the ranking) are those of the class's n detections, `objects` the class's.
    """
    bins = bins_of(objects)
    verdicts, taken = matches.verdicts[order], matches.objects[order]
    found = []
    for name, labels in CHARACTERISTICS.items():
        for number in range(len(labels)):
            inside = bins[name] == number
            outside = verdicts == TRUE
            outside[outside] = ~inside[taken[outside]]
            found.append(normalised_ap(np.where(outside, IGNORED, verdicts), int(inside.sum()), normal))
    return found


def sensitivity_of(bins: Sequence[Normalised], overall: float) -> Sensitivity | None:
    """A class's sensitivity to a characteristic, from its bins with at least FEWEST objects; None without two."""
    aps = [one.ap for one in bins if one.positives >= FEWEST]
    return Sensitivity(min(aps), max(aps), overall) if len(aps) > 1 else None


def mean_sensitivity(classes: Sequence[Sensitivity]) -> Sensitivity:
    """The means over classes, which figure 6 shows."""
    values = np.array([(one.lowest, one.highest, one.overall) for one in classes])
    return Sensitivity(*values.mean(axis=0).tolist())


def is_annotated(classes: Sequence[Sequence[Normalised]]) -> bool:
    """Whether a characteristic tells objects apart: at least two of its bins, given for each class, have some."""
    totals = [sum(one.positives for one in bins) for bins in zip(*classes, strict=True)]
    return sum(total > 0 for total in totals) > 1
