"""What a dataset tells about one image, and the errors that its files can cause."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, area
from stages.contract.errors import StageError

NORMALISED = "all its boxes lie between 0 and 1, so they are normalised by the size of the image"
MOST_FAULTS = 20
"""At most this many faults of one file are listed."""


@dataclass
class Faults:
    """What is wrong with the file `path`: the first sentences, MOST_FAULTS at most, and how many more there are."""

    path: Path
    listed: list[str] = field(default_factory=list)
    unlisted: int = 0

    def __len__(self) -> int:
        return len(self.listed) + self.unlisted

    def add(self, sentence: object) -> None:
        """One more."""
        if len(self.listed) < MOST_FAULTS:
            self.listed.append(str(sentence))
        else:
            self.unlisted += 1

    def sentences(self) -> list[str]:
        """Those that are listed and, where there are more, one that says how many."""
        if not self.unlisted:
            return self.listed
        more = "1 more problem is" if self.unlisted == 1 else f"{self.unlisted} more problems are"
        return [*self.listed, f"{self.path}: {more} not listed; correct those above, then check again"]


class BadDataset(StageError):
    """A dataset that cannot be opened: its source is misspelt, or a folder or image set is missing or impossible.

    `faults` is there where one file has several: the message is the first.
    """

    faults: Faults | None = None

    @staticmethod
    def of(faults: Faults) -> BadDataset:
        """The error for a file with `faults`, of which there is at least one."""
        error = BadDataset(faults.listed[0])
        error.faults = faults
        return error


class BadAnnotation(StageError):
    """An annotation file that is missing or of another kind, or that describes an impossible object."""


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its n objects.

    `boxes` is float32 [n, 4], (x1, y1, x2, y2) in pixels of the original image, zero-based, half-open; `labels` is
    int32 [n], indices into the dataset's classes; `difficult` (need not be found), `truncated` and `occluded` are
    bool [n]. `stated_areas`, float64 [n] in square pixels, are there where annotations state them (COCO: of the
    segmentation). `stated_crowds`, bool [n], are there where the format has crowds (COCO's `iscrowd`: one box around
    many things), which are difficult, too.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: Boxes
    labels: NDArray[np.int32]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    occluded: NDArray[np.bool_]
    pose: tuple[str, ...]
    stated_areas: NDArray[np.float64] | None = None
    stated_crowds: NDArray[np.bool_] | None = None

    @property
    def areas(self) -> NDArray[np.float64]:
        """The objects' areas in square pixels, float64 [n]: as stated, else of their boxes."""
        return area(self.boxes) if self.stated_areas is None else self.stated_areas

    @property
    def crowds(self) -> NDArray[np.bool_]:
        """Which objects are crowds: bool [n]."""
        return np.zeros(len(self.labels), bool) if self.stated_crowds is None else self.stated_crowds


def record_digest(record: ImageRecord) -> str:
    """SHA-256 (hex) over all that a record says, whatever file its image lies in."""
    digest = hashlib.sha256()
    for one in fields(record):
        value = getattr(record, one.name)
        if one.name == "path":
            continue
        if isinstance(value, np.ndarray):
            digest.update(f"{one.name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"{one.name} {value!r}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


NAMED = 5  # so many of what is left out are named


@dataclass
class LeftOut:
    """What annotations hold that is no object: names of those that have no area on their image (after clipping, in
    float32) or numbers that are no numbers; how many are of each class that is not listed; how many images have no
    annotation file at all; in `repeated`, by their name or their file's, how many repeat another exactly."""

    without_area: list[str] = field(default_factory=list)
    other_classes: Counter[str] = field(default_factory=Counter)
    unannotated: int = 0
    repeated: Counter[str] = field(default_factory=Counter)

    def add(self, other: LeftOut) -> None:
        """Adds what another part of a dataset leaves out."""
        self.without_area += other.without_area
        self.other_classes += other.other_classes
        self.unannotated += other.unannotated
        self.repeated += other.repeated

    def notes(self, place: str, what: str = "object") -> list[str]:
        """One sentence for each kind, beginning with `place`; `what` an annotation is called."""
        found = []
        if names := self.without_area:
            many = f"{len(names)} {what}s have" if len(names) > 1 else f"1 {what} has"
            found.append(f"{place}: {many} no area, left out: {some_of(names)}")
        if total := self.other_classes.total():
            counts = [f"{name} {count}" for name, count in self.other_classes.most_common()]
            many = f"{total} {what}s are" if total > 1 else f"1 {what} is"
            found.append(f"{place}: {many} of classes that are not listed, left out: {some_of(counts)}")
        if count := self.unannotated:
            many = (
                f"{count} images have no annotation file and count as images"
                if count > 1
                else ("1 image has no annotation file and counts as an image")
            )
            found.append(f"{place}: {many} without objects")
        if total := self.repeated.total():
            named = [f"{name} ({count})" if count > 1 else name for name, count in self.repeated.items()]
            many = f"{total} {what}s repeat" if total > 1 else f"1 {what} repeats"
            found.append(f"{place}: {many} another exactly, left out: {some_of(named)}")
        return found

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "other_classes": dict(self.other_classes), "repeated": dict(self.repeated)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> LeftOut:
        """What `as_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        counts, repeated = (
            Counter({str(name): int(count) for name, count in value[kind].items()})
            for kind in ("other_classes", "repeated")
        )
        return LeftOut([str(name) for name in value["without_area"]], counts, int(value["unannotated"]), repeated)


def some_of(names: list[str]) -> str:
    """The first few of the names, and dots if there are more."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def shown(value: Any) -> str:
    """A value from a JSON or YAML file as messages show it, in one line and not long."""
    if isinstance(value, list) and len(value) <= 8 and not any(isinstance(one, list | dict) for one in value):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, list | dict | set | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of many digits"
    text = repr(value[:100]) if isinstance(value, str | bytes) else repr(value)
    return f"{text}..." if isinstance(value, str | bytes) and len(value) > 100 else text
