"""Datasets in COCO's format: one JSON file of images, annotations and categories, and a folder of images.

Boxes are (x, y, width, height) in pixels from the image's upper left corner: (x, y, x + width, y + height) in the
project. A crowd (`iscrowd`: 1) is a difficult object: it counts neither as missed nor as found. No stage trains on it.
Annotations with a box of no width or height, of which COCO's own files have a few, are left out, and said so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import as_boxes, clip_boxes
from stages.datasets.annotations import CLASS_NAME
from stages.datasets.digests import combined
from stages.datasets.orientation import AUTO, described_size
from stages.datasets.records import BadAnnotation, BadDataset, ImageRecord
from stages.datasets.voc import Dataset, image_size, plain_label
from stages.images import ImageFile

log = logging.getLogger("stages.datasets")

SLACK = 1.0  # pixels: boxes drawn around polygons may reach over the edge by rounding
TABLES = ("images", "categories", "annotations")
NAMED = 5  # so many ids of annotations that are left out are said


@dataclass(frozen=True)
class CocoObject:
    """One annotation: `box` is (x, y, width, height), `area` in square pixels (of the segmentation, where the file has
    one), `difficult` whether it is a crowd."""

    number: int
    name: str
    box: tuple[float, float, float, float]
    area: float
    difficult: bool
    truncated: bool = False


@dataclass(frozen=True)
class CocoAnnotation:
    """One image's annotations; `size` is (width, height) in pixels, None where the file does not say."""

    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The file's content, K categories and the images by ascending id, n annotations in the images' order.

    `category_ids` and `classes` [K]; `images` maps an image's id to its place; `files` relative to the folder of
    images; `sizes` int64 [images, 2] (width, height), (0, 0) where not stated; `offsets` int64 [images + 1] into
    `numbers` int64 (ids), `labels` int32, `boxes` float64 [n, 4] (x, y, width, height), `areas` float64 and `crowds`
    bool, all [n]. `left_out` has the ids of the annotations that are not among them. `sha256` (hex) is of the bytes
    that all this was read from.
    """

    path: Path
    sha256: str
    category_ids: tuple[int, ...]
    classes: tuple[str, ...]
    images: Mapping[str, int]
    files: tuple[str, ...]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    numbers: NDArray[np.int64]
    labels: NDArray[np.int32]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    left_out: tuple[int, ...] = ()


class CocoDataset(Dataset):
    """The images of a file in COCO's format. An image's id is its `id` as text; the classes are the categories. Both
    are in the order of their ids, as in pycocotools, which need not be contiguous."""

    def __init__(self, name: str, file: CocoFile, folder: Path, *, work: Path, exif: str = AUTO) -> None:
        super().__init__(name, folder, tuple(file.images), work=work, classes=file.classes, exif=exif)
        self.file = file

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's id of each class."""
        return self.file.category_ids

    def notes(self) -> list[str]:
        """Which annotations of the file are left out, in one sentence, if any are."""
        ids = self.file.left_out
        if not ids:
            return []
        shown = ", ".join(map(str, ids[:NAMED])) + (", ..." if len(ids) > NAMED else "")
        many = f"{len(ids)} annotations have boxes" if len(ids) > 1 else "1 annotation has a box"
        return [f"{self.file.path}: {many} of no width or height, left out: {shown}"]

    def image_number(self, image_id: str) -> int:
        """The file's id of an image."""
        return int(image_id)

    def subset(self, positions: Sequence[int]) -> CocoDataset:
        """The images at these positions alone, with all classes."""
        chosen = copy.copy(self)
        for known in ("image_digests", "images_key", "annotations_key", "key", "images_with_crowds"):
            vars(chosen).pop(known, None)
        chosen.image_ids = tuple(self.image_ids[position] for position in positions)
        chosen._known = frozenset(chosen.image_ids)
        return chosen

    @cached_property
    def images_with_crowds(self) -> frozenset[str]:
        """The ids of the images with a crowd among their objects."""
        places = np.searchsorted(self.file.offsets, np.flatnonzero(self.file.crowds), side="right") - 1
        crowded = set(places.tolist())
        return frozenset(one for one in self.image_ids if self.file.images[one] in crowded)

    def image_path(self, image_id: str) -> Path:
        """The image's file, which need not exist."""
        self._check_id(image_id)
        return self.folder / self.file.files[self.file.images[image_id]]

    def annotation_path(self, image_id: str) -> Path:
        """The file of all annotations."""
        self._check_id(image_id)
        return self.file.path

    def annotation(self, image_id: str) -> CocoAnnotation:
        """What the file says of the image, unchecked."""
        self._check_id(image_id)
        file, place = self.file, self.file.images[image_id]
        objects = [
            CocoObject(
                int(file.numbers[row]),
                file.classes[file.labels[row]],
                (*file.boxes[row].tolist(),),
                float(file.areas[row]),
                bool(file.crowds[row]),
            )
            for row in range(file.offsets[place], file.offsets[place + 1])
        ]
        return CocoAnnotation(self.stated_size(image_id), tuple(objects))

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) as the file states it, None if it does not."""
        width, height = (int(side) for side in self.file.sizes[self.file.images[image_id]])
        return (width, height) if width and height else None

    def annotation_digest(self, image_id: str) -> str:
        """What decides the image's record beside the image: SHA-256 (hex) over its annotations and the classes."""
        return combined("coco-annotation", [repr(self.annotation(image_id)), "classes", *self.classes])

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """What is impossible about an image's annotations, one sentence each; `image` is its file, if it is there."""
        if image is not None and image.header is not None and image.size != size:
            told = f"states {size[0]} x {size[1]} pixels for image {image_id} but {image.path} has "
            yield f"{self.file.path}: {told}{described_size(image)}; correct one of the two"
        for one in annotation.objects:
            x, y, width, height = one.box
            what = f"{self.file.path}: annotation {one.number} ({one.name}) of image {image_id}"
            box = f"the box [{x:g}, {y:g}, {width:g}, {height:g}]"
            if not np.isfinite([*one.box, one.area]).all():
                yield f"{what} has {box} and the area {one.area:g}; give it finite numbers"
            elif width < 0 or height < 0:
                yield f"{what} has {box}, of negative width or height; correct it or remove the annotation"
            elif (
                min(x, y) < -SLACK
                or x + width > size[0] + SLACK
                or y + height > size[1] + SLACK
                or min(x + width, y + height) <= 0
                or x >= size[0]
                or y >= size[1]
            ):
                yield (
                    f"{what} has {box}, outside its image of {size[0]} x {size[1]} pixels; "
                    "correct it: x and y from the upper left corner, then width and height"
                )

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, and the bytes of the annotations' file."""
        return combined("coco", [self.file.sha256, *self.image_ids, "classes", *self.classes])

    def _read_record(self, image_id: str) -> ImageRecord:
        annotation = self.annotation(image_id)
        image = self._image_if_there(image_id, must=annotation.size is None)
        size = annotation.size or image_size(image)
        for problem in self.problems(image_id, annotation, size, image):
            raise BadAnnotation(problem)
        place = self.file.images[image_id]
        rows = slice(self.file.offsets[place], self.file.offsets[place + 1])
        corners = self.file.boxes[rows].copy()
        corners[:, 2:] += corners[:, :2]
        none = np.zeros(len(corners), np.bool_)
        return ImageRecord(
            image_id=image_id,
            path=self.image_path(image_id),
            width=size[0],
            height=size[1],
            boxes=clip_boxes(as_boxes(corners), *size),
            labels=self.file.labels[rows],
            difficult=self.file.crowds[rows],
            truncated=none,
            occluded=none,
            pose=("Unspecified",) * len(corners),
            stated_areas=self.file.areas[rows],
            stated_crowds=self.file.crowds[rows],
        )


