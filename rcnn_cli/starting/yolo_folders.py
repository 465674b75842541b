"""Folders with YOLO labels, with or without a data.yaml."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rcnn_cli.starting.layouts import WHOLE, Layout, YoloLayout
from rcnn_cli.starting.search import TEST, TRAIN, VAL, Search, by_split, near, usable
from stages.contract.errors import StageError
from stages.datasets import BadDataset, YoloDataset
from stages.datasets.layout import read_lines
from stages.datasets.listing import Listing
from stages.datasets.records import some_of
from stages.datasets.voc import ClassOptions
from stages.datasets.yolo import YoloFile, dataset_of_images, images_of, label_path, read_yaml
from stages.images.reading import SUFFIXES
from stages.plurals import number_of

NAMES_FILES = ("classes.txt", "labels.txt", "obj.names", "_darknet.labels")
"""Lists of the classes, one a line, as programs write them beside labels."""
LABEL_LINE = re.compile(r"\s*\d+(?:\.0+)?(?:\s+[-+.\deE]+){4,}\s*")


def data_yaml(search: Search) -> Layout | None:
    """A data.yaml and what it names; if that is not there, a note says so, and its classes are those of the labels that
    are found."""
    for path in near(search.folder, ".yaml", ".yml"):
        file = read_yaml_or_note(search, path)
        if file is not None:
            return of_data_yaml(search, file) or of_labels(search, file)
    return None


def read_yaml_or_note(search: Search, path: Path) -> YoloFile | None:
    """A data.yaml, also one whose `path` is that of another machine, which is noted; None for any other YAML."""
    try:
        return read_yaml(path)
    except BadDataset as error:
        with contextlib.suppress(BadDataset):
            file = read_yaml(path, moved=True)
            search.notes.append(f"{error}; what it names is looked for beside it")
            return file
        if re.search(r"^\s*names\s*:", path.read_text("utf-8", "replace"), re.MULTILINE):
            search.notes.append(f"{error}; it is not used")
    return None


def of_data_yaml(search: Search, file: YoloFile) -> Layout | None:
    """The sets that the data.yaml names, or one of all their images if they are no division; None, with a note, if one
    is not there."""
    try:
        found = {split: images_of(file, split) for split in (TRAIN, VAL, TEST) if file.table.get(split)}
    except BadDataset as error:
        search.notes.append(str(error))
        return None
    if not found:
        return None
    words = f"YOLO labels, {file.path.name}"
    if usable({split: [str(image) for image in images] for split, (images, _) in found.items()}):
        sets = {split: opened(search, file, images, home, split) for split, (images, home) in found.items()}
        return YoloLayout(words, file, sets, file.path, search.classes)
    images = list(dict.fromkeys(image for images, _ in found.values() for image in images))
    home = Path(os.path.commonpath([home for _, home in found.values()]))
    sets = {WHOLE: opened(search, file, images, home, "all")}
    return YoloLayout(f"{words} (which does not divide the images)", file, sets, None, search.classes)


def opened(search: Search, file: YoloFile, images: Sequence[Path], home: Path, label: str) -> YoloDataset:
    """The dataset of some images, with ids relative to `home`."""
    options = ClassOptions(classes=search.classes)
    return dataset_of_images(file, images, home, label, work=search.work, options=options)


def yolo_labels(search: Search) -> Layout | None:
    """Labels without a data.yaml that could be read."""
    return of_labels(search, None)


def of_labels(search: Search, file: YoloFile | None) -> Layout | None:
    """The images below the folder, if one of them has a label file; the classes are those of `file`, else listed by
    another program, else --classes."""
    root = Path(os.path.abspath(search.folder))
    images = Listing(root, SUFFIXES).files
    labels = [label for image in images if (label := label_path(image)).is_file() and looks_like_labels(label)]
    if not labels:
        return None
    named = file or file_of_names(search, root, labels)
    words = "YOLO labels" if named.path == root else f"YOLO labels, classes from {named.path.name}"
    sets = {
        split: opened(search, named, paths, root, split or "all") for split, paths in by_split(images, root).items()
    }
    return YoloLayout(words, named, sets, None, search.classes)


def file_of_names(search: Search, root: Path, labels: Sequence[Path]) -> YoloFile:
    """What a data.yaml with the classes of the labels would say."""
    listed = [path for path in near(root, ".txt", ".names", ".labels") if path.name in NAMES_FILES]
    if not listed:
        return YoloFile(root, root, names_of_numbers(search, labels), {}, keypoints=False)
    names = tuple(line.strip() for line in read_lines(listed[0]) if line.strip())
    return YoloFile(listed[0], root, names, {}, keypoints=False)


def looks_like_labels(path: Path) -> bool:
    """Whether a text file is empty, or begins as a label file does."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), None)
    return first is None or LABEL_LINE.fullmatch(first) is not None


def names_of_numbers(search: Search, labels: Sequence[Path]) -> tuple[str, ...]:
    """The classes of labels that no file names: those of --classes, which then name the numbers from 0 on, else
    "class-0", "class-1", ... Raises StageError if --classes does not name all."""
    lines = [line for label in labels for line in read_lines(label) if LABEL_LINE.fullmatch(line)]
    count = max((int(float(line.split()[0])) for line in lines), default=0) + 1
    if search.classes is None:
        names = tuple(f"class-{number}" for number in range(count))
        called = f"the classes, so they are called {some_of(list(names))}"
        search.notes.append(f"no file names {called}; name them in order of their numbers: --classes cat,dog")
        return names
    if len(search.classes) < count:
        raise StageError(
            f"--classes: names {number_of(len(search.classes), 'class')}, but the labels have the numbers 0 to "
            f"{count - 1}; name them all, in order"
        )
    names, search.classes = search.classes, None
    return names
