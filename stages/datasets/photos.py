"""Photographs in a dataset's place: what is detected in them is not compared with anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.datasets.records import ImageRecord
from stages.datasets.voc import Dataset
from stages.images.reading import Header, ImageFile, Pixels


@dataclass(frozen=True)
class DecodedImage(ImageFile):
    """An image whose `pixels`, uint8 [H, W, 3] RGB, are in memory."""

    pixels: Pixels = field(kw_only=True, compare=False, repr=False)

    def read(self) -> Pixels:
        """The pixels."""
        return self.pixels


class Photos(Dataset):
    """Images that are in no dataset, without annotated objects: photographs and frames of videos, one at a time.

    Stages that compute on demand take them in the place of a dataset's images.
    """

    def __init__(self) -> None:
        self.name = "photos"
        self.image: DecodedImage | None = None
        self.generation = 0
        self.image_ids = ()
        self._listed = ()
        self._known = frozenset()

    def show(self, image_id: str, pixels: Pixels, path: Path | None = None) -> None:
        """Holds one image, uint8 [H, W, 3] RGB, in place of the one before; messages call it by its `path`."""
        height, width, _ = pixels.shape
        self.image = DecodedImage(path or Path(image_id), "", Header(width, height), pixels=pixels)
        self.generation += 1
        self.image_ids = (image_id,)
        self._known = frozenset(self.image_ids)

    def image_path(self, image_id: str) -> Path:
        """What messages call the image."""
        return self.image_file(image_id).path

    def image_file(self, image_id: str) -> DecodedImage:
        """The image. Raises BadDataset for one that is not shown now."""
        self._check_id(image_id)
        assert self.image is not None
        return self.image

    def record(self, image_id: str) -> ImageRecord:
        """The image's size; no objects."""
        image, nothing = self.image_file(image_id), np.zeros(0, np.bool_)
        boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        return ImageRecord(image_id, image.path, *image.size, boxes, labels, nothing, nothing, nothing, ())
