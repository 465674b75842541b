"""Selective search's hierarchical grouping (Uijlings et al., IJCV 2013): the two most similar neighbouring regions are
merged, again and again, until one region is left. Every region on the way is a proposal.

Similarity is a weighted mean of up to four measures between 0 and 1 (their section 3.2): the intersections of the
colour and of the texture histograms, how small the regions are (size), and how well they fill their common box (fill).
The arithmetic is OpenCV's to the last bit, down to the order of sums, and so are the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.propose.compiled import compiled
from stages.propose.segmentation import Floats, Labels

Integers = NDArray[np.int32]
Index = int | np.int64

COLOUR_BINS = 25
"""Of each channel's histogram, over 0 to 256."""
TEXTURE_BINS = 10
"""Of each orientation's histogram; an orientation's values are scaled to 0 to 255."""
ROTATION = 45.0  # degrees


@dataclass(frozen=True)
class Regions:
    """The n regions of a segmentation: their `sizes` in pixels, int32 [n]; `boxes` int32 [n, 4], half-open corners; the
    `pairs` of neighbours, int32 [m, 2]; and histograms that each sum to 1: `colour` float32 [n, 25 C] and `texture`
    float32 [n, 80 C]."""

    sizes: NDArray[np.int32]
    boxes: NDArray[np.int32]
    pairs: NDArray[np.int32]
    colour: NDArray[np.float32]
    texture: NDArray[np.float32]


@dataclass(frozen=True)
class Strategy:
    """The weights of the measures in a similarity; those with weight 0 are left out."""

    colour: float = 0.0
    fill: float = 0.0
    texture: float = 0.0
    size: float = 0.0


@dataclass(frozen=True)
class Tree:
    """What grouping n regions makes: `boxes` int32 [N, 4] of these and of all larger ones, in the order in which they
    were made, and `parts` int32 [N - n, 2], the two regions of which each larger one is made."""

    boxes: NDArray[np.int32]
    parts: NDArray[np.int32]


@dataclass(frozen=True)
class Features:
    """What of an image decides the regions' histograms, pixel by pixel: the bin of each colour channel, `colour` uint8
    [H, W, C], and of each channel's gradient along 4 axes, `texture` uint8 [H, W, 4 C].

    A gradient counts in two histograms, of its positive and its negative part. Its bin is that of its positive part, or
    where it is not positive TEXTURE_BINS + that of its negative part; `at_zero` uint8 [4 C, 2] has the bins in which
    the other part, which is 0, is counted.
    """

    colour: NDArray[np.uint8]
    texture: NDArray[np.uint8]
    at_zero: NDArray[np.uint8]


def features_of(image: NDArray[np.uint8]) -> Features:
    """The features of an image uint8 [H, W, C] in any colour space."""
    channels = [np.ascontiguousarray(image[:, :, channel]) for channel in range(image.shape[2])]
    gradients = [gradient for channel in channels for gradient in gradients_of(channel)]
    bins = [np.empty(image.shape[:2], np.uint8) for _ in gradients]
    at_zero = np.empty((len(gradients), 2), np.uint8)
    for number, gradient in enumerate(gradients):
        least, most = gradient.min(), gradient.max()
        positive, negative = scaling(max(least, 0), max(most, 0)), scaling(min(least, 0), min(most, 0))
        at_zero[number] = bins_of(gradient, *positive, *negative, bins[number])
    colour = (image.astype(np.uint16) * COLOUR_BINS >> 8).astype(np.uint8)
    texture = np.asarray(cv2.merge(bins), np.uint8).reshape(*image.shape[:2], len(bins))
    return Features(colour, texture, at_zero)


