"""Datasets in COCO's format: a JSON file of images, annotations and categories, and a folder of images.

Boxes are (x, y, width, height) in pixels from the image's top left corner, and become (x, y, x + width, y + height). A
crowd (`iscrowd`: 1) is a difficult object, which counts neither as missed nor as found; no stage trains on it.
Annotations without area on their image (after clipping, in float32; COCO's own files have a few), with a negative area
or with non-finite numbers are left out with a warning. So are those of unlisted classes, if classes are listed, and
exact duplicates with the same id. The option `images_listed_in` names a text file with the ids of some of the file's
images, one per line, which the dataset is then about.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cache.files import cannot, is_number
from stages.boxes import Boxes, as_boxes, clip_boxes, has_area, look_normalised
from stages.contract.errors import BadImage
from stages.contract.settings import nearest, setting
from stages.datasets.class_masks import VOID, ClassMask, ObjectMasks, stacked
from stages.datasets.coco_masks import object_mask
from stages.datasets.digests import combined
from stages.datasets.layout import read_lines
from stages.datasets.listing import ONE_LINE, on_disk
from stages.datasets.orientation import described_size
from stages.datasets.records import NORMALISED, BadAnnotation, BadDataset, Faults, ImageRecord, LeftOut, shown
from stages.datasets.voc import (
    CLASS_MASKS,
    OF_ALL_IMAGES,
    Dataset,
    MaskOptions,
    VocOptions,
    checked_classes,
    image_size,
    plain_label,
)
from stages.images.reading import ImageFile
from stages.input_files import read_whole
from stages.masks import Mask

log = logging.getLogger("stages.datasets")

SLACK = 1.0  # pixels: by rounding, boxes around polygons may extend beyond the edge
FAR = 1e30
TABLES = ("images", "categories", "annotations")
FLICKR_URL = re.compile(r"https?://[^/]*flickr\.com/(?:[^/]+/)*([1-9][0-9]{0,19})_[^/]*")
Identity = int | str
"""An id in the file: COCO's are numbers; other files may use text."""


@dataclass(frozen=True)
class CocoOptions(MaskOptions):
    """Options of `coco:ANNOTATIONS.json:IMAGES`."""

    images_listed_in: str | None = setting(
        None, "A text file with the ids of the images to take from the file, one per line; none: all of them."
    )


@dataclass(frozen=True)
class CocoObject:
    """One annotation: `box` is (x, y, width, height) in pixels, `area` is in square pixels (of the segmentation, if the
    file has one), and `difficult` means a crowd."""

    number: Identity
    name: str
    box: tuple[float, float, float, float]
    area: float
    difficult: bool
    truncated: bool = False


