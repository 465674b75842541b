"""The Semantic Boundaries Dataset: masks from .mat files, alone and beside VOC's own."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from stages.benchmark_classes import VOC_CLASSES
from stages.contract.errors import BadSetting, ChangedInput
from stages.datasets import BadAnnotation, BadDataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.class_masks import VOID
from stages.datasets.mask_files import write_indices
from stages.datasets.voc_writer import WrittenObject, write_annotation
from tests.stages.sbd_folders import (
    CAT,
    CLASS_MASK,
    DOG,
    OBJECT_MASK,
    PERSON,
    add_image,
    sbd_folder,
    structure,
    write_class_mask,
    write_object_mask,
)

SPLITS = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000001"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sbd_folder(tmp_path / "benchmark_RELEASE", SPLITS)


def opened(folder: Path, split: str = "train", **options: Any) -> Any:
    return open_detection(f"sbd:{folder}:{split}", work=folder / "work", options=options)


@pytest.mark.parametrize("compressed", [False, True])
def test_masks_are_those_of_the_structures(tmp_path: Path, compressed: bool) -> None:
    dataset = opened(sbd_folder(tmp_path, SPLITS, do_compression=compressed))
    assert dataset.name == "sbd-train"
    assert dataset.image_ids == tuple(SPLITS["train"])
    assert dataset.classes == VOC_CLASSES
    assert dataset.has_masks
    mask = dataset.class_mask("2008_000002")
    assert mask.dtype == np.uint8
    assert mask.tolist() == CLASS_MASK.tolist()
    labels, masks = dataset.object_masks("2008_000002")
    assert (labels.dtype, masks.dtype) == (np.int32, np.bool_)
    assert labels.tolist() == [CAT - 1, PERSON - 1, CAT - 1]
    assert masks.tolist() == [np.equal(OBJECT_MASK, number).tolist() for number in (1, 2, 3)]


def test_the_folder_may_be_the_one_with_the_images(folder: Path) -> None:
    assert opened(folder / "dataset", "val").image_ids == ("2008_000001",)
    (folder / "few.txt").write_text("2008_000003\n2008_000001\n")
    assert opened(folder, str(folder / "few.txt")).image_ids == ("2008_000003", "2008_000001")


def test_without_objects_they_are_components(folder: Path) -> None:
    shutil.rmtree(folder / "dataset/inst")
    add_image(folder / "dataset", "2008_000001", np.zeros((30, 40, 3), np.uint8))
    (folder / "dataset/inst").rmdir()
    mask = CLASS_MASK.repeat(10, axis=0).repeat(10, axis=1)
    write_class_mask(folder / "dataset/cls/2008_000001.mat", mask)
    labels, masks = opened(folder, "val").object_masks("2008_000001")
    assert labels.tolist() == [CAT - 1, PERSON - 1]
    assert masks[0].tolist() == (mask == CAT).tolist()


def test_boxes_are_those_around_the_masks(folder: Path) -> None:
    record = opened(folder).record("2008_000002")
    assert (record.width, record.height, record.exhaustive) == (4, 3, True)
    assert record.boxes.tolist() == [[0, 0, 2, 3], [2, 1, 4, 2], [2, 0, 3, 1]]
    assert record.labels.tolist() == [CAT - 1, PERSON - 1, CAT - 1]
    assert not record.difficult.any()


def test_classes_that_are_not_listed(folder: Path) -> None:
    dataset = opened(folder, classes=["person"], other_classes="leave-out")
    mask = dataset.class_mask("2008_000002")
    assert mask.tolist() == np.select([CLASS_MASK == 0, CLASS_MASK == PERSON], [0, 1], VOID).tolist()
    labels, masks = dataset.object_masks("2008_000002")
    assert labels.tolist() == [0]
    assert masks[0].tolist() == (OBJECT_MASK == 2).tolist()
    strict = opened(folder, classes=["person"])
    for read in (strict.class_mask, strict.object_masks):
        with pytest.raises(BadAnnotation, match=r"00002\.mat: has the index 8 \(cat\), which is none of the listed"):
            read("2008_000002")
    with pytest.raises(BadDataset, match="has no class 'persn', did you mean 'person'"):
        opened(folder, classes=["persn"])


def test_the_key_is_that_of_the_masks(folder: Path) -> None:
    before = opened(folder)
    keys = before.masks_key, before.annotations_key, before.images_key
    assert keys[0] != opened(folder, "val").masks_key
    write_object_mask(folder / "dataset/inst/2008_000003.mat", categories=(CAT, DOG, CAT))
    after = opened(folder)
    assert after.masks_key != keys[0]
    assert after.annotations_key != keys[1]
    assert after.images_key == keys[2]


def test_a_mask_that_changes_meanwhile(folder: Path) -> None:
    dataset = opened(folder)
    assert dataset.masks_key
    write_class_mask(folder / "dataset/cls/2008_000002.mat", np.zeros_like(CLASS_MASK))
    with pytest.raises(ChangedInput):
        dataset.class_mask("2008_000002")


def test_beside_vocs_own_images(folder: Path, tmp_path: Path) -> None:
    """Images that VOC's own sets have too are left out by their lists."""
    home = tmp_path / "VOC2011"
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (home / name).mkdir(parents=True)
    for image_id in ("2008_000003", "2008_000007"):
        shutil.copy(folder / "dataset/img/2008_000003.jpg", home / "JPEGImages" / f"{image_id}.jpg")
        write_annotation(home / "Annotations" / f"{image_id}.xml", (3, 4, 3), [WrittenObject("dog", (0, 0, 4, 3))])
        write_indices(home / "SegmentationClass" / f"{image_id}.png", np.full_like(CLASS_MASK, DOG))
    lists = {name: home / "ImageSets/Segmentation" / f"{name}.txt" for name in ("train", "val")}
    lists["train"].write_text("2008_000007\n2008_000003\n")
    lists["val"].write_text("2008_000001\n")
    sources = [f"voc:{home}:train", f"sbd:{folder}:train"]
    options: dict[str, Any] = {"masks": True}
    with pytest.raises(BadDataset, match=r"image '2008_000003' is in voc2011-train and in sbd-train"):
        open_detection(sources, work=tmp_path, options=options)
    both = open_detection(
        sources, work=tmp_path, options={**options, "excluded": [str(path) for path in lists.values()]}
    )
    assert both.image_ids == ("2008_000007", "2008_000003", "2008_000002")
    assert both.has_masks
    assert both.class_mask("2008_000003").tolist() == np.full_like(CLASS_MASK, DOG).tolist()
    assert both.object_masks("2008_000002")[0].tolist() == [CAT - 1, PERSON - 1, CAT - 1]
    assert len(both.masks_key) == 64


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((3, 5), np.uint8), "has 5 x 3 pixels but its image has 4 x 3; correct one of the two"),
        (np.full((3, 4), 21, np.uint8), "has the index 21, but classes have the indices 1 to 20"),
        (CLASS_MASK.astype(float), r"its field Segmentation is not uint8 \[H, W\]"),
        (CLASS_MASK[:, :, None].repeat(2, axis=2), "its field Segmentation is not uint8"),
    ],
)
def test_bad_masks_of_classes(folder: Path, mask: np.ndarray, message: str) -> None:
    write_class_mask(folder / "dataset/cls/2008_000001.mat", mask)
    with pytest.raises(BadAnnotation, match=rf"cls/2008_000001\.mat: {message}"):
        opened(folder, "val").class_mask("2008_000001")


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ((CAT, PERSON), "its object 3 has no class from 1 to 20 in Categories"),
        ((CAT, 0, CAT), "its object 2 has no class"),
        ((21, CAT, CAT), "its object 1 has no class"),
    ],
)
def test_objects_without_a_class(folder: Path, categories: tuple[int, ...], message: str) -> None:
    write_object_mask(folder / "dataset/inst/2008_000001.mat", categories=categories)
    with pytest.raises(BadAnnotation, match=rf"inst/2008_000001\.mat: {message}"):
        opened(folder, "val").object_masks("2008_000001")


