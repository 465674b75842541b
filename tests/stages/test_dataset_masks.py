"""Masks of datasets: what is read from files of indices, what of it is an object, and what decides their key."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.contract.errors import ChangedInput
from stages.datasets import BadAnnotation, BadDataset, Dataset, open_dataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.class_masks import VOID, components, objects_of
from stages.datasets.mask_files import read_indices, voc_palette, write_indices
from stages.datasets.voc_writer import WrittenObject, write_annotation

CLASSES = ("cat", "dog", "owl")
MASK = np.array([[0, 0, 255, 2], [1, 0, 255, 2], [1, 0, 0, 0]], np.uint8)
Built = Callable[..., Dataset]


@pytest.fixture
def built(tmp_path: Path) -> Built:
    """built(masks, objects=None, **options): a folder in VOC's layout with images a, b, ... that have these masks."""

    def build(
        masks: Sequence[np.ndarray], objects: Sequence[np.ndarray] | None = None, home: str = "pets", **options: Any
    ) -> Dataset:
        folder = tmp_path / home
        for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation", "SegmentationClass"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        ids = [chr(ord("a") + place) for place in range(len(masks))]
        (folder / "ImageSets/Segmentation/train.txt").write_text("\n".join(ids))
        for place, (image_id, mask) in enumerate(zip(ids, masks, strict=True)):
            Image.new("RGB", mask.shape[::-1], "white").save(folder / "JPEGImages" / f"{image_id}.png")
            write_annotation(
                folder / "Annotations" / f"{image_id}.xml", (*mask.shape, 3), [WrittenObject("cat", (0, 0, 1, 1))]
            )
            write_indices(folder / "SegmentationClass" / f"{image_id}.png", mask)
            if objects is not None:
                (folder / "SegmentationObject").mkdir(exist_ok=True)
                write_indices(folder / "SegmentationObject" / f"{image_id}.png", objects[place])
        given = {"masks": True, "classes": list(CLASSES)} | options
        given = {name: value for name, value in given.items() if value is not None}
        return open_detection(f"voc:{folder}:train", work=tmp_path / "work", options=given)

    return build


def mask_file(dataset: Dataset, image_id: str = "a") -> Path:
    return dataset.mask_path(image_id)


# Classes


def test_indices_count_the_listed_classes(built: Built) -> None:
    dataset = built([MASK])
    assert dataset.has_masks
    mask = dataset.class_mask("a")
    assert mask.dtype == np.uint8
    assert mask.tolist() == MASK.tolist()


def test_in_a_devkit_folder_they_count_vocs_classes_whichever_are_listed(built: Built) -> None:
    cat, dog, person = 8, 12, 15
    indices = np.array([[0, cat, dog], [255, person, person]], np.uint8)
    dataset = built([indices], home="VOC2007", classes=["dog", "cat"], other_classes="leave-out")
    assert dataset.class_mask("a").tolist() == [[0, 2, 1], [VOID, VOID, VOID]]
    with pytest.raises(BadAnnotation, match=r"a\.png: has the index 15 \(person\), which is none of the listed"):
        built([indices], home="VOC2007", classes=["dog", "cat"]).class_mask("a")


def test_elsewhere_the_classes_must_be_listed(built: Built) -> None:
    with pytest.raises(BadDataset, match="list the classes in the order of these indices"):
        built([MASK], classes=None).class_mask("a")


def test_an_index_of_no_class_is_an_error(built: Built) -> None:
    with pytest.raises(BadAnnotation, match=r"a\.png: has the index 4, but classes have the indices 1 to 3"):
        built([np.where(MASK == 2, 4, MASK).astype(np.uint8)]).class_mask("a")


def test_a_dataset_opened_without_masks_has_none(built: Built, tmp_path: Path) -> None:
    folder = built([MASK]).folder
    (folder / "ImageSets/Main").mkdir()
    (folder / "ImageSets/Main/train.txt").write_text("a")
    plain = open_detection(f"voc:{folder}:train", work=tmp_path / "work")
    assert not plain.has_masks
    for ask in (lambda: plain.class_mask("a"), lambda: plain.object_masks("a"), lambda: plain.masks_key):
        with pytest.raises(BadDataset, match="opened without masks; set masks = true"):
            ask()