@dataclass(frozen=True)
class CocoAnnotation:
    """One image's annotations; `size` is (width, height) in pixels, or None if not stated."""

    faults: ClassVar[Faults | None] = None  # a file with faults cannot be opened

    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The file's content: K categories and the images, by ascending id, and n annotations in the images' order.

    `category_ids` and `classes` [K]; `images` maps an image's id, as text, to its position; `numbers_of_images`
    [images] are the ids as in the file; `files` are relative to the image folder; `sizes` int64 [images, 2] (width,
    height) in pixels, (0, 0) if not stated; `offsets` int64 [images + 1] into `numbers` [n] (ids, int64 or text),
    `labels` int32 [n], `boxes` float64 [n, 4] (x, y, width, height), `areas` float64 [n] and `crowds` bool [n]. With
    masks, `segmentations` [n] are the file's own, of which nothing is checked.
    `left_out` are the annotations not among these, `clipped` the ids of those left out for another reason than a stated
    width or height of 0. `flickr_ids` [images] are those in each image's `flickr_url`, None without one. `sha256` (hex)
    is of the bytes that were read.
    """

    path: Path
    sha256: str
    category_ids: tuple[Identity, ...]
    classes: tuple[str, ...]
    images: Mapping[str, int]
    numbers_of_images: tuple[Identity, ...]
    files: tuple[str, ...]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    numbers: NDArray[Any]
    labels: NDArray[np.int32]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]
    segmentations: NDArray[Any] | None = None
    left_out: LeftOut = field(default_factory=LeftOut)
    clipped: tuple[Identity, ...] = ()
    flickr_ids: tuple[str | None, ...] = ()

    @property
    def corners(self) -> Boxes:
        """The boxes as (x, y, x + width, y + height), float32 [n, 4], not clipped."""
        corners = self.boxes.copy()
        corners[:, 2:] += corners[:, :2]
        return as_boxes(np.clip(corners, -FAR, FAR))  # what float32 cannot represent is outside the image anyway

    @property
    def places(self) -> NDArray[np.int64]:
        """The position of each annotation's image: int64 [n]."""
        return np.repeat(np.arange(len(self.files)), np.diff(self.offsets))

    def without(self, gone: NDArray[np.bool_]) -> CocoFile:
        """The file without the annotations marked in `gone`, bool [n]; they are not added to `left_out`."""
        kept = ~gone
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(kept)])[self.offsets].astype(np.int64),
            numbers=self.numbers[kept],
            labels=self.labels[kept],
            boxes=self.boxes[kept],
            areas=self.areas[kept],
            crowds=self.crowds[kept],
            segmentations=None if self.segmentations is None else self.segmentations[kept],
        )

    def with_area(self, sizes: NDArray[np.int64]) -> CocoFile:
        """The file without annotations that have no area on images of these `sizes` [images, 2] ((0, 0): unknown).

        Inverted ones, and those that extend beyond their image, are kept, so that reading them raises an error.
        """
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.areas) & (self.areas >= 0)
            least = self.boxes[:, 2:].min(axis=1, initial=np.inf)
            limits: NDArray[np.int64] = sizes[self.places]
            sized: NDArray[np.bool_] = np.min(limits, axis=1, keepdims=True) > 0
            corners = self.corners
            seen = has_area(np.where(sized, np.clip(corners, 0, np.tile(limits, 2)), corners).astype(np.float32))
            gone = ~finite | (least == 0) | ((least > 0) & ~seen & ~(sized[:, 0] & outside(self.boxes, limits)))
        without_area = [*self.left_out.without_area, *map(str, self.numbers[gone].tolist())]
        left_out = replace(self.left_out, without_area=without_area)
        clipped = (*self.clipped, *self.numbers[gone & (least != 0)].tolist())
        return replace(self.without(gone), left_out=left_out, clipped=clipped)

    def only(self, classes: Sequence[str]) -> CocoFile:
        """The file with only these classes, in this order; other annotations are left out. Raises BadDataset."""
        for name in classes:
            if name not in self.classes:
                raise BadDataset(f"{self.path}: has no category {name!r}{nearest(name, self.classes)}")
        labels = np.array([classes.index(name) if name in classes else -1 for name in self.classes], np.int32)
        gone = labels[self.labels] < 0
        counts = Counter(self.classes[label] for label in self.labels[gone])
        chosen = self.without(gone)
        return replace(
            chosen,
            classes=tuple(classes),
            category_ids=tuple(self.category_ids[self.classes.index(name)] for name in classes),
            labels=labels[chosen.labels],
            left_out=replace(self.left_out, other_classes=self.left_out.other_classes + counts),
        )


