"""Datasets with PASCAL VOC annotations, in the devkit's layout (JPEGImages/, Annotations/, ImageSets/Main/) or with the
annotations next to the images."""

from __future__ import annotations

import contextlib
import copy
import logging
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.benchmark_classes import VOC_CLASSES
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
from stages.datasets.class_masks import (
    LEAST_COMPONENT,
    MOST_CLASSES,
    VOID,
    ClassMask,
    ObjectMasks,
    components,
    objects_of,
)
from stages.datasets.digests import DigestMemory, combined, memory_of, remembered, remembered_names
from stages.datasets.image_set import ImageSet, images_digest
from stages.datasets.layout import XML, Layout, find_images
from stages.datasets.listing import ONE_LINE, Listing, composed
from stages.datasets.mask_files import MISSING_MASK, read_indices
from stages.datasets.orientation import AUTO, CHOICES
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord, LeftOut, record_digest, shown, some_of
from stages.images.reading import SUFFIXES, ImageFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


log = logging.getLogger("stages.datasets")

ERROR, BACKGROUND, LEAVE_OUT = "error", "background", "leave-out"
OF_ALL_IMAGES = (
    "image_digests", "pixel_digests", "images_key", "annotations_key", "_annotations_digest", "key", "left_out",
    "images_with_crowds", "images_not_exhaustive", "record_digests", "_places", "masks_key",
)  # fmt: skip
"""Cached properties that a subset must recompute."""
NOT_EXHAUSTIVE = "not exhaustive"
"""Marks, in keys, images in which objects may lack an annotation."""
RECORDS = "records 1"
"""Version of the remembered records; raise it if the same files would give different records."""
KEPT_RECORDS = 4  # image sets per folder whose records are remembered
CLASS_MASKS, OBJECT_MASKS = "SegmentationClass", "SegmentationObject"
MASKS = (".png",)
FLICKR_ID = re.compile(r"[1-9][0-9]{0,19}")
NO_FILE = "none"
"""The digest of a missing annotation file, in keys."""


@dataclass(frozen=True)
class ImageOptions:
    """Options of any dataset that is not generated: how images with an EXIF orientation are read
    (`stages.datasets.orientation`)."""

    exif: str = setting(
        AUTO,
        "Images with an EXIF orientation are read upright, as stored, or whichever matches the annotated size.",
        choices=CHOICES,
    )


@dataclass(frozen=True)
class ClassOptions(ImageOptions):
    """Options of any dataset with boxes: its classes, in this order."""

    classes: tuple[str, ...] | None = setting(
        None, "The classes, in order; none: those listed in the file or named in the annotations."
    )


@dataclass(frozen=True)
class MaskOptions(ClassOptions):
    """Options of datasets that may have masks."""

    masks: bool = setting(False, "Whether to read the masks of classes and objects, for segmentation.")


