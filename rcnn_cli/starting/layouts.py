"""What a folder of annotated images may look like: its datasets opened, and how a recipe names parts of them.

Nothing in the folder is changed: images are divided by lists in the folder of the recipe.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rcnn_cli.recipes.recipe import RECIPE_FOLDER
from stages.contract.errors import StageError
from stages.datasets import CocoDataset, Dataset, YoloDataset
from stages.datasets.voc import BACKGROUND, LEAVE_OUT
from stages.datasets.yolo import YoloFile

WHOLE = ""
"""The name of the only set of a folder that does not divide its images."""


@dataclass(frozen=True)
class Part:
    """Some of the images of one of the folder's sets; all of them if `whole`."""

    of: str
    image_ids: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class Place:
    """Where the recipe and its lists will be: a folder, and how their names begin."""

    folder: Path
    stem: str

    def reference(self, path: Path) -> str:
        """The path as a recipe in that folder names it: by the way from there, unless it is absolute. Raises StageError
        if it cannot be in a source."""
        named = path.as_posix() if path.is_absolute() else path_from(self.folder, path)
        if odd := next((letter for letter in ":$" if letter in named), None):
            raise StageError(f"{path}: has '{odd}' in its name, which a recipe cannot express; rename it")
        if path.is_absolute():
            return named
        return RECIPE_FOLDER if named == "." else f"{RECIPE_FOLDER}/{named}"

    def list_name(self, split: str) -> str:
        """The name of a list of images."""
        return f"{self.stem}-{split}.txt"


@dataclass
class Written:
    """What stands for the parts of a dataset: the recipe's tables, and the text of each file that they name."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class Layout(ABC):
    """A folder whose annotations can be read: `words` for what it is, and its `sets` by split, or one that is WHOLE."""

    words: str
    sets: Mapping[str, Dataset]

    @abstractmethod
    def written(self, parts: Mapping[str, Part], place: Place) -> Written:
        """The tables of datasets for the `parts`, by their splits, and the lists that they name."""

    def annotation_files(self) -> bool:
        """Whether each image has an annotation file of its own, whose absence may mean that nobody annotated it."""
        return True

    @property
    def divided(self) -> bool:
        """Whether the folder divides its images itself."""
        return WHOLE not in self.sets


def lines(texts: Sequence[str]) -> str:
    """The text of a file with these lines."""
    return "".join(f"{text}\n" for text in texts)


@dataclass
class VocLayout(Layout):
    """VOC's XML below `home`, in its own folders or beside the images. Image ids are below the folder of images.

    `lists`: whether the sets have VOC's lists, so that a source can name them.
    """

    words: str
    home: Path
    sets: Mapping[str, Dataset]
    lists: bool

    def written(self, parts: Mapping[str, Part], place: Place) -> Written:
        """As `Layout.written`."""
        written = Written()
        for split, part in parts.items():
            if part.whole and self.lists:
                source = f"voc:{place.reference(self.home)}:{part.of}"
            else:
                written.files[place.list_name(split)] = lines(part.image_ids)
                source = f"voc:{place.reference(self.home)}:{RECIPE_FOLDER}/{place.list_name(split)}"
            written.tables[split] = {"source": source, **self.options(part)}
        return written

    def options(self, part: Part) -> dict[str, Any]:
        """The options of the dataset's table."""
        dataset = self.sets[part.of]
        options: dict[str, Any] = {}
        if dataset.options.other_classes == LEAVE_OUT:
            options = {"classes": list(dataset.classes), "other_classes": LEAVE_OUT}
        if any(not dataset.annotation_path(image_id).exists() for image_id in part.image_ids):
            options["unannotated"] = BACKGROUND
        return options


@dataclass
class YoloLayout(Layout):
    """YOLO's labels, with the classes of `file`; `own` is the folder's data.yaml, if it has one that divides them."""

    words: str
    file: YoloFile
    sets: Mapping[str, YoloDataset]
    own: Path | None
    classes: tuple[str, ...] | None

    def written(self, parts: Mapping[str, Part], place: Place) -> Written:
        """As `Layout.written`."""
        import yaml

        options = {} if self.classes is None else {"classes": list(self.classes)}
        if self.own is not None and all(part.whole for part in parts.values()):
            source = f"yolo:{place.reference(self.own)}"
            return Written({split: {"source": f"{source}:{part.of}", **options} for split, part in parts.items()})
        table: dict[str, Any] = {"names": dict(enumerate(self.file.names))}
        if self.file.keypoints:
            table["kpt_shape"] = self.file.table["kpt_shape"]
        written = Written()
        for split, part in parts.items():
            name = place.list_name(split)
            images = [self.sets[part.of].image_path(image_id) for image_id in part.image_ids]
            written.files[name] = lines([path_from(place.folder, image) for image in images])
            source = f"yolo:{RECIPE_FOLDER}/{place.stem}.yaml:{split}"
            written.tables[split] = {"source": source, **options}
            table[split] = name
        text = yaml.safe_dump(table, allow_unicode=True, sort_keys=False)
        written.files[f"{place.stem}.yaml"] = f"# Written by rcnn init: the classes, and lists of images.\n{text}"
        return written


def path_from(folder: Path, path: Path) -> str:
    """The way from a folder to a file."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


@dataclass
class CocoLayout(Layout):
    """Files in COCO's format, one for each set: `files` has the JSON file and the folder of images of each."""

    words: str
    files: Mapping[str, tuple[Path, Path]]
    sets: Mapping[str, CocoDataset]
    classes: tuple[str, ...] | None

    def written(self, parts: Mapping[str, Part], place: Place) -> Written:
        """As `Layout.written`."""
        written = Written()
        for split, part in parts.items():
            annotations, images = (place.reference(path) for path in self.files[part.of])
            table: dict[str, Any] = {"source": f"coco:{annotations}:{images}"}
            if self.classes is not None:
                table["classes"] = list(self.classes)
            if not part.whole:
                written.files[place.list_name(split)] = lines(part.image_ids)
                table["images_listed_in"] = f"{RECIPE_FOLDER}/{place.list_name(split)}"
            written.tables[split] = table
        return written

    def annotation_files(self) -> bool:
        """False: the file lists the images, with or without objects."""
        return False