def open_coco(path: Path, folder: Path, *, work: Path, exif: str = AUTO) -> CocoDataset:
    """The dataset in the file `path` with the images in `folder`; raises BadDataset.

    A warning says which annotations are left out.
    """
    file = read_coco(path)
    if not folder.is_dir():
        raise BadDataset(f"{folder}: no such folder; end the source with the folder of the images of {path.name}")
    dataset = CocoDataset(plain_label(path.stem), file, folder, work=work, exif=exif)
    for note in dataset.notes():
        log.warning("%s", note)
    return dataset


def read_coco(path: Path) -> CocoFile:
    """The file `path`, its structure checked: entries are whole, ids unique and known. Raises BadDataset.

    Whether a box fits into its image is checked when the image's record is read; boxes without an area are left out.
    """
    content, sha256 = read_json(path)
    images: dict[str, int] = {}
    files, sizes = [], []
    numbered = [(whole(path, f"image {n}", entry, "id"), entry) for n, entry in enumerate(content["images"], 1)]
    for identity, entry in sorted(numbered, key=lambda pair: pair[0]):
        what = f"image {identity}"
        if str(identity) in images:
            raise BadDataset(f"{path}: {what} is there twice; give each image an id of its own")
        images[str(identity)] = len(images)
        files.append(relative_file(path, what, entry.get("file_name")))
        sizes.append([whole(path, what, {side: 0, **entry}, side) for side in ("width", "height")])
    names = category_names(path, content["categories"])
    label_of = {identity: label for label, identity in enumerate(names)}
    rows = [annotation_row(path, n, entry, images, label_of) for n, entry in enumerate(content["annotations"], 1)]
    left_out = tuple(row[1] for row in rows if min(row[3][2:]) == 0)
    rows = [row for row in rows if min(row[3][2:]) != 0]
    rows.sort(key=lambda row: row[0])  # stable: within an image as in the file
    places = np.array([row[0] for row in rows], np.int64)
    return CocoFile(
        path=path,
        sha256=sha256,
        category_ids=tuple(names),
        classes=tuple(names.values()),
        images=images,
        files=tuple(files),
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        offsets=np.searchsorted(places, np.arange(len(images) + 1)).astype(np.int64),
        numbers=np.array([row[1] for row in rows], np.int64),
        labels=np.array([row[2] for row in rows], np.int32),
        boxes=np.array([row[3] for row in rows], np.float64).reshape(-1, 4),
        areas=np.array([row[4] for row in rows], np.float64),
        crowds=np.array([row[5] for row in rows], np.bool_),
        left_out=left_out,
    )


