"""Datasets with PASCAL VOC's annotations: in the devkit's layout (JPEGImages/, Annotations/, ImageSets/Main/) or beside
the images."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.boxes import clip_boxes
from stages.contract.errors import BadImage, StageError
from stages.contract.settings import nearest, setting
from stages.datasets.annotations import (
    MISSING,
    Annotation,
    class_names,
    parse_xml,
    problems,
    read_annotation,
    readable_annotation,
)
from stages.datasets.digests import DigestMemory, combined, memory_of, remembered, remembered_names
from stages.datasets.image_set import ImageSet, images_digest
from stages.datasets.layout import XML, Layout, find_images
from stages.datasets.listing import ONE_LINE, Listing, composed
from stages.datasets.orientation import AUTO, CHOICES
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord, LeftOut, record_digest, shown, some_of
from stages.images.reading import SUFFIXES, ImageFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


log = logging.getLogger("stages.datasets")

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ERROR, BACKGROUND, LEAVE_OUT = "error", "background", "leave-out"
OF_ALL_IMAGES = (
    "image_digests", "images_key", "annotations_key", "_annotations_digest", "key", "left_out", "images_with_crowds",
    "record_digests", "_places",
)  # fmt: skip
"""Cached properties that a subset must compute for itself."""
RECORDS = "records 1"
"""Version of the remembered records: raise it when the same files would give different records."""
KEPT_RECORDS = 4  # sets of images of one folder whose records are remembered
NO_FILE = "none"
"""In keys, stands for the digest of a missing annotation file."""


@dataclass(frozen=True)
class ImageOptions:
    """What a recipe may say of any dataset that is not generated: whether images with an EXIF orientation are read
    upright or as they are stored (`stages.datasets.orientation`)."""

    exif: str = setting(
        AUTO,
        "Images with an EXIF orientation are read upright, as stored, or whichever matches the annotated size.",
        choices=CHOICES,
    )


@dataclass(frozen=True)
class ClassOptions(ImageOptions):
    """What it may say of one with boxes, too: its classes, in this order."""

    classes: tuple[str, ...] | None = setting(
        None, "The classes, in order; none: those listed in the file or named in the annotations."
    )


@dataclass(frozen=True)
class VocOptions(ClassOptions):
    """What it may say of `voc:DIR:SPLIT`, too.

    `other_classes`: whether an object of a class that is not listed is an error, or is left out. `unannotated`: whether
    an image without annotation file is an error, or an image without objects. `zero_based`: corners count from 0 and
    are edges, so that a box over a whole image is (0, 0) to (width, height).
    """

    year: int | None = setting(
        None, "The year of the VOC set, if the folder name does not give it.", at_least=1900, at_most=2099
    )
    other_classes: str = setting(
        ERROR,
        "Objects of an unlisted class are an error, or left out and counted neither as found nor as missed.",
        choices=(ERROR, LEAVE_OUT),
    )
    unannotated: str = setting(
        ERROR, "Images without an annotation file are an error, or images without objects.", choices=(ERROR, BACKGROUND)
    )
    zero_based: bool = setting(False, "Box corners are zero-based edges, rather than one-based and inclusive.")


class Dataset(ImageSet):
    """One image set of a folder in VOC's layout; everything about it is read when first asked for, and then kept.

    `name` is a short label; `image_ids` are in the order of the image set; `folder` holds images and annotations.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        image_ids: tuple[str, ...],
        *,
        work: Path,
        options: VocOptions | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.image_ids = image_ids
        self.options = options or VocOptions()
        self.exif = self.options.exif
        self._work = work
        self._files = memory_of(folder, work)
        self._listed = self.options.classes
        self._layout = layout or Layout.of(folder)
        self._images = Listing(self._layout.images, SUFFIXES)
        self._annotations = Listing(self._layout.annotations, XML)
        self._records: dict[str, ImageRecord] = {}
        self._known = frozenset(image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} images)"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes: as listed, else those found, sorted; in a folder of the devkit VOC's twenty.

        They are looked for in every annotation of the folder, so that all its image sets number them alike.
        """
        if self._listed is not None:
            return self._listed
        place = self.folder if self._layout.images == self._layout.annotations else self._layout.annotations
        paths = Listing(place, XML).files
        found = remembered_names(self._files, paths, lambda path: class_names(path, self._files.read))
        if not found:
            for path in paths:
                read_annotation(path, self._files.read)  # which says what is wrong with it
            raise BadDataset(f"{place}: no annotated object; list the classes, or add annotations")
        return VOC_CLASSES if self._layout.is_year and set(found) <= set(VOC_CLASSES) else tuple(found)

    @property
    def images_with_crowds(self) -> frozenset[str]:
        """The ids of the images with a crowd among their objects (see `ImageRecord`); VOC's format has none."""
        return frozenset()

    def subset(self, positions: Sequence[int]) -> Dataset:
        """The images at these positions alone, with all classes."""
        chosen = copy.copy(self)
        for known in OF_ALL_IMAGES:
            vars(chosen).pop(known, None)
        chosen._listed = self.classes
        chosen.image_ids = tuple(self.image_ids[position] for position in positions)
        chosen._known = frozenset(chosen.image_ids)
        return chosen

    def image_path(self, image_id: str) -> Path:
        """The image's file, of any of SUFFIXES; where there is none, the .jpg that should be there.

        Of several files of this name it is the one that the annotation's <filename> names. Raises BadImage if that
        does not decide.
        """
        self._check_id(image_id)
        found = self._images.find(image_id)
        if len(found) > 1:
            named = composed(self._stated_name(image_id)).lower()
            decided = [path for path in found if composed(path.name).lower() == named]
            if len(decided) != 1:
                others = " and ".join(path.name for path in found[1:])
                raise BadImage(found[0], f"has the name of {others}, and <filename> does not say which is '{image_id}'")
            return decided[0]
        return found[0] if found else self._images.expected(image_id)

    def _stated_name(self, image_id: str) -> str:
        """What the annotation says that its image is called, "" if it does not say."""
        try:
            text = parse_xml(self.annotation_path(image_id), self._files.read).findtext("filename")
        except BadAnnotation:
            return ""
        return (text or "").replace("\\", "/").rpartition("/")[2].strip()

    def annotation_path(self, image_id: str) -> Path:
        """The image's annotation file, which need not exist. Raises BadAnnotation if there are several."""
        self._check_id(image_id)
        found = self._annotations.find(image_id)
        if len(found) > 1:
            names = " and ".join(str(path) for path in found)
            raise BadAnnotation(f"{names}: are both annotations of '{image_id}'; remove one of them")
        return found[0] if found else self._annotations.expected(image_id)

    def record(self, image_id: str) -> ImageRecord:
        """The image's size and objects. Raises BadAnnotation for a bad file or object (the first that is found).

        The size is compared with the image's where its header can be read; an image that cannot be read at all is
        reported by `read_image`, not here, unless the annotation leaves out the size (BadImage). Raises ChangedInput
        for a file that is not the one it was.
        """
        if image_id not in self._records:
            self._records[image_id] = self._read_record(image_id)
        return self._records[image_id]

    @property
    def category_ids(self) -> tuple[int | str, ...]:
        """The number of each class in COCO's format: from 1 on."""
        return tuple(range(1, len(self.classes) + 1))

    def notes(self) -> list[str]:
        """What is to be known of the annotations as a whole and is no problem, one sentence each."""
        return self.left_out.notes(self.name)

    def choice_notes(self) -> list[str]:
        """Which images were chosen among several files of one name, in one sentence, if any were."""
        chosen = []
        for image_id in self.image_ids:
            if len(found := self._images.find(image_id)) > 1:
                with contextlib.suppress(BadImage):
                    path = self.image_path(image_id)
                    chosen.append(f"{path.name} (not {', '.join(one.name for one in found if one != path)})")
        if not chosen:
            return []
        many = f"{len(chosen)} images have" if len(chosen) > 1 else "1 image has"
        return [f"{self.name}: {many} several files of one name, <filename> decides: {some_of(chosen)}"]

    @cached_property
    def left_out(self) -> LeftOut:
        """The annotated objects that are no objects of the dataset; remembered by what the files hold.

        What cannot be read is passed over: its own reading says why.
        """
        try:
            files = [self._annotations_digest, *self.image_digests]
        except (BadImage, BadAnnotation):
            return self._find_left_out()
        key = combined("left out and repeated", [*files, *self._reading, "classes", *self.classes])
        value = remembered(self._files, "left-out", key, lambda: self._find_left_out().as_json())
        return LeftOut.from_json(value)

    def _find_left_out(self) -> LeftOut:
        found = LeftOut()
        for image_id in self.image_ids:
            try:
                annotation = self.annotation(image_id)
                size = annotation.size or self.image_file(image_id).size
            except (BadAnnotation, BadImage):
                continue
            found.add(self.split_objects(image_id, annotation, size)[1])
        return found

    def split_objects(self, image_id: str, annotation: Any, size: tuple[int, int]) -> tuple[list[int], LeftOut]:
        """(places of the objects that are the dataset's, the others), on an image of `size` (width, height)."""
        kept, left_out = [], LeftOut(unannotated=int(annotation.missing))
        for place, (one, without_area) in enumerate(
            zip(annotation.objects, annotation.without_area(size), strict=True)
        ):
            if one.name not in self.classes:
                left_out.other_classes[one.name] += 1
            elif without_area:
                left_out.without_area.append(annotation.where(place))
            else:
                kept.append(place)
        return kept, left_out

    @cached_property
    def record_digests(self) -> dict[str, str]:
        """SHA-256 (hex) over each image's record, by its id; an image whose record cannot be read has none.

        Where all can be read they are remembered by what the files hold.
        """
        try:
            key = combined(RECORDS, [self.images_key, self.annotations_key])
            digests = remembered(self._memory, "records", key, self._digest_records, keep=KEPT_RECORDS)
            return dict(zip(self.image_ids, digests, strict=True))
        except StageError:
            found = {}
            for image_id in self.image_ids:
                with contextlib.suppress(StageError):
                    found[image_id] = record_digest(self.record(image_id))
            return found

    def _digest_records(self) -> list[str]:
        return [record_digest(self.record(image_id)) for image_id in self.image_ids]

    @property
    def _memory(self) -> DigestMemory:
        """Beside which digests it is remembered what all files say."""
        return self._files

    def image_number(self, image_id: str) -> int | str:
        """The number of an image in COCO's format: its place, from 1 on."""
        self._check_id(image_id)
        return self._places[image_id] + 1

    @cached_property
    def _places(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids)}

    def annotation(self, image_id: str) -> Any:
        """What the image's annotation file says, unchecked. Raises BadAnnotation, for the first of several faults."""
        annotation = self.readable_annotation(image_id)
        if annotation.faults:
            raise BadAnnotation(annotation.faults.listed[0])
        return annotation

    def readable_annotation(self, image_id: str) -> Any:
        """As `annotation`, but what is wrong with single objects is among its `faults`, and they are left out.

        Raises BadAnnotation if the file cannot be read at all.
        """
        path = self.annotation_path(image_id)
        if self._is_background(path):
            return Annotation(path, None, (), missing=True)
        return readable_annotation(path, self._files.read, zero_based=self.options.zero_based)

    def _is_background(self, path: Path) -> bool:
        """Whether an annotation file is not there and need not be."""
        return self.options.unannotated == BACKGROUND and not path.exists()

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) as the image's annotation states it, None if it does not or cannot be read."""
        try:
            size: tuple[int, int] | None = self.annotation(image_id).size
        except BadAnnotation:
            return None
        return size

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """What is impossible about an image's annotation, one sentence each; `image` is its file, if it is there."""
        strict = self.options.other_classes == ERROR
        return problems(annotation, size, self.classes if strict else None, image)

    def annotation_digest(self, image_id: str) -> str:
        """What decides the image's record beside the image: SHA-256 (hex) over its annotation and the classes.

        Raises BadAnnotation if the annotation is not there.
        """
        path = self.annotation_path(image_id)
        try:
            content = NO_FILE if self._is_background(path) else self._files.entry(path, image=False).sha256
        except BadImage as error:
            raise BadAnnotation(f"{path}: {error.reason}; repair or remove it") from None
        return combined("annotation", [content, *self._reading, "classes", *self.classes])

    @property
    def _reading(self) -> list[str]:
        """What else decides what the objects are, for keys; nothing where it is as usual."""
        return ["zero-based"] if self.options.zero_based else []

    @cached_property
    def images_key(self) -> str:
        """SHA-256 (hex) over the ids, in order, and their image files' bytes (and EXIF orientations, if obeyed)."""
        return images_digest("images", self.image_ids, self.image_digests)

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, and their annotation files' bytes.

        Warnings say what is left out.
        """
        key = combined("classes", [self._annotations_digest, *self._reading, *self.classes])
        for note in self.notes():
            log.warning("%s", note)
        return key

    @cached_property
    def _annotations_digest(self) -> str:
        """SHA-256 (hex) over the ids, in order, and the annotation files' bytes; raises BadAnnotation if one lacks."""
        paths = [self.annotation_path(image_id) for image_id in self.image_ids]
        there = [path for path in paths if not self._is_background(path)]
        missing = next((path for path in there if not path.exists()), None)
        if missing is not None:
            raise BadAnnotation(f"{missing}: {MISSING}")
        digests = dict(zip(there, self._files.of(there), strict=True))
        return images_digest("annotations", self.image_ids, [digests.get(path, NO_FILE) for path in paths])

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) over images, annotations and classes: the dataset's whole content."""
        return combined("dataset", [self.images_key, self.annotations_key])

    def _check_id(self, image_id: str) -> None:
        if image_id not in self._known:
            raise BadDataset(f"{self.name}: has no image '{image_id}'{nearest(image_id, self.image_ids[:2000])}")

    def _read_record(self, image_id: str) -> ImageRecord:
        annotation = self.annotation(image_id)
        image = self._image_if_there(image_id, must=annotation.size is None)
        size = annotation.size or image_size(image)
        for problem in self.problems(image_id, annotation, size, image):
            raise BadAnnotation(problem)
        kept, _ = self.split_objects(image_id, annotation, size)
        return as_record(annotation, kept, image_id, self.image_path(image_id), size, self.classes)

    def _image_if_there(self, image_id: str, *, must: bool) -> ImageFile | None:
        """The image's file; None if it is not there, or BadImage if it `must` be."""
        try:
            return self.image_file(image_id)
        except BadImage:
            if must:
                raise
            return None


