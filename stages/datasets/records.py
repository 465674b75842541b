"""An image's record in a dataset, and the errors that a dataset's files can cause."""

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

NORMALISED = "all its boxes lie between 0 and 1, so they are normalised to the image size"
MOST_FAULTS = 20
"""The most faults listed per file."""


@dataclass
class Faults:
    """What is wrong with the file `path`: a sentence for each of the first MOST_FAULTS faults, and how many more."""

    path: Path
    listed: list[str] = field(default_factory=list)
    unlisted: int = 0

    def __len__(self) -> int:
        return len(self.listed) + self.unlisted

    def add(self, sentence: object) -> None:
        """Adds a fault."""
        if len(self.listed) < MOST_FAULTS:
            self.listed.append(str(sentence))
        else:
            self.unlisted += 1

    def sentences(self) -> list[str]:
        """The listed faults and, if there are more, a sentence saying how many."""
        if not self.unlisted:
            return self.listed
        more = "1 more problem is" if self.unlisted == 1 else f"{self.unlisted} more problems are"
        return [*self.listed, f"{self.path}: {more} not listed; correct those above, then check again"]


class BadDataset(StageError):
    """A dataset that cannot be opened: its source is misspelt, or a folder or image set is missing or invalid.

    `faults` is set if one file has several; the message is the first.
    """

    faults: Faults | None = None

    @staticmethod
    def of(faults: Faults) -> BadDataset:
        """The error for a file with at least one of `faults`."""
        error = BadDataset(faults.listed[0])
        error.faults = faults
        return error


class BadAnnotation(StageError):
    """An annotation file that is missing, of another format, or describes an impossible object."""


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image of `width` x `height` pixels and its n objects.

    `boxes` float32 [n, 4] are (x1, y1, x2, y2) in pixels of the original image, zero-based and half-open; `labels`
    int32 [n] index the dataset's classes; `difficult` (need not be found), `truncated` and `occluded` are bool [n].
    `stated_areas`, float64 [n] in square pixels, is set if annotations state them (COCO: of the segmentation).
    `stated_crowds`, bool [n], is set if the format has crowds (COCO's `iscrowd`: one box around many objects), which
    are difficult, too. Where an image is not `exhaustive`, objects of the classes may lack an annotation: what overlaps
    none of those annotated is then no negative example.
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
    exhaustive: bool = True

    @property
    def areas(self) -> NDArray[np.float64]:
        """The objects' areas in square pixels, float64 [n], as stated or else of their boxes."""
        return area(self.boxes) if self.stated_areas is None else self.stated_areas

    @property
    def crowds(self) -> NDArray[np.bool_]:
        """Which objects are crowds: bool [n]."""
        return np.zeros(len(self.labels), bool) if self.stated_crowds is None else self.stated_crowds


def record_digest(record: ImageRecord) -> str:
    """SHA-256 (hex) over everything in a record except the image's path."""
    digest = hashlib.sha256()
    for column in fields(record):
        value = getattr(record, column.name)
        if column.name == "path" or (column.name == "exhaustive" and value):  # as before there was the latter
            continue
        if isinstance(value, np.ndarray):
            digest.update(f"{column.name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(f"{column.name} {value!r}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


NAMED = 5  # how many of the annotations left out are named


@dataclass
class LeftOut:
    """Annotations that are not used as objects: `without_area`, the names of those without area on their image (after
    clipping, in float32) or with non-finite numbers; `other_classes`, the number of each unlisted class; `repeated`,
    by their own or their file's name, the number of exact repetitions. `unannotated` counts images without an
    annotation file."""

    without_area: list[str] = field(default_factory=list)
    other_classes: Counter[str] = field(default_factory=Counter)
    unannotated: int = 0
    repeated: Counter[str] = field(default_factory=Counter)

    def add(self, other: LeftOut) -> None:
        """Adds what another part of the dataset leaves out."""
        self.without_area += other.without_area
        self.other_classes += other.other_classes
        self.unannotated += other.unannotated
        self.repeated += other.repeated

    def notes(self, place: str, what: str = "object") -> list[str]:
        """One sentence per kind, starting with `place`; `what` is the word for an annotation."""
        sentences = []
        if names := self.without_area:
            many = f"{len(names)} {what}s have" if len(names) > 1 else f"1 {what} has"
            sentences.append(f"{place}: {many} no area, left out: {some_of(names)}")
        if total := self.other_classes.total():
            counts = [f"{name} {count}" for name, count in self.other_classes.most_common()]
            many = f"{total} {what}s are" if total > 1 else f"1 {what} is"
            sentences.append(f"{place}: {many} of classes that are not listed, left out: {some_of(counts)}")
        if count := self.unannotated:
            many = (
                f"{count} images have no annotation file and count as images"
                if count > 1
                else ("1 image has no annotation file and counts as an image")
            )
            sentences.append(f"{place}: {many} without objects")
        if total := self.repeated.total():
            named = [f"{name} ({count})" if count > 1 else name for name, count in self.repeated.items()]
            many = f"{total} {what}s repeat" if total > 1 else f"1 {what} repeats"
            sentences.append(f"{place}: {many} another exactly, left out: {some_of(named)}")
        return sentences

    def as_json(self) -> dict[str, Any]:
        """The counts and names as JSON values."""
        return {**vars(self), "other_classes": dict(self.other_classes), "repeated": dict(self.repeated)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> LeftOut:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError for anything else."""
        counts, repeated = (
            Counter({str(name): int(count) for name, count in value[kind].items()})
            for kind in ("other_classes", "repeated")
        )
        return LeftOut([str(name) for name in value["without_area"]], counts, int(value["unannotated"]), repeated)


def some_of(names: list[str]) -> str:
    """The first few of the names, followed by dots if there are more."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def shown(value: Any) -> str:
    """A value from a JSON or YAML file, as shown in messages: short, and on one line."""
    if isinstance(value, list) and len(value) <= 8 and not any(isinstance(entry, list | dict) for entry in value):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, list | dict | set | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of many digits"
    text = repr(value[:100]) if isinstance(value, str | bytes) else repr(value)
    return f"{text}..." if isinstance(value, str | bytes) and len(value) > 100 else text
