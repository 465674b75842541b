"""What a dataset tells about one image, and the errors that its files can cause."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, area
from stages.errors import StageError


class BadDataset(StageError):
    """A dataset that cannot be opened: its source is misspelt, or a folder or image set is missing or impossible."""


class BadAnnotation(StageError):
    """An annotation file that is missing or of another kind, or that describes an impossible object."""


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its n objects.

    `boxes` is float32 [n, 4], (x1, y1, x2, y2) in pixels of the original image, zero-based, half-open; `labels` is
    int32 [n], indices into the dataset's classes; `difficult` (need not be found), `truncated` and `occluded` are
    bool [n]. `stated_areas`, float64 [n] in square pixels, are there where annotations state them (COCO: of the
    segmentation). `stated_crowds`, bool [n], are there where the format has crowds (COCO's `iscrowd`: one box around
    many things), which are difficult, too.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: Boxes
    labels: NDArray[np.int32]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    occluded: NDArray[np.bool_]
    pose: tuple[str, ...]
    stated_areas: NDArray[np.float64] | None = None
    stated_crowds: NDArray[np.bool_] | None = None

    @property
    def areas(self) -> NDArray[np.float64]:
        """The objects' areas in square pixels, float64 [n]: as stated, else of their boxes."""
        return area(self.boxes) if self.stated_areas is None else self.stated_areas

    @property
    def crowds(self) -> NDArray[np.bool_]:
        """Which objects are crowds: bool [n]."""
        return np.zeros(len(self.labels), bool) if self.stated_crowds is None else self.stated_crowds


def record_digest(record: ImageRecord) -> str:
    """SHA-256 (hex) over all that a record says, whatever file its image lies in."""
    digest = hashlib.sha256()
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name == "path":
            continue
        if isinstance(value, np.ndarray):
            digest.update(f"{field.name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"{field.name} {value!r}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