def gradients_of(channel: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Scharr's gradients of a channel uint8 [H, W] along x, y and the two diagonals: four float32 [H, W].

    Those along the diagonals are gradients of the image turned by 45 degrees about its centre, turned back.
    """
    height, width = channel.shape
    centre = (width / 2, height / 2)
    _, _, columns, rows = cv2.RotatedRect(centre, (width, height), ROTATION).boundingRect()
    there = cv2.getRotationMatrix2D(centre, ROTATION, 1.0)
    there[:, 2] = there[:, 2] + np.array([columns - width, rows - height]) / 2
    back = cv2.getRotationMatrix2D((columns // 2, rows // 2), -ROTATION, 1.0)
    # If one side is over 2.4 times the other, OpenCV cuts out the diagonals' gradients beside their place; so do we.
    left, top = max(0, (columns - width) // 2), max(0, (rows - height) // 2)
    turned = cv2.warpAffine(channel, there, (columns, rows))
    axes = (1, 0), (0, 1)
    gradients = [cv2.Scharr(channel, cv2.CV_32F, *axis) for axis in axes]
    for axis in axes:
        gradient = cv2.warpAffine(cv2.Scharr(turned, cv2.CV_32F, *axis), back, (left + width, top + height))
        gradients.append(gradient[top:, left:])
    return [np.ascontiguousarray(gradient, np.float32) for gradient in gradients]


def scaling(least: float, most: float) -> tuple[np.float32, np.float32]:
    """(factor, summand) that scale the range from `least` to `most` to 0..255; both 0 for an empty range."""
    if most == least:
        return np.float32(0), np.float32(0)
    factor = 255 / (float(most) - float(least))
    return np.float32(factor), np.float32(-factor * float(least))


@compiled
def bin_of(value: np.float32, factor: np.float32, summand: np.float32) -> np.int32:
    """The bin, one of TEXTURE_BINS, of a value whose range is scaled to 0..255."""
    scaled = min(max(np.rint(value * factor + summand), np.float32(0)), np.float32(255))
    return np.int32(scaled) * np.int32(TEXTURE_BINS) >> np.int32(8)


@compiled
def bins_of(
    gradient: Floats,
    factor: np.float32,
    summand: np.float32,
    negative_factor: np.float32,
    negative_summand: np.float32,
    bins: NDArray[np.uint8],
) -> tuple[np.int32, np.int32]:
    """Writes the bins of a gradient float32 [H, W] to `bins` uint8 [H, W], and returns those of 0 (see Features)."""
    for y in range(gradient.shape[0]):
        for x in range(gradient.shape[1]):
            value = gradient[y, x]
            positive = bin_of(value, factor, summand)
            negative = TEXTURE_BINS + bin_of(value, negative_factor, negative_summand)
            bins[y, x] = positive if value > 0 else negative
    return bin_of(np.float32(0), factor, summand), bin_of(np.float32(0), negative_factor, negative_summand)


def describe(labels: Labels, image: Features) -> Regions:
    """The regions of a segmentation int32 [H, W] of the image.

    Regions are neighbours where a pixel of one lies beside, below, or below and to the right of a pixel of the other;
    as in OpenCV, pixels of the first row and column do not look for neighbours.
    """
    count = int(labels.max()) + 1
    sizes, boxes, borders, colour, texture = measure(labels, count, image.colour, image.texture, image.at_zero)
    lower, upper = np.divmod(np.unique(borders), count)
    return Regions(sizes, boxes, np.stack([lower, upper], axis=1).astype(np.int32), colour, texture)


@compiled
def measure(
    labels: Labels, count: int, colours: NDArray[np.uint8], gradients: NDArray[np.uint8], at_zero: NDArray[np.uint8]
) -> tuple[Integers, Integers, NDArray[np.int64], Floats, Floats]:
    """Of `describe`: sizes, boxes, the pairs of neighbours as lower x count + upper with repetitions, histograms."""
    height, width = labels.shape
    channels, axes = colours.shape[2], gradients.shape[2]
    sizes = np.zeros(count, np.int32)
    boxes = np.empty((count, 4), np.int32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = width, height, 0, 0
    borders = np.empty(3 * height * width, np.int64)
    found = 0
    colour_counts = np.zeros((count, channels, 25), np.int32)
    gradient_counts = np.zeros((count, axes, 20), np.int32)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            sizes[label] += 1
            boxes[label, 0] = min(boxes[label, 0], x)
            boxes[label, 1] = min(boxes[label, 1], y)
            boxes[label, 2] = max(boxes[label, 2], x + 1)
            boxes[label, 3] = max(boxes[label, 3], y + 1)
            for channel in range(channels):
                colour_counts[label, channel, colours[y, x, channel]] += 1
            for axis in range(axes):
                gradient_counts[label, axis, gradients[y, x, axis]] += 1
            if y > 0 and x > 0:
                for other in (labels[y, x - 1], labels[y - 1, x], labels[y - 1, x - 1]):
                    if other != label:
                        borders[found] = np.int64(min(label, other)) * count + max(label, other)
                        found += 1
    colour = np.empty((count, channels * 25), np.float32)
    texture = np.zeros((count, axes * 20), np.float32)
    for label in range(count):
        total = np.float32(sizes[label] * channels)
        for channel in range(channels):
            for place in range(25):
                colour[label, channel * 25 + place] = np.float32(colour_counts[label, channel, place]) / total
        total = np.float32(sizes[label] * axes * 2)
        for axis in range(axes):
            counts = gradient_counts[label, axis]
            positive, negative = counts[:10].copy(), counts[10:].copy()
            positive[at_zero[axis, 0]] += counts[10:].sum()
            negative[at_zero[axis, 1]] += counts[:10].sum()
            for place in range(10):
                texture[label, axis * 20 + place] = np.float32(positive[place]) / total
                texture[label, axis * 20 + 10 + place] = np.float32(negative[place]) / total
    return sizes, boxes, borders[:found], colour, texture


def group(regions: Regions, pixels: int, strategy: Strategy) -> Tree:
    """Groups the regions of an image of so many pixels. Of equally similar pairs the one that was found first is taken.

    Regions that have no neighbours, as all in an image of one row, stay alone.
    """
    weights = np.array([strategy.colour, strategy.fill, strategy.texture, strategy.size], np.float32)
    boxes, parts = grouped(
        regions.sizes, regions.boxes, regions.pairs, regions.colour, regions.texture, np.float32(pixels), weights
    )
    return Tree(boxes, parts)


@compiled
def intersection(first: Floats, second: Floats) -> np.float32:
    """Histogram intersection of two histograms float32 [bins]: the sum of the smaller ones, in the bins' order."""
    total = np.float32(0)
    for place in range(len(first)):
        total += min(first[place], second[place])
    return total


@compiled
def merge_histograms(first: Floats, second: Floats, first_size: Index, second_size: Index) -> None:
    """Writes to `first` the histogram of two regions together, weighted by their sizes."""
    total = np.float32(first_size + second_size)
    for place in range(len(first)):
        weighted = first[place] * np.float32(first_size) + second[place] * np.float32(second_size)
        first[place] = weighted / total


@compiled
def share_left(amount: Index, pixels: np.float32) -> np.float32:
    """1 less the share of the image that `amount` pixels are, within 0 and 1."""
    return max(min(np.float32(1) - np.float32(amount) / pixels, np.float32(1)), np.float32(0))


@compiled
def similarity(
    first: Index,
    second: Index,
    sizes: NDArray[np.int64],
    boxes: Integers,
    rows: NDArray[np.int64],
    colour: Floats,
    texture: Floats,
    pixels: np.float32,
    weights: Floats,
    total: np.float32,
) -> np.float32:
    """The similarity of two regions: the weighted mean of colour, fill, texture and size, in this order."""
    value = np.float32(0)
    if weights[0] > 0:
        value += weights[0] * intersection(colour[rows[first]], colour[rows[second]])
    both = sizes[first] + sizes[second]
    if weights[1] > 0:
        width = max(boxes[first, 2], boxes[second, 2]) - min(boxes[first, 0], boxes[second, 0])
        height = max(boxes[first, 3], boxes[second, 3]) - min(boxes[first, 1], boxes[second, 1])
        value += weights[1] * share_left(width * height - both, pixels)
    if weights[2] > 0:
        value += weights[2] * intersection(texture[rows[first]], texture[rows[second]])
    if weights[3] > 0:
        value += weights[3] * share_left(both, pixels)
    return value / total


@compiled
def grouped(
    region_sizes: Integers,
    region_boxes: Integers,
    pairs: Integers,
    colours: Floats,
    textures: Floats,
    pixels: np.float32,
    weights: Floats,
) -> tuple[Integers, Integers]:
    """(boxes, parts) of `group`.

    The pairs wait in a heap, the most similar on top; those of which a region has been merged since are dropped when
    they come up. `links` are lists of neighbours, each entry (region, place of the next entry).
    """
    count = len(region_sizes)
    most = 2 * count - 1
    sizes = np.empty(most, np.int64)
    boxes = np.empty((most, 4), np.int32)
    rows = np.arange(most)  # of a region's histograms: a merged one takes over those of one of its parts
    sizes[:count], boxes[:count] = region_sizes, region_boxes
    colour, texture = colours.copy(), textures.copy()
    parts = np.empty((most - count, 2), np.int32)
    alive = np.ones(most, np.bool_)
    total = np.float32(0)
    for weight in weights:
        total += weight

    head = np.full(most, -1, np.int64)
    tail = np.full(most, -1, np.int64)
    links = np.empty((max(16, 8 * len(pairs)), 2), np.int64)
    linked = 0
    heap = [(np.float32(0), 0, np.int64(0), np.int64(0)) for _ in range(0)]
    found = 0
    for pair in range(len(pairs)):
        first, second = np.int64(pairs[pair, 0]), np.int64(pairs[pair, 1])
        value = similarity(first, second, sizes, boxes, rows, colour, texture, pixels, weights, total)
        heap.append((-value, found, first, second))
        found += 1
        linked = link(head, tail, links, linked, first, second)
        linked = link(head, tail, links, linked, second, first)
    heapify(heap)
    seen = np.full(most, -1, np.int64)
    made = count
    while heap:
        _, _, first, second = heappop(heap)
        if not (alive[first] and alive[second]):
            continue
        alive[first] = alive[second] = False
        parts[made - count, 0], parts[made - count, 1] = first, second
        boxes[made, 0] = min(boxes[first, 0], boxes[second, 0])
        boxes[made, 1] = min(boxes[first, 1], boxes[second, 1])
        boxes[made, 2] = max(boxes[first, 2], boxes[second, 2])
        boxes[made, 3] = max(boxes[first, 3], boxes[second, 3])
        rows[made] = rows[first]
        if weights[0] > 0:
            merge_histograms(colour[rows[first]], colour[rows[second]], sizes[first], sizes[second])
        if weights[2] > 0:
            merge_histograms(texture[rows[first]], texture[rows[second]], sizes[first], sizes[second])
        sizes[made] = sizes[first] + sizes[second]
        for part in (first, second):
            place = head[part]
            while place >= 0:
                other = links[place, 0]
                place = links[place, 1]
                if not alive[other] or seen[other] == made:
                    continue
                seen[other] = made
                value = similarity(made, other, sizes, boxes, rows, colour, texture, pixels, weights, total)
                heappush(heap, (-value, found, np.int64(made), other))
                found += 1
                if linked + 2 > len(links):
                    longer = np.empty((2 * len(links), 2), np.int64)
                    longer[:linked] = links[:linked]
                    links = longer
                linked = link(head, tail, links, linked, made, other)
                linked = link(head, tail, links, linked, other, made)
        made += 1
    return boxes[:made], parts[: made - count]


@compiled
def link(
    head: NDArray[np.int64], tail: NDArray[np.int64], links: NDArray[np.int64], linked: int, region: Index, other: Index
) -> int:
    """Adds `other` to the end of the list of a region; returns the number of entries of all lists."""
    links[linked, 0], links[linked, 1] = other, -1
    if tail[region] < 0:
        head[region] = linked
    else:
        links[tail[region], 1] = linked
    tail[region] = linked
    return linked + 1
