"""Files by their names without ending, as ids name them, whatever the case of the ending and the form of accents."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

ONE_LINE = re.compile("[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""What ids and class names may be: text without control characters or anything that cannot be encoded."""
MOST_BYTES = 255
"""The longest file name, in bytes, on the usual file systems."""


class Listing:
    """The files below `folder` that end in one of the `suffixes` (lower case, with dots); ids may have sub-folders.

    Each folder is read once, when it is first asked for. What macOS leaves in archives (`._0001.xml`) is passed over,
    and where all files are asked for, so is every hidden file and folder.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]) -> None:
        self.folder = folder
        self.suffixes = tuple(suffixes)
        self.known: dict[str, tuple[Path, dict[str, list[str]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "known": {}}

    def find(self, file_id: str) -> list[Path]:
        """The files of this id: those whose name is it and an ending, sorted; none if there is none.

        Accents may be composed in one of the two and not in the other, as archives from macOS have them.
        """
        parent, _, stem = file_id.rpartition("/")
        place, names_of = self.folder_of(parent)
        names = names_of.get(composed(stem), [])
        exact = [name for name in names if without_suffix(name) == stem]
        return [place / name for name in exact or names]

    def expected(self, file_id: str) -> Path:
        """Where a file of this id would be, with the first of the endings."""
        return self.folder / f"{file_id}{self.suffixes[0]}"

    def folder_of(self, parent: str) -> tuple[Path, dict[str, list[str]]]:
        """The sub-folder `parent`, and the names of its files by what they are without ending, accents composed."""
        if parent not in self.known:
            place, found = self.place(parent), dict[str, list[str]]()
            for name in sorted(names_in(place)):
                if name.lower().endswith(self.suffixes) and not name.startswith("._"):
                    found.setdefault(composed(without_suffix(name)), []).append(name)
            self.known[parent] = place, found
        return self.known[parent]

    def place(self, parent: str) -> Path:
        """The sub-folder of this name, accents as on the disk; it need not exist."""
        place = self.folder
        for part in PurePosixPath(parent).parts:
            names = names_in(place)
            place /= part if part in names else next((one for one in names if composed(one) == composed(part)), part)
        return place

    def ids(self) -> list[str]:
        """The ids of all files, sorted; an id of two files is there once."""
        return sorted({without_suffix(path.relative_to(self.folder).as_posix()) for path in self.files})

    @cached_property
    def files(self) -> list[Path]:
        """All files, also those in sub-folders, sorted."""
        return sorted(path for path in walk(self.folder) if path.name.lower().endswith(self.suffixes))


def on_disk(folder: Path, relative: str) -> Path:
    """The file of this relative path below `folder`, its accents as on the disk; it need not exist."""
    path = folder / relative
    if relative.isascii() or path.exists():
        return path
    parent, _, name = relative.rpartition("/")
    place = Listing(folder, ()).place(parent)
    return place / next((one for one in names_in(place) if composed(one) == composed(name)), name)


def composed(name: str) -> str:
    """The name with its accents composed (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str) -> str:
    """The name without what follows its last dot."""
    return name[: name.rfind(".")]


def names_in(folder: Path) -> set[str]:
    """The names in a folder, none if it cannot be read or is none. Names that are no text are passed over."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return set()
    return {name for name in names if is_text(name)}


def walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, but for hidden ones; links to folders are followed, once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(place, name) for name in names if not name.startswith(".") and is_text(name))


def is_text(name: str) -> bool:
    """Whether a file's name is Unicode, not bytes of an unknown encoding."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_id(text: str) -> bool:
    """Whether a text can be an image's id: a relative path below the folder of images, on one line, without ending."""
    parts = text.split("/")
    return (
        ONE_LINE.fullmatch(text) is not None
        and all(part.strip() and set(part) != {"."} for part in parts)
        and all(len(part.encode()) + len(".jpeg") <= MOST_BYTES for part in parts)
    )