@dataclass(frozen=True)
class VocOptions(MaskOptions):
    """Options of `voc:DIR:SPLIT`.

    `other_classes`: whether objects of an unlisted class are an error or left out. `unannotated`: whether an image
    without an annotation file is an error or an image without objects. `zero_based`: corners are edges counted from 0,
    so that a box over the whole image is (0, 0) to (width, height). With `masks`, SPLIT is an image set of
    ImageSets/Segmentation, and every image has a mask in SegmentationClass.
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
    exhaustive: bool = setting(
        True, "Whether every object of the classes is annotated; if not, the images never give negative examples."
    )


class Dataset(ImageSet):
    """One image set of a folder in VOC's layout; everything is read on first use and then kept.

    `name` is a short label; `image_ids` are in the order of the image set; `folder` contains images and annotations.
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
        """The classes: as listed, else VOC's twenty in a devkit folder, else those found, sorted.

        All annotations in the folder are searched, so that all its image sets have the same class indices.
        """
        if self._listed is not None:
            return self._listed
        place = self.folder if self._layout.images == self._layout.annotations else self._layout.annotations
        paths = Listing(place, XML).files
        names = remembered_names(self._files, paths, lambda path: class_names(path, self._files.read))
        if not names:
            for path in paths:
                read_annotation(path, self._files.read)  # raises an error that says what is wrong with it
            raise BadDataset(f"{place}: no annotated objects; list the classes, or add annotations")
        return VOC_CLASSES if self._layout.is_year and set(names) <= set(VOC_CLASSES) else tuple(names)

    @property
    def images_with_crowds(self) -> frozenset[str]:
        """The ids of images that contain a crowd (see `ImageRecord`); VOC's format has none."""
        return frozenset()

    @cached_property
    def images_not_exhaustive(self) -> frozenset[str]:
        """The ids of the images in which objects of the classes may lack an annotation."""
        return frozenset() if self.options.exhaustive else frozenset(self.image_ids)

    def image_digest(self, image_id: str) -> str:
        """What determines the image's pixels, and whether it is annotated exhaustively. Raises BadImage."""
        digest = super().image_digest(image_id)
        return f"{digest} {NOT_EXHAUSTIVE}" if image_id in self.images_not_exhaustive else digest

    @cached_property
    def image_digests(self) -> tuple[str, ...]:
        """`image_digest` of every image, in order. Raises BadImage."""
        digests = zip(self.image_ids, self.pixel_digests, strict=True)
        partly = self.images_not_exhaustive
        return tuple(f"{digest} {NOT_EXHAUSTIVE}" if image_id in partly else digest for image_id, digest in digests)

    def subset(self, positions: Sequence[int]) -> Dataset:
        """The dataset of the images at these positions, with the same classes."""
        chosen = copy.copy(self)
        for known in OF_ALL_IMAGES:
            vars(chosen).pop(known, None)
        chosen._listed = self.classes
        chosen.image_ids = tuple(self.image_ids[position] for position in positions)
        chosen._known = frozenset(chosen.image_ids)
        return chosen

    def image_path(self, image_id: str) -> Path:
        """The path of an image, with any of SUFFIXES; if it is missing, the .jpg that should exist.

        Among several files with this name it is the one given by the annotation's <filename>. Raises BadImage if that
        does not decide.
        """
        self._check_id(image_id)
        files = self._images.find(image_id)
        if len(files) > 1:
            named = composed(self._stated_name(image_id)).lower()
            decided = [path for path in files if composed(path.name).lower() == named]
            if len(decided) != 1:
                others = " and ".join(path.name for path in files[1:])
                raise BadImage(files[0], f"has the name of {others}, and <filename> does not say which is '{image_id}'")
            return decided[0]
        return files[0] if files else self._images.expected(image_id)

    def _stated_name(self, image_id: str) -> str:
        """The file name of the image as stated in the annotation, or ""."""
        try:
            text = parse_xml(self.annotation_path(image_id), self._files.read).findtext("filename")
        except BadAnnotation:
            return ""
        return (text or "").replace("\\", "/").rpartition("/")[2].strip()

    def annotation_path(self, image_id: str) -> Path:
        """The path of the image's annotation file, which need not exist. Raises BadAnnotation if there are several."""
        self._check_id(image_id)
        files = self._annotations.find(image_id)
        if len(files) > 1:
            names = " and ".join(str(path) for path in files)
            raise BadAnnotation(f"{names}: are both annotations of '{image_id}'; remove one of them")
        return files[0] if files else self._annotations.expected(image_id)

    def record(self, image_id: str) -> ImageRecord:
        """The image's size and objects. Raises BadAnnotation for the first fault of the file or its objects.

        The size is compared with the image's, if its header can be read; an unreadable image is reported by
        `read_image`, and here only if the annotation does not state the size (BadImage). Raises ChangedInput if a file
        has changed.
        """
        if image_id not in self._records:
            self._records[image_id] = self._read_record(image_id)
        return self._records[image_id]

    @property
    def category_ids(self) -> tuple[int | str, ...]:
        """The id of each class in COCO's format, counted from 1."""
        return tuple(range(1, len(self.classes) + 1))

    def notes(self) -> list[str]:
        """Harmless findings about the annotations as a whole, one sentence each."""
        return self.left_out.notes(self.name)

    def choice_notes(self) -> list[str]:
        """Which images were chosen among several files with the same name, in one sentence, if any."""
        chosen = []
        for image_id in self.image_ids:
            if len(files := self._images.find(image_id)) > 1:
                with contextlib.suppress(BadImage):
                    path = self.image_path(image_id)
                    chosen.append(f"{path.name} (not {', '.join(file.name for file in files if file != path)})")
        if not chosen:
            return []
        many = f"{len(chosen)} images have" if len(chosen) > 1 else "1 image has"
        return [f"{self.name}: {many} several files of one name, <filename> decides: {some_of(chosen)}"]

    @cached_property
    def left_out(self) -> LeftOut:
        """The annotated objects that are not used, remembered by the files' content.

        Files that cannot be read are skipped here; reading them raises an error.
        """
        try:
            files = [self._annotations_digest, *self.image_digests]
        except (BadImage, BadAnnotation):
            return self._find_left_out()
        key = combined("left out and repeated", [*files, *self._reading, "classes", *self.classes])
        value = remembered(self._files, "left-out", key, lambda: self._find_left_out().as_json())
        return LeftOut.from_json(value)

    def _find_left_out(self) -> LeftOut:
        left_out = LeftOut()
        for image_id in self.image_ids:
            try:
                annotation = self.annotation(image_id)
                size = annotation.size or self.image_file(image_id).size
            except (BadAnnotation, BadImage):
                continue
            left_out.add(self.split_objects(image_id, annotation, size)[1])
        return left_out

    def split_objects(self, image_id: str, annotation: Any, size: tuple[int, int]) -> tuple[list[int], LeftOut]:
        """The positions of the objects that belong to the dataset, and the objects left out, on an image of `size`
        (width, height)."""
        kept, left_out = [], LeftOut(unannotated=int(annotation.missing))
        objects = zip(annotation.objects, annotation.without_area(size), strict=True)
        for place, (annotated, without_area) in enumerate(objects):
            if annotated.name not in self.classes:
                left_out.other_classes[annotated.name] += 1
            elif without_area:
                left_out.without_area.append(annotation.where(place))
            else:
                kept.append(place)
        return kept, left_out

    @cached_property
    def record_digests(self) -> dict[str, str]:
        """SHA-256 (hex) over each image's record, by image id; images whose record cannot be read have none.

        If all can be read, they are remembered by the files' content.
        """
        try:
            key = combined(RECORDS, [self.images_key, self.annotations_key])
            digests = remembered(self._memory, "records", key, self._digest_records, keep=KEPT_RECORDS)
            return dict(zip(self.image_ids, digests, strict=True))
        except StageError:
            readable = {}
            for image_id in self.image_ids:
                with contextlib.suppress(StageError):
                    readable[image_id] = record_digest(self.record(image_id))
            return readable

    def _digest_records(self) -> list[str]:
        return [record_digest(self.record(image_id)) for image_id in self.image_ids]

    @property
    def _memory(self) -> DigestMemory:
        """The memory next to which results over all files are remembered."""
        return self._files

    def image_number(self, image_id: str) -> int | str:
        """The id of an image in COCO's format: its position, counted from 1."""
        self._check_id(image_id)
        return self._places[image_id] + 1

    @cached_property
    def _places(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids)}

    def annotation(self, image_id: str) -> Any:
        """The image's annotation, unchecked. Raises BadAnnotation for the first fault of the file."""
        annotation = self.readable_annotation(image_id)
        if annotation.faults:
            raise BadAnnotation(annotation.faults.listed[0])
        return annotation

    def readable_annotation(self, image_id: str) -> Any:
        """As `annotation`, but with faults of single objects in its `faults` and without these objects.

        Raises BadAnnotation if the file cannot be read at all.
        """
        path = self.annotation_path(image_id)
        if self._is_background(path):
            return Annotation(path, None, (), missing=True)
        return readable_annotation(path, self._files.read, zero_based=self.options.zero_based)

    def _is_background(self, path: Path) -> bool:
        """Whether an annotation file is missing but not required."""
        return self.options.unannotated == BACKGROUND and not path.exists()

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) in pixels, as stated in the image's annotation; None if missing or unreadable."""
        try:
            size: tuple[int, int] | None = self.annotation(image_id).size
        except BadAnnotation:
            return None
        return size

    def flickr_id(self, image_id: str) -> str | None:
        """The number that the photograph has on flickr (<flickrid> in VOC's <source>); None if it is not stated."""
        try:
            text = parse_xml(self.annotation_path(image_id), self._files.read).findtext("source/flickrid")
        except BadAnnotation:
            return None
        return (text or "").strip() if FLICKR_ID.fullmatch((text or "").strip()) else None

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """The problems of an image's annotation, one sentence each; `image` is its file, if it exists."""
        strict = self.options.other_classes == ERROR
        return problems(annotation, size, self.classes if strict else None, image)

    def annotation_digest(self, image_id: str) -> str:
        """The digest of what determines the image's record, besides the image: its annotation and the classes.

        Raises BadAnnotation if the annotation is missing.
        """
        path = self.annotation_path(image_id)
        try:
            content = NO_FILE if self._is_background(path) else self._files.entry(path, image=False).sha256
        except BadImage as error:
            raise BadAnnotation(f"{path}: {error.reason}; repair or remove it") from None
        return combined("annotation", [content, *self._reading, "classes", *self.classes])

    @property
    def _reading(self) -> list[str]:
        """Options that affect how objects are read, for keys; empty by default."""
        zero_based = ["zero-based"] if self.options.zero_based else []
        return zero_based if self.options.exhaustive else [*zero_based, NOT_EXHAUSTIVE]

    @cached_property
    def images_key(self) -> str:
        """SHA-256 (hex) over the ids, in order, and their image files' bytes (and EXIF orientations, if applied)."""
        return images_digest("images", self.image_ids, self.image_digests)

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, and their annotation files' bytes.

        Warns of annotations that are left out.
        """
        key = combined("classes", [self._annotations_digest, *self._reading, *self.classes])
        for note in self.notes():
            log.warning("%s", note)
        return key

    @cached_property
    def _annotations_digest(self) -> str:
        """SHA-256 (hex) over the ids, in order, and the annotation files' bytes. Raises BadAnnotation."""
        paths = [self.annotation_path(image_id) for image_id in self.image_ids]
        required = [path for path in paths if not self._is_background(path)]
        missing = next((path for path in required if not path.exists()), None)
        if missing is not None:
            raise BadAnnotation(f"{missing}: {MISSING}")
        digests = dict(zip(required, self._files.of(required), strict=True))
        return images_digest("annotations", self.image_ids, [digests.get(path, NO_FILE) for path in paths])

    @property
    def has_masks(self) -> bool:
        """Whether the dataset was opened with the masks of its images."""
        return self.options.masks

    def class_mask(self, image_id: str) -> ClassMask:
        """What each pixel shows: uint8 [H, W], 0 for the background, k + 1 for class k, VOID (255) for nothing known.

        Raises BadAnnotation for a mask that cannot be read, ChangedInput if its file has changed, BadImage, and
        BadDataset if the dataset has no masks.
        """
        return self._as_class_mask(self.mask_path(image_id), self._mask_indices(image_id))

    def _as_class_mask(self, path: Path, indices: NDArray[np.uint8]) -> ClassMask:
        """The indices in a file as a mask of the dataset's classes. Raises BadAnnotation for one of no class."""
        labels = self._label_of_index[indices]
        if (labels < 0).any():
            raise BadAnnotation(self._unknown_index(path, int(indices[labels < 0][0])))
        return labels.astype(np.uint8)

    def object_masks(self, image_id: str) -> ObjectMasks:
        """The objects' labels int32 [n] and masks bool [n, H, W]: those of SegmentationObject if there is such a
        folder, otherwise the connected components of each class, but for specks. Raises as `class_mask`.
        """
        class_mask = self.class_mask(image_id)
        if not self._has_object_masks:
            return components(class_mask)
        return objects_of(class_mask, self._mask_indices(image_id, OBJECT_MASKS))

    def _mask_indices(self, image_id: str, folder: str = CLASS_MASKS) -> NDArray[np.uint8]:
        """The indices in the file of an image's mask of classes or of objects: uint8 [H, W]. Raises as `class_mask`."""
        return read_indices(self.mask_path(image_id, folder), self._mask_size(image_id), self._files.read)

    def _mask_size(self, image_id: str) -> tuple[int, int]:
        """(width, height) of the image's masks: the image's, or as annotated where it cannot be read, since a skipped
        image still counts in an evaluation. Raises BadImage if neither is known."""
        try:
            return self.image_size(image_id)
        except BadImage:
            stated = self.stated_size(image_id)
            if stated is None:
                raise
            return stated

    def mask_path(self, image_id: str, folder: str = CLASS_MASKS) -> Path:
        """The path of an image's mask of classes or of objects, which need not exist. Raises BadDataset if the dataset
        has no masks."""
        self._check_id(image_id)
        self._check_masks()
        listing = self._mask_files[folder]
        files = listing.find(image_id)
        return files[0] if files else listing.expected(image_id)

    def mask_digest(self, image_id: str) -> str:
        """The digest of what determines the image's masks: their files, and the classes that their indices stand for.

        Raises BadAnnotation if one is missing, and BadDataset if the dataset has no masks.
        """
        contents = [] if self._has_object_masks else [f"components of at least {LEAST_COMPONENT} pixels"]
        for folder in self._mask_folders:
            path = self.mask_path(image_id, folder)
            try:
                contents.append(f"{folder} {self._files.entry(path, image=False).sha256}")
            except BadImage as error:
                raise BadAnnotation(f"{path}: {MISSING_MASK if not path.exists() else error.reason}") from None
        numbers = [str(label) for label in self._label_of_index.tolist()]
        return combined("mask", [*contents, "labels", *numbers, "classes", *self.classes])

    @cached_property
    def masks_key(self) -> str:
        """SHA-256 (hex) over the ids, in order, and what determines their masks. Raises as `mask_digest`."""
        self._check_masks()
        return images_digest("masks", self.image_ids, self._mask_digests())

    def _mask_digests(self) -> list[str]:
        paths = [self.mask_path(image_id, folder) for folder in self._mask_folders for image_id in self.image_ids]
        self._files.of([path for path in paths if path.exists()])  # reads them in several threads, and remembers them
        return [self.mask_digest(image_id) for image_id in self.image_ids]

    @cached_property
    def _mask_files(self) -> dict[str, Listing]:
        return {folder: Listing(self._layout.home / folder, MASKS) for folder in (CLASS_MASKS, OBJECT_MASKS)}

    @cached_property
    def _has_object_masks(self) -> bool:
        return (self._layout.home / OBJECT_MASKS).is_dir()

    @property
    def _mask_folders(self) -> tuple[str, ...]:
        return (CLASS_MASKS, OBJECT_MASKS) if self._has_object_masks else (CLASS_MASKS,)

    @cached_property
    def _label_of_index(self) -> NDArray[np.int16]:
        """What each index of a mask's file is in `class_mask`, int16 [256]; -1 for one that stands for no class."""
        labels = np.full(VOID + 1, -1, np.int16)
        labels[0], labels[VOID] = 0, VOID
        left_out = VOID if self.options.other_classes == LEAVE_OUT else -1
        for index, name in enumerate(self._classes_of_masks, 1):
            labels[index] = self.classes.index(name) + 1 if name in self.classes else left_out
        return labels

    @cached_property
    def _classes_of_masks(self) -> tuple[str, ...]:
        """The classes that the indices of masks stand for, from 1: VOC's twenty in a devkit folder of these, otherwise
        those listed. Raises BadDataset if none are."""
        if self._layout.is_year and set(self.classes) <= set(VOC_CLASSES):
            return VOC_CLASSES
        if self.options.classes is None:
            raise BadDataset(
                f"{self.name}: has masks, whose indices count its classes; list the classes in the order of these "
                'indices, as in classes = ["cat", "dog"] for 1 and 2'
            )
        return self.options.classes

    def _unknown_index(self, path: Path, index: int) -> str:
        """What is wrong with an index of the mask `path` that stands for none of the dataset's classes."""
        names = self._classes_of_masks
        if index <= len(names):
            advice = 'list the class, or set other_classes = "leave-out"'
            return f"{path}: has the index {index} ({names[index - 1]}), which is none of the listed classes; {advice}"
        advice = "correct the mask" if names == VOC_CLASSES else "correct the mask, or list all classes"
        return (
            f"{path}: has the index {index}, but classes have the indices 1 to {len(names)}, the background 0 and void "
            f"{VOID}; {advice}"
        )

    def _check_masks(self) -> None:
        if not self.has_masks:
            raise BadDataset(f"{self.name}: was opened without masks; set masks = true where the dataset is named")
        if len(self.classes) > MOST_CLASSES:
            raise BadDataset(
                f"{self.name}: has {len(self.classes)} classes, but masks can tell {MOST_CLASSES} apart; list fewer"
            )

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
        record = as_record(annotation, kept, image_id, self.image_path(image_id), size, self.classes)
        return replace(record, exhaustive=image_id not in self.images_not_exhaustive)

    def _image_if_there(self, image_id: str, *, must: bool) -> ImageFile | None:
        """The image's file, or None if it is missing. Raises BadImage if it `must` exist."""
        try:
            return self.image_file(image_id)
        except BadImage:
            if must:
                raise
            return None