def read_json(path: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """The file's three TABLES, each a list of objects, and the SHA-256 (hex) of its bytes; raises BadDataset."""
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except FileNotFoundError:
        raise BadDataset(f"{path}: no such file; name one in COCO's format, coco:ANNOTATIONS.json:IMAGES") from None
    except OSError as error:
        raise BadDataset(f"{path}: cannot be read ({error.strerror}); name a file in COCO's format") from None
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{path}: is not a whole JSON file ({error}); repair it or fetch it again") from None
    for table in TABLES:
        entries = content.get(table) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BadDataset(
                f"{path}: has no list '{table}' of objects; a file in COCO's format has {', '.join(TABLES)}"
            )
    for table in TABLES[:2]:
        if not content[table]:
            raise BadDataset(f"{path}: its list '{table}' is empty; add some")
    return {table: content[table] for table in TABLES}, hashlib.sha256(raw).hexdigest()


def whole(path: Path, what: str, entry: Mapping[str, Any], key: str) -> int:
    """The entry's whole number `key`, not negative; raises BadDataset."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        told = f"has {key} = {value!r}, not a whole number" if key in entry else f"has no '{key}'"
        raise BadDataset(f"{path}: {what} {told}; correct it")
    return value


def relative_file(path: Path, what: str, name: Any) -> str:
    """The image's file name, relative to the folder of images; raises BadDataset."""
    if not isinstance(name, str) or not name:
        raise BadDataset(f"{path}: {what} has file_name = {name!r}; name its file in the folder of images")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BadDataset(f"{path}: {what} has file_name = {name!r}; name a file inside the folder of images")
    return name


def category_names(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """The name of each category, by ascending id; raises BadDataset."""
    names: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        identity = whole(path, f"category {number}", entry, "id")
        name = entry.get("name")
        if not isinstance(name, str) or not CLASS_NAME.fullmatch(name):
            raise BadDataset(f"{path}: category {identity} has the name {name!r}; give it a name without slashes")
        if identity in names or name in names.values():
            raise BadDataset(f"{path}: category {identity} ({name}): its id or name is there twice; rename one")
        names[identity] = name
    return dict(sorted(names.items()))


def annotation_row(
    path: Path, number: int, entry: Mapping[str, Any], images: Mapping[str, int], label_of: Mapping[int, int]
) -> tuple[int, int, int, list[float], float, bool]:
    """The `number`-th annotation as (image's place, id, label, box, area, crowd); raises BadDataset."""
    identity = whole(path, f"annotation {number}", {"id": number, **entry}, "id")
    what = f"annotation {identity}"
    image, category = whole(path, what, entry, "image_id"), whole(path, what, entry, "category_id")
    if str(image) not in images:
        raise BadDataset(f"{path}: {what} is of image {image}, which the file does not list; add or remove it")
    if category not in label_of:
        raise BadDataset(f"{path}: {what} is of category {category}, which the file does not list; add or remove it")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(side) for side in box):
        raise BadDataset(f"{path}: {what} has bbox = {box!r}; give it four numbers, [x, y, width, height]")
    area = entry.get("area", box[2] * box[3])
    crowd = entry.get("iscrowd", 0)
    if not is_number(area):
        raise BadDataset(f"{path}: {what} has area = {area!r}; give it a number or leave it out")
    if crowd not in (0, 1):
        raise BadDataset(f"{path}: {what} has iscrowd = {crowd!r}; write 0 or 1")
    return images[str(image)], identity, label_of[category], [float(side) for side in box], float(area), bool(crowd)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
