"""PASCAL VOC annotation files: one XML file per image, boxes as one-based inclusive corners.

Converters write many things that the devkit never did. Anything unambiguous is accepted: tags in capitals or in a
namespace, any declared encoding that Python knows, decimal sizes, -1 for an unknown size, flags as words or fractions.
Everything else is an error that names the file and the object.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cache.files import cannot
from stages.boxes import Boxes, as_boxes, clip_boxes, has_area, look_normalised
from stages.datasets.listing import ONE_LINE
from stages.datasets.orientation import described_size
from stages.datasets.records import NORMALISED, BadAnnotation, Faults
from stages.images.reading import ImageFile
from stages.input_files import read_whole

SLACK = 0.01  # pixels: some corners in the devkit are decimal fractions, slightly off in the fifth digit
MISSING = (
    "no such annotation file; add it, or take its id out of the image set "
    '(unannotated = "background" takes such images for images without objects)'
)
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FALSE, TRUE = ("0", "false", "no", "unspecified", "unknown"), ("1", "true", "yes")
DECLARATION = re.compile(rb"""<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([A-Za-z][\w.-]{0,40})["']""")
NO_ENCODINGS = ("idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf_7")  # not for documents
MOST_NESTED = 100
"""Levels of nesting allowed in an annotation; VOC's have five."""
SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030"}  # files declared as GB2312 often use its successors' characters


@dataclass(frozen=True)
class VocObject:
    """One object as stated in its file; `corners` are (xmin, ymin, xmax, ymax), one-based and inclusive or, if the
    annotation is `zero_based`, edges. They may be infinite or nan. `number` is its position in the file, from 1."""

    number: int
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool
    truncated: bool
    occluded: bool
    pose: str


