"""Normalised AP by object characteristic (Hoiem et al., analyzeTrueDetections.m; R-CNN's figure 6)."""

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
"""The bins of each characteristic that VOC annotates."""
BINS = tuple((name, label) for name, labels in CHARACTERISTICS.items() for label in labels)
PERCENTILES = np.array([1 / 10, 3 / 10, 7 / 10, 9 / 10])
FEWEST = 5
"""Bins with fewer objects count neither as best nor as worst of a class (displayAverageSensitivityImpactPlot.m)."""


@dataclass(frozen=True)
class Normalised:
    """A normalised AP, its standard error over the objects, and the number of objects; nan where undefined."""

    ap: float
    error: float
    positives: int


@dataclass(frozen=True)
class Sensitivity:
    """The normalised AP of the worst bin, the best bin and all objects, for one class or averaged over classes."""

    lowest: float
    highest: float
    overall: float

    @property
    def sensitivity(self) -> float:
        """How much the characteristic matters: best minus worst."""
        return self.highest - self.lowest

    @property
    def impact(self) -> float:
        """The gain if all objects were as easy as those of the best bin."""
        return self.highest - self.overall


def normalised_ap(verdicts: NDArray[np.int8], positives: int, normal: float) -> Normalised:
    """The normalised AP of a class, or of some of its objects, for N = `normal`; `verdicts` int8 [n] by rank.

    The standard error is the standard deviation of the objects' precisions divided by the square root of their number,
    and undefined for fewer than two objects.
    """
    values = precision_at_objects(verdicts, positives, normal)
    ap = float(values.mean()) if positives else float("nan")
    error = float(values.std(ddof=1) / np.sqrt(positives)) if positives > 1 else float("nan")
    return Normalised(ap, error, positives)


def percentile_bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin, 0 to 4, of each of a class's objects, int64 [m]: the lowest 10 %, the next 20, 40, 20 and 10 %.

    `values` float64 [m] are positive. A bin ends at the value of rank m/10, 3m/10, ... (rounded half up), so equal
    values share the lower bin, and classes with very few objects have empty bins.
    """
    ranks = np.floor(PERCENTILES * len(values) + 0.5).astype(int)
    bounds = np.concatenate([[0.0], np.sort(values)])[ranks]
    return np.searchsorted(bounds, values, side="left").astype(np.int64)


def bins_of(objects: Objects) -> dict[str, NDArray[np.int64]]:
    """Per characteristic, the bin of each of one class's objects, int64 [m]; -1 for difficult objects and where the
    annotation does not say."""
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
    of_all = {name: np.full(len(objects), -1, np.int64) for name in CHARACTERISTICS}
    for name, bins in of_plain.items():
        of_all[name][plain] = bins
    return of_all


def normalised_ap_of_bins(
    matches: HoiemMatches, objects: Objects, order: NDArray[np.int64], normal: float
) -> list[Normalised]:
    """The normalised AP of the objects in each of BINS; detections of objects outside the bin are ignored.

    `matches` and `order` (int64 [n], the ranking) belong to the n detections of one class, `objects` are its objects.
    """
    bins = bins_of(objects)
    verdicts, taken = matches.verdicts[order], matches.objects[order]
    of_bins = []
    for name, labels in CHARACTERISTICS.items():
        for number in range(len(labels)):
            inside = bins[name] == number
            outside = verdicts == TRUE
            outside[outside] = ~inside[taken[outside]]
            of_bins.append(normalised_ap(np.where(outside, IGNORED, verdicts), int(inside.sum()), normal))
    return of_bins


def sensitivity_of(bins: Sequence[Normalised], overall: float) -> Sensitivity | None:
    """A class's sensitivity to a characteristic, from bins with at least FEWEST objects; None if fewer than two."""
    aps = [of_bin.ap for of_bin in bins if of_bin.positives >= FEWEST]
    return Sensitivity(min(aps), max(aps), overall) if len(aps) > 1 else None


def mean_sensitivity(classes: Sequence[Sensitivity]) -> Sensitivity:
    """The means over classes, as shown in figure 6."""
    values = np.array([(of_class.lowest, of_class.highest, of_class.overall) for of_class in classes])
    return Sensitivity(*values.mean(axis=0).tolist())


def is_annotated(classes: Sequence[Sequence[Normalised]]) -> bool:
    """Whether a characteristic is annotated: at least two of its bins, given per class, have objects in some class."""
    totals = [sum(of_class.positives for of_class in of_bin) for of_bin in zip(*classes, strict=True)]
    return sum(total > 0 for total in totals) > 1
