"""Datasets in the layout of the PASCAL VOC devkit: JPEGImages/, Annotations/, ImageSets/Main/."""

from __future__ import annotations

import logging
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.boxes import clip_boxes
from stages.datasets.annotations import Annotation, class_names, problems, read_annotation
from stages.datasets.digests import combined, memory_of, remembered_names
from stages.datasets.image_set import ImageSet, images_digest
from stages.datasets.orientation import AUTO
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord
from stages.errors import BadImage
from stages.execution import silent
from stages.images import SUFFIXES, ImageFile
from stages.settings import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from stages.datasets.check import CheckReport
    from stages.execution import Progress

log = logging.getLogger("stages.datasets")

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
YEAR_FOLDER = re.compile(r"VOC(?:19|20)\d\d")
IMAGE_ID = re.compile(r"[A-Za-z0-9_.-]+")


class Dataset(ImageSet):
    """One image set of a folder in VOC's layout; everything about it is read when first asked for, and then kept.

    `name` is a short label; `image_ids` are in the order of the image set; `folder` holds JPEGImages and Annotations.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        image_ids: tuple[str, ...],
        *,
        work: Path,
        classes: tuple[str, ...] | None = None,
        exif: str = AUTO,
    ) -> None:
        self.name = name
        self.folder = folder
        self.image_ids = image_ids
        self.exif = exif
        self._work = work
        self._files = memory_of(folder, work)
        self._listed = classes
        self._records: dict[str, ImageRecord] = {}
        self._known = frozenset(image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} images)"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes: as listed, else VOC's twenty in the devkit's order, else those found, sorted.

        They are looked for in every annotation of the folder, so that all its image sets number them alike.
        """
        if self._listed is not None:
            return self._listed
        paths = sorted((self.folder / "Annotations").glob("*.xml"))
        found = set(remembered_names(self._files, paths, lambda path: class_names(path, self._files.read)))
        if not found:
            raise BadDataset(
                f"{self.folder / 'Annotations'}: no annotated object; list the classes, or add annotations"
            )
        return VOC_CLASSES if found <= set(VOC_CLASSES) else tuple(sorted(found))

    @property
    def images_with_crowds(self) -> frozenset[str]:
        """The ids of the images with a crowd among their objects (see `ImageRecord`); VOC's format has none."""
        return frozenset()

    def subset(self, positions: Sequence[int]) -> Dataset:
        """The images at these positions alone, with all classes."""
        ids = tuple(self.image_ids[position] for position in positions)
        chosen = Dataset(self.name, self.folder, ids, work=self._work, classes=self.classes, exif=self.exif)
        chosen._files = self._files
        return chosen

    def image_path(self, image_id: str) -> Path:
        """The image's file (.jpg, .jpeg or .png); where there is none, the .jpg that should be there."""
        self._check_id(image_id)
        stem = self.folder / "JPEGImages" / image_id
        candidates = [stem.with_name(stem.name + suffix) for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES))]
        return next((path for path in candidates if path.exists()), candidates[0])

    def annotation_path(self, image_id: str) -> Path:
        """The image's annotation file, which need not exist."""
        self._check_id(image_id)
        return self.folder / "Annotations" / f"{image_id}.xml"

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
    def category_ids(self) -> tuple[int, ...]:
        """The number of each class in COCO's format: from 1 on."""
        return tuple(range(1, len(self.classes) + 1))

    def notes(self) -> list[str]:
        """What is to be known of the annotations as a whole and is no problem, one sentence each."""
        return []

    def image_number(self, image_id: str) -> int:
        """The number of an image in COCO's format: its place, from 1 on."""
        self._check_id(image_id)
        return self._places[image_id] + 1

    @cached_property
    def _places(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids)}

    def annotation(self, image_id: str) -> Any:
        """What the image's annotation file says, unchecked. Raises BadAnnotation."""
        return read_annotation(self.annotation_path(image_id), self._files.read)

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) as the image's annotation states it, None if it does not or cannot be read."""
        try:
            size: tuple[int, int] | None = self.annotation(image_id).size
        except BadAnnotation:
            return None
        return size

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """What is impossible about an image's annotation, one sentence each; `image` is its file, if it is there."""
        return problems(annotation, size, self.classes, image)

    def annotation_digest(self, image_id: str) -> str:
        """What decides the image's record beside the image: SHA-256 (hex) over its annotation and the classes.

        Raises BadAnnotation if the annotation is not there.
        """
        path = self.annotation_path(image_id)
        try:
            content = self._files.entry(path, image=False).sha256
        except BadImage as error:
            raise BadAnnotation(f"{path}: {error.reason}; add it, or take its id out of the image set") from None
        return combined("annotation", [content, "classes", *self.classes])

    @cached_property
    def images_key(self) -> str:
        """SHA-256 (hex) over the ids, in order, and their image files' bytes (and EXIF orientations, if obeyed)."""
        return images_digest("images", self.image_ids, self.image_digests)

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, and their annotation files' bytes."""
        paths = [self.annotation_path(image_id) for image_id in self.image_ids]
        missing = next((path for path in paths if not path.exists()), None)
        if missing is not None:
            raise BadAnnotation(f"{missing}: no such annotation file; add it, or take its id out of the image set")
        files = images_digest("annotations", self.image_ids, self._files.of(paths))
        return combined("classes", [files, *self.classes])

    @cached_property
    def key(self) -> str:
        """SHA-256 (hex) over images, annotations and classes: the dataset's whole content."""
        return combined("dataset", [self.images_key, self.annotations_key])

    def check(self, progress: Callable[[str, int, str], AbstractContextManager[Progress]] = silent) -> CheckReport:
        """Decodes every image and reads every annotation: what is wrong, and how many objects there are."""
        from stages.datasets.check import check_dataset

        return check_dataset(self, progress)

    def _check_id(self, image_id: str) -> None:
        if image_id not in self._known:
            raise BadDataset(f"{self.name}: has no image '{image_id}'{nearest(image_id, self.image_ids[:2000])}")

    def _read_record(self, image_id: str) -> ImageRecord:
        annotation = self.annotation(image_id)
        image = self._image_if_there(image_id, must=annotation.size is None)
        size = annotation.size or image_size(image)
        for problem in problems(annotation, size, self.classes, image):
            raise BadAnnotation(problem)
        return as_record(annotation, image_id, self.image_path(image_id), size, self.classes)

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
    annotation: Annotation, image_id: str, path: Path, size: tuple[int, int], classes: tuple[str, ...]
) -> ImageRecord:
    """The record of an image of `size` (width, height) whose annotation has been checked."""
    objects = annotation.objects
    return ImageRecord(
        image_id=image_id,
        path=path,
        width=size[0],
        height=size[1],
        boxes=clip_boxes(annotation.boxes, *size),
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
    classes: tuple[str, ...] | None = None,
    year: str | None = None,
    name: str | None = None,
    exif: str = AUTO,
) -> Dataset:
    """The image set `split` below `folder` (the devkit's folder or the year's); raises BadDataset.

    `split` names ImageSets/Main/SPLIT.txt, or is itself a file of ids ending in .txt.
    """
    home = locate(folder, year)
    image_set = Path(split).expanduser() if split.endswith(".txt") else home / "ImageSets" / "Main" / f"{split}.txt"
    if not image_set.is_file():
        sets = sorted(path.stem for path in image_set.parent.glob("*.txt"))
        advice = nearest(split, sets) or "; write it, a text file with one image id a line (a file's name, no ending)"
        raise BadDataset(f"{image_set}: no such image set{advice}")
    label = name or f"{home.name}-{image_set.stem}"
    ids, listed = read_image_set(image_set), checked_classes(classes)
    return Dataset(plain_label(label), home, ids, work=work, classes=listed, exif=exif)


