"""The quality of regions: how well masks of proposals cover the masks of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.contract.errors import BadSetting
from stages.datasets import Dataset
from stages.datasets.class_masks import VOID
from stages.masks import COLUMNS, read_mask
from stages.matching.masks import mask_overlaps
from stages.resampling import image_weights, percentile_interval


@dataclass(frozen=True)
class RegionCoverage:
    """How well regions cover m objects of I images: `images` int64 [m], each object's image, from 0; `pixels` float64
    [m], its area; `overlaps` float64 [m, N], the best IoU of its mask among the first `counts[j]` regions of its image
    (None: all); `regions` float64 [N], the mean number of regions per image that this takes."""

    counts: tuple[int | None, ...]
    images: NDArray[np.int64]
    pixels: NDArray[np.float64]
    overlaps: NDArray[np.float64]
    regions: NDArray[np.float64]

    def best_overlap(self) -> NDArray[np.float64]:
        """The mean over all objects of the best IoU: float64 [N], nan without objects."""
        return np.asarray(self.overlaps.mean(axis=0)) if len(self.overlaps) else np.full(len(self.counts), np.nan)

    def covering(self) -> NDArray[np.float64]:
        """The best IoU averaged over the pixels of an image's objects, and then over the images that have objects
        (Arbeláez et al. 2009; CPMC, section 4): float64 [N], nan without objects."""
        covered = self.of_images()[2]
        return np.asarray(covered.mean(axis=0)) if len(covered) else np.full(len(self.counts), np.nan)

    def of_images(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """For each image with objects: their number, float64 [J], the sums of their best IoU, float64 [J, N], and the
        covering, float64 [J, N]."""
        _, places = np.unique(self.images, return_inverse=True)
        count = int(places.max(initial=-1)) + 1
        objects, pixels = np.zeros(count), np.zeros(count)
        sums, weighted = np.zeros((count, len(self.counts))), np.zeros((count, len(self.counts)))
        np.add.at(objects, places, 1)
        np.add.at(pixels, places, self.pixels)
        np.add.at(sums, places, self.overlaps)
        np.add.at(weighted, places, self.overlaps * self.pixels[:, None])
        return objects, sums, weighted / pixels[:, None]

    def intervals(self, resamples: int, seed: int) -> list[dict[str, tuple[float, float] | None]]:
        """For each count, bootstrap intervals of `best_overlap` and `covering` over the images with objects."""
        objects, sums, covered = self.of_images()
        if not len(objects):
            return [{"best_overlap": None, "covering": None} for _ in self.counts]
        weights = image_weights(len(objects), resamples, seed)
        best = (sums.T @ weights) / (objects @ weights)
        mean = (covered.T @ weights) / len(objects)
        return [
            {"best_overlap": percentile_interval(best[column]), "covering": percentile_interval(mean[column])}
            for column in range(len(self.counts))
        ]


def region_coverage(
    reader: Reader, dataset: Dataset, counts: Sequence[int | None], least_pixels: int = 0
) -> RegionCoverage:
    """The `RegionCoverage` of a complete cache of proposals with masks on its own dataset, one image at a time.

    Void pixels do not count; objects of fewer than `least_pixels` are left out. Raises BadSetting for a cache or a
    dataset without masks.
    """
    if not dataset.has_masks:
        raise BadSetting(f"{dataset.name} was opened without masks; set masks = true where the dataset is named")
    if "mask_end" not in reader.schema.rows:
        raise BadSetting(
            "the proposals have no masks; set masks = true in their table, or take method = 'min-cut' there"
        )
    most = None if None in counts else max(count for count in counts if count is not None)
    images, pixels, overlaps = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros((0, len(counts)))]
    regions = np.zeros(len(counts))
    for place, (image_id, record) in enumerate(reader.records(["boxes", *COLUMNS])):
        objects = dataset.object_masks(image_id)[1]
        objects = objects[objects.sum(axis=(1, 2)) >= max(1, least_pixels)]
        total = len(record["boxes"])
        regions += [total if count is None else min(total, count) for count in counts]
        if not len(objects):
            continue
        read = (read_mask(record, number) for number in range(total if most is None else min(total, most)))
        overlap = mask_overlaps(read, objects, dataset.class_mask(image_id) != VOID)
        images.append(np.full(len(objects), place))
        pixels.append(objects.sum(axis=(1, 2)).astype(np.float64))
        overlaps.append(np.stack([overlap[:count].max(axis=0, initial=0.0) for count in counts], axis=1))
    return RegionCoverage(
        tuple(counts),
        np.concatenate(images),
        np.concatenate(pixels),
        np.concatenate(overlaps),
        regions / max(1, len(reader)),
    )
