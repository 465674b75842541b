"""Datasets with YOLO labels: a data.yaml as read by Ultralytics' programs, and one label file per image.

A line of a label file is an object: `class x y width height`, centre and sides as fractions of the image, or
`class x1 y1 x2 y2 x3 y3 ...`, a polygon, whose bounding box is used. If the image's path contains a folder `images`,
the label file is in a folder `labels` in its place. An image with no label file, or an empty one, has no objects. A
line that repeats another in its file exactly is not a second object (Ultralytics' programs drop it, too).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.files import cannot
from stages.boxes import Boxes, as_boxes, clip_boxes, has_area
from stages.contract.settings import nearest
from stages.datasets.digests import combined
from stages.datasets.layout import read_lines
from stages.datasets.listing import ONE_LINE, Listing, is_id, on_disk, without_suffix
from stages.datasets.records import BadAnnotation, BadDataset, Faults, LeftOut, shown, some_of
from stages.datasets.voc import BACKGROUND, ClassOptions, Dataset, VocOptions, checked_classes, plain_label
from stages.images.reading import SUFFIXES, ImageFile
from stages.input_files import read_whole

SLACK = 0.01
"""How far a number or a box's edge may lie outside, as a fraction of the image's side, as in Ultralytics' own check."""
MOST_BYTES = 1 << 20
"""The most bytes of a data.yaml: no list of classes is longer, and YAML is slow to parse."""
IMAGES, LABELS = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"


@dataclass(frozen=True)
class YoloObject:
    """One line of a label file: its number, the class, and (x1, y1, x2, y2) as fractions of the image's sides."""

    line: int
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    pose: str = "Unspecified"


def extends_beyond(labelled: YoloObject, size: tuple[int, int]) -> bool:
    """Whether an object reaches beyond an image of `size` (width, height) by more than SLACK of a side, or a pixel."""
    x1, y1, x2, y2 = labelled.corners
    slack = np.maximum(SLACK, 1 / np.array(size))
    return bool(min(x1, 1 - x2) < -slack[0] or min(y1, 1 - y2) < -slack[1])


