"""Locating the files of a dataset with VOC annotations, and the images of an image set."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache.files import cannot
from stages.contract.settings import nearest
from stages.datasets.listing import Listing, composed, is_id, walk
from stages.datasets.records import BadDataset, shown
from stages.images.reading import SUFFIXES
from stages.input_files import read_whole

YEAR_FOLDER = re.compile(r"VOC(?:19|20)\d\d")
MARKED = re.compile(r"(.*\S)\s+(?:-1|0|1)")
"""A line of VOC's CLASS_train.txt: an id, and 1 if the class is in the image, 0 if all are difficult, else -1."""
XML = (".xml",)


@dataclass(frozen=True)
class Layout:
    """The folders of `images` and `annotations`, both below `home`; they may be the same."""

    home: Path
    images: Path
    annotations: Path

    @staticmethod
    def of(home: Path) -> Layout:
        """The devkit's layout, JPEGImages and Annotations; the XML files may also be next to the images, or in
        annotations/ or annotations/xmls/ beside images/."""
        images, annotations = home / "JPEGImages", home / "Annotations"
        if not images.is_dir():
            separate = [place for place in (home / "annotations" / "xmls", home / "annotations") if has_xml(place)]
            if separate and (home / "images").is_dir():
                return Layout(home, home / "images", separate[0])
            return Layout(home, home, home)
        beside = not annotations.is_dir() and has_xml(images)
        return Layout(home, images, images if beside else annotations)

    @property
    def is_year(self) -> bool:
        """Whether this is a folder of the devkit, such as VOC2007."""
        return any(YEAR_FOLDER.fullmatch(path.name) for path in (self.home, self.home.resolve()))


def find_images(
    folder: Path, split: str, year: str | None, *, masks: bool = False
) -> tuple[Layout, tuple[str, ...], str]:
    """The layout below `folder`, the ids of the image set `split`, and a label for it. Raises BadDataset.

    `folder` is a VOC20xx folder, a folder that contains a single VOC20xx (of that `year`), directly or in its
    VOCdevkit, or a folder with XML files next to its images. `split` names a list of ids (ImageSets/Main/SPLIT.txt or
    SPLIT.txt), is itself a .txt file of ids or, if the XML files are next to the images, a sub-folder with all images
    of the set. With `masks` the list is ImageSets/Segmentation/SPLIT.txt.
    """
    home = locate(folder, split, year)
    layout = Layout.of(home)
    label = f"{home.name}-{Path(split).stem if split.endswith('.txt') else split}"
    whole = home / split
    if layout.images == home and not split.endswith(".txt") and os.path.isdir(whole):
        ids = sorted({*Listing(whole, SUFFIXES).ids(), *Listing(whole, XML).ids()})
        if not ids:
            raise BadDataset(f"{whole}: contains no images; image files end in {', '.join(SUFFIXES)}")
        return Layout(home, whole, whole), tuple(ids), label
    lists = [home / "ImageSets" / ("Segmentation" if masks else "Main") / f"{split}.txt", home / f"{split}.txt"]
    if split.endswith(".txt"):
        lists = [Path(split).expanduser()]
    image_set = next((path for path in lists if os.path.isfile(path)), None)
    if image_set is None:
        sets = sorted(path.stem for path in lists[0].parent.glob("*.txt"))
        advice = nearest(split, sets) or "; write it, a text file with one image id per line, without file extensions"
        raise BadDataset(f"{lists[0]}: no such image set{advice}")
    return layout, read_image_set(image_set, Listing(layout.images, SUFFIXES)), label


