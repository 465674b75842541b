"""Writing annotations and image sets in the format of the PASCAL VOC devkit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement


@dataclass(frozen=True)
class WrittenObject:
    """An object to be written; `box` is (x1, y1, x2, y2) in whole pixels, zero-based and half-open."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    pose: str = "Unspecified"


def write_annotation(path: Path, shape: Sequence[int], objects: Iterable[WrittenObject]) -> None:
    """Writes the XML of an image of `shape` (height, width, depth); boxes become one-based inclusive corners."""
    folder = "shapes"  # so that the bytes do not depend on the folder's name
    path.write_bytes(annotation_xml(shape, objects, folder, f"{path.stem}.jpg"))


def annotation_xml(shape: Sequence[int], objects: Iterable[WrittenObject], folder: str, filename: str) -> bytes:
    """The XML of the image `filename` in `folder`, of `shape` (height, width, depth), in UTF-8."""
    root = Element("annotation")
    SubElement(root, "folder").text = folder
    SubElement(root, "filename").text = filename
    size = SubElement(root, "size")
    for name, value in zip(("height", "width", "depth"), shape, strict=True):
        SubElement(size, name).text = str(value)
    SubElement(root, "segmented").text = "0"
    for written in objects:
        add_object(root, written)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def add_object(root: Element, written: WrittenObject) -> None:
    """Adds an <object>, with its elements in the devkit's order."""
    node = SubElement(root, "object")
    SubElement(node, "name").text = written.name
    SubElement(node, "pose").text = written.pose
    for name in ("truncated", "occluded", "difficult"):
        SubElement(node, name).text = str(int(getattr(written, name)))
    x1, y1, x2, y2 = written.box
    corners = (x1 + 1, y1 + 1, x2, y2)
    bndbox = SubElement(node, "bndbox")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
        SubElement(bndbox, name).text = str(value)


def write_image_sets(
    folder: Path, splits: Mapping[str, Mapping[str, Sequence[WrittenObject]]], classes: Sequence[str]
) -> None:
    """Writes SPLIT.txt and CLASS_SPLIT.txt for every split with images (1: present, 0: difficult, -1: absent)."""
    for split, images in splits.items():
        if not images:
            continue
        (folder / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in images), "utf-8")
        for name in classes:
            lines = [f"{image_id} {presence(objects, name):2d}\n" for image_id, objects in images.items()]
            (folder / f"{name}_{split}.txt").write_text("".join(lines), "utf-8")


def presence(objects: Sequence[WrittenObject], name: str) -> int:
    """1 if an image contains an object of the class that is not difficult, 0 if only difficult ones, else -1."""
    flags = [written.difficult for written in objects if written.name == name]
    return -1 if not flags else int(not all(flags))
