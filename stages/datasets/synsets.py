"""Files that name ILSVRC's classes: WordNet ids, numbers and names, as text or as the devkit's meta_det.mat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stages.datasets.layout import read_lines
from stages.datasets.listing import ONE_LINE
from stages.datasets.records import BadDataset, shown

WNID = re.compile(r"n\d{8}")
TEXTS = ("map_det.txt", "meta_det.txt")
DETECTION_CLASSES = 200
"""How many of the devkit's synsets are classes of detection; those after them are above these in WordNet."""


class Synset(NamedTuple):
    """A class: its WordNet id (n02672831), its number in the devkit (None: not stated), and its name."""

    wnid: str
    number: int | None
    name: str


def find_synsets(folders: Sequence[Path]) -> Path | None:
    """The file of names in a devkit's data folders; None if there is none."""
    return next((place / name for place in folders for name in TEXTS if (place / name).is_file()), None)


def read_synsets(path: Path) -> list[Synset]:
    """The classes in a file of names, by number where all have one, else in the file's order. Raises BadDataset."""
    synsets = [synset_of(path, number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not synsets:
        raise BadDataset(f"{path}: names no classes; write a WordNet id, a number and a name per line")
    for column in ("wnid", "number", "name"):
        counts = Counter(getattr(synset, column) for synset in synsets if getattr(synset, column) is not None)
        twice, count = counts.most_common(1)[0] if counts else (None, 0)
        if count > 1:
            raise BadDataset(f"{path}: {twice!r} is on {count} lines; write each class once")
    if all(synset.number is not None for synset in synsets):
        synsets.sort(key=lambda synset: synset.number or 0)
    return synsets


def synset_of(path: Path, number: int, line: str) -> Synset:
    """The class on a line: "n02672831 1 accordion", or the number first, or none. Raises BadDataset."""
    words = line.split()
    stated = None
    if words and words[0].isdecimal():
        stated = int(words.pop(0))
    wnid = words.pop(0) if words else ""
    if stated is None and len(words) > 1 and words[0].isdecimal():
        stated = int(words.pop(0))
    name = " ".join(words)
    if not WNID.fullmatch(wnid) or not ONE_LINE.fullmatch(name):
        raise BadDataset(
            f"{path}: line {number}, {shown(line.strip())}, does not name a class; write a WordNet id, a number and a "
            "name, as in n02672831 1 accordion"
        )
    return Synset(wnid, stated, name)