class CocoDataset(Dataset):
    """The images of a file in COCO's format. Image ids are the file's `id`s as text, the classes its categories. Both
    are sorted by id, as in pycocotools; ids need not be contiguous, and text comes after numbers."""

    def __init__(self, name: str, file: CocoFile, folder: Path, *, work: Path, exif: str) -> None:
        options = VocOptions(classes=file.classes, exif=exif, masks=file.segmentations is not None)
        super().__init__(name, folder, tuple(file.images), work=work, options=options)
        self.file = file

    def class_mask(self, image_id: str) -> ClassMask:
        """What each pixel shows: uint8 [H, W] (see `Dataset.class_mask`). Pixels of objects of several classes, and of
        a crowd and no other object, are VOID."""
        width, height = self._mask_size(image_id)
        mask = np.zeros((height, width), np.uint8)
        for label, of_object in self._masks_of(image_id, crowds=False):
            taken = (mask != 0) & (mask != label + 1)
            mask[of_object] = label + 1
            mask[of_object & taken] = VOID
        for _, of_crowd in self._masks_of(image_id, crowds=True):
            mask[of_crowd & (mask == 0)] = VOID
        return mask

    def object_masks(self, image_id: str) -> ObjectMasks:
        """The labels int32 [n] and masks bool [n, H, W] of the objects that are no crowds, which may overlap."""
        width, height = self._mask_size(image_id)
        objects = [pair for pair in self._masks_of(image_id, crowds=False) if pair[1].any()]
        return stacked([label for label, _ in objects], [mask for _, mask in objects], (height, width))

    def mask_path(self, image_id: str, folder: str = CLASS_MASKS) -> Path:
        """The path of the file with all annotations."""
        self._check_masks()
        return self.annotation_path(image_id)

    def mask_digest(self, image_id: str) -> str:
        """The digest of what determines the image's masks: its segmentations, and the classes."""
        rows = self._rows_with_masks(image_id)
        assert self.file.segmentations is not None
        content = [
            json.dumps([int(self.file.labels[row]), bool(self.file.crowds[row]), self.file.segmentations[row]])
            for row in rows
        ]
        return combined("coco-mask", [*content, "classes", *self.classes])

    def _mask_digests(self) -> list[str]:
        return [self.mask_digest(image_id) for image_id in self.image_ids]

    def _masks_of(self, image_id: str, *, crowds: bool) -> Iterator[tuple[int, Mask]]:
        """The label and mask of each object, or of each crowd."""
        rows, file = self._rows_with_masks(image_id), self.file
        assert file.segmentations is not None
        size = self._mask_size(image_id)
        for row in rows:
            if file.crowds[row] == crowds:
                label = int(file.labels[row])
                number = file.numbers[row : row + 1].tolist()[0]
                what = f"{file.path}: annotation {number} ({file.classes[label]}) of image {image_id}"
                yield label, object_mask(what, file.segmentations[row], size)

    def _rows_with_masks(self, image_id: str) -> range:
        """The rows of an image's annotations. Raises BadDataset if the dataset has no masks."""
        self._check_id(image_id)
        self._check_masks()
        place = self.file.images[image_id]
        return range(self.file.offsets[place], self.file.offsets[place + 1])

    @property
    def category_ids(self) -> tuple[Identity, ...]:
        """The id of each class in the file."""
        return self.file.category_ids

    def notes(self) -> list[str]:
        """Which annotations of the file are left out, one sentence per reason."""
        return self.file.left_out.notes(str(self.file.path), "annotation")

    @property
    def left_out(self) -> LeftOut:
        """The annotations that are not used."""
        return self.file.left_out

    def split_objects(self, image_id: str, annotation: Any, size: tuple[int, int]) -> tuple[list[int], LeftOut]:
        """All objects: others were already left out when the file was read."""
        return list(range(len(annotation.objects))), LeftOut()

    def choice_notes(self) -> list[str]:
        """No choices: the file names every image."""
        return []

    def image_number(self, image_id: str) -> Identity:
        """The id of an image in the file."""
        return self.file.numbers_of_images[self.file.images[image_id]]

    def subset(self, positions: Sequence[int]) -> CocoDataset:
        """The dataset of the images at these positions, with the same classes."""
        chosen = copy.copy(self)
        for known in OF_ALL_IMAGES:
            vars(chosen).pop(known, None)
        chosen.image_ids = tuple(self.image_ids[position] for position in positions)
        chosen._known = frozenset(chosen.image_ids)
        return chosen

    @cached_property
    def images_with_crowds(self) -> frozenset[str]:
        """The ids of images that contain a crowd."""
        places = np.searchsorted(self.file.offsets, np.flatnonzero(self.file.crowds), side="right") - 1
        crowded = set(places.tolist())
        return frozenset(image_id for image_id in self.image_ids if self.file.images[image_id] in crowded)

    def image_path(self, image_id: str) -> Path:
        """The path of an image, which need not exist."""
        self._check_id(image_id)
        return on_disk(self.folder, self.file.files[self.file.images[image_id]])

    def annotation_path(self, image_id: str) -> Path:
        """The path of the file with all annotations."""
        self._check_id(image_id)
        return self.file.path

    def annotation(self, image_id: str) -> CocoAnnotation:
        """The image's annotations, unchecked."""
        self._check_id(image_id)
        file, place = self.file, self.file.images[image_id]
        objects = [
            CocoObject(
                file.numbers[row : row + 1].tolist()[0],
                file.classes[file.labels[row]],
                (*file.boxes[row].tolist(),),
                float(file.areas[row]),
                bool(file.crowds[row]),
            )
            for row in range(file.offsets[place], file.offsets[place + 1])
        ]
        return CocoAnnotation(self.stated_size(image_id), tuple(objects))

    def readable_annotation(self, image_id: str) -> CocoAnnotation:
        """As `annotation`: a file with anything unreadable cannot be opened."""
        return self.annotation(image_id)

    def stated_size(self, image_id: str) -> tuple[int, int] | None:
        """(width, height) in pixels, as stated in the file; None if missing."""
        width, height = (int(side) for side in self.file.sizes[self.file.images[image_id]])
        return (width, height) if width and height else None

    def flickr_id(self, image_id: str) -> str | None:
        """The number that the photograph has on flickr, from the image's `flickr_url`; None without one."""
        self._check_id(image_id)
        return self.file.flickr_ids[self.file.images[image_id]]

    def annotation_digest(self, image_id: str) -> str:
        """The digest of what determines the image's record, besides the image: its annotations and the classes."""
        return combined("coco-annotation", [repr(self.annotation(image_id)), "classes", *self.classes])

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """The problems of an image's annotations, one sentence each; `image` is its file, if it exists."""
        if image is not None and image.header is not None and image.size != size:
            sizes = f"states {size[0]} x {size[1]} pixels for image {image_id} but {image.path} has "
            yield f"{self.file.path}: {sizes}{described_size(image)}; correct one of the two"
        for annotated in annotation.objects:
            x, y, width, height = annotated.box
            what = f"{self.file.path}: annotation {annotated.number} ({annotated.name}) of image {image_id}"
            box = f"the box [{x:g}, {y:g}, {width:g}, {height:g}]"
            if width < 0 or height < 0:
                yield f"{what} has {box}, of negative width or height; correct it or remove the annotation"
            elif outside(np.array([annotated.box]), np.array([size]))[0]:
                yield (
                    f"{what} has {box}, outside its image of {size[0]} x {size[1]} pixels; "
                    "correct it: x and y from the upper left corner, then width and height"
                )

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, and the bytes of the annotation file."""
        less = ["without area", *map(str, self.file.clipped)] if self.file.clipped else []
        less += ["repeated", *self.file.left_out.repeated] if self.file.left_out.repeated else []
        return combined("coco", [self.file.sha256, *self.image_ids, "classes", *self.classes, *less])

    @property
    def _annotations_digest(self) -> str:
        """SHA-256 (hex) over the bytes of the annotation file."""
        return self.file.sha256

    def _read_record(self, image_id: str) -> ImageRecord:
        annotation = self.annotation(image_id)
        image = self._image_if_there(image_id, must=annotation.size is None)
        size = annotation.size or image_size(image)
        for problem in self.problems(image_id, annotation, size, image):
            raise BadAnnotation(problem)
        place = self.file.images[image_id]
        rows = slice(self.file.offsets[place], self.file.offsets[place + 1])
        corners = np.array([annotated.box for annotated in annotation.objects], np.float64).reshape(-1, 4)
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


def outside(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which boxes [n, 4] (x, y, width, height) extend beyond images of these sizes [n, 2] (width, height) by more than
    SLACK pixels: bool [n]."""
    reach = boxes[:, :2] + boxes[:, 2:]
    return np.asarray((boxes[:, :2] < -SLACK).any(axis=1) | (reach > sizes + SLACK).any(axis=1))


