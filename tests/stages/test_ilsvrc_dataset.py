"""ILSVRC's detection sets: both layouts, names, blacklist, what of train is drawn, and what its images may not give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.contract.errors import BadImage, BadSetting
from stages.datasets import BadAnnotation, BadDataset, Dataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.ilsvrc import IMAGES, OBJECTS, draw
from stages.datasets.records import record_digest
from stages.datasets.synsets import read_synsets
from tests.stages.ilsvrc_folders import ACCORDION, BEAR, BOX, CAT, SIZE, TRAIN, VAL, first_layout, later_layout, xml_of

CLASSES = ("accordion", "domestic cat", "polar bear")
LAYOUTS = pytest.mark.parametrize("layout", [first_layout, later_layout])
KEPT = tuple(VAL)[:3]


def opened(folder: Path, split: str, **options: object) -> Dataset:
    return open_detection(f"ilsvrc:{folder}:{split}", work=folder / "work", options=options)


def objects_of(dataset: Dataset) -> Counter[str]:
    """The number of objects of each class."""
    labels = [label for image_id in dataset.image_ids for label in dataset.record(image_id).labels]
    return Counter(dataset.classes[label] for label in labels)


@LAYOUTS
def test_train_and_val_in_both_layouts(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = layout(tmp_path)
    val = opened(folder, "val", use_blacklist=False)
    assert val.image_ids == tuple(VAL)
    assert val.classes == CLASSES
    record = val.record("ILSVRC2013_val_00000004")
    np.testing.assert_array_equal(record.boxes, [[4, 0, 30, 20]])
    assert (record.width, record.height) == SIZE
    assert [val.classes[label] for label in record.labels] == ["polar bear"]
    train = opened(folder, "train")
    assert sorted(train.image_ids) == sorted(TRAIN)
    assert train.classes == CLASSES
    assert objects_of(train) == {"accordion": 3, "domestic cat": 4, "polar bear": 1}
    for dataset in (train, val):
        assert all(dataset.read_image(image_id).shape == (SIZE[1], SIZE[0], 3) for image_id in dataset.image_ids)
        assert check_dataset(dataset).problems == []


def test_the_layouts_give_one_key(tmp_path: Path) -> None:
    """The files' content is the same, and an id does not say where a file is: both share their caches."""
    first, later = first_layout(tmp_path / "first"), later_layout(tmp_path / "later")
    ids = opened(first, "train").image_ids
    listed = tmp_path / "train_all.txt"
    listed.write_text("\n".join(ids))
    assert opened(first, str(listed)).key == opened(later, str(listed)).key


def test_corners_at_zero_are_the_first_pixel(tmp_path: Path) -> None:
    record = opened(first_layout(tmp_path), "val").record("ILSVRC2012_val_00000001")
    np.testing.assert_array_equal(record.boxes, [[0, 0, 59, 39], [4, 0, 30, 20]])


def test_a_missing_annotation_is_an_image_without_objects_and_said(tmp_path: Path) -> None:
    val = opened(first_layout(tmp_path), "val")
    assert len(val.record("ILSVRC2012_val_00000002").boxes) == 0
    assert "1 image has no annotation file and counts as an image without objects" in " ".join(val.notes())