def test_splits_are_those_for_segmentation(built: Built, tmp_path: Path) -> None:
    folder = built([MASK, MASK]).folder
    with pytest.raises(BadDataset, match=r"ImageSets/Segmentation/val\.txt: no such image set"):
        open_detection(f"voc:{folder}:val", work=tmp_path, options={"masks": True})


def test_without_the_folder_of_masks_the_set_does_not_open(built: Built, tmp_path: Path) -> None:
    folder = built([MASK]).folder
    (folder / "SegmentationClass").rename(folder / "elsewhere")
    with pytest.raises(BadDataset, match="SegmentationClass: no such folder; masks = true needs it"):
        open_detection(f"voc:{folder}:train", work=tmp_path, options={"masks": True})


# Objects


def enlarged(mask: list[list[int]]) -> np.ndarray:
    """A mask whose pixels are 10 x 10."""
    return np.array(mask, np.uint8).repeat(10, axis=0).repeat(10, axis=1)


def test_components_touch_at_corners_too() -> None:
    labels, masks = components(enlarged([[1, 0, 0, 2], [0, 1, 0, 255], [0, 0, 0, 2], [1, 0, 0, 0]]))
    assert labels.dtype == np.int32
    assert labels.tolist() == [0, 0, 1, 1]
    assert masks.dtype == np.bool_
    assert [np.argwhere(mask[::10, ::10]).tolist() for mask in masks] == [
        [[0, 0], [1, 1]],
        [[3, 0]],
        [[0, 3]],
        [[2, 3]],
    ]
    assert masks.sum(axis=(1, 2)).tolist() == [200, 100, 100, 100]


def test_specks_are_no_objects() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[:9, :11] = 1  # 99 pixels
    mask[20:, :10] = 1
    mask[20, 20] = 2
    labels, masks = components(mask)
    assert labels.tolist() == [0]
    assert np.argwhere(masks[0])[0].tolist() == [20, 0]


def test_without_a_folder_of_objects_they_are_components(built: Built) -> None:
    mask = enlarged(MASK.tolist())
    labels, masks = built([mask]).object_masks("a")
    assert labels.tolist() == [0, 1]
    assert masks.shape == (2, 30, 40)
    assert masks[0].tolist() == (mask == 1).tolist()


def test_objects_of_a_folder_may_be_in_pieces_and_may_touch(built: Built) -> None:
    classes = np.array([[1, 1, 1, 0], [255, 1, 1, 2]], np.uint8)
    objects = np.array([[1, 2, 2, 0], [255, 1, 2, 7]], np.uint8)
    labels, masks = built([classes], [objects]).object_masks("a")
    assert labels.tolist() == [0, 0, 1]
    assert [mask.tolist() for mask in masks] == [(objects == number).tolist() for number in (1, 2, 7)]


def test_an_object_has_the_class_of_most_of_its_pixels() -> None:
    classes = np.array([[1, 2, 2, 0, 0, 0, 255, 255]], np.uint8)
    objects = np.array([[3, 3, 3, 3, 3, 3, 4, 5]], np.uint8)
    labels, masks = objects_of(classes, objects)
    assert labels.tolist() == [1]
    assert masks.sum() == 6


def test_an_image_may_have_no_object(built: Built) -> None:
    labels, masks = built([np.zeros((3, 4), np.uint8)]).object_masks("a")
    assert labels.shape == (0,)
    assert masks.shape == (0, 3, 4)


# Files


def encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_may_have_any_depth(tmp_path: Path, bits: int) -> None:
    indices = (np.arange(12, dtype=np.uint8) % min(2**bits, 12)).reshape(3, 4)
    image = Image.fromarray(indices, "L")
    image.putpalette([200] * 3 * 2**bits)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image, format="PNG", bits=bits))
    assert path.read_bytes()[24] == bits
    assert read_indices(path, (4, 3)).tolist() == indices.tolist()


