"""Files that name ILSVRC's classes: WordNet ids, numbers and names, as text or as the devkit's meta_det.mat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache.files import cannot
from stages.datasets.layout import read_lines
from stages.datasets.listing import ONE_LINE
from stages.datasets.records import BadDataset, shown
from stages.input_files import read_whole
from stages.mat_file import read_variables

WNID = re.compile(r"n\d{8}")
FILES = ("map_det.txt", "meta_det.txt", "meta_det.mat")
NUMBER, SYNSETS = re.compile(r"ILSVRC20\d\d_DET_ID"), "synsets"
"""The field with a class's number, and the variable, in meta_det.mat."""
DETECTION_CLASSES = 200
"""How many of the devkit's synsets are classes of detection; those after them are above these in WordNet."""


class Synset(NamedTuple):
    """A class: its WordNet id (n02672831), its number in the devkit (None: not stated), and its name."""

    wnid: str
    number: int | None
    name: str


def find_synsets(folders: Sequence[Path]) -> Path | None:
    """The file of names in a devkit's data folders; None if there is none."""
    return next((place / name for place in folders for name in FILES if (place / name).is_file()), None)


def read_synsets(path: Path) -> list[Synset]:
    """The classes in a file of names, by number where all have one, else in the file's order. Raises BadDataset."""
    if path.suffix.lower() == ".mat":
        synsets = of_mat_file(path)
    else:
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


def of_mat_file(path: Path) -> list[Synset]:
    """The classes of detection in the devkit's meta_det.mat, the first of its `synsets`. Raises BadDataset."""
    try:
        entries = read_variables(read_whole(path), {SYNSETS}).get(SYNSETS)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it has no structures called synsets")
        return [synset_of(path, place, line_of(entry)) for place, entry in enumerate(entries[:DETECTION_CLASSES], 1)]
    except OSError as error:
        raise BadDataset(f"{path}: " + cannot("be read", error, "name the devkit's meta_det.mat")) from None
    except ValueError as error:
        raise BadDataset(f"{path}: does not name classes ({error}); name the devkit's meta_det.mat or a text") from None


def line_of(entry: dict[str, Any]) -> str:
    """An entry of `synsets` as a line of a text. Raises ValueError for one without a number, WordNet id and name."""
    number = next((value for field, value in entry.items() if NUMBER.fullmatch(field)), None)
    wnid, name = entry.get("WNID"), entry.get("name")
    if not isinstance(wnid, str) or not isinstance(name, str) or number is None or np.size(number) != 1:
        raise ValueError("an entry of synsets has no WNID, name or number")
    return f"{wnid} {int(np.ravel(number)[0])} {name}"


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
