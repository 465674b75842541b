"""ILSVRC's detection sets: train, val and test of 200 classes, in the layout of 2013 or in the later one.

R-CNN sections 4.1 to 4.3. Objects are named by WordNet ids (n02672831); names and their order come from the devkit.
val is annotated exhaustively, train is not: its images give examples of their objects and never of anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.contract.errors import BadSetting
from stages.contract.settings import nearest, setting
from stages.datasets.annotations import class_names
from stages.datasets.digests import combined, remembered, remembered_names
from stages.datasets.layout import XML, Layout, read_lines
from stages.datasets.listing import Listing, composed, is_id
from stages.datasets.records import BadDataset, LeftOut, shown
from stages.datasets.synsets import Synset, find_synsets, read_synsets
from stages.datasets.voc import (
    BACKGROUND,
    ERROR,
    LEAVE_OUT,
    ClassOptions,
    Dataset,
    VocOptions,
    checked_classes,
    plain_label,
)
from stages.images.reading import SUFFIXES

TRAIN, VAL, TEST = "train", "val", "test"
OBJECTS, IMAGES = "objects", "images"
YEARS = "ILSVRC20[0-9][0-9]"
OF_WNID = re.compile(r"(n\d{8})_\d+")
OF_2014 = re.compile(r"(ILSVRC2014_train)_(\d{4})\d{4}")
NUMBERED = re.compile(r"(.*\S)\s+-?\d+")
"""A line of a list: an image, and its number in val and test, or a mark in the lists of one class of train."""
DRAWN = "ilsvrc objects 1"
"""Version of the remembered tables of objects."""


@dataclass(frozen=True)
class IlsvrcOptions(ClassOptions):
    """Options of `ilsvrc:DIR:SPLIT`."""

    names: str | None = setting(
        None,
        "A file with a WordNet id, a number and a name per line, or meta_det.mat; none: that in DIR's devkit.",
    )
    blacklist: str | None = setting(
        None,
        "A list of val's badly annotated images, by number, which are left out; none: the one of the devkit in DIR.",
        source="devkit: ILSVRC2013_det_validation_blacklist.txt",
    )
    use_blacklist: bool = setting(True, "Whether to leave out the images on the blacklist.")
    exhaustive: bool | None = setting(
        None,
        "Whether every object of the classes is annotated; if not, an image never gives negative examples. "
        "None: val is, train is not.",
        source="R-CNN section 4.1",
    )
    per_class: int | None = setting(
        None,
        "Of the images that are not annotated exhaustively, only so many of each class (the N of val1+trainN); "
        "none: all.",
        source="R-CNN section 4.3",
        at_least=1,
    )
    per_class_of: str = setting(
        OBJECTS,
        "per_class counts the objects of a class, as in the paper, or the images that contain one, as in the release.",
        choices=(OBJECTS, IMAGES),
    )
    seed: int = setting(0, "Seed for the choice of per_class.", at_least=0)
    other_classes: str = setting(
        ERROR, "Objects of an unlisted class are an error, or left out.", choices=(ERROR, LEAVE_OUT)
    )


class Files(NamedTuple):
    """Where an image and its annotation are, below the dataset's folder, without their ending, and in which part of
    ILSVRC ("train", "val", "test") it is."""

    image: str
    annotation: str
    part: str


class IlsvrcDataset(Dataset):
    """Images of ILSVRC's detection sets; ids are the files' names, whatever their folders.

    `files` says where each image is; `synsets` are the classes by WordNet id (none: the ids are the classes' names).
    `drawn` lists, for the images of which only some objects are used, the positions of these (see `per_class`).
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        files: Mapping[str, Files],
        synsets: Mapping[str, str],
        *,
        work: Path,
        options: IlsvrcOptions,
    ) -> None:
        voc = VocOptions(
            classes=options.classes or (tuple(synsets.values()) or None),
            exif=options.exif,
            other_classes=options.other_classes,
            unannotated=BACKGROUND,
        )
        super().__init__(name, folder, tuple(files), work=work, options=voc, layout=Layout(folder, folder, folder))
        self.files = files
        self.synsets = synsets
        self.stated_exhaustive = options.exhaustive
        self.drawn: Mapping[str, tuple[int, ...]] | None = None

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes as listed, else in the devkit's order, else the WordNet ids in the annotations of train and val,
        sorted."""
        if self._listed is not None:
            return self._listed
        paths = [path for place in annotation_folders(self.folder) for path in Listing(self.folder / place, XML).files]
        names = remembered_names(self._files, paths, lambda path: class_names(path, self._files.read))
        if not names:
            raise BadDataset(f"{self.folder}: no annotated objects; unpack the annotations, or list the classes")
        return tuple(names)

    @cached_property
    def images_not_exhaustive(self) -> frozenset[str]:
        """The ids of the images in which objects of the classes may lack an annotation: train's, and test's, which have
        no annotations; or as the option says."""
        if self.stated_exhaustive is not None:
            return frozenset() if self.stated_exhaustive else frozenset(self.image_ids)
        return frozenset(image_id for image_id in self.image_ids if self.files[image_id].part != VAL)

    def image_path(self, image_id: str) -> Path:
        """The path of an image; if it is missing, the .JPEG that should exist."""
        self._check_id(image_id)
        place = self.files[image_id].image
        paths = self._images.find(place)
        return paths[0] if paths else self.folder / f"{place}.JPEG"

    def annotation_path(self, image_id: str) -> Path:
        """The path of the image's annotation file, which need not exist."""
        self._check_id(image_id)
        place = self.files[image_id].annotation
        paths = self._annotations.find(place)
        return paths[0] if paths else self._annotations.expected(place)

    def readable_annotation(self, image_id: str) -> Any:
        """The image's annotation, with the names of the classes, and with corners at 0, of which ILSVRC has some, at 1,
        the first pixel. Raises BadAnnotation if the file cannot be read at all."""
        annotation = super().readable_annotation(image_id)
        objects = tuple(
            replace(
                annotated,
                name=self.synsets.get(annotated.name, annotated.name),
                corners=first_pixel_at_one(annotated.corners),
            )
            for annotated in annotation.objects
        )
        return replace(annotation, objects=objects)

    def split_objects(self, image_id: str, annotation: Any, size: tuple[int, int]) -> tuple[list[int], LeftOut]:
        """The positions of the objects that belong to the dataset, and the objects left out, on an image of `size`
        (width, height). Objects that were not drawn are no objects, and are not counted as left out."""
        kept, left_out = super().split_objects(image_id, annotation, size)
        if self.drawn is not None and image_id in self.drawn:
            kept = [place for place in kept if place in self.drawn[image_id]]
        return kept, left_out

    def choice_notes(self) -> list[str]:
        """None: an image's file is found in its folder."""
        return []

    def annotation_digest(self, image_id: str) -> str:
        """The digest of what determines the image's record, besides the image. Raises BadAnnotation."""
        return combined("ilsvrc", [super().annotation_digest(image_id), self._use_of(image_id)])

    @cached_property
    def annotations_key(self) -> str:
        """SHA-256 (hex) over the classes, the ids, in order, their annotation files' bytes, and which objects of each
        image are used, and how. Warns of annotations that are left out."""
        key = super().annotations_key
        return combined("ilsvrc", [key, *(self._use_of(image_id) for image_id in self.image_ids)])

    def _use_of(self, image_id: str) -> str:
        """What an image's record depends on besides its files: its objects in use, and whether these are all."""
        drawn = "all" if self.drawn is None or image_id not in self.drawn else str(list(self.drawn[image_id]))
        return f"{drawn} {image_id not in self.images_not_exhaustive}"

    @property
    def _reading(self) -> list[str]:
        return ["ilsvrc", *(f"{wnid} {name}" for wnid, name in self.synsets.items())]


