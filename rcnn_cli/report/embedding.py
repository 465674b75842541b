"""The features of objects as a map in two dimensions: what the network finds alike lies close together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Reader
from rcnn_cli.recipes.graph import Node
from rcnn_cli.report.pictures import jpeg_uri
from rcnn_cli.report.runs import Run
from rcnn_cli.report.selection import Rows, in_turn
from rcnn_cli.running.runner import complete
from stages.contract.errors import BadImage
from stages.features.components import principal_components
from stages.images.reading import Pixels
from stages.networks import SOFTMAX
from stages.pictures.drawing import class_colours
from stages.pictures.palette import SERIES
from stages.tables import percent

MOST_OBJECTS = 300
"""In all maps of a page together; no map has fewer than FEWEST_OBJECTS, if the images show as many."""
FEWEST_OBJECTS = 60
SEED = 0
THUMBNAIL = 72
CONTEXT = 0.15
MARKS = (
    "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1-5 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6L5.8 4.4H-5.8Z",
    "M0-6.6L5 0L0 6.6L-5 0Z",
    "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "M0 6L5.8-4.4H-5.8Z",
    "M-5.7-2.9L-2.9-5.7L0-2.8L2.9-5.7L5.7-2.9L2.8 0L5.7 2.9L2.9 5.7L0 2.8L-2.9 5.7L-5.7 2.9L-2.8 0Z",
    "M-6.5-2.8H6.5V2.8H-6.5Z",
    "M-2.8-6.5H2.8V6.5H-2.8Z",
    "M-6 0L4.4-5.8V5.8Z",
    "M0-6.5L1.5-2L6.2-2L2.4 0.8L3.8 5.3L0 2.5L-3.8 5.3L-2.4 0.8L-6.2-2L-1.5-2Z",
    "M6 0L-4.4-5.8V5.8Z",
)
"""The shapes of the points, as SVG paths: a class is not told by its colour alone. Repeated after the last."""
WIDTH, HEIGHT, MARGIN = 640.0, 440.0, 14.0
"""The drawing's size, in its own units, and the margin in which no point lies."""


@dataclass(frozen=True)
class Place:
    """An object among the features: its image, the row of its features there, its class and its box [4] in pixels."""

    image_id: str
    row: int
    label: int
    box: NDArray[np.float32]


def embeddings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The maps of the features that the detectors of these runs read, each map once; none for a detector whose features
    are not kept, or begin with no objects."""
    found: dict[tuple[str, str], tuple[Run, Node]] = {}
    for run in runs:
        node = run.detector.sources.get("features")
        if isinstance(node, Node) and run.graph.is_cached(node) and complete(run.graph, node):
            found.setdefault((run.graph.identity(node).key, layer_of(run.detector)), (run, node))
    most = max(FEWEST_OBJECTS, MOST_OBJECTS // max(1, len(found)))
    maps = [embedding(run, node, layer, most) for (_, layer), (run, node) in found.items()]
    return [each for each in maps if each is not None]


def layer_of(detector: Node) -> str:
    """The layer that a detector scores: that of its SVMs, or the network's own probabilities."""
    svm = detector.sources.get("svm")
    return str(svm.settings.layer) if isinstance(svm, Node) else SOFTMAX


