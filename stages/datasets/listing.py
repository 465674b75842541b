"""Finding files by id, their name without extension, whatever the case of the extension and the form of accents."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

ONE_LINE = re.compile("[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
"""Valid ids and class names: text without control characters or anything that cannot be encoded."""
MOST_BYTES = 255
"""The longest file name, in bytes, on common file systems."""


class Listing:
    """The files below `folder` with one of the `suffixes` (lower case, with dots); ids may contain sub-folders.

    Each folder is read once, on first use. macOS's archive leftovers (`._0001.xml`) are skipped; listing all files also
    skips hidden files and folders.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]) -> None:
        self.folder = folder
        self.suffixes = tuple(suffixes)
        self.known: dict[str, tuple[Path, dict[str, list[str]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "known": {}}

    def find(self, file_id: str) -> list[Path]:
        """The files with this id (its name plus an extension), sorted.

        Accents may be composed in one and decomposed in the other, as in archives from macOS.
        """
        parent, _, stem = file_id.rpartition("/")
        place, names_of = self.folder_of(parent)
        names = names_of.get(composed(stem), [])
        exact = [name for name in names if without_suffix(name) == stem]
        return [place / name for name in exact or names]

    def expected(self, file_id: str) -> Path:
        """Where a file with this id would be, with the first suffix."""
        return self.folder / f"{file_id}{self.suffixes[0]}"

    def folder_of(self, parent: str) -> tuple[Path, dict[str, list[str]]]:
        """The sub-folder `parent`, and its file names by their name without extension, accents composed."""
        if parent not in self.known:
            place, by_stem = self.place(parent), dict[str, list[str]]()
            for name in sorted(names_in(place)):
                if name.lower().endswith(self.suffixes) and not name.startswith("._"):
                    by_stem.setdefault(composed(without_suffix(name)), []).append(name)
            self.known[parent] = place, by_stem
        return self.known[parent]

    def place(self, parent: str) -> Path:
        """The sub-folder with this name, with accents as on disk; it need not exist."""
        place = self.folder
        for part in PurePosixPath(parent).parts:
            names = names_in(place)
            place /= part if part in names else same_name(part, names)
        return place

    def ids(self) -> list[str]:
        """The ids of all files, sorted and without duplicates."""
        return sorted({without_suffix(path.relative_to(self.folder).as_posix()) for path in self.files})

    @cached_property
    def files(self) -> list[Path]:
        """All files, including those in sub-folders, sorted."""
        return sorted(path for path in walk(self.folder) if path.name.lower().endswith(self.suffixes))


def on_disk(folder: Path, relative: str) -> Path:
    """The file with this relative path below `folder`, with accents as on disk; it need not exist."""
    path = folder / relative
    if relative.isascii() or path.exists():
        return path
    parent, _, name = relative.rpartition("/")
    place = Listing(folder, ()).place(parent)
    return place / same_name(name, names_in(place))


def same_name(name: str, names: Iterable[str]) -> str:
    """The one of `names` that differs from `name` only in how accents are composed; `name` itself if there is none."""
    return next((other for other in names if composed(other) == composed(name)), name)


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str) -> str:
    """The name without its extension."""
    return name[: name.rfind(".")]


def names_in(folder: Path) -> set[str]:
    """The names in a folder; none if it cannot be read. Names that are not valid text are skipped."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return set()
    return {name for name in names if is_text(name)}


def walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, except hidden ones; links to folders are followed, once each."""
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
    """Whether a file name is valid Unicode, rather than bytes of an unknown encoding."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def is_id(text: str) -> bool:
    """Whether a text is a valid image id: a relative path below the image folder, on one line, without extension."""
    parts = text.split("/")
    return (
        ONE_LINE.fullmatch(text) is not None
        and all(part.strip() and set(part) != {"."} for part in parts)
        and all(len(part.encode()) + len(".jpeg") <= MOST_BYTES for part in parts)
    )