def test_grey_values_of_eight_bits_are_indices(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(MASK, "L"), format="PNG"))
    assert read_indices(path, (4, 3)).tolist() == MASK.tolist()


BAD = [
    (encoded(Image.new("RGB", (4, 3)), format="PNG"), "has colours, not indices"),
    (encoded(Image.new("1", (4, 3)), format="PNG"), "has grey values of 1 bit, not indices"),
    (encoded(Image.new("I;16", (4, 3)), format="PNG"), "has grey values of 16 bits, not indices"),
    (encoded(Image.new("L", (4, 3)), format="JPEG"), "is not a PNG file"),
    (b"", "is not a PNG file"),
    (encoded(Image.new("L", (3, 4)), format="PNG"), "has 3 x 4 pixels but its image has 4 x 3"),
    (encoded(Image.new("L", (60_000, 60_000)), format="PNG")[:200], "has 60000 x 60000 pixels"),
    (encoded(Image.fromarray(MASK, "L"), format="PNG")[:45], "is damaged"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_what_is_no_mask_of_the_image_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(BadAnnotation, match=said):
        read_indices(path, (4, 3))


def test_a_missing_mask_is_said(built: Built) -> None:
    dataset = built([MASK, MASK])
    mask_file(dataset, "b").unlink()
    for ask in (lambda: dataset.class_mask("b"), lambda: dataset.masks_key):
        with pytest.raises(BadAnnotation, match=r"b\.png: no such mask; add it"):
            ask()


def test_vocs_colours() -> None:
    palette = voc_palette()
    assert palette[[0, 1, 2, 3, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]
    ]  # fmt: skip


# Keys


def test_the_key_is_of_masks_and_of_what_their_indices_mean(built: Built) -> None:
    key = built([MASK]).masks_key
    assert built([MASK]).masks_key == key
    assert built([MASK], classes=["dog", "cat", "owl"]).masks_key != key
    assert built([np.where(MASK == 2, 1, MASK).astype(np.uint8)]).masks_key != key
    assert built([MASK], [MASK]).masks_key != key


def test_masks_and_annotations_have_keys_of_their_own(built: Built) -> None:
    dataset = built([MASK, MASK])
    keys = dataset.masks_key, dataset.annotations_key, dataset.mask_digest("a"), dataset.mask_digest("b")
    write_indices(mask_file(dataset, "b"), np.zeros_like(MASK))
    again = open_detection(f"voc:{dataset.folder}:train", work=dataset._work, options=vars(dataset.options))
    assert again.masks_key != keys[0]
    assert again.annotations_key == keys[1]
    assert again.mask_digest("a") == keys[2]
    assert again.mask_digest("b") != keys[3]
    with pytest.raises(ChangedInput):
        dataset.class_mask("b")


def test_a_subset_has_a_key_of_its_own(built: Built) -> None:
    dataset = built([MASK, MASK])
    assert dataset.subset([0]).masks_key not in ("", dataset.masks_key)
    assert dataset.subset([1]).class_mask("b").tolist() == MASK.tolist()


# rcnn data check


def test_a_check_reads_masks_and_compares_their_classes_with_the_objects(built: Built) -> None:
    cats = np.where(MASK == 2, 0, MASK).astype(np.uint8)
    dataset = built([cats, MASK, np.where(MASK == 2, 9, MASK).astype(np.uint8), cats, cats], [cats] * 5)
    mask_file(dataset, "d").write_bytes(b"")
    dataset.mask_path("e", "SegmentationObject").unlink()
    folder = dataset.folder
    report = check_dataset(dataset)
    assert report.problems == [
        f"{folder}/SegmentationClass/b.png: shows dog, but b.xml has no object of that class; correct one of the two",
        f"{folder}/SegmentationClass/c.png: has the index 9, but classes have the indices 1 to 3, the background 0 and "
        "void 255; correct the mask, or list all classes",
        f"{folder}/SegmentationClass/d.png: is not a PNG file; write masks as PNG, with a palette",
        f"{folder}/SegmentationObject/e.png: no such mask; add it, or take its id out of the image set",
    ]
    assert report.problem_count == 4


def test_a_check_of_a_combined_dataset_names_the_files_of_its_parts(built: Built, tmp_path: Path) -> None:
    first, second = built([MASK], home="first"), built([MASK], home="second")
    sources = [f"voc:{dataset.folder}:train" for dataset in (first, second)]
    options = {"masks": True, "prefix_ids": True, "classes": list(CLASSES)}
    combined = open_detection(sources, work=tmp_path / "work", options=options)
    assert [problem.partition(":")[0] for problem in check_dataset(combined).problems] == [
        str(mask_file(first)), str(mask_file(second)),
    ]  # fmt: skip


# Several sources, and generated sets


def test_a_combined_dataset_has_masks_if_all_its_parts_have(built: Built, tmp_path: Path) -> None:
    large = enlarged(MASK.tolist())
    first, second = built([large], home="first"), built([MASK, MASK], home="second")
    work, sources = tmp_path / "work", [f"voc:{first.folder}:train", f"voc:{second.folder}:train"]
    options = {"masks": True, "prefix_ids": True, "classes": list(CLASSES)}
    combined = open_detection(sources, work=work, options=options)
    assert combined.has_masks
    assert combined.class_mask("second-train/b").tolist() == MASK.tolist()
    assert combined.object_masks("first-train/a")[0].tolist() == [0, 1]
    assert combined.masks_key != combined.subset([0]).masks_key
    yolo = tmp_path / "yolo"
    for name in ("images", "labels"):
        (yolo / name).mkdir(parents=True)
    (yolo / "labels/y.txt").write_text("")
    Image.new("RGB", (4, 3)).save(yolo / "images/y.png")
    (yolo / "data.yaml").write_text("train: images\nnames: [cat, dog, owl]\n")
    partly = open_detection([sources[0], f"yolo:{yolo / 'data.yaml'}:train"], work=work, options=options)
    assert not partly.has_masks
    with pytest.raises(BadDataset, match="without masks"):
        partly.class_mask("first-train/a")


def test_the_classes_of_parts_become_those_of_the_whole(built: Built, tmp_path: Path) -> None:
    voc = built([enlarged([[8, 12, 255, 0]])], home="VOC2007", classes=None)
    own = built([np.array([[1, 2, 3, 0]], np.uint8)], home="own", classes=["dog", "zebra", "cat"])
    from stages.datasets import CombinedDataset

    combined = CombinedDataset([own, voc], prefix_ids=True)
    assert combined.classes[:3] == ("dog", "zebra", "cat")
    assert combined.class_mask("voc2007-train/a")[0, ::10].tolist() == [3, 1, VOID, 0]
    assert combined.object_masks("voc2007-train/a")[0].tolist() == [2, 0]


def test_generated_scenes_have_masks_and_are_the_same_images(tmp_path: Path) -> None:
    plain = open_detection("shapes:test", work=tmp_path, options={"images": 6})
    masked = open_detection("shapes:test", work=tmp_path, options={"images": 6, "masks": True})
    assert isinstance(open_dataset("shapes:test", work=tmp_path, options={"images": 6}), Dataset)
    assert masked.folder != plain.folder
    assert (masked.images_key, masked.annotations_key) == (plain.images_key, plain.annotations_key)
    for image_id in masked.image_ids:
        record = masked.record(image_id)
        mask, (labels, masks) = masked.class_mask(image_id), masked.object_masks(image_id)
        assert labels.tolist() == record.labels.tolist()
        for box, label, of_object in zip(record.boxes, labels, masks, strict=True):
            rows, columns = np.nonzero(of_object)
            assert (mask[of_object] == label + 1).all()
            x1, y1, x2, y2 = box
            assert x1 <= columns.min() <= columns.max() < x2
            assert y1 <= rows.min() <= rows.max() < y2
        assert ((mask != 0) & (mask != VOID)).tolist() == masks.any(axis=0).tolist()
        assert (mask == VOID).any()
        assert (mask == VOID).mean() < 0.1
