"""Several datasets combined into one, such as the papers' 07+12 (VOC 2007 trainval and VOC 2012 trainval)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.contract.settings import nearest
from stages.datasets.class_masks import VOID, ClassMask, ObjectMasks
from stages.datasets.digests import DigestMemory, combined
from stages.datasets.image_set import images_digest
from stages.datasets.records import BadDataset, ImageRecord, LeftOut
from stages.datasets.voc import CLASS_MASKS, OF_ALL_IMAGES, Dataset, plain_label
from stages.images.reading import ImageFile


class CombinedDataset(Dataset):
    """The images of the `parts` in order, with the classes of all of them (those of the first part first).

    Ids are unchanged, or prefixed with the part's name and a slash if `prefix_ids`. Raises BadDataset if an id is in
    two parts.
    """

    def __init__(
        self, parts: Sequence[Dataset], *, classes: tuple[str, ...] | None = None, prefix_ids: bool = False
    ) -> None:
        self.parts = tuple(parts)
        self.name = plain_label("-".join(part.name for part in parts))
        self.origins = origins_of(parts, prefix_ids)
        self.image_ids = tuple(self.origins)
        of_parts = tuple(dict.fromkeys(name for part in parts for name in part.classes))
        for name in of_parts:
            if classes is not None and name not in classes:
                raise BadDataset(f"{self.name}: has the class {name!r}, which is not listed; list it")
        for name in classes or ():
            if name not in of_parts:
                raise BadDataset(f"{self.name}: has no class {name!r}{nearest(name, of_parts)}")
        self._listed = of_parts if classes is None else classes
        self._records: dict[str, ImageRecord] = {}
        self._known = frozenset(self.image_ids)

    def part_of(self, image_id: str) -> tuple[Dataset, str]:
        """The part that contains the image, and the image's id there."""
        self._check_id(image_id)
        place, own_id = self.origins[image_id]
        return self.parts[place], own_id

    def subset(self, positions: Sequence[int]) -> CombinedDataset:
        """The dataset of the images at these positions, with the same classes."""
        chosen = copy.copy(self)
        for known in OF_ALL_IMAGES:
            vars(chosen).pop(known, None)
        chosen.image_ids = tuple(self.image_ids[position] for position in positions)
        chosen._known = frozenset(chosen.image_ids)
        own_ids: list[list[str]] = [[] for _ in self.parts]
        for image_id in chosen.image_ids:
            place, own_id = self.origins[image_id]
            own_ids[place].append(own_id)
        places = [{own_id: place for place, own_id in enumerate(part.image_ids)} for part in self.parts]
        chosen.parts = tuple(
            part.subset([own[own_id] for own_id in ids])
            for part, own, ids in zip(self.parts, places, own_ids, strict=True)
        )
        return chosen

    @property
    def has_masks(self) -> bool:
        """Whether all parts were opened with the masks of their images."""
        return all(part.has_masks for part in self.parts)

    def class_mask(self, image_id: str) -> ClassMask:
        """What each pixel shows: uint8 [H, W] (see `Dataset.class_mask`)."""
        part, own_id = self.part_of(image_id)
        self._check_masks()
        labels = np.full(VOID + 1, VOID, np.uint8)
        labels[0] = 0
        numbers = self._labels[self.origins[image_id][0]]
        labels[1 : len(numbers) + 1] = numbers + 1
        return labels[part.class_mask(own_id)]

    def object_masks(self, image_id: str) -> ObjectMasks:
        """The objects' labels int32 [n] and masks bool [n, H, W] (see `Dataset.object_masks`)."""
        part, own_id = self.part_of(image_id)
        labels, masks = part.object_masks(own_id)
        return self._labels[self.origins[image_id][0]][labels], masks

    def mask_path(self, image_id: str, folder: str = CLASS_MASKS) -> Path:
        """The path of an image's mask of classes or of objects, which need not exist."""
        part, own_id = self.part_of(image_id)
        return part.mask_path(own_id, folder)

    def mask_digest(self, image_id: str) -> str:
        """The digest of what determines the image's masks."""
        part, own_id = self.part_of(image_id)
        return combined("of several", [part.mask_digest(own_id), "classes", *self.classes])

    def _mask_digests(self) -> list[str]:
        for part in self.parts:
            part._mask_digests()  # reads the files in several threads
        return [self.mask_digest(image_id) for image_id in self.image_ids]

    @cached_property
    def images_with_crowds(self) -> frozenset[str]:
        """The ids of the images with a crowd among their objects."""
        crowded = [part.images_with_crowds for part in self.parts]
        origins = ((image_id, *self.origins[image_id]) for image_id in self.image_ids)
        return frozenset(image_id for image_id, place, own_id in origins if own_id in crowded[place])

    @cached_property
    def images_not_exhaustive(self) -> frozenset[str]:
        """The ids of the images in which objects of the classes may lack an annotation."""
        partly = [part.images_not_exhaustive for part in self.parts]
        origins = ((image_id, *self.origins[image_id]) for image_id in self.image_ids)
        return frozenset(image_id for image_id, place, own_id in origins if own_id in partly[place])

    def image_path(self, image_id: str) -> Path:
        """The path of an image, which need not exist."""
        part, own_id = self.part_of(image_id)
        return part.image_path(own_id)

    def image_file(self, image_id: str) -> ImageFile:
        """The image's file, with its digest and how it is oriented. Raises BadImage if it is missing."""
        part, own_id = self.part_of(image_id)
        return part.image_file(own_id)

    @cached_property
    def pixel_digests(self) -> tuple[str, ...]:
        """What determines each image's pixels, in order. Raises BadImage."""
        digests = [dict(zip(part.image_ids, part.pixel_digests, strict=True)) for part in self.parts]
        return tuple(digests[place][own_id] for place, own_id in map(self.origins.__getitem__, self.image_ids))

    def forget(self) -> None:
        """Forgets all digests, so that every file is read again."""
        for part in self.parts:
            part.forget()

    def remember(self) -> None:
        """Saves the digests for the next time the dataset is opened."""
        for part in self.parts:
            part.remember()

    def annotation_path(self, image_id: str) -> Path:
        """The path of the image's annotation file, which need not exist."""
        part, own_id = self.part_of(image_id)
        return part.annotation_path(own_id)

    def annotation(self, image_id: str) -> Any:
        """The image's annotation, unchecked. Raises BadAnnotation."""
        part, own_id = self.part_of(image_id)
        return part.annotation(own_id)

    def readable_annotation(self, image_id: str) -> Any:
        """The readable part of the image's annotation, with its `faults`. Raises BadAnnotation."""
        part, own_id = self.part_of(image_id)
        return part.readable_annotation(own_id)

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) in pixels, as stated in the image's annotation; None if missing or unreadable."""
        part, own_id = self.part_of(image_id)
        return part.stated_size(own_id)

    def flickr_id(self, image_id: str) -> str | None:
        """The number that the photograph has on flickr; None if it is not stated."""
        part, own_id = self.part_of(image_id)
        return part.flickr_id(own_id)

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """The problems of an image's annotation, one sentence each."""
        part, own_id = self.part_of(image_id)
        return part.problems(own_id, annotation, size, image)

    def split_objects(self, image_id: str, annotation: Any, size: tuple[int, int]) -> tuple[list[int], LeftOut]:
        """The positions of the objects that belong to the dataset, and the objects left out, on an image of `size`
        (width, height)."""
        part, own_id = self.part_of(image_id)
        return part.split_objects(own_id, annotation, size)

    @property
    def _memory(self) -> DigestMemory:
        return self.parts[0]._memory

    def annotation_digest(self, image_id: str) -> str:
        """The digest of what determines the image's record, besides the image. Raises BadAnnotation."""
        part, own_id = self.part_of(image_id)
        return combined("of several", [part.annotation_digest(own_id), "classes", *self.classes])

    @cached_property
    def _annotations_digest(self) -> str:
        for part in self.parts:
            _ = part._annotations_digest  # reads the files in several threads, and names a missing one
        digests = [self.annotation_digest(image_id) for image_id in self.image_ids]
        return images_digest("annotations", self.image_ids, digests)

    @property
    def _reading(self) -> list[str]:
        return []

    def notes(self) -> list[str]:
        """Harmless findings about the annotations as a whole, one sentence each."""
        return [note for part in self.parts for note in part.notes()]

    def choice_notes(self) -> list[str]:
        """Which images were chosen among several files with the same name."""
        return [note for part in self.parts for note in part.choice_notes()]

    def orientation_notes(self) -> list[str]:
        """Notes on the EXIF orientations of the existing images, one sentence each."""
        return [note for part in self.parts for note in part.orientation_notes()]

    def _read_record(self, image_id: str) -> ImageRecord:
        part, own_id = self.part_of(image_id)
        record, numbers = part.record(own_id), self._labels[self.origins[image_id][0]]
        return replace(record, image_id=image_id, labels=numbers[record.labels])

    @cached_property
    def _labels(self) -> list[NDArray[np.int32]]:
        """Per part, the label here of each of its classes: int32 [classes of the part]."""
        label_of = {name: label for label, name in enumerate(self.classes)}
        return [np.array([label_of[name] for name in part.classes], np.int32) for part in self.parts]


def origins_of(parts: Sequence[Dataset], prefix_ids: bool) -> dict[str, tuple[int, str]]:
    """Per image id, in order: the index of its part, and its id there. Raises BadDataset if two images share an id."""
    origins: dict[str, tuple[int, str]] = {}
    names = distinct([part.name for part in parts])
    for place, part in enumerate(parts):
        for own_id in part.image_ids:
            image_id = f"{names[place]}/{own_id}" if prefix_ids else own_id
            other, _ = origins.setdefault(image_id, (place, own_id))
            if other != place:
                raise BadDataset(
                    f"image '{image_id}' is in {parts[other].name} and in {part.name}; name each image once, or set "
                    "prefix_ids = true where they are different images"
                )
    return origins


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number appended from their second use on."""
    unique: list[str] = []
    for name in names:
        number, new = 1, name
        while new in unique:
            number += 1
            new = f"{name}-{number}"
        unique.append(new)
    return unique
