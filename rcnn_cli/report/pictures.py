"""The images of a report: each is in the page once, whatever is shown of it, as many as the page may hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rcnn_cli.report.selection import fitted
from stages.errors import BadImage
from stages.images import Pixels

LONGEST = 480
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


def jpeg_uri(image: Pixels, longest: int = LONGEST) -> str:
    """The image uint8 [H, W, 3], scaled down where a side is longer than `longest`, as the data URI of a JPEG."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture = picture.resize(fitted(picture.size, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