def test_a_folder_of_annotations_that_was_never_unpacked_is_an_error(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    (folder / "ILSVRC2013_DET_bbox_val").rename(folder / "elsewhere")
    for unpacked in (False, True):
        if unpacked:
            (folder / "ILSVRC2013_DET_bbox_val").mkdir()
        with pytest.raises(BadDataset, match="has no annotations of val; unpack them"):
            opened(folder, "val")
    (folder / "ILSVRC2013_DET_train").rename(folder / "images")
    with pytest.raises(BadDataset, match="has no folder with the images of train"):
        opened(folder, "train")


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    (folder / "ILSVRC2013_DET_train" / ACCORDION / f"{ACCORDION}_7.JPEG").unlink()
    with pytest.raises(BadImage, match=rf"ILSVRC2013_DET_train/{ACCORDION}/{ACCORDION}_7\.JPEG: does not exist"):
        opened(folder, "train").read_image(f"{ACCORDION}_7")


def test_a_cmyk_jpeg_is_read(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    with Image.open(folder / "ILSVRC2013_DET_val" / "ILSVRC2012_val_00000003.JPEG") as image:
        assert image.mode == "CMYK"
    assert opened(folder, "val").read_image("ILSVRC2012_val_00000003").shape == (40, 60, 3)


# Blacklist


def test_images_on_the_blacklist_are_left_out(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    assert opened(folder, "val").image_ids == KEPT
    assert opened(folder, "val", use_blacklist=False).image_ids == tuple(VAL)
    own = folder / "mine.txt"
    own.write_text(f"1 {CAT}\n1 {BEAR}\n3 {ACCORDION}\n")
    assert opened(folder, "val", blacklist=str(own)).image_ids == (KEPT[1], "ILSVRC2013_val_00000004")
    half = folder / "val1.txt"
    half.write_text("ILSVRC2013_val_00000004 1\nILSVRC2012_val_00000002 2\n")
    assert opened(folder, "val1").image_ids == ("ILSVRC2012_val_00000002",)  # numbers are val.txt's


def test_a_blacklist_that_does_not_fit(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    own = folder / "mine.txt"
    for number in (5, 0):
        own.write_text(f"{number} {CAT}\n")
        with pytest.raises(
            BadDataset,
            match=rf"mine\.txt: names image {number}, and .*val\.txt has the images 1 to 4; use the lists of",
        ):
            opened(folder, "val", blacklist=str(own))
    own.write_text(f"{CAT}\n")
    with pytest.raises(BadDataset, match=r"mine\.txt: line 1, .*does not begin with an image's number"):
        opened(folder, "val", blacklist=str(own))


# Names


def test_names_from_a_file(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    names = tmp_path / "names.txt"
    names.write_text(f"1\t{CAT}\tcat\n2\t{BEAR}\tbear\n3\t{ACCORDION}\taccordion\n")
    assert opened(folder, "val", names=str(names)).classes == ("cat", "bear", "accordion")
    names.write_text(f"{BEAR} bear\n{CAT} cat\n{ACCORDION} accordion\n")
    assert opened(folder, "val", names=str(names)).classes == ("bear", "cat", "accordion")
    with_names, with_others = opened(folder, "val"), opened(folder, "val", names=str(names))
    assert with_names.annotations_key != with_others.annotations_key


def test_names_from_the_devkits_mat_file(tmp_path: Path) -> None:
    """Written by SciPy, compressed as MATLAB does and not; what follows the two hundred classes is not read."""
    from scipy.io import savemat

    folder = first_layout(tmp_path)
    data = folder / "ILSVRC2013_devkit" / "data"
    (data / "map_det.txt").unlink()
    entries = [(ACCORDION, "accordion"), (CAT, "domestic cat"), (BEAR, "polar bear")]
    rest = [(f"n{number:08}", f"class {number}") for number in range(4, 210)]
    names = [f"ILSVRC{year}_DET_ID" for year in (2013, 2014)]
    for compressed, field in zip((True, False), names, strict=True):
        synsets = np.zeros((210 - 1,), dtype=[(field, "O"), ("WNID", "O"), ("name", "O"), ("description", "O")])
        for place, (wnid, name) in enumerate([*entries, *rest]):
            synsets[place] = (float(place + 1), wnid, name, "")
        savemat(data / "meta_det.mat", {"synsets": synsets}, do_compression=compressed)
        dataset = opened(folder, "val")
        assert dataset.classes[:3] == CLASSES
        assert len(dataset.classes) == 200
    for content in (b"", (data / "meta_det.mat").read_bytes()[:3000]):
        (data / "meta_det.mat").write_bytes(content)
        with pytest.raises(BadDataset, match=r"meta_det\.mat: does not name classes"):
            opened(folder, "val")


def test_without_names_the_ids_of_train_and_val_are_the_classes(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    (folder / "ILSVRC2013_devkit" / "data" / "map_det.txt").unlink()
    assert opened(folder, "val").classes == opened(folder, "test").classes == (CAT, BEAR, ACCORDION)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accordion 1\n", "line 1, 'accordion 1', does not name a class"),
        (f"{CAT} 1 cat\n{CAT} 2 bear\n", f"'{CAT}' is on 2 lines; write each class once"),
        (f"{CAT} 1 cat\n{BEAR} 1 bear\n", "1 is on 2 lines"),
        ("\n", "names no classes"),
    ],
)
def test_a_bad_file_of_names(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(BadDataset, match=message):
        read_synsets(tmp_path / "names.txt")


def test_an_object_without_a_name(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    names = tmp_path / "names.txt"
    names.write_text(f"{BEAR} bear\n{CAT} cat\n")
    with pytest.raises(BadAnnotation, match=rf"\({ACCORDION}\) has none of the listed classes"):
        opened(folder, "val", names=str(names)).record("ILSVRC2012_val_00000003")
    assert len(opened(folder, "val", names=str(names), other_classes="leave-out").record(KEPT[2]).boxes) == 0
    assert opened(folder, "val", classes=["polar bear"], other_classes="leave-out").classes == ("polar bear",)
    with pytest.raises(BadDataset, match="has no class 'polar bare', did you mean 'polar bear'"):
        opened(folder, "val", classes=["polar bare"])


# Lists


def test_train_is_what_the_lists_of_its_classes_have_together(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    assert opened(folder, "train").image_ids == tuple(TRAIN)
    assert opened(folder, "train_pos_3").image_ids == (f"{CAT}_2",)


def test_a_list_anywhere_of_images_of_both(tmp_path: Path) -> None:
    folder = later_layout(tmp_path)
    (tmp_path / "some.txt").write_text(f"{CAT}_1\nILSVRC2012_val_00000003\n")
    mixed = opened(folder, str(tmp_path / "some.txt"))
    assert mixed.image_ids == (f"{CAT}_1", "ILSVRC2012_val_00000003")
    assert mixed.images_not_exhaustive == {f"{CAT}_1"}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("val3", "has no list of the images of 'val3', did you mean 'val'"),
        ("odd", "'picture', listed in 'odd', is not named like an image of train, val or test"),
        ("val_twice", "'a/x' and 'b/x' in 'val_twice' are images of one name"),
        ("val_empty", "lists no images"),
    ],
)
def test_a_bad_list(split: str, message: str, tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    (folder / "odd.txt").write_text("picture\n")
    (folder / "val_twice.txt").write_text("a/x\nb/x\n")
    (folder / "val_empty.txt").write_text("\n")
    with pytest.raises(BadDataset, match=message):
        opened(folder, split)


# What is annotated


def test_annotations_that_lie_in_other_folders_than_their_images_are_found(tmp_path: Path) -> None:
    """Images in a folder of their class, annotations all in one: an image without one would count as empty."""
    folder = first_layout(tmp_path)
    annotations = folder / "ILSVRC2013_DET_bbox_train"
    for path in list(annotations.rglob("*.xml")):
        path.rename(annotations / path.name)
    assert objects_of(opened(folder, "train")) == dict(zip(CLASSES, (3, 4, 1), strict=True))


def test_val_is_exhaustive_and_train_is_not(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    train, val = opened(folder, "train"), opened(folder, "val")
    assert not val.images_not_exhaustive
    assert train.images_not_exhaustive == set(TRAIN)
    assert val.record(KEPT[0]).exhaustive
    assert not train.record(f"{CAT}_1").exhaustive
    said = opened(folder, "train", exhaustive=True)
    assert not said.images_not_exhaustive
    assert said.annotations_key != train.annotations_key
    assert said.images_key != train.images_key  # as propose may leave such images out
    assert said.image_digest(f"{CAT}_1") != train.image_digest(f"{CAT}_1")
    assert said.pixel_digests == train.pixel_digests  # the same files, as the search for copies compares
    assert said.image_digests == said.pixel_digests
    assert record_digest(said.record(f"{CAT}_1")) != record_digest(train.record(f"{CAT}_1"))
    assert said.annotation_digest(f"{CAT}_1") != train.annotation_digest(f"{CAT}_1")
    assert opened(folder, "test").images_not_exhaustive  # it has no annotations at all


def test_several_sources_keep_what_each_is(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    sources = [f"ilsvrc:{folder}:val", f"ilsvrc:{folder}:train"]
    both = open_detection(sources, work=tmp_path / "work", options={"per_class": 1})
    assert both.images_not_exhaustive == set(both.image_ids) - set(KEPT)
    assert len(both.images_not_exhaustive) in (2, 3)
    assert both.record(KEPT[0]).exhaustive
    partly = both.subset([both.image_ids.index(image_id) for image_id in sorted(both.images_not_exhaustive)])
    assert partly.images_not_exhaustive == set(partly.image_ids)
    assert objects_of(partly) == dict.fromkeys(CLASSES, 1)


# trainN


def test_so_many_objects_of_each_class(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    for per_class, expected in ((1, (1, 1, 1)), (2, (2, 2, 1)), (100, (3, 4, 1))):
        train = opened(folder, "train", per_class=per_class)
        assert objects_of(train) == dict(zip(CLASSES, expected, strict=True))
        assert check_dataset(train).problems == []
    assert {opened(folder, "train", per_class=1, seed=seed).annotations_key for seed in range(8)} > {
        opened(folder, "train", per_class=1).annotations_key
    }


def test_so_many_images_of_each_class_give_all_their_objects(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    train = opened(folder, "train", per_class=1, per_class_of=IMAGES)
    assert f"{CAT}_2" in train.image_ids  # the only one with a polar bear
    assert len(train.record(f"{CAT}_2").boxes) == 3


def test_an_annotation_changed_elsewhere_changes_what_is_drawn_of_an_image(tmp_path: Path) -> None:
    """The images' own digests say which of their objects are used, so that no cached part is taken for another."""
    folder = first_layout(tmp_path)
    by_seed: dict[str, set[bytes]] = {}
    for seed in range(20):
        train = opened(folder, "train", per_class=1, seed=seed)
        if f"{CAT}_2" in train.image_ids:
            boxes = train.record(f"{CAT}_2").boxes.tobytes()
            by_seed.setdefault(train.annotation_digest(f"{CAT}_2"), set()).add(boxes)
    assert len(by_seed) > 1
    assert all(len(boxes) == 1 for boxes in by_seed.values())


def test_per_class_of_an_exhaustive_set_is_refused(tmp_path: Path) -> None:
    folder = first_layout(tmp_path)
    with pytest.raises(BadSetting, match="per_class = 5 is for images that are not annotated exhaustively"):
        opened(folder, "val", per_class=5)


def test_drawing_by_hand() -> None:
    table = {"a": [[0, 0], [2, 1]], "b": [[0, 0]], "c": [[1, 1], [3, 1]]}
    assert draw(table, 2, 9, OBJECTS, 0) == {"a": (0, 2), "b": (0,), "c": (1, 3)}
    one = draw(table, 2, 1, OBJECTS, 0)
    assert sum(len(places) for places in one.values()) == 2
    whole = draw(table, 2, 1, IMAGES, 0)
    assert all(places == {"a": (0, 2), "b": (0,), "c": (1, 3)}[image_id] for image_id, places in whole.items())


def test_the_choice_of_a_class_does_not_depend_on_another() -> None:
    table = {f"im{number}": [[0, number % 2]] for number in range(40)}
    fewer = {image_id: objects for image_id, objects in table.items() if objects[0][1] == 0 or image_id < "im2"}
    chosen = {image_id for image_id in draw(table, 2, 5, OBJECTS, 3) if table[image_id][0][1] == 0}
    assert chosen == {image_id for image_id in draw(fewer, 2, 5, OBJECTS, 3) if fewer[image_id][0][1] == 0}


def test_xml_of_the_trap(tmp_path: Path) -> None:
    """A box that begins and ends at 0 is no box: the file is named."""
    folder = first_layout(tmp_path)
    path = folder / "ILSVRC2013_DET_bbox_val" / "ILSVRC2012_val_00000003.xml"
    path.write_text(xml_of([(ACCORDION, (0, 0, 0, 9)), (BEAR, BOX)]))
    with pytest.raises(BadAnnotation, match=r"00000003\.xml: object 1 \(accordion\) has the box \(0, 1\) to \(0, 9\)"):
        opened(folder, "val").record("ILSVRC2012_val_00000003")
