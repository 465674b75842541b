"""Graph-based image segmentation (Felzenszwalb and Huttenlocher, IJCV 2004): the regions that selective search starts
from.

Pixels are the vertices of a graph, and the weight of an edge is the difference of the two neighbouring pixels it joins.
Edges are visited by ascending weight; an edge joins the components C1 and C2 at its ends if its weight is at most
MInt(C1, C2), the smaller of Int(C) + k / |C| (equations 2 to 4), where Int(C), the largest weight in the minimum
spanning tree of C, is the weight of the edge that last joined C. Components of fewer than `min_size` pixels are then
joined to a neighbour, again by ascending weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.propose.compiled import compiled

Labels = NDArray[np.int32]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint32]

NEIGHBOURS = {4: ((-1, 0), (0, -1)), 8: ((-1, 0), (0, -1), (-1, -1), (-1, 1))}
"""The neighbours, as (rows, columns) away, that a pixel's own edges lead to: each edge belongs to one of its pixels."""


@dataclass(frozen=True)
class PixelGraph:
    """The edges of an image of `height` x `width` pixels by ascending weight: `weights` float32 [e], and the pixels
    they join, `starts` and `ends` uint32 [e], numbered row by row."""

    height: int
    width: int
    weights: NDArray[np.float32]
    starts: NDArray[np.uint32]
    ends: NDArray[np.uint32]


def pixel_graph(image: NDArray[np.uint8], sigma: float, neighbours: int = 4) -> PixelGraph:
    """The graph of an image uint8 [H, W, C], blurred by a Gaussian of standard deviation `sigma` pixels.

    A weight is the Euclidean distance of two pixels' colours. Edges of one weight are in a fixed order, so that the
    result is a function of the image alone.
    """
    height, width = image.shape[:2]
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma).reshape(height, width, -1)
    planes: Floats = np.ascontiguousarray(blurred.transpose(2, 0, 1), np.float32)
    steps = NEIGHBOURS[neighbours]
    weights = np.full((len(steps), height, width), np.inf, np.float32)  # infinite where the image ends
    for (rows, columns), own in zip(steps, weights, strict=True):
        write_distances(planes, rows, columns, own)
    keys = ascending(weights.ravel().view(np.uint32))[: int(np.isfinite(weights).sum())]
    offsets = np.array([rows * width + columns for rows, columns in steps])
    starts, ends = ends_of((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), offsets, height * width)
    return PixelGraph(height, width, (keys >> np.uint64(32)).astype(np.uint32).view(np.float32), starts, ends)


def segment(graph: PixelGraph, k: float, min_size: int) -> Labels:
    """The segmentation of the image: int32 [H, W], labels from 0 on in the order in which rows first show them."""
    pixels = graph.height * graph.width
    labels = joined(graph.weights, graph.starts, graph.ends, pixels, np.float32(k), min_size)
    return np.asarray(labels, np.int32).reshape(graph.height, graph.width)


@compiled
def write_distances(planes: Floats, rows: int, columns: int, distances: Floats) -> None:
    """Writes to `distances` float32 [H, W] the Euclidean distance of each pixel's colour in `planes` float32 [C, H, W]
    from that of the pixel `rows` and `columns` away; summed in float32, by channel."""
    channels, height, width = planes.shape
    left, right = max(-columns, 0), width - max(columns, 0)
    for y in range(-rows, height):
        distances[y, left:right] = 0
        for channel in range(channels):
            own, other = planes[channel, y], planes[channel, y + rows]
            for x in range(left, right):
                step = np.float64(own[x] - other[x + columns])
                distances[y, x] = np.float32(distances[y, x] + step * step)
        for x in range(left, right):
            distances[y, x] = np.sqrt(distances[y, x])


@compiled
def ascending(values: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """`values` uint32 [n] in ascending order, equal ones by their places: uint64 [n], value x 2^32 + place.

    A radix sort, a fifth of the time of NumPy's sort. Floats that are not negative ascend as their bits do.
    """
    digits = np.zeros((3, 2048), np.int64)
    keys, sorted_keys = np.empty(len(values), np.uint64), np.empty(len(values), np.uint64)
    for place in range(len(values)):
        value = values[place]
        keys[place] = (np.uint64(value) << np.uint64(32)) | np.uint64(place)
        digits[0, value & 2047] += 1
        digits[1, (value >> 11) & 2047] += 1
        digits[2, value >> 22] += 1
    for digit in range(3):
        starts = np.cumsum(digits[digit]) - digits[digit]
        shift = np.uint64(32 + 11 * digit)
        for key in keys:
            bucket = (key >> shift) & np.uint64(2047)
            sorted_keys[np.uint32(starts[bucket])] = key
            starts[bucket] += 1
        keys, sorted_keys = sorted_keys, keys
    return keys


@compiled
def ends_of(numbers: Pixels, offsets: NDArray[np.int64], pixels: int) -> tuple[Pixels, Pixels]:
    """(starts, ends) of edges: of pixel p in direction d, number d x `pixels` + p, it leads to p + `offsets` of d."""
    starts, ends = np.empty_like(numbers), np.empty_like(numbers)
    for edge in range(len(numbers)):
        direction, pixel = 0, np.int64(numbers[edge])
        while pixel >= pixels:
            direction, pixel = direction + 1, pixel - pixels
        starts[edge], ends[edge] = pixel, pixel + offsets[direction]
    return starts, ends


# Pixel numbers are unsigned: Numba need not check for negative indices, which would take a third of the time.


@compiled
def root_of(parents: Pixels, pixel: np.uint32) -> np.uint32:
    """The pixel that stands for the component of `pixel`; the path to it is halved on the way."""
    parent = parents[pixel]
    while parent != pixel:
        parents[pixel] = pixel = parents[parent]
        parent = parents[pixel]
    return pixel


@compiled
def unite(parents: Pixels, sizes: NDArray[np.int32], first: np.uint32, second: np.uint32) -> np.uint32:
    """Makes one component of the two whose roots these are; returns its root, that of the larger one."""
    if sizes[first] < sizes[second]:
        first, second = second, first
    parents[second] = first
    sizes[first] += sizes[second]
    return first


@compiled
def joined(weights: Floats, starts: Pixels, ends: Pixels, pixels: int, k: np.float32, min_size: int) -> Labels:
    """The labels of `segment`, int32 [pixels], of edges by ascending weight."""
    parents = np.arange(pixels).astype(np.uint32)
    sizes = np.ones(pixels, np.int32)
    limits = np.full(pixels, k, np.float32)  # Int(C) + k / |C|
    between = np.empty((len(weights), 2), np.uint32)  # the components at the ends of edges that joined nothing
    count = np.uint32(0)
    for edge in range(len(weights)):
        first, second = root_of(parents, starts[edge]), root_of(parents, ends[edge])
        if first == second:
            continue
        weight = weights[edge]
        if weight <= limits[first] and weight <= limits[second]:
            root = unite(parents, sizes, first, second)
            limits[root] = weight + k / np.float32(sizes[root])
        else:
            between[count, 0], between[count, 1] = first, second
            count += np.uint32(1)
    for edge in range(count):
        first, second = root_of(parents, between[edge, 0]), root_of(parents, between[edge, 1])
        if first != second and (sizes[first] < min_size or sizes[second] < min_size):
            unite(parents, sizes, first, second)
    labels = np.empty(pixels, np.int32)
    label_of = np.full(pixels, -1, np.int32)
    found = 0
    for pixel in range(pixels):
        root = root_of(parents, np.uint32(pixel))
        if label_of[root] < 0:
            label_of[root] = found
            found += 1
        labels[pixel] = label_of[root]
    return labels
