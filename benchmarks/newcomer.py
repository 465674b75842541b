"""Sixty photographs of PASCAL VOC 2007 as people have them, without VOC's lists: what `rcnn init` is measured on.

    python -m benchmarks.newcomer $RCNN_VOC photos --layout yolo

Of the ids in recipes/voc2007-subset/trainval.txt, in order, the first 20 photographs with a bicycle that is not
difficult, then the first 20 others with a car, then 20 with a dog. Layouts: yolo (images/, labels/ and classes.txt),
yaml (the same with a data.yaml), coco (images/ and one JSON file), xml (XML files beside the images), voc (JPEGImages/
and Annotations/), images (no annotations). YOLO's and COCO's files have the three classes alone; VOC's own XML has all.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from stages.datasets import Dataset, ImageRecord
from stages.datasets.voc import LEAVE_OUT, VocOptions, open_voc
from stages.eval.coco import write_coco_annotations

CLASSES = ("bicycle", "car", "dog")
PER_CLASS = 20
LIST = Path(__file__).parents[1] / "recipes" / "voc2007-subset" / "trainval.txt"


def chosen(dataset: Dataset) -> list[int]:
    """The positions of the photographs: for each class the first PER_CLASS that are not taken yet."""
    taken: list[int] = []
    for label in range(len(CLASSES)):
        shown = (place for place, image_id in enumerate(dataset.image_ids) if shows(dataset.record(image_id), label))
        taken += [place for place in shown if place not in taken][:PER_CLASS]
    return sorted(taken)


def shows(record: ImageRecord, label: int) -> bool:
    """Whether an image has an object of the class that is not difficult."""
    return bool((record.labels[~record.difficult] == label).any())


def yolo_lines(record: ImageRecord) -> str:
    """The label file of an image. The format has no mark for difficult objects: they are objects like any other."""
    lines = []
    for label, (x1, y1, x2, y2) in zip(record.labels.tolist(), record.boxes.tolist(), strict=True):
        centre = ((x1 + x2) / 2 / record.width, (y1 + y2) / 2 / record.height)
        sides = ((x2 - x1) / record.width, (y2 - y1) / record.height)
        lines.append(f"{label} " + " ".join(f"{number:.6f}" for number in (*centre, *sides)))
    return "".join(f"{line}\n" for line in lines)


def copy_images(dataset: Dataset, folder: Path) -> None:
    """Copies the photographs into the folder, which is made."""
    folder.mkdir(parents=True)
    for image_id in dataset.image_ids:
        shutil.copy(dataset.image_path(image_id), folder)


def copy_xml(dataset: Dataset, folder: Path) -> None:
    """Copies VOC's own annotations into the folder."""
    folder.mkdir(exist_ok=True)
    for image_id in dataset.image_ids:
        shutil.copy(dataset.annotation_path(image_id), folder)


def write_yolo(dataset: Dataset, folder: Path) -> None:
    """images/, labels/ and classes.txt."""
    copy_images(dataset, folder / "images")
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    for image_id in dataset.image_ids:
        (folder / "labels" / f"{image_id}.txt").write_text(yolo_lines(dataset.record(image_id)))


def write_yaml(dataset: Dataset, folder: Path) -> None:
    """As `write_yolo`, with a data.yaml that does not divide the images."""
    write_yolo(dataset, folder)
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text(f"names: [{', '.join(CLASSES)}]\ntrain: images\nval: images\n")


def write_coco(dataset: Dataset, folder: Path) -> None:
    """images/ and annotations.json."""
    copy_images(dataset, folder / "images")
    write_coco_annotations(dataset, folder / "annotations.json")


def write_xml(dataset: Dataset, folder: Path) -> None:
    """Each XML file beside its image."""
    copy_images(dataset, folder)
    copy_xml(dataset, folder)


def write_voc(dataset: Dataset, folder: Path) -> None:
    """JPEGImages/ and Annotations/, without lists."""
    copy_images(dataset, folder / "JPEGImages")
    copy_xml(dataset, folder / "Annotations")


LAYOUTS: dict[str, Callable[[Dataset, Path], None]] = {
    "yolo": write_yolo,
    "yaml": write_yaml,
    "coco": write_coco,
    "xml": write_xml,
    "voc": write_voc,
    "images": copy_images,
}


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path, help="the folder VOC2007")
    parser.add_argument("folder", type=Path, help="the folder to write, which must not exist")
    parser.add_argument("--layout", choices=LAYOUTS, default="yolo")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        options = VocOptions(classes=CLASSES, other_classes=LEAVE_OUT)
        every = open_voc(arguments.voc, str(LIST), work=Path(work), options=options)
        LAYOUTS[arguments.layout](every.subset(chosen(every)), arguments.folder)


if __name__ == "__main__":
    main()