def mat(**content: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: b"", "is not a complete .mat file"),
        (lambda good: good[: len(good) // 2], "is not a complete .mat file"),
        (lambda good: b"\x89HDF\r\n\x1a\n" + good, "is a version 7.3 .mat file; convert it"),
        (lambda good: mat(other=1), "has no structure called GTcls"),
        (lambda good: mat(GTcls=np.eye(3)), "has no structure called GTcls"),
        (lambda good: mat(GTcls=structure()), "its field Segmentation is not uint8"),
        (lambda good: mat(GTcls=structure(Segmentation="text")), "its field Segmentation is not uint8"),
    ],
)
def test_hostile_files(folder: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = folder / "dataset/cls/2008_000001.mat"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BadAnnotation, match=rf"cls/2008_000001\.mat: {message}"):
        opened(folder, "val").class_mask("2008_000001")


def test_objects_without_categories(folder: Path) -> None:
    path = folder / "dataset/inst/2008_000001.mat"
    scipy.io.savemat(path, {"GTinst": structure(Segmentation=OBJECT_MASK)})
    with pytest.raises(BadAnnotation, match="its structure GTinst has no numbers Categories"):
        opened(folder, "val").object_masks("2008_000001")


def test_a_check_reads_every_mask(folder: Path) -> None:
    report = check_dataset(opened(folder))
    assert (report.images, report.problems, report.notes) == (2, [], [])
    assert (report.classes["cat"].images, report.classes["cat"].objects) == (2, 4)
    (folder / "dataset/cls/2008_000003.mat").write_bytes(b"")
    (folder / "dataset/inst/2008_000002.mat").unlink()
    add_image(folder / "dataset", "2008_000001", np.zeros((5, 5, 3), np.uint8))
    problems = check_dataset(opened(folder, "val")).problems
    assert any("4 x 3" in problem and "5 x 5" in problem for problem in problems)
    first, second = check_dataset(opened(folder)).problems
    assert "inst/2008_000002.mat: no such mask" in first
    assert "cls/2008_000003.mat: is not a complete .mat file" in second


def test_sources_that_do_not_open(folder: Path) -> None:
    with pytest.raises(BadDataset, match=r"trian\.txt: no such image set, did you mean 'train'"):
        opened(folder, "trian")
    with pytest.raises(BadDataset, match="all its images are on the excluded lists"):
        opened(folder, excluded=[str(folder / "dataset/train.txt")])
    with pytest.raises(BadDataset, match=r"nothing\.txt: cannot be read"):
        opened(folder, excluded=["nothing.txt"])
    with pytest.raises(BadDataset, match="the environment variable NO_SUCH_FOLDER is not set"):
        opened(folder, excluded=["$NO_SUCH_FOLDER/val.txt"])
    with pytest.raises(BadSetting, match="unknown setting 'masks'"):
        opened(folder, masks=True)
    shutil.rmtree(folder / "dataset/cls")
    with pytest.raises(BadDataset, match="cls: no such folder; name SBD's folder 'dataset'"):
        opened(folder)
    with pytest.raises(BadDataset, match="img: no such folder"):
        opened(folder / "elsewhere")