@dataclass(frozen=True)
class Annotation:
    """An annotation file; `size` is (width, height) in pixels, or None if not stated.

    `zero_based`: corners are edges counted from 0, so that the width of a box is xmax - xmin. `missing`: there is no
    file, and none is required. `unusual` lists accepted deviations from the devkit's format, `faults` what cannot be
    read; faulty objects are not in `objects`.
    """

    path: Path
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]
    zero_based: bool = False
    missing: bool = False
    unusual: frozenset[str] = frozenset()
    faults: Faults | None = None

    @property
    def boxes(self) -> Boxes:
        """The objects' boxes, float32 [n, 4], zero-based and half-open: (xmin - 1, ymin - 1, xmax, ymax)."""
        corners = np.array([annotated.corners for annotated in self.objects], np.float64).reshape(-1, 4)
        with np.errstate(over="ignore"):  # numbers too large for float32 become infinite, and the box invalid
            return as_boxes(corners - np.array([1, 1, 0, 0]) * (not self.zero_based))

    def boxes_on(self, size: tuple[int, int]) -> Boxes:
        """`boxes`, float32 [n, 4]; VOC's are in pixels, whatever the image's size."""
        return self.boxes

    def where(self, place: int) -> str:
        """How notes refer to the object at `place`."""
        return f"{self.path.name} object {self.objects[place].number} ({self.objects[place].name})"

    def without_area(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Which objects have no area on an image of `size` (width, height), in float32, or non-finite corners: bool
        [n]. They are left out. Those with a `misplacement` are not among them, but a problem."""
        boxes = self.boxes
        wrong = [bool(misplacement(annotated, size, self.zero_based)) for annotated in self.objects]
        return np.asarray((~has_area(boxes) | ~has_area(clip_boxes(boxes, *size))) & ~np.array(wrong, bool))


def read_annotation(path: Path, read: Callable[[Path], bytes] = read_whole, *, zero_based: bool = False) -> Annotation:
    """The annotation file `path`, read with `read`. Raises BadAnnotation if it is missing or not valid VOC XML."""
    annotation = readable_annotation(path, read, zero_based=zero_based)
    if annotation.faults:
        raise BadAnnotation(annotation.faults.listed[0])
    return annotation


def readable_annotation(
    path: Path, read: Callable[[Path], bytes] = read_whole, *, zero_based: bool = False
) -> Annotation:
    """As `read_annotation`, but faults of single objects and of the size are collected in the annotation's `faults`.

    Raises BadAnnotation if the file is missing or not VOC XML at all.
    """
    root = parse_xml(path, read)
    unusual: set[str] = set()
    faults = Faults(path)
    objects = []
    for number, node in enumerate(root.iterfind("object"), 1):
        try:
            objects.append(voc_object(node, path, number, unusual))
        except BadAnnotation as error:
            faults.add(error)
    if look_normalised(np.array([annotated.corners for annotated in objects], np.float64).reshape(-1, 4)):
        faults.add(f"{path}: {NORMALISED}; write its corners in pixels")
    inside = sum(sum(1 for _ in node.iter("bndbox")) for node in root.iterfind("object"))
    if inside < sum(1 for _ in root.iter("bndbox")):
        faults.add(f"{path}: has a <bndbox> outside every <object> of its <annotation>; move or remove it")
    size = None
    try:
        size = stated_size(root, path, unusual)
    except BadAnnotation as error:
        faults.add(error)
    return Annotation(path, size, tuple(objects), zero_based, unusual=frozenset(unusual), faults=faults)


def parse_xml(path: Path, read: Callable[[Path], bytes] = read_whole) -> ElementTree.Element:
    """The root element of the file `path`, with all tags in lower case and without namespace. Raises BadAnnotation."""
    try:
        root = ElementTree.fromstring(decoded(read(path)))
    except FileNotFoundError:
        raise BadAnnotation(f"{path}: {MISSING}") from None
    except OSError as error:
        raise BadAnnotation(f"{path}: " + cannot("be read", error, "repair or remove it")) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadAnnotation(f"{path}: is not a complete XML file ({error}); repair or remove it") from None
    level, depth = [root], 0
    while level:
        if (depth := depth + 1) > MOST_NESTED:
            raise BadAnnotation(
                f"{path}: has elements nested more than {MOST_NESTED} deep, deeper than any VOC annotation; "
                "repair or remove it"
            )
        for node in level:
            node.tag = node.tag.rpartition("}")[2].lower()
        level = [child for node in level for child in node]
    if root.tag != "annotation":
        raise BadAnnotation(f"{path}: begins with <{root.tag}>, not with <annotation>; only VOC's XML can be read")
    return root


def decoded(content: bytes) -> bytes | str:
    """XML decoded to text if Python is needed for that, else unchanged. Raises ValueError and LookupError.

    Expat itself reads UTF-8, UTF-16, Latin-1 and ASCII. Blank lines before the declaration, which XML forbids, are
    dropped, and what is declared as UTF-16 but clearly is not (as written by .NET) is read as UTF-8.
    """
    if content.startswith(codecs.BOM_UTF8):
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8").lstrip()
    content = content.lstrip()
    declared = DECLARATION.match(content)
    if declared is None:
        return content
    name = declared[1].decode("ascii").lower()
    if name.startswith(("utf-16", "utf16", "ucs-2", "iso-10646-ucs-2")):
        return content.decode("utf-8")
    if name in ("utf-8", "utf8", "us-ascii", "iso-8859-1"):
        return content
    if name.replace("-", "_") in NO_ENCODINGS:
        raise LookupError(f"unknown encoding: {name}")
    return content.decode(SUPERSETS.get(name, name))


def stated_size(root: ElementTree.Element, path: Path, unusual: set[str]) -> tuple[int, int] | None:
    """The <size> element as (width, height); None if it is absent, zero or -1, as some annotation tools leave it."""
    if root.find("size") is None:
        return None
    width, height = (side_of(root.findtext(f"size/{side}"), path, f"its size's {side}") for side in SIDES)
    if min(width, height) < 0:
        unusual.add("a size of -1, taken as unknown")
    return (width, height) if width > 0 and height > 0 else None


SIDES = ("width", "height")


def side_of(text: str | None, path: Path, what: str) -> int:
    """`text` as a whole number, possibly written as a decimal ("500.0"), or -1; an empty element is 0.

    Raises BadAnnotation, naming `what`.
    """
    match = None if text is None else re.fullmatch(r"(?:(\d{1,9}|-1)(?:\.0*)?)?", text.strip(), re.ASCII)
    if match is None:
        raise BadAnnotation(f"{path}: {what} is {text!r}, not a whole number; correct it")
    return int(match[1] or 0)


def voc_object(node: ElementTree.Element, path: Path, number: int, unusual: set[str]) -> VocObject:
    """An <object>, the `number`-th in its file (from 1); deviations are added to `unusual`. Raises BadAnnotation."""
    name = (node.findtext("name") or "").strip()
    if not ONE_LINE.fullmatch(name):
        raise BadAnnotation(f"{path}: object {number} has the class name {name!r}; give it a name, on one line")
    what = f"object {number} ({name})"
    difficult, truncated, occluded = (
        flag(node, tag, path, what, unusual) for tag in ("difficult", "truncated", "occluded")
    )
    pose = (node.findtext("pose") or "").strip() or "Unspecified"
    return VocObject(number, name, corners_of(node, path, what), difficult, truncated, occluded, pose)


def corners_of(node: ElementTree.Element, path: Path, what: str) -> tuple[float, float, float, float]:
    """The <bndbox> of an object as four numbers in the order of CORNERS, possibly not finite. Raises BadAnnotation."""
    boxes = node.findall("bndbox")
    if len(boxes) > 1:
        raise BadAnnotation(f"{path}: {what} has {len(boxes)} boxes (<bndbox>); write an <object> for each")
    texts = [node.findtext(f"bndbox/{corner}") for corner in CORNERS]
    try:
        numbers = [float((text or "").replace("_", " ")) for text in texts]
    except ValueError:
        stated = ", ".join(
            f"{corner} {' '.join(str(text).split())}" for corner, text in zip(CORNERS, texts, strict=True)
        )
        raise BadAnnotation(f"{path}: {what} has the box {stated}; give it four numbers") from None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def flag(node: ElementTree.Element, name: str, path: Path, what: str, unusual: set[str]) -> bool:
    """A flag of an object: 0, 1, or a word for either; false if it is absent, empty or unknown.

    A fraction states how much of the object is truncated or occluded; it is true above 0.
    """
    text = (node.findtext(name) or "").strip()
    word = text.lower() or "0"
    if word in (*FALSE, *TRUE):
        if word not in ("0", "1"):
            unusual.add(f"{name} = {text}, taken for {int(word in TRUE)}")
        return word in TRUE
    fraction = float(word) if re.fullmatch(r"\d+\.?\d*(e-\d{1,3})?|\.\d+", word, re.ASCII) else -1.0
    if fraction in (0, 1) or (0 < fraction < 1 and name != "difficult"):
        unusual.add(f"{name} as a fraction, taken as 1 if above 0")
        return fraction > 0
    raise BadAnnotation(f"{path}: {what} has {name} = {text!r}; write 0 or 1")


def problems(
    annotation: Annotation, size: tuple[int, int], classes: Sequence[str] | None, image: ImageFile | None = None
) -> Iterator[str]:
    """The problems of the annotation of an image of `size` (width, height), one sentence each.

    `classes` are the allowed classes (None: any); `image` is the image file, if it could be read. Objects without area
    (`Annotation.without_area`) are not a problem, but inverted boxes are.
    """
    if image is not None and image.header is not None and image.size != size:
        sizes = f"states {size[0]} x {size[1]} pixels but its image has {described_size(image)}"
        yield f"{annotation.path}: {sizes}; correct one of the two"
    for annotated in annotation.objects:
        what = f"{annotation.path}: object {annotated.number} ({annotated.name})"
        if classes is not None and annotated.name not in classes:
            advice = 'list the class, correct the name, or set other_classes = "leave-out"'
            yield f"{what} has none of the listed classes ({', '.join(classes)}); {advice}"
        if fault := misplacement(annotated, size, annotation.zero_based):
            yield f"{what} has {fault}"


def misplacement(annotated: VocObject, size: tuple[int, int], zero_based: bool) -> str:
    """What is wrong with the place of an object on an image of `size` (width, height), and what to do; "" if nothing
    is, or if its corners are not finite."""
    if not np.isfinite(annotated.corners).all():
        return ""
    xmin, ymin, xmax, ymax = annotated.corners
    box = f"the box ({xmin:g}, {ymin:g}) to ({xmax:g}, {ymax:g})"
    if xmax < xmin or ymax < ymin:
        return f"{box}, which is inverted; correct its corners"
    first, counted = 1, "count from 1 and include the last pixel (zero_based = true reads those that count from 0)"
    if zero_based:
        first, counted = 0, "count from 0, to the right edge of the last pixel"
    if min(xmin, ymin) < first - SLACK or xmax > size[0] + SLACK or ymax > size[1] + SLACK:
        return f"{box}, outside its image of {size[0]} x {size[1]} pixels; correct its corners, which {counted}"
    return ""


def class_names(path: Path, read: Callable[[Path], bytes] = read_whole) -> set[str]:
    """The class names in an annotation file, whatever else is wrong with it; none if it is not VOC XML."""
    try:
        root = parse_xml(path, read)
    except BadAnnotation:
        return set()
    names = ((node.findtext("name") or "").strip() for node in root.iterfind("object"))
    return {name for name in names if ONE_LINE.fullmatch(name)}
