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
    return {
        "run": run,
        "layer": layer,
        "dimension": int(features.shape[1]),
        "objects": len(every),
        "variance": [percent(float(share)) for share in variance],
        "points": points,
        "classes": [{"label": label, "name": dataset.classes[label], "colour": colours[label]} for label in shown],
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