def image_size(image: ImageFile | None) -> tuple[int, int]:
    """(width, height) in pixels of an image that must exist. Raises BadImage."""
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
    """The record of an image of `size` (width, height), from its checked annotation and the objects `kept`."""
    objects = [annotation.objects[place] for place in kept]
    return ImageRecord(
        image_id=image_id,
        path=path,
        width=size[0],
        height=size[1],
        boxes=clip_boxes(annotation.boxes_on(size)[list(kept)], *size),
        labels=np.array([classes.index(annotated.name) for annotated in objects], np.int32),
        difficult=np.array([annotated.difficult for annotated in objects], np.bool_),
        truncated=np.array([annotated.truncated for annotated in objects], np.bool_),
        occluded=np.array([annotated.occluded for annotated in objects], np.bool_),
        pose=tuple(annotated.pose for annotated in objects),
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
    """The image set `split` below `folder`, as located by `find_images`. Raises BadDataset."""
    options = options or VocOptions()
    checked_classes(options.classes)
    layout, ids, label = find_images(folder, split, year, masks=options.masks)
    if options.masks and not (layout.home / CLASS_MASKS).is_dir():
        raise BadDataset(
            f"{layout.home / CLASS_MASKS}: no such folder; masks = true needs it, with a PNG of class indices for each "
            "image"
        )
    return Dataset(plain_label(name or label), layout.home, ids, work=work, options=options, layout=layout)


def checked_classes(classes: tuple[str, ...] | None) -> None:
    """Raises BadDataset for an empty list of classes, a repeated class, or a name that is not one line of text."""
    for name in classes or ():
        if not ONE_LINE.fullmatch(name):
            raise BadDataset(f"classes: {shown(name)} is not the name of a class; give it a name, on one line")
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise BadDataset(f"classes = {list(classes)}: list at least one class, each only once")


def plain_label(name: str) -> str:
    """`name` in lower case, with '-' for all characters that are not wanted in a folder name."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.") or "dataset"