def open_coco(
    path: Path, folder: Path, *, work: Path, options: CocoOptions | None = None, partial: bool = False
) -> CocoDataset:
    """The dataset in the file `path`, with the images in `folder`. Raises BadDataset.

    Listed classes must be in the file, or only some of them if `partial`. Warns of annotations that are left out.
    """
    options = options or CocoOptions()
    file = read_coco(path, masks=options.masks)
    checked_classes(options.classes)
    if options.classes is not None:
        file = file.only([name for name in options.classes if not partial or name in file.classes])
    if not os.path.isdir(folder):
        raise BadDataset(f"{folder}: no such folder; end the source with the folder of the images of {path.name}")
    dataset = CocoDataset(plain_label(path.stem), file, folder, work=work, exif=options.exif)
    dataset.file = file.with_area(found_sizes(dataset))
    for note in dataset.notes():
        log.warning("%s", note)
    return dataset if options.images_listed_in is None else listed_images(dataset, Path(options.images_listed_in))


def listed_images(dataset: CocoDataset, path: Path) -> CocoDataset:
    """The dataset of the images whose ids are in the text file `path`, one per line, in that order; the classes stay.

    Raises BadDataset for an id that the dataset does not have, a repeated one, or a list without any.
    """
    places = {image_id: place for place, image_id in enumerate(dataset.image_ids)}
    chosen: dict[int, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not (image_id := line.strip()):
            continue
        if image_id not in places:
            advice = nearest(image_id, dataset.image_ids[:2000])
            raise BadDataset(
                f"{path}: line {number}, {shown(image_id)}, is not the id of an image in {dataset.file.path}{advice}"
            )
        first = chosen.setdefault(places[image_id], number)
        if first != number:
            raise BadDataset(f"{path}: {shown(image_id)} is on lines {first} and {number}; remove one of them")
    if not chosen:
        raise BadDataset(f"{path}: lists no images; add one id per line")
    listed = dataset.subset(list(chosen))
    listed.name = plain_label(f"{dataset.name}-{path.stem}")
    return listed


def found_sizes(dataset: CocoDataset) -> NDArray[np.int64]:
    """(width, height) in pixels of each image, as stated in the file or, if not stated and the image has annotations,
    from the image itself: int64 [images, 2], (0, 0) if unknown."""
    sizes = dataset.file.sizes.copy()
    for place in np.flatnonzero((sizes == 0).any(axis=1) & (np.diff(dataset.file.offsets) > 0)):
        with contextlib.suppress(BadImage):
            sizes[place] = dataset.image_size(dataset.image_ids[place])
    return sizes


def read_coco(path: Path, *, masks: bool = False) -> CocoFile:
    """The file `path`, with its segmentations if `masks`. Its structure is checked: entries complete, ids unique and
    known. Raises BadDataset with all faults.

    Exact duplicates of annotations are kept once. Whether a box fits its image is checked when the image's record is
    read.
    """
    content, sha256 = read_json(path)
    faults = Faults(path)
    images: dict[str, int] = {}
    files, sizes, flickr_ids = [], [], []
    numbered = numbered_images(path, content["images"], faults)
    for identity, entry in numbered:
        what = f"image {identity}"
        if str(identity) in images:
            faults.add(f"{path}: {what} appears twice; give each image its own id")
            continue
        images[str(identity)] = len(images)
        try:
            files.append(relative_file(path, what, entry.get("file_name")))
            sizes.append([side_of(path, what, entry, side) for side in ("width", "height")])
            flickr_ids.append(flickr_id_of(entry))
        except BadDataset as error:
            faults.add(error)
    names = category_names(path, content["categories"], faults)
    label_of = {str(identity): label for label, identity in enumerate(names)}
    rows, repeated = annotation_rows(path, content["annotations"], images, label_of, faults)
    if look_normalised(np.array([row[3] for row in rows], np.float64).reshape(-1, 4)):
        faults.add(f"{path}: {NORMALISED}; write [x, y, width, height] in pixels")
    if faults:
        raise BadDataset.of(faults)
    rows.sort(key=lambda row: row[0])  # stable: within an image, the file's order is kept
    places = np.array([row[0] for row in rows], np.int64)
    numbers = [row[1] for row in rows]
    segmentations = None
    if masks:
        segmentations = np.empty(len(rows), object)
        segmentations[:] = [row[6] for row in rows]
    return CocoFile(
        path=path,
        sha256=sha256,
        category_ids=tuple(names),
        classes=tuple(names.values()),
        images=images,
        numbers_of_images=tuple(identity for identity, _ in numbered),
        files=tuple(files),
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        offsets=np.searchsorted(places, np.arange(len(images) + 1)).astype(np.int64),
        numbers=np.array(numbers, np.int64 if all(isinstance(number, int) for number in numbers) else object),
        labels=np.array([row[2] for row in rows], np.int32),
        boxes=np.array([row[3] for row in rows], np.float64).reshape(-1, 4),
        areas=np.array([row[4] for row in rows], np.float64),
        crowds=np.array([row[5] for row in rows], np.bool_),
        segmentations=segmentations,
        left_out=LeftOut(repeated=repeated),
        flickr_ids=tuple(flickr_ids),
    )


def flickr_id_of(entry: Mapping[str, Any]) -> str | None:
    """The photograph's number in an image's `flickr_url`, which ends as ".../2253_f_z.jpg"; None without one."""
    url = FLICKR_URL.fullmatch(str(entry.get("flickr_url")))
    return url[1] if url else None


def numbered_images(
    path: Path, entries: Sequence[Mapping[str, Any]], faults: Faults
) -> list[tuple[Identity, Mapping[str, Any]]]:
    """The images with their ids, by ascending id; images without an id are added to `faults`."""
    numbered = []
    for number, entry in enumerate(entries, 1):
        try:
            numbered.append((identity_of(path, f"image {number}", entry, "id"), entry))
        except BadDataset as error:
            faults.add(error)
    return sorted(numbered, key=lambda pair: in_order(pair[0]))


def annotation_rows(
    path: Path,
    entries: Sequence[Mapping[str, Any]],
    images: Mapping[str, int],
    label_of: Mapping[str, int],
    faults: Faults,
) -> tuple[list[Row], Counter[str]]:
    """The annotations as rows, in the file's order, and the ids of exact duplicates; unreadable annotations, and ids
    shared by different annotations, are added to `faults`."""
    rows: list[Row] = []
    repeated: Counter[str] = Counter()
    first: dict[Any, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        try:
            row = annotation_row(path, number, entry, images, label_of)
        except BadDataset as error:
            faults.add(error)
            continue
        if "id" in entry and (other := first.setdefault(row[1], entry)) is not entry:
            if json.dumps(other, sort_keys=True) == json.dumps(entry, sort_keys=True):
                repeated[str(row[1])] += 1
            else:
                faults.add(f"{path}: annotation {row[1]} appears twice, with different content; give each its own id")
            continue
        rows.append(row)
    return rows, repeated


def read_json(path: Path) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """The file's three TABLES, each a list of objects, and the SHA-256 (hex) of its bytes. Raises BadDataset."""
    try:
        raw = read_whole(path)
        content = json.loads(raw)
    except FileNotFoundError:
        raise BadDataset(f"{path}: no such file; name one in COCO's format, coco:ANNOTATIONS.json:IMAGES") from None
    except OSError as error:
        raise BadDataset(f"{path}: " + cannot("be read", error, "name a file in COCO's format")) from None
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{path}: is not a complete JSON file ({error}); repair it or fetch it again") from None
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


def identity_of(path: Path, what: str, entry: Mapping[str, Any], key: str) -> Identity:
    """The entry's id `key`: a non-negative integer, or text on one line. Raises BadDataset."""
    value = entry.get(key)
    if isinstance(value, str) and ONE_LINE.fullmatch(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        reason = f"has {key} = {shown(value)}, neither a whole number nor text" if key in entry else f"has no '{key}'"
        raise BadDataset(f"{path}: {what} {reason}; correct it")
    return value


def in_order(identity: Identity) -> tuple[bool, Identity]:
    """The sort key of ids: numbers come before text."""
    return isinstance(identity, str), identity


def side_of(path: Path, what: str, entry: Mapping[str, Any], key: str) -> int:
    """The width or height of an image, which may be a decimal (640.0); 0 if unknown. Raises BadDataset."""
    value = entry.get(key)
    if value is None or value == -1:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise BadDataset(f"{path}: {what} has {key} = {shown(value)}, not a whole number; correct it")
    return value


def relative_file(path: Path, what: str, name: Any) -> str:
    """The image's file name, relative to the image folder. Raises BadDataset."""
    if not isinstance(name, str) or not ONE_LINE.fullmatch(name):
        raise BadDataset(f"{path}: {what} has file_name = {shown(name)}; name its file in the folder of images")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BadDataset(f"{path}: {what} has file_name = {name!r}; name a file inside the folder of images")
    return name


def category_names(path: Path, entries: Sequence[Mapping[str, Any]], faults: Faults) -> dict[Identity, str]:
    """The name of each category, by ascending id; faulty categories are added to `faults`."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    identities: list[Identity] = []
    for number, entry in enumerate(entries, 1):
        try:
            identity = identity_of(path, f"category {number}", entry, "id")
        except BadDataset as error:
            faults.add(error)
            continue
        name = entry.get("name")
        if not isinstance(name, str) or not ONE_LINE.fullmatch(name):
            faults.add(f"{path}: category {identity} has the name {shown(name)}; give it a name, on one line")
            name = f"category {number}"  # so that its annotations are not reported, too
        if str(identity) in names or name in taken:
            faults.add(f"{path}: category {identity} ({name}): its id or name appears twice; rename one")
            if str(identity) in names:
                continue
        names[str(identity)] = name
        taken.add(name)
        identities.append(identity)
    return {identity: names[str(identity)] for identity in sorted(identities, key=in_order)}


Row = tuple[int, Identity, int, list[float], float, bool, Any]
"""An annotation: its image's position, its id, label, box (x, y, width, height), area, whether it is a crowd, and its
segmentation, unchecked."""


def annotation_row(
    path: Path, number: int, entry: Mapping[str, Any], images: Mapping[str, int], label_of: Mapping[str, int]
) -> Row:
    """The `number`-th annotation of the file. Raises BadDataset."""
    identity = identity_of(path, f"annotation {number}", {"id": number, **entry}, "id")
    what = f"annotation {identity}"
    image, category = (str(identity_of(path, what, entry, key)) for key in ("image_id", "category_id"))
    if image not in images:
        raise BadDataset(f"{path}: {what} refers to image {image}, which the file does not list; add or remove it")
    if category not in label_of:
        raise BadDataset(
            f"{path}: {what} refers to category {category}, which the file does not list; add or remove it"
        )
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(side) for side in box):
        raise BadDataset(f"{path}: {what} has bbox = {shown(box)}; give it four numbers, [x, y, width, height]")
    sides = [float(side) for side in box]
    area = entry.get("area", max(sides[2], 0) * max(sides[3], 0))
    crowd = entry.get("iscrowd", 0)
    if not is_number(area):
        raise BadDataset(f"{path}: {what} has area = {shown(area)}; give it a number or leave it out")
    if crowd not in (0, 1):
        raise BadDataset(f"{path}: {what} has iscrowd = {shown(crowd)}; write 0 or 1")
    return images[image], identity, label_of[category], sides, float(area), bool(crowd), entry.get("segmentation")