@dataclass(frozen=True)
class YoloAnnotation:
    """A label file; `missing` if there is none, `repeated` counts exact duplicates of lines, and `faults` are the lines
    that cannot be read. Such lines are not in `objects`."""

    path: Path
    objects: tuple[YoloObject, ...]
    missing: bool = False
    size: tuple[int, int] | None = None
    unusual: frozenset[str] = frozenset()
    repeated: int = 0
    faults: Faults | None = None

    def boxes_on(self, size: tuple[int, int]) -> Boxes:
        """The boxes on an image of `size` (width, height): (x1, y1, x2, y2) in pixels, float32 [n, 4], not clipped."""
        corners = np.array([labelled.corners for labelled in self.objects], np.float64).reshape(-1, 4)
        return as_boxes(corners * np.tile(size, 2))

    def without_area(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Which objects have no area on an image of `size` (width, height), or non-finite numbers: bool [n]. Those that
        extend beyond the image are not among them, but a problem."""
        outside = np.array([extends_beyond(labelled, size) for labelled in self.objects], bool)
        return np.asarray(~has_area(clip_boxes(self.boxes_on(size), *size)) & ~outside)

    def where(self, place: int) -> str:
        """How notes refer to the object at `place`."""
        labelled = self.objects[place]
        return f"{self.path.name} line {labelled.line} ({labelled.name})"


@dataclass(frozen=True)
class YoloFile:
    """The content of a data.yaml: the folder `root` that paths are relative to, the classes in order, and the whole
    table. `keypoints`: lines may have more numbers than a box, which are not a polygon."""

    path: Path
    root: Path
    names: tuple[str, ...]
    table: Mapping[str, Any]
    keypoints: bool


class YoloDataset(Dataset):
    """The images of one split of a data.yaml. Image ids are paths without extension, relative to the split's folder.

    `images` maps ids to files.
    """

    def __init__(
        self, name: str, folder: Path, images: Mapping[str, Path], file: YoloFile, *, work: Path, options: ClassOptions
    ) -> None:
        voc = VocOptions(
            classes=file.names if options.classes is None else options.classes,
            exif=options.exif,
            unannotated=BACKGROUND,
        )
        super().__init__(name, folder, tuple(images), work=work, options=voc)
        self.images = images
        self.file = file

    def image_path(self, image_id: str) -> Path:
        """The path of an image."""
        self._check_id(image_id)
        return self.images[image_id]

    def flickr_id(self, image_id: str) -> str | None:
        """None: YOLO's labels do not state it."""
        return None

    def annotation_path(self, image_id: str) -> Path:
        """The path of the image's label file, which need not exist."""
        return label_path(self.image_path(image_id))

    def readable_annotation(self, image_id: str) -> YoloAnnotation:
        """The readable part of the image's label file; its `faults` name the other lines. Raises BadAnnotation."""
        path = self.annotation_path(image_id)
        try:
            content = self._files.read(path)
        except FileNotFoundError:
            return YoloAnnotation(path, (), missing=True)
        except OSError as error:
            raise BadAnnotation(f"{path}: " + cannot("be read", error, "repair or remove it")) from None
        return read_labels(path, content, self.file)

    def problems(self, image_id: str, annotation: Any, size: tuple[int, int], image: ImageFile | None) -> Iterator[str]:
        """The boxes that extend beyond an image of `size` (width, height), one sentence each."""
        for labelled in annotation.objects:
            if extends_beyond(labelled, size):
                x1, y1, x2, y2 = labelled.corners
                box = f"a box from ({x1:.4g}, {y1:.4g}) to ({x2:.4g}, {y2:.4g})"
                yield (
                    f"{annotation.path}: line {labelled.line} ({labelled.name}) is {box} as fractions of the image, "
                    "outside it; correct it: class, centre x and y, width and height, between 0 and 1"
                )

    def split_objects(self, image_id: str, annotation: Any, size: tuple[int, int]) -> tuple[list[int], LeftOut]:
        """The positions of the objects that belong to the dataset, and the objects left out, on an image of `size`
        (width, height)."""
        kept, left_out = super().split_objects(image_id, annotation, size)
        left_out.unannotated = 0  # in YOLO's format, a missing label file means no objects
        if annotation.repeated:
            left_out.repeated[f"{image_id}.txt"] = annotation.repeated
        return kept, left_out

    def annotation_digest(self, image_id: str) -> str:
        """The digest of what determines the image's record, besides the image. Raises BadAnnotation."""
        digest = super().annotation_digest(image_id)
        repeated = self.left_out.repeated.get(f"{image_id}.txt", 0)
        return combined("repeated", [digest]) if repeated else digest

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, their label files' bytes, and whether repeated lines are
        left out. Warns of what is left out."""
        key = super().annotations_key
        return combined("repeated", [key]) if self.left_out.repeated else key

    def choice_notes(self) -> list[str]:
        """How many images have no label file, in one sentence, if any."""
        missing = [image_id for image_id in self.image_ids if not self.annotation_path(image_id).exists()]
        if not missing:
            return []
        many = f"{len(missing)} images have" if len(missing) > 1 else "1 image has"
        return [f"{self.name}: {many} no label file, and so no objects: {some_of(missing)}"]

    @property
    def _reading(self) -> list[str]:
        """What else determines how objects are read, for keys: the names of the class numbers."""
        return ["yolo", *(["keypoints"] if self.file.keypoints else []), *self.file.names]


def open_yolo(
    path: Path, split: str, *, work: Path, options: ClassOptions | None = None, partial: bool = False
) -> YoloDataset:
    """The images of `split` ("train", "val", "test") of the data.yaml `path`. Raises BadDataset.

    Listed classes must be in the file, or only some of them if `partial`.
    """
    options = options or ClassOptions()
    checked_classes(options.classes)
    file = read_yaml(path)
    if partial and options.classes is not None:
        options = replace(options, classes=tuple(name for name in options.classes if name in file.names))
    image_files, home = images_of(file, split)
    return dataset_of_images(file, image_files, home, split, work=work, options=options)


def dataset_of_images(
    file: YoloFile, image_files: Sequence[Path], home: Path, split: str, *, work: Path, options: ClassOptions
) -> YoloDataset:
    """The images of a `split` of the data.yaml `file`, with ids relative to `home`. Raises BadDataset."""
    for name in options.classes or ():
        if name not in file.names:
            raise BadDataset(f"{file.path}: has no class {name!r}{nearest(name, file.names)}")
    images: dict[str, Path] = {}
    for image in image_files:
        image_id = without_suffix(os.path.relpath(image, home)).replace(os.sep, "/")
        if not is_id(image_id):
            raise BadDataset(
                f"{file.path}: {split} has the image {str(image)!r}, whose name cannot be an id; rename it"
            )
        other = images.setdefault(image_id, image)
        if other != image:
            raise BadDataset(f"{other} and {image}: share a label file as image '{image_id}'; remove or rename one")
    labels = [label_path(image) for image in images.values()]
    if not any(label.exists() for label in labels):
        raise BadDataset(
            f"{file.path}: none of the {len(images)} images of {split} has a label file; add them (that of "
            f"{image_files[0]} would be {labels[0]})"
        )
    folder = Path(os.path.commonpath([place.parent for place in (*images.values(), *labels)]))
    name = plain_label(f"{file.root.name}-{split}")
    return YoloDataset(name, folder, images, file, work=work, options=options)


def label_path(image: Path) -> Path:
    """The label file of an image: the last folder `images` in its path becomes `labels`, the extension .txt."""
    return Path(f"{without_suffix(LABELS.join(str(image).rsplit(IMAGES, 1)))}.txt")


def read_yaml(path: Path, *, moved: bool = False) -> YoloFile:
    """The data.yaml `path`, with its classes checked. Raises BadDataset.

    `moved`: its `path` is that of another machine and not looked at; what it names is taken to be beside it.
    """
    import yaml

    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadDataset(f"{path}: has more than {MOST_BYTES:,} bytes; name a data.yaml with classes and folders")
        table = yaml.safe_load(read_whole(path, MOST_BYTES))
    except FileNotFoundError:
        raise BadDataset(f"{path}: no such file; name a data.yaml, yolo:DATA.yaml:SPLIT") from None
    except OSError as error:
        raise BadDataset(f"{path}: " + cannot("be read", error, "name a data.yaml, yolo:DATA.yaml:SPLIT")) from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadDataset(f"{path}: is not valid YAML ({reason}); correct it") from None
    if not isinstance(table, dict):
        raise BadDataset(f"{path}: is not a table; a data.yaml has names, train and val")
    names = class_list(path, table.get("names"))
    if table.get("nc", len(names)) != len(names):
        raise BadDataset(f"{path}: nc = {shown(table['nc'])}, but there are {len(names)} names; correct one of them")
    root = root_of(path, None if moved else table.get("path"))
    return YoloFile(path, root, names, table, keypoints="kpt_shape" in table)


def class_list(path: Path, stated: Any) -> tuple[str, ...]:
    """The `names` of a data.yaml, a list or a table by number, in numerical order. Raises BadDataset."""
    if isinstance(stated, list):
        stated = dict(enumerate(stated))
    if not isinstance(stated, dict) or not stated:
        raise BadDataset(f"{path}: has no list 'names' of classes; add it, as names: [cat, dog]")
    numbered = {
        int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,9}", key) else key: name
        for key, name in stated.items()
    }
    if {*numbered} != {*range(len(stated))} or any(isinstance(key, bool | float) for key in numbered):
        raise BadDataset(f"{path}: names are not numbered from 0 to {len(stated) - 1}; number them that way")
    names = [numbered[number] for number in range(len(numbered))]
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int) or not ONE_LINE.fullmatch(text_of(name)):
            raise BadDataset(f"{path}: class {number} has the name {shown(name)}; write a name in quotes, on one line")
    texts = [text_of(name) for name in names]
    if len(set(texts)) < len(texts):
        twice, _ = Counter(texts).most_common(1)[0]
        raise BadDataset(f"{path}: the class {shown(twice)} appears twice; rename one")
    return tuple(texts)


def text_of(name: Any) -> str:
    """A name as text; a number in digits, unless it is too large."""
    return str(name) if isinstance(name, str) or abs(name) < 2**63 else ""


def root_of(path: Path, stated: Any) -> Path:
    """The folder that paths in a data.yaml are relative to: its `path`, else its own folder. Raises BadDataset."""
    own = Path(os.path.abspath(path)).parent
    if stated is None or stated == "":
        return own
    if not isinstance(stated, str) or not ONE_LINE.fullmatch(stated):
        raise BadDataset(f"{path}: path = {shown(stated)} is not a folder; correct it")
    root = Path(os.path.normpath(own / os.path.expanduser(stated)))
    if not os.path.isdir(root):
        raise BadDataset(
            f"{path}: path = {shown(stated)}, but there is no folder {root}; correct it, or remove it if the images "
            "are next to this file"
        )
    return root


def images_of(file: YoloFile, split: str) -> tuple[list[Path], Path]:
    """The image files of a split, and the folder that ids are relative to. Raises BadDataset."""
    stated = file.table.get(split)
    splits = [str(key) for key in file.table if key in ("train", "val", "test", "minival")]
    if stated is None or stated == "" or stated == []:
        raise BadDataset(f"{file.path}: has no images for '{split}'{nearest(split, splits)}")
    places = stated if isinstance(stated, list) else [stated]
    images: dict[Path, None] = {}
    for place in places:
        if not isinstance(place, str) or not ONE_LINE.fullmatch(place):
            raise BadDataset(
                f"{file.path}: {split} has {shown(place)}, which is neither a folder nor a list of images; correct it"
            )
        images |= dict.fromkeys(images_at(file, split, place))
    if not images:
        raise BadDataset(f"{file.path}: {split} has no images; image files end in {', '.join(SUFFIXES)}")
    alone = located(file, places[0]) if len(places) == 1 else None
    if alone is not None and os.path.isdir(alone):
        return list(images), alone
    return list(images), Path(os.path.commonpath([image.parent for image in images]))


def images_at(file: YoloFile, split: str, place: str) -> list[Path]:
    """The images in a folder and its sub-folders, sorted, or those of a list, in order. Raises BadDataset."""
    path = located(file, place)
    if os.path.isdir(path):
        return Listing(path, SUFFIXES).files
    if path.suffix.lower() != ".txt" or not os.path.isfile(path):
        raise BadDataset(
            f"{file.path}: {split} has {shown(place)}, but {path} is neither a folder nor a list of images; correct it"
        )
    images = []
    for number, line in enumerate(read_lines(path), 1):
        if name := line.strip():
            image = listed_image(file, path, name)
            if image is None or not name.lower().endswith(SUFFIXES):
                raise BadDataset(
                    f"{path}: line {number}, {shown(name)}, is not an image file; write paths relative to "
                    f"{path.parent} or to {file.root}"
                )
            images.append(image)
    return images


def located(file: YoloFile, place: str) -> Path:
    """A folder or list named in a data.yaml. If "../x" does not exist, "x" is meant, as in Roboflow's files."""
    path = Path(os.path.normpath(file.root / os.path.expanduser(place)))
    if not os.path.exists(path) and place.startswith("../"):
        return Path(os.path.normpath(file.root / place.removeprefix("../")))
    return path


def listed_image(file: YoloFile, path: Path, name: str) -> Path | None:
    """The image named by a line of the list `path`, relative to the list's folder or the root; None if missing."""
    if not ONE_LINE.fullmatch(name):
        return None
    for place in (path.parent, file.root):
        image = Path(os.path.normpath(on_disk(place, name)))
        if os.path.isfile(image):
            return image
    return None


def read_labels(path: Path, content: bytes, file: YoloFile) -> YoloAnnotation:
    """The objects in a label file, with `faults` that name the lines. Raises BadAnnotation if it is not a text file."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadAnnotation(f"{path}: is not a text file; a label file holds numbers") from None
    objects, faults, repeated = [], Faults(path), 0
    seen: set[tuple[float, ...]] = set()
    for number, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        try:
            numbers = label_numbers(path, number, words)
            read = read_label(path, number, words, numbers, file)
        except BadAnnotation as error:
            faults.add(error)
            continue
        if numbers in seen:
            repeated += 1
        else:
            seen.add(numbers)
            objects.append(read)
    return YoloAnnotation(path, tuple(objects), repeated=repeated, faults=faults)


def label_numbers(path: Path, number: int, words: Sequence[str]) -> tuple[float, ...]:
    """The numbers on line `number`. Raises BadAnnotation."""
    try:
        return tuple(float(word.replace("_", " ")) for word in words)
    except ValueError:
        text = " ".join(words)[:60]
        raise BadAnnotation(f"{path}: line {number}, {text!r}, is not a list of numbers; correct it") from None


def read_label(path: Path, number: int, words: Sequence[str], stated: Sequence[float], file: YoloFile) -> YoloObject:
    """The object on line `number`, whose `words` are the numbers `stated`. Raises BadAnnotation."""
    place = f"{path}: line {number}"
    label, *numbers = stated
    if file.keypoints:
        numbers = numbers[:4]
    if label not in range(len(file.names)):
        raise BadAnnotation(
            f"{place} is of class {words[0][:30]}, but {file.path} has the classes 0 to {len(file.names) - 1}; correct "
            "one of the two"
        )
    name = file.names[int(label)]
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise BadAnnotation(
            f"{place} ({name}) has {len(words)} numbers; write class x y width height, or class and a polygon of three "
            "points or more"
        )
    if not np.isfinite(numbers).all():
        return YoloObject(number, name, (np.nan,) * 4)
    if min(numbers) < -SLACK or max(numbers) > 1 + SLACK:
        odd = next(value for value in numbers if not -SLACK <= value <= 1 + SLACK)
        raise BadAnnotation(f"{place} ({name}) has the number {odd:g}; write fractions of the image, between 0 and 1")
    if len(numbers) > 4:
        xs, ys = numbers[::2], numbers[1::2]
        return YoloObject(number, name, (min(xs), min(ys), max(xs), max(ys)))
    x, y, width, height = numbers
    if min(width, height) < 0:
        raise BadAnnotation(f"{place} ({name}) has a width or height below zero; correct it")
    return YoloObject(number, name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
