"""Folders with VOC's XML: in VOC's own layout, or beside the images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rcnn_cli.starting.layouts import WHOLE, Layout, VocLayout
from rcnn_cli.starting.search import TEST, TRAIN, VAL, Search, by_split, usable
from stages.contract.errors import StageError
from stages.contract.settings import nearest
from stages.datasets import Dataset
from stages.datasets.annotations import class_names
from stages.datasets.layout import XML, read_image_set
from stages.datasets.layout import Layout as Folders
from stages.datasets.listing import Listing, without_suffix
from stages.datasets.records import some_of
from stages.datasets.voc import BACKGROUND, ERROR, LEAVE_OUT, VocOptions, plain_label
from stages.images.reading import SUFFIXES
from stages.input_files import read_whole


def voc(search: Search) -> Layout | None:
    """JPEGImages and Annotations, with or without lists, or images and annotations, in the folder or up to two levels
    below."""
    places = [search.folder, *sorted(search.folder.glob("*/")), *sorted(search.folder.glob("*/*/"))]
    homes = [place for place in places if Folders.of(place).images != place]
    if len(homes) > 1:
        names = some_of([home.relative_to(search.folder).as_posix() for home in homes])
        raise StageError(f"{search.folder}: has several folders in VOC's layout, {names}; name one of them")
    if not homes:
        return None
    folders = Folders.of(homes[0])
    images, annotations = Listing(folders.images, SUFFIXES), Listing(folders.annotations, XML)
    if not annotations.files:
        return None
    check_listed(search, annotations.files)
    sets = lists_of(homes[0], images)
    if usable(sets):
        opened = {split: xml_set(search, folders, ids, split) for split, ids in sets.items()}
        return VocLayout("VOC's layout, with lists", homes[0], opened, lists=True)
    ids = sorted({*images.ids(), *annotations.ids()})
    whole = {WHOLE: xml_set(search, folders, ids, "all")}
    words = f"VOC's XML in {folders.annotations.relative_to(homes[0]).as_posix()}/, without lists of train and test"
    return VocLayout(words, homes[0], whole, lists=False)


def lists_of(home: Path, images: Listing) -> dict[str, tuple[str, ...]]:
    """The image ids in VOC's lists of the splits; an empty list is none."""
    lists = {split: home / "ImageSets" / "Main" / f"{split}.txt" for split in (TRAIN, VAL, TEST)}
    filled = {split: path for split, path in lists.items() if path.is_file() and path.stat().st_size}
    return {split: read_image_set(path, images) for split, path in filled.items()}


def xml_beside(search: Search) -> Layout | None:
    """XML files beside the images, in one folder or any number of them; folders may be named after splits."""
    root = search.folder
    annotations = [path for path in Listing(root, XML).files if b"<annotation" in read_whole(path)[:2000].lower()]
    images = Listing(root, SUFFIXES).files
    pictured, annotated = ({id_below(root, path): path for path in paths} for paths in (images, annotations))
    if not pictured.keys() & annotated.keys():
        return None
    check_listed(search, annotations)
    every = sorted({**annotated, **pictured}.items())
    folders = Folders(root, root, root)
    sets = {
        split: xml_set(search, folders, [id_below(root, path) for path in paths], split or "all")
        for split, paths in by_split([path for _, path in every], root).items()
    }
    return VocLayout("XML files beside the images", root, sets, lists=False)


def id_below(root: Path, path: Path) -> str:
    """The image id of a file: its path below the root without its ending."""
    return without_suffix(path.relative_to(root).as_posix())


def xml_set(search: Search, folders: Folders, ids: Sequence[str], label: str) -> Dataset:
    """The dataset of some images. If classes are listed, objects of others are left out."""
    other_classes = ERROR if search.classes is None else LEAVE_OUT
    options = VocOptions(classes=search.classes, other_classes=other_classes, unannotated=BACKGROUND)
    name = plain_label(f"{folders.home.resolve().name}-{label}")
    return Dataset(name, folders.home, tuple(ids), work=search.work, options=options, layout=folders)


def check_listed(search: Search, annotations: Iterable[Path]) -> None:
    """Raises StageError for a class of --classes of which the XML files have no object."""
    if search.classes is None:
        return
    names = sorted(set[str]().union(*map(class_names, annotations)))
    for name in search.classes:
        if name not in names:
            raise StageError(f"--classes: {search.folder} has no object of class '{name}'{nearest(name, names)}")
