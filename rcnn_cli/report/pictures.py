"""The images of a report: each is in the page once, whatever is shown of it, as many as the page may hold."""

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
"""How many times the height of a label's type goes into the width of an image's frame, which is 4:3."""
QUALITY = 80


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in the page: its `number` there, size in pixels of the original, and the JPEG as a data URI.

    `objects` are (x1, y1, x2, y2, class, difficult).
    """

    number: int
    image_id: str
    width: int
    height: int
    uri: str
    objects: tuple[tuple[float, float, float, float, str, bool], ...]


@dataclass
class Album:
    """Pictures by (the data's key, image id); `used` is the number of characters of their data URIs.

    `unreadable` are the images that could not be read.
    """

    datasets: Mapping[str, Any]
    pictures: dict[tuple[str, str], Picture] = field(default_factory=dict)
    unreadable: set[tuple[str, str]] = field(default_factory=set)
    used: int = 0

    def add(self, images: Iterable[tuple[str, str]], budget: int) -> None:
        """Reads the images one after the other, each once, until the first that makes the album exceed `budget`."""
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
        """One image, None if it cannot be read."""
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
    """Labels for an image's detections ("box", "kind", "class", "precision"), the first the most important: their
    corner, size and text in pixels of the image, and black or white. One that would hide another is left out, as on the
    pictures of `stages.pictures.drawing`."""
    size = (picture.width, picture.height)
    points = max(SMALLEST_FONT, round(max(picture.width, 4 / 3 * picture.height) / LETTERS_ACROSS))
    font = font_of(points)
    taken: list[Rectangle] = []
    labels = []
    for one in detections:
        known = "" if math.isnan(one["precision"]) else f" {one['precision']:.2f}"
        text = shortened(one["class"], font, int(0.6 * picture.width)) + known
        width, height = label_size(text, font)
        if width > size[0] or height > size[1]:
            continue
        place = label_place(pixel_corners(np.array(one["box"]), size), (width, height), size, taken)
        if hidden_by(place, taken) > MOST_HIDDEN:
            continue
        taken.append(place)
        ink = "#000" if readable_on(kind_colour(one["kind"])) == (0, 0, 0) else "#fff"
        labels.append(
            {"x": place[0], "y": place[1], "width": width, "height": height, "base": round(place[1] + 0.76 * height, 1),
             "points": points, "text": text, "kind": one["kind"], "ink": ink}
        )  # fmt: skip
    return labels


def jpeg_uri(image: Pixels, longest: int = LONGEST) -> str:
    """The image uint8 [H, W, 3], scaled down where a side is longer than `longest`, as the data URI of a JPEG."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture = picture.resize(fitted(picture.size, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
