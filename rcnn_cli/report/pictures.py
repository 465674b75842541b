"""The images of a report: each is stored once in the page, however often it is shown, up to a limit on bytes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rcnn_cli.report.selection import fitted
from stages.contract.errors import BadImage
from stages.images.reading import Pixels
from stages.pictures.drawing import (
    MOST_HIDDEN,
    SMALLEST_FONT,
    Rectangle,
    font_of,
    hidden_by,
    label_place,
    label_size,
    pixel_corners,
    readable_on,
    shortened,
)
from stages.pictures.palette import kind_colour

LONGEST = 480
LETTERS_ACROSS = 19
"""The width of an image's frame, which is 4:3, in units of a label's font size."""
QUALITY = 80


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in the page: its `number`, the size of the original in pixels, and a JPEG as a data URI.

    `objects` are (x1, y1, x2, y2, class, difficult), in pixels of the original.
    """

    number: int
    image_id: str
    width: int
    height: int
    uri: str
    objects: tuple[tuple[float, float, float, float, str, bool], ...]


@dataclass
class Album:
    """Pictures by (key of the data, image id). `used`: the total length of their data URIs; `unreadable`: the images
    that could not be read."""

    datasets: Mapping[str, Any]
    pictures: dict[tuple[str, str], Picture] = field(default_factory=dict)
    unreadable: set[tuple[str, str]] = field(default_factory=set)
    used: int = 0

    def add(self, images: Iterable[tuple[str, str]], budget: int) -> None:
        """Adds the images in order, each once, until one would make the album exceed `budget` characters."""
        for key in images:
            if key in self.pictures or key in self.unreadable:
                continue
            picture = self.read(key)
            if picture is None:
                self.unreadable.add(key)
                continue
            if self.used + len(picture.uri) > budget:
                return
            self.used += len(picture.uri)
            self.pictures[key] = picture

    def read(self, key: tuple[str, str]) -> Picture | None:
        """Reads one image; None if it cannot be read."""
        dataset, image_id = self.datasets[key[0]], key[1]
        record = dataset.record(image_id)
        try:
            pixels = dataset.read_image(image_id)
        except BadImage:
            return None
        boxes = [[round(float(corner), 1) for corner in box] for box in record.boxes]
        classes = [dataset.classes[label] for label in record.labels]
        objects = tuple(
            (*box, name, bool(difficult)) for box, name, difficult in zip(boxes, classes, record.difficult, strict=True)
        )
        return Picture(len(self.pictures), image_id, record.width, record.height, jpeg_uri(pixels), objects)


def labels_of(detections: Sequence[Mapping[str, Any]], picture: Picture) -> list[dict[str, Any]]:
    """The labels of an image's detections ("box", "kind", "class", "precision"; most important first): their position
    and size in pixels of the image, their text and its colour, black or white. As in `stages.pictures.drawing`, a label
    that would hide another is left out."""
    size = (picture.width, picture.height)
    points = max(SMALLEST_FONT, round(max(picture.width, 4 / 3 * picture.height) / LETTERS_ACROSS))
    font = font_of(points)
    taken: list[Rectangle] = []
    labels = []
    for detection in detections:
        precision = "" if math.isnan(detection["precision"]) else f" {detection['precision']:.2f}"
        text = shortened(detection["class"], font, int(0.6 * picture.width)) + precision
        width, height = label_size(text, font)
        if width > size[0] or height > size[1]:
            continue
        place = label_place(pixel_corners(np.array(detection["box"]), size), (width, height), size, taken)
        if hidden_by(place, taken) > MOST_HIDDEN:
            continue
        taken.append(place)
        ink = "#000" if readable_on(kind_colour(detection["kind"])) == (0, 0, 0) else "#fff"
        labels.append(
            {"x": place[0], "y": place[1], "width": width, "height": height, "base": round(place[1] + 0.76 * height, 1),
             "points": points, "text": text, "kind": detection["kind"], "ink": ink}
        )  # fmt: skip
    return labels


def jpeg_uri(image: Pixels, longest: int = LONGEST) -> str:
    """The image, uint8 [H, W, 3], scaled down so that no side exceeds `longest` pixels, as the data URI of a JPEG."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture = picture.resize(fitted(picture.size, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
