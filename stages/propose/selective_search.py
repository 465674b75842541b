"""Selective search (R-CNN section 2.1; Uijlings et al., IJCV 2013): graph-based segmentations of the image in several
colour spaces, each grouped region by region by several similarities.

With the default settings it finds the boxes of OpenCV's implementation (`selective_search_opencv.py`) in a tenth of the
time. Which of several equally distant pixels, or equally similar regions, are joined first is left to an unstable sort
there; here it is the first. OpenCV's quality mode searches the blue channel where it means to search the hue, by a slip
(it splits the image into a buffer that the hue is still in); here it is the hue, as in the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.propose import Settings
from stages.propose.compiled import compile_aloud
from stages.propose.grouping import Strategy, describe, features_of, group
from stages.propose.masks import Forest, MaskedRegions, all_boxes, largest_regions
from stages.propose.searched_image import are_large, check_pixels, map_back, resize, searched_size, size_advice
from stages.propose.segmentation import pixel_graph, segment
from stages.propose.selection import Proposals

Image = NDArray[np.uint8]

SLOW_PIXELS = 4_000_000
WEIGHTS = {1: 1.0, 2: 0.5, 3: 0.3333, 4: 0.25}
"""OpenCV's weight of each of so many measures."""


def conversion(code: int) -> Callable[[Image], Image]:
    """OpenCV's conversion from blue, green, red."""
    return lambda image: np.asarray(cv2.cvtColor(image, code), np.uint8)


def hue(image: Image) -> Image:
    """The first channel of HSV."""
    return COLOUR_SPACES["hsv"](image)[:, :, :1]


def red_green_intensity(image: Image) -> Image:
    """Red, green and intensity; OpenCV does not normalise the two colours, as the original's rgI does."""
    return np.dstack([image[:, :, 2], image[:, :, 1], COLOUR_SPACES["intensity"](image)])


COLOUR_SPACES: dict[str, Callable[[Image], Image]] = {
    "hsv": conversion(cv2.COLOR_BGR2HSV),
    "lab": conversion(cv2.COLOR_BGR2Lab),
    "intensity": conversion(cv2.COLOR_BGR2GRAY),
    "hue": hue,
    "rgi": red_green_intensity,
}
"""From an image uint8 [H, W, 3], blue, green and red, to uint8 [H, W, C] or [H, W]."""


ALL_FOUR, WITHOUT_COLOUR = "colour+texture+size+fill", "texture+size+fill"
MODES = {
    "fast": (("hsv", "lab"), (ALL_FOUR, WITHOUT_COLOUR)),
    "quality": (tuple(COLOUR_SPACES), (ALL_FOUR, WITHOUT_COLOUR, "fill", "size")),
}
"""Colour spaces and strategies of each mode; the original and OpenCV agree on them."""

STEPS = {
    "opencv": {"fast": (0, 1, 2), "quality": (0, 1, 2, 3, 4)},
    "original": {"fast": (0, 1), "quality": (0, 1, 2, 5)},
}
"""The segmentations' k are base_k + so many times inc_k; the original's are 50, 100 and 50, 100, 150, 300."""

MIN_SIZE = 100
"""OpenCV's least size of a segment, in pixels; the original's is k."""


def ks_of(settings: Settings) -> list[int]:
    """The k of each segmentation of a colour space."""
    return [settings.base_k + step * settings.inc_k for step in STEPS[settings.segmentation][settings.mode]]


def strategy_of(measures: str) -> Strategy:
    """The strategy that "colour+fill", say, names."""
    names = measures.split("+")
    return Strategy(**dict.fromkeys(names, WEIGHTS[len(names)]))


def check_available() -> None:
    """Compiles what is not yet compiled for this processor."""
    settings = Settings(masks=True, resize_width=0)
    image = np.zeros((2, 2, 3), np.uint8)
    compile_aloud("selective search", lambda: find(settings, (2, 2), image, {}).columns())


def advice(settings: Settings, size: tuple[int, int]) -> str:
    """A warning if images of `size` (width, height) take long, else ""."""
    return size_advice(settings, size, SLOW_PIXELS, ", which takes several seconds and much memory")


def find(settings: Settings, size: tuple[int, int], image: Image, key: Mapping[str, Any]) -> Proposals:
    """The regions of an image uint8 [H, W, 3] RGB that are large (`are_large`) at the size at which it is searched.

    Their masks, if kept, are those of `largest_regions`.
    """
    searched = searched_size(*size, settings.resize_width, settings.max_side)
    forests = search_forests(resize(image, searched), settings)
    boxes = all_boxes(forests)
    places = positions(forests)
    large = np.flatnonzero(are_large(boxes, searched, settings.min_side) & (places > 0))
    regions = MaskedRegions(forests, largest_regions(forests)[large]) if settings.masks else None
    return Proposals(map_back(boxes[large], searched, size), positions=places[large], regions=regions)


def positions(forests: Sequence[Forest]) -> NDArray[np.int64]:
    """The places of all regions in their hierarchies, int64 [N], as in the release (Image2HierarchicalGrouping.m).

    Of the n regions that are made by merging, the last, usually the whole image, has 1 and the first n; the segments,
    of which they are made, all have n + 1. They count only in the first of a segmentation's hierarchies: 0 elsewhere.
    """
    places = []
    for forest in forests:
        for number, tree in enumerate(forest.trees):
            merged = len(tree.parts)
            segments = len(tree.boxes) - merged
            places += [np.full(segments, 0 if number else merged + 1), np.arange(merged, 0, -1)]
    return np.concatenate(places)


def search_forests(image: Image, settings: Settings) -> list[Forest]:
    """The segmentations of an image uint8 [H, W, 3] RGB, each with the trees of its regions.

    Raises ValueError for any other array.
    """
    check_pixels(image)
    blue_green_red = np.ascontiguousarray(image[:, :, ::-1])
    height, width = image.shape[:2]
    original, sigma = settings.segmentation == "original", float(np.float32(settings.sigma))  # OpenCV's precision
    spaces, measures = MODES[settings.mode]
    strategies = [strategy_of(names) for names in settings.strategies or measures]
    forests = []
    for space in settings.colour_spaces or spaces:
        converted = COLOUR_SPACES[space](blue_green_red).reshape(height, width, -1)
        features, graph = features_of(converted), pixel_graph(converted, sigma, 8 if original else 4)
        for k in ks_of(settings):
            labels = segment(graph, k, k if original else MIN_SIZE)
            regions = describe(labels, features)
            forests.append(Forest(labels, tuple(group(regions, height * width, strategy) for strategy in strategies)))
    return forests