def embedding(run: Run, node: Node, layer: str, most: int) -> dict[str, Any] | None:
    """The map of at most `most` objects of the run's images, by the features of `layer`; None with fewer than three."""
    reader, dataset = Reader(run.graph.folder(node)), run.dataset
    every = places_of(reader)
    chosen = sampled(np.array([place.label for place in every], np.int64), most)
    places = [every[row] for row in chosen]
    if len(places) < 3 or layer not in reader.schema.rows:
        return None
    features = np.concatenate([reader.rows(one.image_id, layer, np.array([one.row])) for one in places])
    coordinates, variance = principal_components(features)
    colours = colours_of(len(dataset.classes))
    thumbnails = thumbnails_of(dataset, places)
    points = [
        {"x": x, "y": y, "label": place.label, "image": place.image_id, "thumbnail": thumbnails.get(number)}
        for number, (place, (x, y)) in enumerate(zip(places, on_paper(coordinates), strict=True))
    ]
    shown = sorted({place.label for place in places})
    marks = {label: MARKS[number % len(MARKS)] for number, label in enumerate(shown)}
    return {
        "run": run,
        "layer": layer,
        "dimension": int(features.shape[1]),
        "objects": len(every),
        "variance": [percent(float(share)) for share in variance],
        "points": points,
        "classes": [
            {"name": dataset.classes[label], "colour": colours[label], "mark": marks[label]} for label in shown
        ],
        "marks": marks,
        "colours": {label: colours[label] for label in shown},
        "names": {label: dataset.classes[label] for label in shown},
        "size": (WIDTH, HEIGHT),
    }


def places_of(features: Reader) -> list[Place]:
    """The annotated objects among the features, without difficult ones, in the cache's order."""
    places = []
    for image_id, record in features.records(("is_object", "label", "difficult", "boxes")):
        rows = np.flatnonzero(record["is_object"] & ~record["difficult"])
        places += [Place(image_id, int(row), int(record["label"][row]), record["boxes"][row]) for row in rows]
    return places


def sampled(labels: Rows, most: int) -> Rows:
    """The rows of at most `most` random objects, ascending: int64 [k]. Classes (`labels` [n]) take turns, so that rare
    ones are seen."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    return np.sort(shuffled[in_turn(labels[shuffled])][:most])


def on_paper(coordinates: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Coordinates [n, 2] as positions in the drawing, y downwards, each axis stretched to fill it."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    shares = (coordinates - low) / np.where(high > low, high - low, 1.0)
    xs = MARGIN + shares[:, 0] * (WIDTH - 2 * MARGIN)
    ys = HEIGHT - MARGIN - shares[:, 1] * (HEIGHT - 2 * MARGIN)
    return [(round(float(x), 1), round(float(y), 1)) for x, y in zip(xs, ys, strict=True)]


def colours_of(classes: int) -> list[str]:
    """A colour for each class, as CSS: those of the series if they suffice, else as far apart as possible."""
    if classes <= len(SERIES):
        return list(SERIES[:classes])
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in class_colours(classes)]


def thumbnails_of(dataset: Any, places: Sequence[Place]) -> dict[int, str]:
    """The objects as small JPEGs, data URIs by the place in `places`; without those whose images cannot be read."""
    by_image: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        by_image.setdefault(place.image_id, []).append(number)
    thumbnails = {}
    for image_id, numbers in by_image.items():
        try:
            pixels = dataset.read_image(image_id)
        except BadImage:
            continue
        for number in numbers:
            thumbnails[number] = jpeg_uri(crop(pixels, places[number].box), THUMBNAIL)
    return thumbnails


def crop(pixels: Pixels, box: NDArray[np.float32]) -> Pixels:
    """The image uint8 [H, W, 3] within `box` [4] and a little around it, at least a pixel."""
    margin = CONTEXT * float(max(box[2] - box[0], box[3] - box[1]))
    height, width = pixels.shape[:2]
    left, top = (int(max(0, np.floor(corner - margin))) for corner in box[:2])
    right, bottom = int(min(width, np.ceil(box[2] + margin))), int(min(height, np.ceil(box[3] + margin)))
    left, top = min(left, width - 1), min(top, height - 1)
    return pixels[top : max(bottom, top + 1), left : max(right, left + 1)]


def points_data(maps: Sequence[Mapping[str, Any]]) -> list[list[list[Any]]]:
    """The maps' points for page.js: [x, y, class name, image id, thumbnail or null]."""
    return [
        [[one["x"], one["y"], each["names"][one["label"]], one["image"], one["thumbnail"]] for one in each["points"]]
        for each in maps
    ]
