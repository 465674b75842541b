"""Looking through a folder: its files, and the sets that its sub-folders are named after."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rcnn_cli.starting.layouts import WHOLE
from stages.datasets.layout import is_year
from stages.datasets.listing import Listing

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL, "test": TEST,
    "testing": TEST,
}  # fmt: skip
"""What people call the sets."""
WORD = re.compile("[a-z]+")
OF_IMAGES = ("JPEGImages", "images")
DEEPEST = 3
"""How far below the folder files that describe it are looked for, counted in the parts of their paths."""


@dataclass
class Search:
    """The folder that is searched, what the user said, and what was noticed on the way."""

    folder: Path
    work: Path
    classes: tuple[str, ...] | None
    notes: list[str] = field(default_factory=list)


def innermost(folder: Path) -> Path:
    """The folder itself, or the one inside it that has everything: archives often have one folder at their top."""
    while True:
        inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "__MACOSX"]
        if len(inside) != 1 or not inside[0].is_dir() or is_year(inside[0]) or inside[0].name in OF_IMAGES:
            return folder
        folder = inside[0]


def near(folder: Path, *suffixes: str) -> list[Path]:
    """The files with these suffixes in the folder and a few levels below, those nearest to it first."""
    files = [path for path in Listing(folder, suffixes).files if len(path.relative_to(folder).parts) <= DEEPEST]
    return sorted(files, key=lambda path: (len(path.parts), path))


def split_in(names: Iterable[str]) -> str | None:
    """The split that one of these names, or words in it, stands for: "images/valid" and "instances_val2017" are val."""
    words = (word for name in names for word in WORD.findall(name.lower()))
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def by_split(paths: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """The files by the split that a folder of theirs below `root` is named after; in one WHOLE set unless all have one,
    and there are several."""
    splits = [split_in(path.relative_to(root).parts[:-1]) for path in paths]
    if None in splits or TRAIN not in splits or len(set(splits)) < 2:
        return {WHOLE: list(paths)}
    return {split: [path for path, own in zip(paths, splits, strict=True) if own == split] for split in ordered(splits)}


def ordered(splits: Iterable[str | None]) -> list[str]:
    """The splits that there are, as train, val, test."""
    found = set(splits)
    return [split for split in (TRAIN, VAL, TEST) if split in found]


def usable(sets: Mapping[str, Sequence[str]]) -> bool:
    """Whether one of the sets, given as names of images, is for training, and another has none of these images."""
    trained = set(sets.get(TRAIN, ()))
    return bool(trained) and any(name != TRAIN and not trained & set(names) for name, names in sets.items())
