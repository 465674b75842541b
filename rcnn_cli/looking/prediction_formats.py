"""The files of detections that other programs read: COCO's, VOC's and YOLO's datasets, and a table.

Each takes the detections that are good enough, picture by picture, best first. A dataset has a folder of its own, with
the images in it, so that an annotation tool or a recipe can open it as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rcnn_cli.looking.photos import Picture, Source, readable
from rcnn_cli.outputs import COPIES, OutputFolder
from stages.contract.errors import StageError
from stages.contract.settings import nearest
from stages.datasets.prelabels import coco_annotations, coco_categories, coco_results, voc_objects, yolo_labels
from stages.datasets.voc_writer import annotation_xml
from stages.detections import Detections, shortest
from stages.images.reading import SUFFIXES, read_header
from stages.pictures.drawing import save_image
from stages.plurals import number_of
from stages.tables import csv_text

JSON = "json"
"""The format of each photo's own file."""
SPLIT = "train"
"""The split of the datasets: Ultralytics' programs open no data.yaml without it."""
QUALITY = 95
"""Of JPEG files: of frames of videos, and of photos that are turned upright."""
COLUMNS = (
    "image", "path", "frame", "time", "width", "height", "class", "score", "precision", "x1", "y1", "x2", "y2"
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A picture of a `source` and its detections that are good enough, best first, with the `precision` float64 [n] at
    their scores; `name` is what its outputs are called."""

    source: Source
    name: str
    picture: Picture
    detections: Detections
    precision: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width, _ = self.picture.pixels.shape
        return width, height


@dataclass(frozen=True)
class Place:
    """Where a format's files go: below `path`, where the command's `inputs` are never replaced; `copies`: with the
    images."""

    path: Path
    inputs: Sequence[Path]
    copies: bool = True

    def folder(self, *parts: str) -> OutputFolder:
        """A folder below it."""
        return OutputFolder(self.path.joinpath(*parts), inputs=self.inputs)

    def images(self, *parts: str) -> Images:
        """The images in a folder below it."""
        folder = OutputFolder(self.path.joinpath(*parts), inputs=self.inputs, listed_in=COPIES)
        return Images(folder, self.copies)


class Format(Protocol):
    """Files of one format, in the making."""

    def check(self, sources: Sequence[Source]) -> None:
        """Raises StageError if something is in the way of a file that is to be written for these."""

    def add(self, found: Found) -> None:
        """Takes the detections in one more picture, and writes the files that are its own."""

    def finish(self) -> list[Path]:
        """Writes the files that are of all pictures; returns those with which a reader begins."""


class Images:
    """The images of a dataset in `folder`, unless they are not wanted. A photo's file is copied, or written upright if
    its EXIF orientation would turn it, which not all programs know; frames of videos are JPEG files."""

    def __init__(self, folder: OutputFolder, wanted: bool) -> None:
        self.folder = folder
        self.wanted = wanted

    def check(self, sources: Iterable[Source]) -> None:
        """Raises StageError if something is in the way."""
        if self.wanted:
            self.folder.check(f"{name}{suffix_of(source)}" for source in sources for name in source.output_names())

    def add(self, found: Found) -> str:
        """Writes an image; the name of its file."""
        name = f"{found.name}{suffix_of(found.source)}"
        if self.wanted:
            content = None if found.source.is_video else upright_content(found.source.path)
            with self.folder.file(name) as path:
                if content is None:
                    save_image(found.picture.pixels, path, quality=QUALITY)
                else:
                    path.write_bytes(content)
        return name


def suffix_of(source: Source) -> str:
    """The ending of the copy of an image: its own, if it is that of an image."""
    suffix = source.path.suffix.lower()
    return suffix if suffix in SUFFIXES and not source.is_video else ".jpg"


def upright_content(path: Path) -> bytes | None:
    """The bytes of an image file, if its pixels are upright as they are stored."""
    content = path.read_bytes()
    header = read_header(content, path)
    return content if header is not None and header.orientation == 1 else None


class Coco:
    """A dataset in COCO's format, `annotations.json`, and its detections as results that pycocotools' `loadRes` takes,
    `results.json`, with the same ids: images and classes counted from 1."""

    FILES = ("annotations.json", "results.json")

    def __init__(self, place: Place, classes: Sequence[str]) -> None:
        self.folder, self.images = place.folder("coco"), place.images("coco", "images")
        self.classes = classes
        self.listed: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def check(self, sources: Sequence[Source]) -> None:
        """As `Format.check`."""
        self.folder.check(self.FILES)
        self.images.check(sources)

    def add(self, found: Found) -> None:
        """As `Format.add`."""
        width, height = found.size
        number = len(self.listed) + 1
        self.listed.append({"id": number, "file_name": self.images.add(found), "width": width, "height": height})
        self.results += coco_results(found.detections, number)

    def finish(self) -> list[Path]:
        """As `Format.finish`."""
        dataset = {
            "info": {"description": "detections, written by rcnn predict"},
            "images": self.listed,
            "categories": coco_categories(self.classes),
            "annotations": coco_annotations(self.results, 1),
        }
        for name, values in zip(self.FILES, (dataset, self.results), strict=True):
            self.folder.write(name, json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
        return [self.folder.path / name for name in self.FILES]


class Voc:
    """A dataset in the layout of the PASCAL VOC devkit, an XML for each image."""

    def __init__(self, place: Place, classes: Sequence[str]) -> None:
        self.annotations, self.sets = place.folder("voc", "Annotations"), place.folder("voc", "ImageSets", "Main")
        self.images = place.images("voc", "JPEGImages")
        self.classes = classes
        self.listed: list[str] = []

    def check(self, sources: Sequence[Source]) -> None:
        """As `Format.check`."""
        self.sets.check([f"{SPLIT}.txt"])
        self.annotations.check(f"{name}.xml" for source in sources for name in source.output_names())
        self.images.check(sources)

    def add(self, found: Found) -> None:
        """As `Format.add`."""
        objects = voc_objects(found.detections, self.classes, *found.size)
        file = self.images.add(found)
        with self.annotations.file(f"{found.name}.xml") as path:
            path.write_bytes(annotation_xml(found.picture.pixels.shape, objects, "JPEGImages", file))
        self.listed.append(found.name)

    def finish(self) -> list[Path]:
        """As `Format.finish`."""
        self.sets.write(f"{SPLIT}.txt", "".join(f"{name}\n" for name in self.listed))
        return [self.annotations.path]


class Yolo:
    """A dataset with YOLO labels, as read by Ultralytics' programs: data.yaml, and a label file for each image."""

    def __init__(self, place: Place, classes: Sequence[str]) -> None:
        self.folder, self.labels = place.folder("yolo"), place.folder("yolo", "labels", SPLIT)
        self.images = place.images("yolo", "images", SPLIT)
        self.classes = classes

    def check(self, sources: Sequence[Source]) -> None:
        """As `Format.check`."""
        self.folder.check(["data.yaml"])
        self.labels.check(f"{name}.txt" for source in sources for name in source.output_names())
        self.images.check(sources)

    def add(self, found: Found) -> None:
        """As `Format.add`."""
        self.images.add(found)
        self.labels.write(f"{found.name}.txt", yolo_labels(found.detections, *found.size))

    def finish(self) -> list[Path]:
        """As `Format.finish`."""
        import yaml

        images = f"images/{SPLIT}"
        values = {"train": images, "val": images, "names": dict(enumerate(self.classes))}
        self.folder.write("data.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        return [self.folder.path / "data.yaml"]


class Csv:
    """One table, a row for each detection, boxes as in JSON: zero-based, half-open, in pixels."""

    FILE = "detections.csv"

    def __init__(self, place: Place, classes: Sequence[str]) -> None:
        self.folder, self.classes = place.folder(), classes
        self.rows: list[Sequence[Any]] = [COLUMNS]

    def check(self, sources: Sequence[Source]) -> None:
        """As `Format.check`."""
        self.folder.check([self.FILE])

    def add(self, found: Found) -> None:
        """As `Format.add`."""
        path, picture = Path(readable(found.source.path)), found.picture
        time = None if picture.time is None else round(picture.time, 3)
        own = (path.name, str(path), picture.frame, time, *found.size)
        detections = found.detections
        for box, label, score, precision in zip(
            detections.boxes, detections.labels, detections.scores, found.precision, strict=True
        ):
            numbers = (shortest(score), None if np.isnan(precision) else round(float(precision), 4))
            self.rows.append((*own, self.classes[label], *numbers, *(round(float(corner), 2) for corner in box)))

    def finish(self) -> list[Path]:
        """As `Format.finish`."""
        self.folder.write(self.FILE, csv_text(self.rows))
        return [self.folder.path / self.FILE]


FORMATS: Mapping[str, Callable[[Place, Sequence[str]], Format]] = {"coco": Coco, "voc": Voc, "yolo": Yolo, "csv": Csv}


def format_names(given: Sequence[str]) -> tuple[str, ...]:
    """The formats that options name, "coco,voc" or one after another, each once. Raises StageError for an unknown
    one."""
    known = (JSON, *FORMATS)
    names = [name.strip() for text in given for name in text.split(",")]
    for name in names:
        if name not in known:
            raise StageError(f"--format {name}: is not a known format{nearest(name, known)}")
    return tuple(dict.fromkeys(names))


def written_line(files: Iterable[Path], pictures: int, detections: int) -> str:
    """What a format's files hold, in a line."""
    return f"{number_of(detections, 'detection')} in {number_of(pictures, 'image')} -> {', '.join(map(str, files))}"