def locate(folder: Path, year: str | None) -> Path:
    """The folder with JPEGImages: `folder` itself, or the one VOC20xx (of that `year`) in it or in its VOCdevkit."""
    if not folder.is_dir():
        raise BadDataset(f"{folder}: no such folder; name the VOCdevkit folder or the VOC20xx folder inside it")
    if (folder / "JPEGImages").is_dir():
        return folder
    inside = [path for place in (folder, folder / "VOCdevkit") for path in sorted(place.glob("VOC*")) if is_year(path)]
    homes = [path for path in inside if year is None or path.name == f"VOC{year}"]
    if len(homes) == 1:
        return homes[0]
    found = ", ".join(path.name for path in inside)
    if len(inside) > 1 and year is None:
        raise BadDataset(
            f"{folder}: holds {found}; end the source with the year, as in voc:DIR:SPLIT:{inside[0].name[3:]}"
        )
    if inside:
        raise BadDataset(f"{folder}: holds {found} but no VOC{year}; correct the year, or fetch that one")
    raise BadDataset(f"{folder}: holds no dataset in VOC's layout; it needs JPEGImages, Annotations and ImageSets/Main")


def is_year(path: Path) -> bool:
    """Whether `path` is a folder such as VOC2007 with images in it."""
    return bool(YEAR_FOLDER.fullmatch(path.name)) and (path / "JPEGImages").is_dir()


def read_image_set(path: Path) -> tuple[str, ...]:
    """The ids in an image set's file, one a line, in their order; raises BadDataset if any is twice or impossible."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadDataset(f"{path}: is not a text file; an image set holds one image id a line") from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        image_id = line.strip()
        if not image_id:
            continue
        if not IMAGE_ID.fullmatch(image_id) or set(image_id) == {"."}:
            raise BadDataset(
                f"{path}: line {number}, {image_id!r}, is not an image id; "
                "write one id a line, of letters, digits, '_', '.' and '-'"
            )
        if image_id.lower().endswith(SUFFIXES):
            raise BadDataset(
                f"{path}: line {number}, '{image_id}', is the name of a file; "
                f"write image ids, names without their ending: {Path(image_id).stem}"
            )
        if image_id in seen:
            raise BadDataset(f"{path}: '{image_id}' is on lines {seen[image_id]} and {number}; remove one of them")
        seen[image_id] = number
    if not seen:
        raise BadDataset(f"{path}: lists no image; add one id a line")
    return tuple(seen)


def checked_classes(classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The listed classes, if any; raises BadDataset if there are none or one is there twice."""
    if classes is not None and (not classes or len(set(classes)) < len(classes)):
        raise BadDataset(f"classes = {list(classes)}: list each class once, and at least one")
    return classes


def plain_label(name: str) -> str:
    """`name` in lower case, with '-' for whatever does not belong in a folder's name."""
    return re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.") or "dataset"
