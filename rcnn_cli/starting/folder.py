"""Which of the layouts a folder has."""

from __future__ import annotations

from pathlib import Path

from rcnn_cli.starting.coco_folders import coco
from rcnn_cli.starting.layouts import Layout
from rcnn_cli.starting.search import Search, innermost
from rcnn_cli.starting.voc_folders import voc, xml_beside
from rcnn_cli.starting.yolo_folders import data_yaml, yolo_labels
from stages.contract.errors import StageError
from stages.datasets.listing import Listing
from stages.datasets.voc import checked_classes
from stages.images.reading import SUFFIXES

READERS = (data_yaml, coco, voc, xml_beside, yolo_labels)
"""In this order: the more a file says about the folder, the earlier it is asked."""


def find_layout(search: Search) -> Layout | None:
    """The layout of the folder of a search, or of the one inside it that has everything; None if it has images alone.

    Raises StageError if it has no images either, and what opening its datasets raises.
    """
    checked_classes(search.classes)
    check_folder(search.folder)
    search.folder = innermost(search.folder)
    layout = next((layout for read in READERS if (layout := read(search)) is not None), None)
    if layout is None and not Listing(search.folder, SUFFIXES).files:
        raise StageError(f"{search.folder}: contains no images; image files end in {', '.join(SUFFIXES)}")
    return layout


def check_folder(folder: Path) -> None:
    """Raises StageError unless it is a folder."""
    if folder.is_file():
        raise StageError(f"{folder}: is a file; unpack an archive first, then name its folder")
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; name the folder with the images")
