"""Writing annotations and image sets as the PASCAL VOC devkit has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement


@dataclass(frozen=True)
class WrittenObject:
    """An object to be written; `box` is (x1, y1, x2, y2), whole pixels, zero-based, half-open."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    pose: str = "Unspecified"


def write_annotation(path: Path, shape: Sequence[int], objects: Iterable[WrittenObject]) -> None:
    """Writes the XML of an image of `shape` (height, width, depth); boxes become one-based inclusive corners."""
    root = Element("annotation")
    SubElement(root, "folder").text = "shapes"  # the same bytes wherever and under whatever name it is drawn
    SubElement(root, "filename").text = f"{path.stem}.jpg"
    size = SubElement(root, "size")
    for name, value in zip(("height", "width", "depth"), shape, strict=True):
        SubElement(size, name).text = str(value)
    SubElement(root, "segmented").text = "0"
    for one in objects:
        add_object(root, one)
    ElementTree.indent(root, "\t")
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8") + b"\n")


def add_object(root: Element, one: WrittenObject) -> None:
    """Adds an <object> in the devkit's order of elements."""
    node = SubElement(root, "object")
    SubElement(node, "name").text = one.name
    SubElement(node, "pose").text = one.pose
    for name in ("truncated", "occluded", "difficult"):
        SubElement(node, name).text = str(int(getattr(one, name)))
    corners = (one.box[0] + 1, one.box[1] + 1, one.box[2], one.box[3])
    bndbox = SubElement(node, "bndbox")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
        SubElement(bndbox, name).text = str(value)


def write_image_sets(
    folder: Path, splits: Mapping[str, Mapping[str, Sequence[WrittenObject]]], classes: Sequence[str]
) -> None:
    """Writes SPLIT.txt and CLASS_SPLIT.txt for every split that has images (1: present, 0: difficult, -1: absent)."""
    for split, images in splits.items():
        if not images:
            continue
        (folder / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in images), "utf-8")
        for name in classes:
            lines = [f"{image_id} {presence(objects, name):2d}\n" for image_id, objects in images.items()]
            (folder / f"{name}_{split}.txt").write_text("".join(lines), "utf-8")


def presence(objects: Sequence[WrittenObject], name: str) -> int:
    """1 if an image holds an object of the class that is not difficult, 0 if only difficult ones, else -1."""
    flags = [one.difficult for one in objects if one.name == name]
    return -1 if not flags else int(not all(flags))
