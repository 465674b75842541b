"""Folders with annotations in COCO's format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rcnn_cli.starting.layouts import WHOLE, CocoLayout, Layout
from rcnn_cli.starting.search import TRAIN, Search, near, ordered, split_in
from stages.contract.errors import StageError
from stages.datasets.coco import TABLES, CocoOptions, open_coco
from stages.input_files import read_whole

LOOKED_UP = 50
"""How many of a file's images are looked for."""


def coco(search: Search) -> Layout | None:
    """One file in COCO's format, or one for each split."""
    files = [path for path in near(search.folder, ".json") if is_coco(path)]
    files = [path for path in files if path.name.startswith("instances")] or files
    if not files:
        return None
    places = {
        split: (path, images_for(path, search.folder)) for split, path in files_by_split(files, search.folder).items()
    }
    options = CocoOptions(classes=search.classes)
    sets = {
        split: open_coco(path, images, work=search.work, options=options) for split, (path, images) in places.items()
    }
    words = f"COCO's format, {', '.join(path.name for path, _ in places.values())}"
    return CocoLayout(words, places, sets, search.classes)


def files_by_split(files: list[Path], folder: Path) -> dict[str, Path]:
    """The files by the splits that they, or folders of theirs, are named after; a single one is WHOLE.

    Raises StageError if several are not train, val and test.
    """
    if len(files) == 1:
        return {WHOLE: files[0]}
    splits = [split_in([path.stem, *reversed(path.relative_to(folder).parts[:-1])]) for path in files]
    if None in splits or TRAIN not in splits or len(set(splits)) < len(files):
        names = ", ".join(path.relative_to(folder).as_posix() for path in files)
        raise StageError(
            f"{folder}: has several files in COCO's format, {names}; keep the one that is meant, or name them after "
            "train, val and test"
        )
    return {split: files[splits.index(split)] for split in ordered(splits)}


def is_coco(path: Path) -> bool:
    """Whether a file has COCO's tables; one that cannot be read has not."""
    content = content_of(path)
    return isinstance(content, dict) and all(isinstance(content.get(table), list) for table in TABLES)


def content_of(path: Path) -> Any:
    """What a JSON file holds; None if it cannot be read."""
    try:
        return json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError):
        return None


def images_for(path: Path, folder: Path) -> Path:
    """The folder that the names in a file are relative to: of those in `folder`, the one where most of its first images
    are. Raises StageError if none is anywhere."""
    entries = [entry for entry in content_of(path)["images"][:LOOKED_UP] if isinstance(entry, dict)]
    names = [str(entry.get("file_name")) for entry in entries]
    folders = [path.parent, folder, *(Path(place) for place, _, _ in os.walk(folder))]
    found = {place: sum((place / name).is_file() for name in names) for place in folders}
    best = max(found, key=lambda place: found[place])
    if not found[best]:
        example = f", such as {names[0]}" if names else ""
        raise StageError(f"{path}: none of its images{example} is in {folder}; put them there, or correct file_name")
    return best
