"""Datasets for supervised pre-training: one folder per class, one object per image."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.datasets.digests import combined, memory_of
from stages.datasets.image_set import ImageSet
from stages.datasets.orientation import AUTO
from stages.datasets.records import BadDataset
from stages.images.reading import SUFFIXES, ImageFile


class ClassificationDataset(ImageSet):
    """The images below `folder`, labelled by their sub-folder; classes and images are sorted.

    `image_ids` are paths relative to the folder ("pie/00012.jpg"); `labels` is int64 [images], indices into `classes`.
    """

    def __init__(self, name: str, folder: Path, *, work: Path, exif: str = AUTO) -> None:
        self.name = name
        self.folder = folder
        self.exif = exif
        self._files = memory_of(folder, work)
        self.classes, self.image_ids, self.labels = scan(folder)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"ClassificationDataset({self.name!r}, {len(self)} images of {len(self.classes)} classes)"

    def subset(self, positions: Sequence[int]) -> ClassificationDataset:
        """The dataset of the images at these positions, with the same classes."""
        chosen = copy.copy(self)
        for known in ("image_digests", "pixel_digests", "images_key", "annotations_key", "key"):
            vars(chosen).pop(known, None)
        chosen.image_ids = tuple(self.image_ids[position] for position in positions)
        chosen.labels = self.labels[list(positions)]
        return chosen

    def image_path(self, image_id: str) -> Path:
        """The path of an image."""
        return self.folder / image_id

    @cached_property
    def images_key(self) -> str:
        """SHA-256 (hex) over the image files' bytes in order (and EXIF orientations, where applied)."""
        return combined("classification", self.image_digests)

    def undecided(self, files: Sequence[tuple[str, ImageFile]]) -> list[tuple[Path, int]]:
        """No image is: there are no boxes whose frame could be ambiguous."""
        return []

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes and each image's label."""
        return combined("labels", [*self.classes, *map(str, self.labels)])

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) over images, classes and labels: the dataset's whole content."""
        return combined("classification-dataset", [self.images_key, self.annotations_key])


def is_image(name: str) -> bool:
    """Whether a file is named like an image, and is not one of macOS's archive leftovers (`._0001.jpg`)."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith("._")


def scan(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int64]]:
    """The classes, the images' relative paths and their labels, int64 [images]. Raises BadDataset."""
    if not os.path.isdir(folder):
        raise BadDataset(f"{folder}: no such folder; name one that holds a folder of images for each class")
    images: dict[str, list[str]] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        names = sorted(path.name for path in place.iterdir() if is_image(path.name))
        if not names:
            raise BadDataset(f"{place}: contains no images ({', '.join(SUFFIXES)}); add some, or remove this folder")
        images[place.name] = [f"{place.name}/{name}" for name in names]
    if len(images) < 2:
        raise BadDataset(f"{folder}: needs a folder of images per class, and at least two; it has {len(images)}")
    labels = np.repeat(np.arange(len(images), dtype=np.int64), [len(names) for names in images.values()])
    return tuple(images), tuple(name for names in images.values() for name in names), labels
