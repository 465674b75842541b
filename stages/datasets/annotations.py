"""PASCAL VOC annotation files: one XML file an image, boxes as one-based inclusive corners."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from stages.boxes import Boxes, as_boxes
from stages.datasets.orientation import described_size
from stages.datasets.records import BadAnnotation
from stages.images import ImageFile

SLACK = 0.01  # pixels: some devkit corners are decimal fractions, and go astray in the fifth digit
CORNERS = ("xmin", "ymin", "xmax", "ymax")
CLASS_NAME = re.compile(r"[^/\\\x00-\x1f]+")


@dataclass(frozen=True)
class VocObject:
    """One object as its file states it; `corners` are (xmin, ymin, xmax, ymax), one-based, inclusive."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool
    truncated: bool
    occluded: bool
    pose: str


@dataclass(frozen=True)
class Annotation:
    """An annotation file; `size` is (width, height) in pixels, None where the file does not say."""

    path: Path
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]

    @property
    def boxes(self) -> Boxes:
        """The objects' boxes, float32 [n, 4], zero-based and half-open: (xmin - 1, ymin - 1, xmax, ymax)."""
        corners = np.array([one.corners for one in self.objects], np.float64).reshape(-1, 4)
        return as_boxes(corners - np.array([1, 1, 0, 0]))


def read_annotation(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> Annotation:
    """The annotation file `path`, whose bytes `read` gives; raises BadAnnotation if it is missing or not VOC's XML."""
    root = parse_xml(path, read)
    found = [voc_object(node, path, number) for number, node in enumerate(root.iterfind("object"), 1)]
    return Annotation(path, stated_size(root, path), tuple(found))


def parse_xml(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> ElementTree.Element:
    """The root element of the file `path`; raises BadAnnotation."""
    try:
        root = ElementTree.fromstring(read(path))
    except FileNotFoundError:
        raise BadAnnotation(f"{path}: no such annotation file; add it, or take its id out of the image set") from None
    except OSError as error:
        raise BadAnnotation(f"{path}: cannot be read ({error.strerror}); repair or remove it") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadAnnotation(f"{path}: is not a whole XML file ({error}); repair or remove it") from None
    if root.tag != "annotation":
        raise BadAnnotation(f"{path}: begins with <{root.tag}>, not with <annotation>; only VOC's XML can be read")
    return root


def stated_size(root: ElementTree.Element, path: Path) -> tuple[int, int] | None:
    """The <size> element as (width, height); None if it is absent or zero, as some annotation programs leave it."""
    if root.find("size") is None:
        return None
    width, height = (whole_number(root.findtext(f"size/{side}"), path, f"its size's {side}") for side in SIDES)
    return (width, height) if width and height else None


SIDES = ("width", "height")


def whole_number(text: str | None, path: Path, what: str) -> int:
    """`text` as a whole number that is not negative; raises BadAnnotation naming `what`."""
    if text is None or not re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
        raise BadAnnotation(f"{path}: {what} is {text!r}, not a whole number; correct it")
    return int(text)


def voc_object(node: ElementTree.Element, path: Path, number: int) -> VocObject:
    """One <object>, the `number`-th of its file, counted from 1; raises BadAnnotation."""
    name = (node.findtext("name") or "").strip()
    if not CLASS_NAME.fullmatch(name):
        raise BadAnnotation(f"{path}: object {number} has the class name {name!r}; give it a name without slashes")
    what = f"object {number} ({name})"
    difficult, truncated, occluded = (flag(node, one, path, what) for one in ("difficult", "truncated", "occluded"))
    pose = (node.findtext("pose") or "").strip() or "Unspecified"
    return VocObject(name, corners_of(node, path, what), difficult, truncated, occluded, pose)


def corners_of(node: ElementTree.Element, path: Path, what: str) -> tuple[float, float, float, float]:
    """The <bndbox> of an object as four finite numbers in the order of CORNERS; raises BadAnnotation."""
    texts = [node.findtext(f"bndbox/{corner}") for corner in CORNERS]
    try:
        numbers = [float(text or "") for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not np.isfinite(numbers).all():
        stated = ", ".join(f"{corner} {text}" for corner, text in zip(CORNERS, texts, strict=True))
        raise BadAnnotation(f"{path}: {what} has the box {stated}; give it four numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def flag(node: ElementTree.Element, name: str, path: Path, what: str) -> bool:
    """A flag of an object: 0 or 1, false where it is absent or empty, as in the earlier years."""
    text = (node.findtext(name) or "0").strip() or "0"
    if text not in ("0", "1"):
        raise BadAnnotation(f"{path}: {what} has {name} = {text!r}; write 0 or 1")
    return text == "1"


def problems(
    annotation: Annotation, size: tuple[int, int], classes: Sequence[str], image: ImageFile | None = None
) -> Iterator[str]:
    """What is impossible about the annotation of an image of `size` (width, height), one sentence each.

    `image` is the image file itself, where it could be read.
    """
    if image is not None and image.header is not None and image.size != size:
        told = f"states {size[0]} x {size[1]} pixels but its image has {described_size(image)}"
        yield f"{annotation.path}: {told}; correct one of the two"
    for number, one in enumerate(annotation.objects, 1):
        what = f"{annotation.path}: object {number} ({one.name})"
        if one.name not in classes:
            yield f"{what} is of no listed class ({', '.join(classes)}); list the class or correct the name"
        xmin, ymin, xmax, ymax = one.corners
        box = f"the box ({xmin:g}, {ymin:g}) to ({xmax:g}, {ymax:g})"
        if xmax < xmin or ymax < ymin:
            yield f"{what} has {box}, which is turned inside out; correct its corners"
        elif xmin < 1 - SLACK or ymin < 1 - SLACK or xmax > size[0] + SLACK or ymax > size[1] + SLACK:
            yield (
                f"{what} has {box}, outside its image of {size[0]} x {size[1]} pixels; "
                "correct its corners, which count from 1 and include the last pixel"
            )


def class_names(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> set[str]:
    """The class names in an annotation file; none if it cannot be read (its own reading will say why)."""
    try:
        return {one.name for one in read_annotation(path, read).objects}
    except BadAnnotation:
        return set()