def first_pixel_at_one(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """One-based corners (xmin, ymin, xmax, ymax) with an xmin or ymin of 0 set to 1, if the box is not all there."""
    xmin, ymin, xmax, ymax = corners
    return (1.0 if xmin == 0 < xmax else xmin, 1.0 if ymin == 0 < ymax else ymin, xmax, ymax)


def open_ilsvrc(
    folder: Path, split: str, *, work: Path, options: IlsvrcOptions | None = None, partial: bool = False
) -> IlsvrcDataset:
    """The images of `split` below `folder`. Raises BadDataset and BadSetting.

    `split` is "train", "val" or "test", another list of the devkit ("val1", "train_pos_12"), or the path of a .txt file
    of ids. `partial`: it is one of several sources, whose options need not apply to it.
    """
    options = options or IlsvrcOptions()
    checked_classes(options.classes)
    if not folder.is_dir():
        raise BadDataset(f"{folder}: no such folder; name that of ILSVRC's detection sets, ilsvrc:DIR:SPLIT")
    home = folder / "ILSVRC" if (folder / "ILSVRC" / "Data").is_dir() else folder
    ids = listed_images(home, split)
    files = files_of(home, ids, split)
    if options.use_blacklist:
        blacklisted = blacklist_of(home, options.blacklist, any(place.part == VAL for place in files.values()))
        files = {image_id: place for image_id, place in files.items() if image_id not in blacklisted}
    if not files:
        raise BadDataset(
            f"{home}: all images of '{split}' are on the blacklist; set use_blacklist = false to keep them"
        )
    check_annotated(home, files.values())
    synsets = synsets_of(home, options.names)
    stem = Path(split).stem if split.endswith(".txt") else split
    dataset = IlsvrcDataset(plain_label(f"ilsvrc-{stem}"), home, files, synsets, work=work, options=options)
    for name in options.classes or ():
        if synsets and name not in synsets.values():
            raise BadDataset(f"ilsvrc:{folder}:{split}: has no class {name!r}{nearest(name, synsets.values())}")
    if options.per_class is None:
        return dataset
    if not dataset.images_not_exhaustive and not partial:
        raise BadSetting(
            f"ilsvrc:{folder}:{split}: per_class = {options.per_class} is for images that are not annotated "
            "exhaustively, and there are none; leave it out"
        )
    return drawn_from(dataset, options.per_class, options.per_class_of, options.seed)


def drawn_from(dataset: IlsvrcDataset, per_class: int, of: str, seed: int) -> IlsvrcDataset:
    """The dataset with all exhaustively annotated images and, of the others, those with up to `per_class` objects of
    each class (`of` "objects": the others of their objects are not used), or up to `per_class` images with the class
    (`of` "images": all of their objects are used).

    Raises BadAnnotation for a file that cannot be read.
    """
    partly = [image_id for image_id in dataset.image_ids if image_id in dataset.images_not_exhaustive]
    reading = [*dataset._reading, "classes", *dataset.classes, "images", *partly]
    key = combined(DRAWN, [dataset._annotations_digest, *reading])
    table = remembered(dataset._files, "ilsvrc-objects", key, lambda: object_table(dataset, partly), keep=4)
    drawn = draw(table, len(dataset.classes), per_class, of, seed)
    whole = {image_id for image_id in dataset.image_ids if image_id not in dataset.images_not_exhaustive}
    positions = [place for place, image_id in enumerate(dataset.image_ids) if image_id in whole or image_id in drawn]
    if not positions:
        raise BadDataset(f"{dataset.folder}: none of the images of {dataset.name} has an object of the classes")
    chosen = dataset.subset(positions)
    assert isinstance(chosen, IlsvrcDataset)
    chosen.drawn = drawn if of == OBJECTS else {}
    chosen._records = {}
    return chosen


def object_table(dataset: IlsvrcDataset, image_ids: Sequence[str]) -> dict[str, list[list[int]]]:
    """For each of the images with objects of the dataset: [position in its annotation, label] of each."""
    label_of = {name: label for label, name in enumerate(dataset.classes)}
    table = {}
    for image_id in image_ids:
        annotation = dataset.annotation(image_id)
        without_area = (
            annotation.without_area(annotation.size) if annotation.size else [False] * len(annotation.objects)
        )
        objects = [
            [place, label_of[annotated.name]]
            for place, annotated in enumerate(annotation.objects)
            if annotated.name in label_of and not without_area[place]
        ]
        if objects:
            table[image_id] = objects
    return table


def draw(
    table: Mapping[str, Sequence[Sequence[int]]], classes: int, per_class: int, of: str, seed: int
) -> dict[str, tuple[int, ...]]:
    """The images that give up to `per_class` objects or images of each class, and the objects of each that are used:
    their positions, ascending. `table` has (position, label) of the objects of each image.

    Each class is drawn with a seed of its own, so that what is drawn of a class does not depend on the others.
    """
    chosen: dict[str, set[int]] = {}
    candidates: list[list[tuple[str, int]]] = [[] for _ in range(classes)]
    for image_id, objects in table.items():
        for place, label in objects:
            candidates[label].append((image_id, int(place)))
    for label, of_class in enumerate(candidates):
        rng = np.random.default_rng([seed, label])
        if of == OBJECTS:
            for index in rng.permutation(len(of_class))[:per_class]:
                image_id, place = of_class[int(index)]
                chosen.setdefault(image_id, set()).add(place)
        else:
            images = list(dict.fromkeys(image_id for image_id, _ in of_class))
            for index in rng.permutation(len(images))[:per_class]:
                chosen.setdefault(images[int(index)], set()).update(
                    int(place) for place, _ in table[images[int(index)]]
                )
    return {image_id: tuple(sorted(chosen[image_id])) for image_id in table if image_id in chosen}


# Layout


def image_folders(home: Path, part: str) -> list[str]:
    """The folders with the images of a part, below `home`."""
    later = [f"Data/DET/{part}"] if (home / "Data" / "DET" / part).is_dir() else []
    return later or sorted(path.name for path in home.glob(f"{YEARS}_DET_{part}") if path.is_dir())


def annotation_folders(home: Path, parts: Sequence[str] = (TRAIN, VAL)) -> list[str]:
    """The folders with the annotations of the parts, below `home`."""
    return [
        place
        for part in parts
        for place in (
            [f"Annotations/DET/{part}"]
            if (home / "Annotations" / "DET" / part).is_dir()
            else sorted(path.name for path in home.glob(f"{YEARS}_DET_bbox_{part}") if path.is_dir())
        )
    ]


def devkit_folders(home: Path) -> list[Path]:
    """The folders of a devkit's data: lists, names, the blacklist."""
    places = [*sorted(home.glob(f"{YEARS}_devkit")), home / "devkit", home.parent / "devkit"]
    return [place / "data" for place in places if (place / "data").is_dir()]


def list_folders(home: Path) -> list[Path]:
    """The folders that may hold lists of images."""
    later = home / "ImageSets" / "DET"
    return [*(place / "det_lists" for place in devkit_folders(home)), *([later] if later.is_dir() else []), home]


def list_file(home: Path, split: str) -> Path | None:
    """The list of a split; None if there is none."""
    if split.endswith(".txt"):
        path = Path(split).expanduser()
        return path if path.is_file() else None
    return next((place / f"{split}.txt" for place in list_folders(home) if (place / f"{split}.txt").is_file()), None)


def listed_images(home: Path, split: str) -> list[str]:
    """The images of a split as its list has them, an id that may have folders, each once. Raises BadDataset.

    train, if there is no list of this name, is what the lists of positive images of each class have together.
    """
    path = list_file(home, split)
    if path is not None:
        lists = [path]
    elif split == TRAIN:
        lists = sorted(
            {place / path.name for place in list_folders(home) for path in place.glob("train_pos_*.txt")},
            key=lambda path: (int(number[0]) if (number := re.findall(r"\d+", path.stem)) else 0, path.name),
        )
    else:
        lists = []
    if not lists:
        known = sorted({path.stem for place in list_folders(home) for path in place.glob("*.txt")})
        raise BadDataset(
            f"{home}: has no list of the images of '{split}'{nearest(split, known) if known else ''}; "
            "name a list of its devkit (det_lists) or of ImageSets/DET, or a .txt file with an image id per line"
        )
    images: dict[str, None] = {}
    for path in lists:
        images |= dict.fromkeys(list_lines(path))
    if not images:
        raise BadDataset(f"{lists[0]}: lists no images; add an id per line")
    return list(images)


def list_lines(path: Path) -> list[str]:
    """The images in a list, without the number after each. Raises BadDataset for a line that has none."""
    ids = []
    for number, line in enumerate(read_lines(path), 1):
        if not (text := line.strip()):
            continue
        match = NUMBERED.fullmatch(text)
        image = (match[1] if match else text).removesuffix(".JPEG")
        if not is_id(image):
            raise BadDataset(
                f"{path}: line {number}, {shown(text)}, is not an image; write an id per line, optionally with its "
                "folder before it and its number after it"
            )
        ids.append(image)
    return ids


def part_of(image: str, split: str) -> str | None:
    """The part ("train", "val", "test") of an image in the list of `split`: as its name says, else the list's name."""
    name = image.rpartition("/")[2]
    if re.match(r"ILSVRC20\d\d_(val|test)_", name):
        return VAL if "_val_" in name else TEST
    if OF_WNID.fullmatch(name) or (name.startswith("ILSVRC") and "_train_" in name):
        return TRAIN
    stem = Path(split).stem
    return next((part for part in (TRAIN, VAL, TEST) if stem.startswith(part)), None)


def files_of(home: Path, listed: Sequence[str], split: str) -> dict[str, Files]:
    """Where each image is, by id: its file's name. Raises BadDataset if two images share one, or a part is unknown."""
    images, found_in = Listing(home, SUFFIXES), {part: image_folders(home, part) for part in (TRAIN, VAL, TEST)}
    annotated_in = {part: annotation_folders(home, [part]) for part in (TRAIN, VAL, TEST)}
    files: dict[str, Files] = {}
    stated: dict[str, str] = {}
    for image in listed:
        image_id = image.rpartition("/")[2]
        part = part_of(image, split)
        if part is None:
            raise BadDataset(
                f"{home}: '{image}', listed in '{split}', is not named like an image of train, val or test; rename the "
                "list so that its name begins with one of these"
            )
        if not found_in[part]:
            raise BadDataset(
                f"{home}: has no folder with the images of {part}; it may be ILSVRC2013_DET_{part} or Data/DET/{part}"
            )
        other = stated.setdefault(image_id, image)
        if composed(other) != composed(image):
            raise BadDataset(f"{home}: '{other}' and '{image}' in '{split}' are images of one name; leave one out")
        places = places_of(image, part)
        at = [f"{top}/{place}" for top in found_in[part] for place in places]
        annotation = [f"{top}/{place}" for top in annotated_in[part] for place in places]
        exists = next((number for number, place in enumerate(at) if images.find(place)), 0)
        chosen = places[exists % len(places)]
        annotation.sort(key=lambda place: not place.endswith(f"/{chosen}"))  # first where it is if laid out alike
        files[image_id] = Files(at[exists], first_existing(home, annotation) or f"{part}/{chosen}", part)
    return files


def places_of(image: str, part: str) -> list[str]:
    """Where an image of a part may be below its folder: as listed, else in the folders that its name stands for."""
    if "/" in image or part != TRAIN:
        return [image]
    if match := OF_WNID.fullmatch(image):
        return [f"{match[1]}/{image}", f"ILSVRC2013_train/{match[1]}/{image}", image]
    if match := OF_2014.fullmatch(image):
        return [f"{match[1]}_{match[2]}/{image}", image]
    return [image]


def first_existing(home: Path, places: Sequence[str]) -> str | None:
    """The first of the places with an XML file, else the first."""
    return next((place for place in places if (home / f"{place}.xml").is_file()), places[0] if places else None)


def check_annotated(home: Path, files: Any) -> None:
    """Raises BadDataset if a part that has annotations has no folder of them; otherwise each of its images would count
    as one without objects."""
    for part in sorted({place.part for place in files} - {TEST}):
        folders = annotation_folders(home, [part])
        if not any(next((home / place).rglob(f"*{XML[0]}"), None) for place in folders):
            raise BadDataset(
                f"{home}: has no annotations of {part}; unpack them, as ILSVRC2013_DET_bbox_{part} or "
                f"Annotations/DET/{part}"
            )


# Blacklist and names


def blacklist_of(home: Path, stated: str | None, has_val: bool) -> frozenset[str]:
    """The ids of val's images on the blacklist, whose lines are "NUMBER WNID"; numbers are those of val.txt.

    An image is listed for a class whose annotation is bad; as in the release, the image is left out for all classes.
    Raises BadDataset.
    """
    if stated is not None:
        path: Path | None = Path(stated).expanduser()
    else:
        found = [file for place in devkit_folders(home) for file in place.glob("*det_validation_blacklist.txt")]
        path = next(iter(sorted(found)), None)
    if path is None or not has_val:
        return frozenset()
    numbers = set()
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        if words and not words[0].isdecimal():
            raise BadDataset(f"{path}: line {number}, {shown(line)}, does not begin with an image's number; correct it")
        if words:
            numbers.add(int(words[0]))
    every = list_file(home, VAL)
    if every is None:
        raise BadDataset(
            f"{path}: names images by their number in val.txt, and {home} has no val.txt; add it, or set "
            "use_blacklist = false"
        )
    ids = [image.rpartition("/")[2] for image in list_lines(every)]
    unknown = [number for number in sorted(numbers) if not 1 <= number <= len(ids)]
    if unknown:
        raise BadDataset(
            f"{path}: names image {unknown[0]}, and {every} has the images 1 to {len(ids)}; use the lists of one devkit"
        )
    return frozenset(ids[number - 1] for number in numbers)


def synsets_of(home: Path, stated: str | None) -> dict[str, str]:
    """The name of each class by WordNet id, in the devkit's order; empty if there is no file of names."""
    if stated is not None:
        return named(read_synsets(Path(stated).expanduser()))
    found = find_synsets(devkit_folders(home))
    return {} if found is None else named(read_synsets(found))


def named(synsets: Sequence[Synset]) -> dict[str, str]:
    """The names by WordNet id."""
    return {synset.wnid: synset.name for synset in synsets}
