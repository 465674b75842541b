"""Regions as constrained parametric min-cuts (CPMC: Carreira and Sminchisescu, CVPR 2010), on a graph of superpixels.

For each of a grid of foreground seeds, the region that contains it is sought that minimises

    (cost of its border) - (what its superpixels say of the foreground) - lambda (its area),

for every lambda: the larger lambda, the larger the region, and each contains those before (Gallo, Grigoriadis and
Tarjan 1989). Borders cost least where colours differ most, and the image's frame, which is
mostly background, costs a little where a region touches it. In one family of such problems superpixels say nothing, so
that all is a matter of borders and area; in another they say how likely their colours are in the seed rather than in
the frame. Regions that are much the same are kept once, and ordered so that the first are both well bordered and
diverse (maximal marginal relevance, as in CPMC, but with a fixed score in place of a learnt one).

Cutting superpixels instead of pixels is ours, and takes a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

from cache import Record
from stages.contract.errors import StageError
from stages.masks import encode, mask_columns
from stages.propose import Settings
from stages.propose.searched_image import map_back, resize, searched_size
from stages.propose.selection import Proposals

Labels = NDArray[np.int64]
"""[H, W]: the superpixel of each pixel, 0 to n - 1."""
Members = NDArray[np.bool_]
"""[n]: which superpixels belong to a region; [regions, n]: those of several."""
Whole = NDArray[np.int64]
Floats = NDArray[np.float64]

UNITS = 1000
"""Costs are rounded to whole numbers of a thousandth: maximum_flow takes whole capacities."""
MOST_CAPACITY = np.iinfo(np.int32).max
"""maximum_flow takes 32 bits; what a superpixel is worth beyond the cost of all its borders decides nothing."""
COMPACTNESS = 10.0  # SLIC's weight of distance against colour
ITERATIONS = 10
LEAST_SUPERPIXEL = 25  # percent of the mean size; smaller ones are joined to a neighbour
UNLIKELY = 1e-3  # added to likelihoods, so that an unseen colour is not infinitely unlikely
SLOW_PIXELS = 1_000_000
MISSING = (
    "min-cut needs cv2.ximgproc, which is missing: install opencv-contrib-python-headless in place of the other opencv "
    "packages"
)


@dataclass(frozen=True)
class SuperpixelGraph:
    """The n superpixels of an image and their e borders: `areas` in pixels int64 [n], mean `colours` in Lab float64
    [n, 3], pixels on the image's `frame` int64 [n]; `pairs` int64 [e, 2] of neighbours, their common border's `lengths`
    in pixels int64 [e], colour `differences` float64 [e], and `costs` in UNITS int64 [e]."""

    areas: Whole
    colours: Floats
    frame: Whole
    pairs: Whole
    lengths: Whole
    differences: Floats
    costs: Whole


@dataclass(frozen=True)
class SuperpixelRegions:
    """Regions of an image as sets of its superpixels."""

    labels: Labels
    members: Members

    def take(self, rows: NDArray[np.intp]) -> SuperpixelRegions:
        """The regions at `rows`, in their order."""
        return SuperpixelRegions(self.labels, self.members[rows])

    def columns(self) -> Record:
        """The columns of a cache that hold their masks (stages/masks.py)."""
        height, width = self.labels.shape
        return mask_columns([encode(of_region[self.labels]) for of_region in self.members], (width, height))


def check_available() -> None:
    """Raises StageError if OpenCV is installed without the contrib modules."""
    if not hasattr(getattr(cv2, "ximgproc", None), "createSuperpixelSLIC"):
        raise StageError(MISSING)


def advice(settings: Settings, size: tuple[int, int]) -> str:
    """A warning if images of `size` (width, height) take long, else ""."""
    width, height = searched_size(*size, 0, settings.cut_max_side)
    if width * height <= SLOW_PIXELS:
        return ""
    return (
        f"is cut at {width} x {height} pixels, which takes long; set propose.cut_max_side = 500 to cut a smaller image"
    )


def find(settings: Settings, size: tuple[int, int], image: NDArray[np.uint8], key: Mapping[str, Any]) -> Proposals:
    """The regions of an image uint8 [H, W, 3] RGB, in their order of priority, with their boxes in its pixels."""
    searched = searched_size(*size, 0, settings.cut_max_side)
    resized = resize(image, searched)
    labels = superpixels(resized, settings.superpixel_side)
    graph = graph_of(labels, resized, settings.contrast, settings.smoothness)
    members = in_order(graph, regions_of(graph, labels, settings), settings)
    boxes = boxes_of(members, labels)
    return Proposals(map_back(boxes, searched, size), regions=SuperpixelRegions(labels, members))


def superpixels(image: NDArray[np.uint8], side: int) -> Labels:
    """The superpixels of an image uint8 [H, W, 3] RGB by SLIC (Achanta et al. 2012), about `side` pixels wide."""
    height, width = image.shape[:2]
    lab = np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
    search = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.SLIC, min(side, height, width), COMPACTNESS)
    search.iterate(ITERATIONS)
    search.enforceLabelConnectivity(LEAST_SUPERPIXEL)
    found = np.asarray(search.getLabels())
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)


def graph_of(labels: Labels, image: NDArray[np.uint8], contrast: float, smoothness: float) -> SuperpixelGraph:
    """The graph of the superpixels `labels` of an image uint8 [H, W, 3] RGB.

    The cost of a border is its length times (exp(-d / (contrast m)) + smoothness), where d is the difference of the
    colours in Lab and m its median over all borders.
    """
    count = int(labels.max()) + 1
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    areas = np.bincount(labels.ravel(), minlength=count)
    sums = [np.bincount(labels.ravel(), lab[:, :, channel].ravel(), count) for channel in range(3)]
    colours = np.stack(sums, axis=1) / areas[:, None]
    sides = [(labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])]
    touching = np.concatenate([np.stack([first.ravel(), second.ravel()], axis=1) for first, second in sides])
    touching = np.sort(touching[touching[:, 0] != touching[:, 1]], axis=1)
    borders, lengths = np.unique(touching[:, 0] * count + touching[:, 1], return_counts=True)
    pairs = np.stack([borders // count, borders % count], axis=1)
    differences = np.linalg.norm(colours[pairs[:, 0]] - colours[pairs[:, 1]], axis=1)
    usual = max(float(np.median(differences)), 1e-6) if len(differences) else 1.0
    costs = lengths * (np.exp(-differences / (contrast * usual)) + smoothness)
    edge = np.zeros(labels.shape, np.bool_)
    edge[[0, -1]], edge[:, [0, -1]] = True, True
    return SuperpixelGraph(
        areas=areas,
        colours=colours,
        frame=np.bincount(labels[edge], minlength=count),
        pairs=pairs,
        lengths=lengths,
        differences=differences,
        costs=np.rint(UNITS * costs).astype(np.int64),
    )


def seeds_of(labels: Labels, per_side: int) -> list[Members]:
    """The superpixels [n] that each of `per_side` x `per_side` patches touches, each set once; a patch is a twentieth
    of the image's shorter side wide."""
    height, width = labels.shape
    reach = max(1, min(height, width) // 40)
    distinct: dict[tuple[int, ...], None] = {}
    for row in range(per_side):
        for column in range(per_side):
            y, x = int((row + 0.5) * height / per_side), int((column + 0.5) * width / per_side)
            patch = labels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            distinct[tuple(np.unique(patch).tolist())] = None
    count = int(labels.max()) + 1
    return [np.isin(np.arange(count), numbers) for numbers in distinct]


def likelihoods(graph: SuperpixelGraph, bandwidth: float) -> Floats:
    """How alike the colours of superpixels are: a Gaussian of their distance in Lab, float64 [n, n]."""
    squares = (graph.colours**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * graph.colours @ graph.colours.T
    return np.asarray(np.exp(-np.maximum(distances, 0) / (2 * bandwidth**2)))


def log_likelihood(alike: Floats, areas: Whole, members: Members) -> Floats:
    """The logarithm of how likely each superpixel's colour is among the `members` [n], by their area: float64 [n]."""
    return np.asarray(np.log(alike[:, members] @ areas[members] / areas[members].sum() + UNLIKELY))


def regions_of(graph: SuperpixelGraph, labels: Labels, settings: Settings) -> Members:
    """The distinct regions [regions, n] of all seeds and families of cuts, each connected, sorted.

    Those of less than `least_area` or more than `most_area` of the image are left out.
    """
    alike = likelihoods(graph, settings.colour_bandwidth)
    of_frame = log_likelihood(alike, graph.areas, graph.frame > 0)
    regions: list[Members] = [np.zeros((0, len(graph.areas)), np.bool_)]
    for seed in seeds_of(labels, settings.seeds):
        for unary in settings.unaries:
            gains = -settings.frame_cost * graph.frame
            if unary == "colour":
                ratio = log_likelihood(alike, graph.areas, seed) - of_frame
                gains = gains + settings.colour_weight * graph.areas * ratio
            cuts = parametric_cuts(graph, seed, np.rint(UNITS * gains).astype(np.int64), settings.cuts)
            regions += [component(graph, region, seed)[None] for region in cuts]
    members = np.unique(np.concatenate(regions), axis=0)
    shares = members @ graph.areas / graph.areas.sum()
    return members[(shares >= settings.least_area) & (shares <= settings.most_area)]


def parametric_cuts(graph: SuperpixelGraph, seed: Members, gains: Whole, most: int) -> list[Members]:
    """Minimal cuts for several lambda, from the smallest region to the largest, each containing the one before.

    All contain the `seed` [n]; neither it nor the whole image is among them. `gains` int64 [n], in UNITS, is what
    superpixels say of the foreground. At most so many lambda are tried: the next is always that at which the
    two neighbouring regions most different in area cost the same. If no region is better there, none lies between them
    (Eisner and Severance 1976).
    """
    regions = [seed, np.ones(len(seed), np.bool_)]
    energies = [energy(graph, region, gains) for region in regions]
    areas = [int(graph.areas[region].sum()) for region in regions]
    open_gaps = [True]
    for _ in range(most):
        widths = [areas[k + 1] - areas[k] if is_open else 0 for k, is_open in enumerate(open_gaps)]
        k = int(np.argmax(widths))
        if widths[k] <= 0:
            break
        weight = (energies[k + 1] - energies[k]) / widths[k]
        region = minimal_cut(graph, regions[k], regions[k + 1], capacities(graph, gains, weight))
        area = int(graph.areas[region].sum())
        if area in (areas[k], areas[k + 1]):
            open_gaps[k] = False
            continue
        regions.insert(k + 1, region)
        energies.insert(k + 1, energy(graph, region, gains))
        areas.insert(k + 1, area)
        open_gaps.insert(k, True)
    return regions[1:-1]


def capacities(graph: SuperpixelGraph, gains: Whole, weight: float) -> Whole:
    """What each superpixel is worth to the foreground at lambda = `weight`, in UNITS: int64 [n]."""
    return np.asarray(gains + np.rint(weight * graph.areas), np.int64)


def energy(graph: SuperpixelGraph, region: Members, gains: Whole) -> int:
    """The cost of a region's border less the gains of its superpixels, in UNITS."""
    border = region[graph.pairs[:, 0]] != region[graph.pairs[:, 1]]
    return int(graph.costs[border].sum() - gains[region].sum())


def minimal_cut(graph: SuperpixelGraph, inside: Members, within: Members, worth: Whole) -> Members:
    """The region that contains `inside` [n], lies `within` [n], and minimises the cost of its border less the `worth`
    int64 [n] of its superpixels; of several the smallest.

    Superpixels that are not in question become part of the source or the sink.
    """
    unsure = np.flatnonzero(within & ~inside)
    place = np.full(len(inside), -1)
    place[unsure] = np.arange(len(unsure))
    places = place[graph.pairs]
    net = worth[unsure].copy()
    for end, other in ((0, 1), (1, 0)):
        leaving = (places[:, end] >= 0) & (places[:, other] < 0)
        towards = np.where(inside[graph.pairs[leaving, other]], 1, -1) * graph.costs[leaving]
        net += np.bincount(places[leaving, end], towards, len(unsure)).astype(np.int64)
    source, sink = len(unsure), len(unsure) + 1
    gain, loss = np.flatnonzero(net > 0), np.flatnonzero(net < 0)
    between = (places >= 0).all(axis=1)
    first, second = places[between].T
    rows = np.concatenate([first, second, np.full(len(gain), source), loss])
    columns = np.concatenate([second, first, gain, np.full(len(loss), sink)])
    values = np.concatenate([graph.costs[between], graph.costs[between], net[gain], -net[loss]])
    values = np.minimum(values, MOST_CAPACITY).astype(np.int32)
    network = csr_array((values, (rows, columns)), shape=(sink + 1, sink + 1))
    left = network - maximum_flow(network, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)
    region = inside.copy()
    region[unsure[reached[reached < source]]] = True
    return region


def component(graph: SuperpixelGraph, region: Members, seed: Members) -> Members:
    """The connected part of a region [n] that contains its `seed` [n], which is connected."""
    inner = graph.pairs[region[graph.pairs].all(axis=1)]
    count = len(region)
    neighbours = csr_array((np.ones(len(inner), np.int8), (inner[:, 0], inner[:, 1])), shape=(count, count))
    parts = connected_components(neighbours, directed=False)[1]
    return np.asarray(region & (parts == parts[seed.argmax()]))


def in_order(graph: SuperpixelGraph, members: Members, settings: Settings) -> Members:
    """The regions [regions, n] without near-equals, the best and most diverse first.

    A region's score is the mean difference of colours along its border, the image's edge counting as none, as its rank
    between 0 and 1. Of regions whose IoU is above `same_overlap` that of the highest score is kept. Each next region is
    the one with the highest score less `diversity` times its largest IoU with those before.
    """
    if not len(members):
        return members
    scores = border_contrast(graph, members)
    overlaps = overlap_matrix(members, graph.areas)
    kept = distinct_rows(scores, overlaps, settings.same_overlap)
    order = diverse_order(ranks(scores[kept]), overlaps[np.ix_(kept, kept)], settings.diversity)
    return members[kept[order]]


def border_contrast(graph: SuperpixelGraph, members: Members) -> Floats:
    """The mean difference of colours along the borders of regions [regions, n]: float64 [regions]."""
    border = members[:, graph.pairs[:, 0]] != members[:, graph.pairs[:, 1]]
    lengths = border @ graph.lengths + members @ graph.frame
    return np.asarray(border @ (graph.lengths * graph.differences) / np.maximum(lengths, 1))


def overlap_matrix(members: Members, areas: Whole) -> Floats:
    """IoU of regions [regions, n] of superpixels with these `areas`: float64 [regions, regions]."""
    weighted = members * areas.astype(np.float64)
    common = weighted @ members.T.astype(np.float64)
    sizes = weighted.sum(axis=1)
    return np.asarray(common / (sizes[:, None] + sizes[None] - common))


def distinct_rows(scores: Floats, overlaps: Floats, most: float) -> NDArray[np.intp]:
    """The rows that are kept if the best row is kept and all that overlap it by more than `most` are dropped, and so
    on, best first."""
    kept = []
    left = np.ones(len(scores), np.bool_)
    for row in np.argsort(-scores, kind="stable"):
        if left[row]:
            kept.append(row)
            left &= overlaps[row] <= most
    return np.array(kept, np.intp)


def ranks(scores: Floats) -> Floats:
    """The ranks of scores, the lowest 0, the highest 1: float64 [n]."""
    return np.argsort(np.argsort(scores, kind="stable"), kind="stable") / max(len(scores) - 1, 1)


def diverse_order(scores: Floats, overlaps: Floats, diversity: float) -> NDArray[np.intp]:
    """The rows by maximal marginal relevance: each next has the highest score less `diversity` times its largest
    overlap with those before."""
    order = []
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), np.bool_)
    for _ in scores:
        row = int(np.argmax(np.where(left, scores - diversity * nearest, -np.inf)))
        order.append(row)
        left[row] = False
        nearest = np.maximum(nearest, overlaps[row])
    return np.array(order, np.intp)


def boxes_of(members: Members, labels: Labels) -> Whole:
    """The boxes (x1, y1, x2, y2) of regions [regions, n], in pixels as searched, half-open: int64 [regions, 4]."""
    count, shape = int(labels.max()) + 1, labels.shape
    rows, columns = (np.broadcast_to(axis, shape).ravel() for axis in np.ogrid[: shape[0], : shape[1]])
    corners = np.tile(np.array([*shape[::-1], 0, 0]), (count, 1))
    for column, values in enumerate((columns, rows)):
        np.minimum.at(corners[:, column], labels.ravel(), values)
        np.maximum.at(corners[:, column + 2], labels.ravel(), values + 1)
    boxes = [[*corners[region, :2].min(axis=0), *corners[region, 2:].max(axis=0)] for region in members]
    return np.array(boxes, np.int64).reshape(-1, 4)