def image_size(image: ImageFile | None) -> tuple[int, int]:
    """(width, height) of an image that has to be there. Raises BadImage."""
    assert image is not None
    return image.size


def as_record(
    annotation: Annotation,
    kept: Sequence[int],
    image_id: str,
    path: Path,
    size: tuple[int, int],
    classes: tuple[str, ...],
) -> ImageRecord:
    """The record of an image of `size` (width, height) whose annotation has been checked; of its objects the `kept`."""
    objects = [annotation.objects[place] for place in kept]
    return ImageRecord(
        image_id=image_id,
        path=path,
        width=size[0],
        height=size[1],
        boxes=clip_boxes(annotation.boxes_on(size)[list(kept)], *size),
        labels=np.array([classes.index(one.name) for one in objects], np.int32),
        difficult=np.array([one.difficult for one in objects], np.bool_),
        truncated=np.array([one.truncated for one in objects], np.bool_),
        occluded=np.array([one.occluded for one in objects], np.bool_),
        pose=tuple(one.pose for one in objects),
    )


def open_voc(
    folder: Path,
    split: str,
    *,
    work: Path,
    options: VocOptions | None = None,
    year: str | None = None,
    name: str | None = None,
) -> Dataset:
    """The image set `split` below `folder`, which `find_images` finds; raises BadDataset."""
    checked_classes(options.classes if options else None)
    layout, ids, label = find_images(folder, split, year)
    return Dataset(plain_label(name or label), layout.home, ids, work=work, options=options, layout=layout)


def checked_classes(classes: tuple[str, ...] | None) -> None:
    """Raises BadDataset if classes are listed, but none, or one twice, or one whose name is not one line of text."""
    for name in classes or ():
        if not ONE_LINE.fullmatch(name):
            raise BadDataset(f"classes: {shown(name)} is not the name of a class; give it a name, on one line")
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise BadDataset(f"classes = {list(classes)}: list at least one class, each only once")


def plain_label(name: str) -> str:
    """`name` in lower case, with '-' for whatever does not belong in a folder's name."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.") or "dataset"
