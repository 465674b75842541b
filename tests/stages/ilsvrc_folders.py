"""Small folders in the two layouts of ILSVRC's detection sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

SIZE = (60, 40)  # width, height
ACCORDION, BEAR, CAT = "n02672831", "n02131653", "n02121808"
NAMES = f"{ACCORDION} 1 accordion\n{BEAR} 3 polar bear\n{CAT} 2 domestic cat\n"
"""The classes' numbers are the devkit's order, which is neither that of the ids nor that of the lines."""

Objects = Sequence[tuple[str, tuple[int, int, int, int]]]
"""(WordNet id, one-based inclusive corners) of each object."""
BOX = (5, 1, 30, 20)

TRAIN: Mapping[str, Objects] = {
    f"{ACCORDION}_7": [(ACCORDION, BOX), (ACCORDION, (31, 1, 60, 40))],
    f"{ACCORDION}_8": [(ACCORDION, BOX), (CAT, BOX)],
    f"{CAT}_1": [(CAT, BOX)],
    f"{CAT}_2": [(CAT, BOX), (CAT, (1, 21, 60, 40)), (BEAR, BOX)],
}
VAL: Mapping[str, Objects | None] = {
    "ILSVRC2012_val_00000001": [(CAT, (0, 0, 59, 39)), (BEAR, BOX)],
    "ILSVRC2012_val_00000002": None,
    "ILSVRC2012_val_00000003": [(ACCORDION, BOX)],
    "ILSVRC2013_val_00000004": [(BEAR, BOX)],
}
"""None: without an XML file."""
TEST = ("ILSVRC2012_test_00000001",)


def xml_of(objects: Objects) -> str:
    """An annotation file; ILSVRC's have neither `difficult` nor a truthful file name."""
    written = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{box[0]}</xmin><xmax>{box[2]}</xmax><ymin>{box[1]}</ymin>"
        f"<ymax>{box[3]}</ymax></bndbox></object>"
        for wnid, box in objects
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
    return f"<annotation><folder>x</folder><filename>ILSVRC_0</filename>{size}{written}</annotation>"


def add_image(images: Path, annotations: Path | None, place: str, objects: Objects | None, mode: str = "RGB") -> None:
    """One image, whose colour is that of its name, and its annotation unless there is none."""
    shade = sum(Path(place).name.encode()) % 200
    (images / place).parent.mkdir(parents=True, exist_ok=True)
    colour = (shade, 50, 90) if mode == "RGB" else (shade, 50, 90, 0)
    Image.new(mode, SIZE, colour).save(images / f"{place}.JPEG", format="JPEG")
    if annotations is not None and objects is not None:
        (annotations / place).parent.mkdir(parents=True, exist_ok=True)
        (annotations / f"{place}.xml").write_text(xml_of(objects))


def wnid_of(image_id: str) -> str:
    return image_id.partition("_")[0]


def first_layout(folder: Path) -> Path:
    """As unpacked in 2013: ILSVRC2013_DET_train, ..., ILSVRC2013_devkit with lists "ID NUMBER"."""
    data = folder / "ILSVRC2013_devkit" / "data"
    (data / "det_lists").mkdir(parents=True)
    for image_id, objects in TRAIN.items():
        images, boxes = folder / "ILSVRC2013_DET_train", folder / "ILSVRC2013_DET_bbox_train"
        add_image(images, boxes, f"{wnid_of(image_id)}/{image_id}", objects)
    for number, (image_id, of_val) in enumerate(VAL.items()):
        mode = "CMYK" if number == 2 else "RGB"
        add_image(folder / "ILSVRC2013_DET_val", folder / "ILSVRC2013_DET_bbox_val", image_id, of_val, mode)
    for image_id in TEST:
        add_image(folder / "ILSVRC2013_DET_test", None, image_id, None)
    (data / "map_det.txt").write_text(NAMES)
    (data / "ILSVRC2013_det_validation_blacklist.txt").write_text(f"4 {BEAR}\n")
    for name, ids in (("val", [*VAL]), ("test", [*TEST])):
        lines = "".join(f"{image_id} {number}\n" for number, image_id in enumerate(ids, 1))
        (data / "det_lists" / f"{name}.txt").write_text(lines)
    for number, wnid in ((1, ACCORDION), (2, CAT), (3, BEAR)):
        ids = [image_id for image_id, objects in TRAIN.items() if any(name == wnid for name, _ in objects)]
        (data / "det_lists" / f"train_pos_{number}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    return folder


def later_layout(folder: Path) -> Path:
    """As distributed later: ILSVRC/{Annotations,Data,ImageSets}/DET, and lists with folders and numbers."""
    home = folder / "ILSVRC"
    images, annotations, lists = home / "Data/DET", home / "Annotations/DET", home / "ImageSets/DET"
    lists.mkdir(parents=True)
    places = {image_id: f"ILSVRC2013_train/{wnid_of(image_id)}/{image_id}" for image_id in TRAIN}
    for image_id, objects in TRAIN.items():
        add_image(images / "train", annotations / "train", places[image_id], objects)
    for image_id, of_val in VAL.items():
        add_image(images / "val", annotations / "val", image_id, of_val)
    for image_id in TEST:
        add_image(images / "test", None, image_id, None)
    for name, listed in (("train", [*places.values()]), ("val", [*VAL]), ("test", [*TEST])):
        lines = "".join(f"{image} {number}\n" for number, image in enumerate(listed, 1))
        (lists / f"{name}.txt").write_text(lines)
    (home / "devkit" / "data").mkdir(parents=True)
    (home / "devkit" / "data" / "map_det.txt").write_text(NAMES)
    return folder
