"""Units as object detectors in their own right: the regions that activate them most (R-CNN section 3.1).

Notation: n regions of one image; D units of a layer with C maps of H x W (D = C H W, flattened in this order); U units
selected from them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from stages.boxes import Boxes
from stages.detections.suppression import greedy_nms
from stages.matching.windows import shown_labels

Shape = tuple[int, int, int]
SHOWN_IOU = 0.5


@dataclass(frozen=True)
class TopRegions:
    """The k regions of one split that activate a unit most, strongest first.

    `activations` float32 [k], above 0; `images` int64 [k], positions in the cache; `boxes` float32 [k, 4]; `labels`
    int32 [k], the class of the object that a region overlaps most, -1 if that IoU is below SHOWN_IOU.
    `channel_maximum` is the largest activation of any region at any position of the unit's channel.
    """

    activations: NDArray[np.float32]
    images: NDArray[np.int64]
    boxes: Boxes
    labels: NDArray[np.int32]
    channel_maximum: float

    @property
    def normalised(self) -> NDArray[np.float32]:
        """The activations divided by the maximum over all units of the channel (Appendix D), float32 [k]."""
        return self.activations / np.float32(self.channel_maximum or 1)


class Strongest:
    """The `count` strongest regions of each of U units in a stream of images; no more are ever held.

    Each unit's regions in an image undergo greedy non-maximum suppression: one that overlaps a stronger one by more
    than `overlap` is dropped. Ties go to the first. Regions without activation (0 or less) are never included.
    """

    def __init__(self, units: int, count: int, overlap: float) -> None:
        self.count = count
        self.overlap = overlap
        self.held: list[list[tuple[float, int, int]]] = [[] for _ in range(units)]

    def add(self, image: int, boxes: Boxes, activations: NDArray[np.floating]) -> None:
        """Adds the next image: its position, its boxes [n, 4] and the units' activations for them, [n, U]."""
        for held, values in zip(self.held, activations.T, strict=True):
            # Suppression depends only on stronger regions, so those too weak to get in can be left out beforehand.
            least = held[0][0] if len(held) == self.count else 0.0
            rows = np.flatnonzero(values > least)
            strength = values[rows].astype(np.float32)
            kept = greedy_nms(boxes[rows], strength, self.overlap)
            for row in rows[kept[np.argsort(-strength[kept], kind="stable")]][: self.count].tolist():
                entry = (float(values[row]), -image, -row)
                if len(held) < self.count:
                    heapq.heappush(held, entry)
                elif entry > held[0]:
                    heapq.heapreplace(held, entry)

    def best(self) -> list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
        """For each unit, activations float32 [k], images and rows int64 [k], strongest first."""
        ranked = []
        for held in self.held:
            order = sorted(held, reverse=True)
            places = -np.array([entry[1:] for entry in order], np.int64).reshape(-1, 2)
            ranked.append((np.array([entry[0] for entry in order], np.float32), places[:, 0], places[:, 1]))
        return ranked


def strongest_regions(
    features: Reader,
    layer: str,
    shape: Shape,
    units: NDArray[np.int64],
    count: int,
    overlap: float,
    advance: Callable[[], None],
) -> list[TopRegions]:
    """The `count` strongest regions of each of `units`, int64 [U, 3] (channel, y, x, from 0), in a features cache.

    Ground-truth rows are left out, as the paper's regions are proposals. Only one image is in memory at a time;
    `advance` is called after each.
    """
    channels, own = np.unique(units[:, 0], return_inverse=True)
    columns = np.ravel_multi_index(units.T, shape)
    strongest = Strongest(len(units), count, overlap)
    maxima = np.zeros(len(channels), np.float32)
    for image, (_, record) in enumerate(features.records(["boxes", "is_object", layer])):
        proposals = np.flatnonzero(~record["is_object"])
        if len(proposals):
            values = record[layer][proposals]
            maps = values.reshape(-1, *shape)[:, channels].astype(np.float32)
            maxima = np.maximum(maxima, maps.max(axis=(0, 2, 3)))
            strongest.add(image, record["boxes"][proposals], values[:, columns])
        advance()
    return [
        TopRegions(activations, images, *regions_of(features, images, rows), channel_maximum=float(maxima[channel]))
        for (activations, images, rows), channel in zip(strongest.best(), own, strict=True)
    ]


def regions_of(features: Reader, images: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[Boxes, NDArray[np.int32]]:
    """Boxes float32 [k, 4] and labels int32 [k] (see TopRegions) of the proposals `rows` of `images` in a cache."""
    boxes, labels = np.zeros((len(rows), 4), np.float32), np.full(len(rows), -1, np.int32)
    for image in np.unique(images):
        record = features.read(features.item_ids[image], ["boxes", "is_object", "label"])
        objects = record["is_object"]
        of_image = np.flatnonzero(images == image)
        boxes[of_image] = record["boxes"][~objects][rows[of_image]]
        labels[of_image] = shown_labels(boxes[of_image], record["boxes"][objects], record["label"][objects], SHOWN_IOU)
    return boxes, labels


def class_selectivity(features: Reader, layer: str, classes: int) -> NDArray[np.float64]:
    """How much more each unit responds to objects of each class than to the others: float64 [classes, D].

    The difference between the two mean activations, in standard deviations over all objects; NaN for a class that has
    none or all of the objects, and for a unit that never varies. Difficult objects are left out. Reads only
    ground-truth rows.
    """
    dimension = features.schema.rows[layer].shape[0]
    sums, squares = np.zeros((classes, dimension)), np.zeros(dimension)
    counts = np.zeros(classes, np.int64)
    for labels, values in object_features(features, layer):
        np.add.at(sums, labels, values)
        squares += np.square(values).sum(axis=0)
        counts += np.bincount(labels, minlength=classes)
    total = counts.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(squares / total - np.square(sums.sum(axis=0) / total), 0))
        rest = (sums.sum(axis=0) - sums) / (total - counts)[:, None]
        difference = (sums / counts[:, None] - rest) / spread
    return np.where(np.isfinite(difference), difference, np.nan)


def object_features(features: Reader, layer: str) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    """Labels int32 [g] and features float64 [g, D] of each image's g objects that are not difficult."""
    for image_id, record in features.records(["is_object", "label", "difficult"]):
        rows = np.flatnonzero(record["is_object"] & ~record["difficult"])
        if len(rows):
            yield record["label"][rows], features.rows(image_id, layer, rows).astype(np.float64)


def selective_units(selectivity: NDArray[np.float64], shape: Shape, count: int) -> list[tuple[int, int]]:
    """Up to `count` pairs (unit, class): the most selective unit of each class in turn, then the next of each.

    `selectivity` is float64 [classes, units]. Classes are ordered by their best unit. A channel is taken only once,
    since its units compute the same at different positions.
    """
    values = np.nan_to_num(selectivity, nan=-np.inf)
    ranked: dict[int, Sequence[int]] = {
        int(label): np.argsort(-values[label], kind="stable")[: (values[label] > 0).sum()].tolist()
        for label in np.argsort(-values.max(axis=1, initial=-np.inf), kind="stable")
    }
    per_channel = shape[1] * shape[2]
    chosen: list[tuple[int, int]] = []
    taken: set[int] = set()
    pools: dict[int, Any] = {label: iter(units) for label, units in ranked.items()}
    while pools and len(chosen) < count:
        for label in list(pools):
            unit = next((candidate for candidate in pools[label] if candidate // per_channel not in taken), None)
            if unit is None:
                del pools[label]
            elif len(chosen) < count:
                taken.add(unit // per_channel)
                chosen.append((unit, label))
    return chosen
