"""Small folders of images in each of the layouts that `rcnn init` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stages.datasets.voc_writer import WrittenObject, write_annotation

IDS = tuple(f"{number:02d}" for number in range(12))
SIZE = (60, 40)


def name_of(image_id: str) -> str:
    """The class of an image's only object: by turns."""
    return ("cat", "dog")[int(image_id) % 2]


def draw(path: Path, seed: int) -> None:
    """An image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path)


def write_xml(path: Path, image_id: str) -> None:
    """The annotation of an image: an object from (10, 5) to (30, 25)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_annotation(path, (SIZE[1], SIZE[0], 3), [WrittenObject(name_of(image_id), (10, 5, 30, 25))])


def write_label(path: Path, image_id: str) -> None:
    """The same as a YOLO label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = ("cat", "dog").index(name_of(image_id))
    path.write_text(f"{label} {20 / 60:.6f} {15 / 40:.6f} {20 / 60:.6f} {20 / 40:.6f}\n")


def voc(folder: Path) -> None:
    """JPEGImages and Annotations, no lists."""
    for number, image_id in enumerate(IDS):
        draw(folder / "JPEGImages" / f"{image_id}.png", number)
        write_xml(folder / "Annotations" / f"{image_id}.xml", image_id)


def voc_with_lists(folder: Path) -> None:
    """The same with VOC's lists."""
    voc(folder)
    place = folder / "ImageSets" / "Main"
    place.mkdir(parents=True)
    for split, ids in (("train", IDS[:6]), ("val", IDS[6:9]), ("test", IDS[9:])):
        (place / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))


def xml_separate(folder: Path) -> None:
    """images and annotations/xmls, as in the Oxford-IIIT pets."""
    for number, image_id in enumerate(IDS):
        draw(folder / "images" / f"{image_id}.png", number)
        write_xml(folder / "annotations" / "xmls" / f"{image_id}.xml", image_id)


def xml_beside(folder: Path) -> None:
    """XML files beside the images, in two folders that are not named after splits."""
    for number, image_id in enumerate(IDS):
        place = folder / ("spring", "autumn")[number % 3 == 0]
        draw(place / f"{image_id}.png", number)
        write_xml(place / f"{image_id}.xml", image_id)


def xml_in_splits(folder: Path) -> None:
    """XML files beside the images in train/, valid/ and test/, as Roboflow exports them."""
    for number, image_id in enumerate(IDS):
        place = folder / ("train", "train", "valid", "test")[number // 3]
        draw(place / f"{image_id}.png", number)
        write_xml(place / f"{image_id}.xml", image_id)


def yolo(folder: Path) -> None:
    """images/, labels/ and classes.txt."""
    for number, image_id in enumerate(IDS):
        draw(folder / "images" / f"{image_id}.png", number)
        write_label(folder / "labels" / f"{image_id}.txt", image_id)
    (folder / "classes.txt").write_text("cat\ndog\n")


def yolo_beside(folder: Path) -> None:
    """Labels beside the images, and nothing that names the classes."""
    for number, image_id in enumerate(IDS):
        draw(folder / f"{image_id}.png", number)
        write_label(folder / f"{image_id}.txt", image_id)


def yolo_yaml(folder: Path) -> None:
    """images/train, images/val and a data.yaml that divides them."""
    for number, image_id in enumerate(IDS):
        split = "train" if number < 8 else "val"
        draw(folder / "images" / split / f"{image_id}.png", number)
        write_label(folder / "labels" / split / f"{image_id}.txt", image_id)
    (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\nval: images/val\n")


def yolo_foreign_yaml(folder: Path) -> None:
    """A data.yaml whose `path` is that of another machine."""
    yolo(folder)
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text("path: /content/data\nnames: [cat, dog]\ntrain: images\nval: images\n")


def coco(folder: Path) -> None:
    """One JSON file and pictures/."""
    for number, image_id in enumerate(IDS):
        draw(folder / "pictures" / f"{image_id}.png", number)
    images = [{"id": int(one) + 1, "file_name": f"{one}.png", "width": 60, "height": 40} for one in IDS]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    annotations = [
        {"id": int(one) + 1, "image_id": int(one) + 1, "category_id": 1 + int(one) % 2, "bbox": [10, 5, 20, 20]}
        for one in IDS
    ]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))


def images_alone(folder: Path) -> None:
    """No annotations."""
    for number, image_id in enumerate(IDS):
        draw(folder / f"{image_id}.png", number)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        voc, voc_with_lists, xml_separate, xml_beside, xml_in_splits, yolo, yolo_beside, yolo_yaml,
        yolo_foreign_yaml, coco,
    )
}  # fmt: skip