def locate(folder: Path, split: str, year: str | None) -> Path:
    """The folder with JPEGImages: `folder` itself, or the only VOC20xx (of that `year`) in it or in its VOCdevkit.

    If there is none, `folder` itself if it or its sub-folder `split` contains XML files, or, where `split` is a list,
    any of its sub-folders. Raises BadDataset.
    """
    if not os.path.isdir(folder):
        raise BadDataset(
            f"{folder}: no such folder; name a VOCdevkit folder, a VOC20xx folder inside it, or any folder with "
            "JPEGImages and Annotations"
        )
    if (folder / "JPEGImages").is_dir():
        if year is not None and is_year(folder) and folder.name != f"VOC{year}":
            raise BadDataset(f"{folder}: is not VOC{year}; correct the year or the folder")
        return folder
    inside = [path for place in (folder, folder / "VOCdevkit") for path in sorted(place.glob("VOC*")) if is_year(path)]
    homes = [path for path in inside if year is None or path.name == f"VOC{year}"]
    if len(homes) == 1:
        return homes[0]
    years = ", ".join(path.name for path in inside)
    if len(inside) > 1 and year is None:
        raise BadDataset(
            f"{folder}: contains {years}; end the source with the year, as in voc:DIR:SPLIT:{inside[0].name[3:]}"
        )
    if inside:
        raise BadDataset(f"{folder}: contains {years} but no VOC{year}; correct the year, or fetch that one")
    of_any = folder if split.endswith(".txt") else folder / split
    if any(path.suffix.lower() == ".xml" for path in folder.iterdir()) or has_xml(of_any):
        return folder
    raise BadDataset(
        f"{folder}: contains no dataset in VOC's layout; it needs JPEGImages, Annotations and "
        f"ImageSets/Main/{Path(split).stem}.txt, or XML files next to the images"
    )


def has_xml(folder: Path) -> bool:
    """Whether there is an XML file below the folder."""
    return any(path.suffix.lower() == ".xml" for path in walk(folder))


def is_year(path: Path) -> bool:
    """Whether `path` is a folder such as VOC2007, with images."""
    return bool(YEAR_FOLDER.fullmatch(path.name)) and (path / "JPEGImages").is_dir()


def read_image_set(path: Path, images: Listing | None = None) -> tuple[str, ...]:
    """The ids in an image set's file, one per line, in order. Raises BadDataset for invalid or repeated ids.

    In a file like VOC's CLASS_train.txt, where each id is followed by -1, 0 or 1, all lines belong to the set: these
    marks only repeat what annotations say. `images` distinguishes ids that end in such a number from marked ones.
    """
    lines = {number: line.strip() for number, line in enumerate(read_lines(path), 1) if line.strip()}
    if lines and is_marked(list(lines.values()), images):
        lines = {number: MARKED.sub(r"\1", line) for number, line in lines.items()}
    seen: dict[str, int] = {}
    for number, image_id in lines.items():
        if not is_id(image_id):
            raise BadDataset(
                f"{path}: line {number}, {shown(image_id)}, is not an image id; write one id per line, the path of "
                "an image below the folder of images, without its ending"
            )
        if image_id.lower().endswith(SUFFIXES) and not (images and images.find(image_id)):
            raise BadDataset(
                f"{path}: line {number}, '{image_id}', is the name of a file; "
                f"write image ids, names without their ending: {PurePosixPath(image_id).with_suffix('')}"
            )
        first = seen.setdefault(composed(image_id), number)
        if first != number:
            raise BadDataset(f"{path}: '{image_id}' is on lines {first} and {number}; remove one of them")
    if not lines:
        raise BadDataset(f"{path}: lists no images; add one id per line")
    return tuple(lines.values())


def is_marked(lines: Sequence[str], images: Listing | None) -> bool:
    """Whether every id is followed by a mark; not if a whole line is the name of an image."""
    return all(MARKED.fullmatch(line) for line in lines) and not (
        images and any(images.find(line) for line in lines if is_id(line))
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a list of ids, in UTF-8 or, as written by PowerShell, in UTF-16 with a BOM. Raises BadDataset."""
    try:
        content = read_whole(path)
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").splitlines()
    except OSError as error:
        raise BadDataset(f"{path}: " + cannot("be read", error, "name a list of image ids")) from None
    except UnicodeDecodeError:
        raise BadDataset(f"{path}: is not a text file in UTF-8; an image set holds one image id per line") from None
