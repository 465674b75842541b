"""VOC's layout, class folders, sources, and the keys that name a dataset's content."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.contract.errors import BadImage, BadSetting, ChangedInput
from stages.datasets import (
    VOC_CLASSES,
    BadAnnotation,
    BadDataset,
    ClassificationDataset,
    Dataset,
    open_classification,
    open_dataset,
    open_detection,
)
from stages.datasets.annotations import read_annotation
from stages.datasets.check import check_dataset
from stages.datasets.digests import memory_of
from stages.datasets.records import record_digest
from stages.datasets.voc_writer import WrittenObject, write_annotation

SIZE = (60, 40)  # width, height

DOG = """<annotation><folder>VOC2007</folder><filename>000001.jpg</filename>
<size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>
<object><name>person</name><difficult>1</difficult><occluded>1</occluded>
<bndbox><ymax>40</ymax><xmax>12</xmax><ymin>40</ymin><xmin>12</xmin></bndbox></object>
</annotation>"""

EMPTY = "<annotation><size><width>60</width><height>40</height><depth>3</depth></size></annotation>"


def make_voc(folder: Path, annotations: dict[str, str], split: str = "train") -> Path:
    """A VOC folder with one 60 x 40 image an annotation."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, (image_id, xml) in enumerate(annotations.items()):
        Image.new("RGB", SIZE, (number, 50, 90)).save(folder / "JPEGImages" / f"{image_id}.jpg")
        (folder / "Annotations" / f"{image_id}.xml").write_text(xml)
    (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{one}\n" for one in annotations))
    return folder


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "VOCdevkit" / "VOC2007", {"000001": DOG, "000002": EMPTY})


def opened(folder: Path, work: Path, split: str = "train", **options: object) -> Dataset:
    return open_detection(f"voc:{folder}:{split}", work=work, options=options)


# Reading


def test_a_record_holds_half_open_boxes_and_flags(voc: Path, tmp_path: Path) -> None:
    dataset = opened(voc, tmp_path)
    assert dataset.name == "voc2007-train"
    assert dataset.image_ids == ("000001", "000002")
    assert dataset.classes == VOC_CLASSES
    record = dataset.record("000001")
    assert (record.width, record.height) == SIZE
    np.testing.assert_array_equal(record.boxes, np.array([[4, 0, 60, 30], [11, 39, 12, 40]], np.float32))
    assert record.boxes.dtype == np.float32
    assert [VOC_CLASSES[label] for label in record.labels] == ["dog", "person"]
    assert record.labels.dtype == np.int32
    assert record.difficult.tolist() == [False, True]
    assert record.truncated.tolist() == [True, False]
    assert record.occluded.tolist() == [False, True]
    assert record.pose == ("Left", "Unspecified")
    assert record.path == voc / "JPEGImages" / "000001.jpg"


def test_an_image_without_objects_has_a_record_of_length_zero(voc: Path, tmp_path: Path) -> None:
    record = opened(voc, tmp_path).record("000002")
    assert record.boxes.shape == (0, 4)
    assert record.labels.shape == record.difficult.shape == (0,)
    assert record.labels.dtype == np.int32
    assert record.difficult.dtype == np.bool_


def test_records_are_read_once_and_only_when_asked_for(voc: Path, tmp_path: Path) -> None:
    (voc / "Annotations" / "000002.xml").write_text("not xml at all")
    dataset = opened(voc, tmp_path)
    assert dataset.record("000001") is dataset.record("000001")
    with pytest.raises(BadAnnotation, match=r"000002\.xml: is not a complete XML file"):
        dataset.record("000002")


def test_a_dataset_travels_to_another_process(voc: Path, tmp_path: Path) -> None:
    dataset = opened(voc, tmp_path)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.images_key == dataset.images_key
    np.testing.assert_array_equal(copy.record("000001").boxes, dataset.record("000001").boxes)


def test_the_size_comes_from_the_image_where_the_annotation_leaves_it_out(voc: Path, tmp_path: Path) -> None:
    for size in ("", "<size><width>0</width><height>0</height><depth>3</depth></size>"):
        (voc / "Annotations" / "000002.xml").write_text(f"<annotation>{size}</annotation>")
        record = opened(voc, tmp_path).record("000002")
        assert (record.width, record.height) == SIZE
    (voc / "JPEGImages" / "000002.jpg").write_text("no image")
    with pytest.raises(BadImage, match=r"000002\.jpg"):
        opened(voc, tmp_path).record("000002")


def test_a_bad_image_does_not_hide_its_annotation(voc: Path, tmp_path: Path) -> None:
    (voc / "JPEGImages" / "000001.jpg").write_text("no image")
    assert len(opened(voc, tmp_path).record("000001").boxes) == 2


@pytest.mark.parametrize("suffix", [".jpeg", ".png", ".JPG"])
def test_other_suffixes_are_found(voc: Path, tmp_path: Path, suffix: str) -> None:
    path = voc / "JPEGImages" / f"000001{suffix}"
    Image.new("RGB", SIZE).save(path)
    (voc / "JPEGImages" / "000001.jpg").unlink()
    assert opened(voc, tmp_path).image_path("000001") == path


def test_an_id_with_dots_keeps_them(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "mine", {"a.b.c": DOG})
    dataset = opened(voc, tmp_path)
    assert dataset.image_path("a.b.c").name == "a.b.c.jpg"
    assert len(dataset.record("a.b.c").boxes) == 2


def test_decimal_corners_a_hair_outside_are_cut_to_the_image(voc: Path, tmp_path: Path) -> None:
    xml = DOG.replace("<xmax>60<", "<xmax>60.00006<").replace("<ymin>1<", "<ymin>0.99996<", 1)
    (voc / "Annotations" / "000001.xml").write_text(xml)
    box = opened(voc, tmp_path).record("000001").boxes[0]
    assert box.tolist() == [4, 0, 60, 30]


BAD = {
    "<xmax>60<": ("<xmax>61<", r"object 1 \(dog\) has the box \(5, 1\) to \(61, 30\), outside its image of 60 x 40"),
    "<ymin>1<": ("<ymin>0<", r"\(5, 0\) to \(60, 30\), outside its image"),
    "<xmin>5<": ("<xmin>61<", r"object 1 \(dog\).*which is inverted"),
    "<ymax>30<": ("<ymax>thirty<", r"object 1 \(dog\) has the box .* ymax thirty; give it four numbers"),
    "<ymax>40<": ("<ymax>4_0<", r"object 2 \(person\) has the box"),
    "<xmax>12</xmax>": ("", r"object 2 \(person\) has the box .*xmax None"),
    "<difficult>1<": ("<difficult>2<", r"object 2 \(person\) has difficult = '2'; write 0 or 1"),
    "<width>60<": ("<width>61<", r"states 61 x 40 pixels but its image has 60 x 40"),
    "<width>60</width>": ("", r"its size's width is None, not a whole number"),
    "<name>dog<": ("<name> <", r"object 1 has the class name ''; give it a name"),
    "<name>person<": ("<name>../person<", r"object 2 \(\.\./person\) has none of the listed classes \(dog, person\)"),
    "</annotation>": ("", r"is not a complete XML file"),
}


@pytest.mark.parametrize("old", BAD)
def test_an_impossible_annotation_is_one_sentence_naming_file_and_object(voc: Path, tmp_path: Path, old: str) -> None:
    new, words = BAD[old]
    assert old in DOG
    path = voc / "Annotations" / "000001.xml"
    path.write_text(DOG.replace(old, new, 1))
    with pytest.raises(BadAnnotation, match=words) as caught:
        opened(voc, tmp_path, classes=["dog", "person"]).record("000001")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_an_xml_file_of_another_kind_is_refused(voc: Path, tmp_path: Path) -> None:
    (voc / "Annotations" / "000001.xml").write_text("<html/>")
    with pytest.raises(BadAnnotation, match="begins with <html>"):
        opened(voc, tmp_path).record("000001")


def test_a_missing_annotation_stops_records_and_key_but_not_the_images(voc: Path, tmp_path: Path) -> None:
    (voc / "Annotations" / "000002.xml").unlink()
    dataset = opened(voc, tmp_path)
    assert len(dataset.images_key) == 64
    with pytest.raises(BadAnnotation, match=r"000002\.xml: no such annotation file"):
        dataset.record("000002")
    with pytest.raises(BadAnnotation, match=r"000002\.xml: no such annotation file"):
        _ = dataset.annotations_key


def test_an_unknown_id_is_an_error(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="has no image '000003', did you mean '00000"):
        opened(voc, tmp_path).image_path("000003")


# Classes


def test_classes_that_are_not_vocs_are_found_in_the_whole_folder_and_sorted(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "mine", {"a": DOG.replace("dog", "zebra")})
    make_voc(voc, {"b": DOG.replace("dog", "ant")}, split="test")
    assert opened(voc, tmp_path).classes == opened(voc, tmp_path, "test").classes == ("ant", "person", "zebra")
    assert opened(voc, tmp_path).name == "mine-train"


def test_found_classes_are_remembered_until_an_annotation_changes(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened(voc, tmp_path).classes == VOC_CLASSES
    monkeypatch.setattr("stages.datasets.voc.class_names", lambda path: pytest.fail("read again"))
    assert opened(voc, tmp_path).classes == VOC_CLASSES
    monkeypatch.undo()
    (voc / "Annotations" / "000001.xml").write_text(DOG.replace("dog", "yak"))
    assert opened(voc, tmp_path).classes == ("person", "yak")


def test_digests_of_records_are_remembered_until_a_file_changes(
    voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = opened(voc, tmp_path)
    expected = {one: record_digest(dataset.record(one)) for one in dataset.image_ids}
    assert dataset.record_digests == expected
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "record", lambda *_: pytest.fail("read again"))
        assert opened(voc, tmp_path).record_digests == expected
    assert dataset.subset([1]).record_digests == {"000002": expected["000002"]}
    (voc / "Annotations" / "000001.xml").write_text(DOG.replace("dog", "cat"))
    changed = opened(voc, tmp_path).record_digests
    assert changed["000001"] != expected["000001"]
    assert changed["000002"] == expected["000002"]


def test_a_record_that_cannot_be_read_has_no_digest(voc: Path, tmp_path: Path) -> None:
    expected = opened(voc, tmp_path).record_digests
    (voc / "Annotations" / "000001.xml").write_text("<annotation>")
    assert opened(voc, tmp_path, classes=list(VOC_CLASSES)).record_digests == {"000002": expected["000002"]}


def test_listed_classes_keep_their_order_and_an_unlisted_one_is_an_error(voc: Path, tmp_path: Path) -> None:
    dataset = opened(voc, tmp_path, classes=["person", "dog"])
    assert dataset.record("000001").labels.tolist() == [1, 0]
    with pytest.raises(BadAnnotation, match=r"object 2 \(person\) has none of the listed classes \(dog\)"):
        opened(voc, tmp_path, classes=["dog"]).record("000001")
    for classes in ([], ["dog", "dog"], [""], ["a\nb"]):
        with pytest.raises(BadDataset, match=r"list at least one class|give it a name, on one line"):
            opened(voc, tmp_path, classes=classes)


def test_no_object_anywhere_asks_for_a_list_of_classes(tmp_path: Path) -> None:
    voc = make_voc(tmp_path / "mine", {"a": EMPTY})
    with pytest.raises(BadDataset, match="list the classes"):
        _ = opened(voc, tmp_path).classes
    assert opened(voc, tmp_path, classes=["dog"]).classes == ("dog",)


# Folders, image sets, sources


def test_the_folder_may_be_named_at_each_level(voc: Path, tmp_path: Path) -> None:
    for folder in (voc, voc.parent, voc.parent.parent):
        assert opened(folder, tmp_path).folder == voc


def test_a_folder_whose_name_is_no_utf8(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path from there can be stated, from the root it is no text."""
    key, place = opened(voc, tmp_path / "work").key, tmp_path / os.fsdecode(b"caf\xe9")
    place.mkdir()
    shutil.move(voc, place / "VOC2007")
    monkeypatch.chdir(place)
    assert opened(Path("VOC2007"), Path("work")).key == key
    assert opened(Path("VOC2007"), Path("work")).key == key  # by what is remembered


def test_several_years_ask_for_one(voc: Path, tmp_path: Path) -> None:
    shutil.copytree(voc, voc.parent / "VOC2012")
    with pytest.raises(BadDataset, match="contains VOC2007, VOC2012; end the source with the year"):
        opened(voc.parent, tmp_path)
    assert opened(voc.parent, tmp_path, "train:2012").name == "voc2012-train"
    assert opened(voc.parent, tmp_path, year=2007).name == "voc2007-train"
    assert open_detection(f"voc:{voc.parent}:train", work=tmp_path, options={"year": 2012}).name == "voc2012-train"
    with pytest.raises(BadDataset, match="but no VOC2010"):
        opened(voc.parent, tmp_path, "train:2010")


def test_a_text_file_of_ids_is_an_image_set(voc: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("\ufeff000002\r\n\r\n 000001 \n", "utf-8")
    dataset = opened(voc, tmp_path, str(mine))
    assert dataset.image_ids == ("000002", "000001")
    assert dataset.name == "voc2007-mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no images"),
        ("\n \n", "lists no images"),
        ("000001\n000002\n000001\n", "'000001' is on lines 1 and 3"),
        ("../../etc/passwd\n", "line 1, '../../etc/passwd', is not an image id"),
        ("..\n", "is not an image id"),
        ("/etc/passwd\n", "is not an image id"),
        ("a//b\n", "is not an image id"),
        (f"{'x' * 256}\n", "is not an image id"),
        ("caf\u00e9\ncafe\u0301\n", "is on lines 1 and 2"),
    ],
)
def test_an_impossible_image_set_is_refused(voc: Path, tmp_path: Path, text: str, words: str) -> None:
    (voc / "ImageSets/Main/odd.txt").write_text(text)
    with pytest.raises(BadDataset, match=words):
        opened(voc, tmp_path, "odd")


def test_an_image_set_that_is_no_text_is_refused(voc: Path, tmp_path: Path) -> None:
    (voc / "ImageSets/Main/odd.txt").write_bytes(b"\xff\x80\x00")
    with pytest.raises(BadDataset, match="is not a text file"):
        opened(voc, tmp_path, "odd")


def test_a_missing_split_names_the_nearest(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"trian\.txt: no such image set, did you mean 'train'\?"):
        opened(voc, tmp_path, "trian")


def test_folders_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no such folder"):
        opened(tmp_path / "nowhere", tmp_path)
    with pytest.raises(BadDataset, match="no dataset in VOC's layout"):
        opened(tmp_path, tmp_path)


def test_variables_and_home_are_expanded(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VOC", str(voc.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in ("voc:$SOME_VOC:train", "voc:${SOME_VOC}/VOC2007:train", "voc:~/VOCdevkit:train"):
        assert open_detection(source, work=tmp_path).folder == voc
    monkeypatch.delenv("SOME_VOC")
    with pytest.raises(BadDataset, match="environment variable SOME_VOC is not set"):
        open_dataset("voc:$SOME_VOC:train", work=tmp_path)


@pytest.mark.parametrize(
    "source", ["", "voc", "voc:", "voc:here", "coco:here", "other:x:train", "shapes", "shapes:", "folder:"]
)
def test_what_is_no_source_shows_the_forms(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadDataset, match="is not a dataset; write voc:DIR:SPLIT"):
        open_dataset(source, work=tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "voc:a\nb:train",
        "folder:\x00",
        "voc:\ud800:train",
        f"folder:{'x' * 300}",
        f"coco:{'x' * 300}:y",
        f"yolo:{'x' * 300}:y",
    ],
)
def test_a_source_that_cannot_be_a_path_is_one_sentence(tmp_path: Path, source: str) -> None:
    for several in (source, [source, "shapes:nosuch"]):
        with pytest.raises(BadDataset) as raised:
            open_dataset(several, work=tmp_path)
        assert "\n" not in str(raised.value)


def test_options_are_checked(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="unknown setting 'clases', did you mean 'classes'"):
        opened(voc, tmp_path, clases=["dog"])
    with pytest.raises(BadSetting, match="unknown setting 'imagse', did you mean 'images'"):
        open_dataset("shapes:train", work=tmp_path, options={"imagse": 3})
    with pytest.raises(BadSetting, match="unknown setting 'seed'"):
        open_dataset(f"folder:{voc}", work=tmp_path, options={"seed": 3})


def test_the_two_kinds_are_not_mistaken(voc: Path, tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "classes")
    with pytest.raises(BadDataset, match="no boxes"):
        open_detection(f"folder:{folder}", work=tmp_path)
    with pytest.raises(BadDataset, match="single objects"):
        open_classification(f"voc:{voc}:train", work=tmp_path)


# Keys


def keys(folder: Path, work: Path, **options: Any) -> tuple[str, str]:
    dataset = opened(folder, work, **options)
    return dataset.images_key, dataset.annotations_key


def test_keys_follow_the_content_and_never_folder_or_time(voc: Path, tmp_path: Path) -> None:
    before = keys(voc, tmp_path)
    moved = tmp_path / "elsewhere" / "VOC2007"
    shutil.copytree(voc, moved)
    for path in moved.rglob("*.*"):
        os.utime(path, (1, 1))
    assert keys(moved, tmp_path / "other-work") == before


def test_each_key_follows_its_own_files(voc: Path, tmp_path: Path) -> None:
    images, annotations = keys(voc, tmp_path)
    (voc / "Annotations" / "000001.xml").write_text(DOG.replace("<xmin>5", "<xmin>6"))
    assert keys(voc, tmp_path)[0] == images
    assert keys(voc, tmp_path)[1] != annotations
    (voc / "Annotations" / "000001.xml").write_text(DOG)
    assert keys(voc, tmp_path) == (images, annotations)
    Image.new("RGB", SIZE, (1, 2, 3)).save(voc / "JPEGImages" / "000002.jpg")
    assert keys(voc, tmp_path)[0] != images
    assert keys(voc, tmp_path)[1] == annotations


def test_ids_their_order_and_the_classes_are_part_of_the_keys(voc: Path, tmp_path: Path) -> None:
    images, annotations = keys(voc, tmp_path)
    (voc / "ImageSets/Main/train.txt").write_text("000002\n000001\n")
    assert keys(voc, tmp_path)[0] != images
    (voc / "ImageSets/Main/train.txt").write_text("000001\n000002\n")
    listed = keys(voc, tmp_path, classes=["person", "dog"])
    assert listed[0] == images
    assert listed[1] not in (annotations, keys(voc, tmp_path, classes=["dog", "person"])[1])


def test_the_whole_key_follows_both(voc: Path, tmp_path: Path) -> None:
    before = opened(voc, tmp_path).key
    assert opened(voc, tmp_path).key == before
    (voc / "Annotations" / "000002.xml").write_text(EMPTY + "\n")
    assert opened(voc, tmp_path).key != before


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written a moment ago count as settled (nobody can make their change time older)."""
    monkeypatch.setattr("stages.datasets.digests.SETTLED_NS", 0)
    time.sleep(0.02)  # longer than a tick of the file system's clock


@pytest.mark.usefixtures("settled")
def test_a_second_opening_reads_no_file_again(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(voc, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.sha256", counted := Mock(wraps=hashlib.sha256))
        patched.setattr("stages.datasets.digests.read_header", lambda *_: pytest.fail("read again"))
        assert keys(voc, tmp_path) == before
    assert all(len(call.args[0]) < 1000 for call in counted.call_args_list)  # names and lists of digests, no image


def test_a_file_that_was_only_just_written_is_not_trusted(voc: Path, tmp_path: Path) -> None:
    path = voc / "Annotations" / "000001.xml"
    status = path.stat()
    before = keys(voc, tmp_path)
    path.write_text(DOG.replace("<xmin>5<", "<xmin>7<"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert keys(voc, tmp_path)[1] != before[1]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"x": [1]}}', "\x00\x01"])
def test_a_damaged_memory_costs_time_but_never_truth(voc: Path, tmp_path: Path, text: str) -> None:
    before = keys(voc, tmp_path)
    for path in (tmp_path / "digests").iterdir():
        path.write_text(text)
    assert keys(voc, tmp_path) == before
    assert memory_of(voc, tmp_path).load().keys() >= {"JPEGImages/000001.jpg", "Annotations/000002.xml"}


@pytest.mark.usefixtures("settled")
def test_no_flipped_bit_of_a_memory_is_believed(voc: Path, tmp_path: Path) -> None:
    keys(voc, tmp_path)
    memory = memory_of(voc, tmp_path)
    known, content = memory.load(), memory.memory.read_bytes()
    assert known
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        memory.memory.write_bytes(flipped)
        assert memory.load() in ({}, known), f"bit {bit}"


@pytest.mark.usefixtures("settled")
def test_a_work_folder_that_cannot_be_written_only_warns(
    voc: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "work").write_text("a file where the folder should be")
    assert keys(voc, tmp_path / "work") == keys(voc, tmp_path)
    assert "could not be written" in caplog.text


def test_a_missing_image_names_itself_in_the_key(voc: Path, tmp_path: Path) -> None:
    (voc / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(BadImage, match=r"000002\.jpg"):
        _ = opened(voc, tmp_path).images_key


# Writing


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(1, 200), st.integers(1, 200), st.booleans()),
        max_size=6,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]]) -> None:
    path = tmp_path_factory.mktemp("xml") / "Annotations" / "x.xml"
    path.parent.mkdir()
    objects = [WrittenObject("a & b", (x, y, x + w, y + h), bool(flag), pose="Left") for x, y, w, h, flag in rows]
    write_annotation(path, (400, 500, 3), objects)
    annotation = read_annotation(path)
    assert annotation.size == (500, 400)
    assert annotation.boxes.tolist() == [[float(side) for side in one.box] for one in objects]
    assert [one.difficult for one in annotation.objects] == [one.difficult for one in objects]
    assert {one.name for one in annotation.objects} <= {"a & b"}


# Checking


def test_a_check_tells_every_problem_and_counts_the_objects(voc: Path, tmp_path: Path) -> None:
    make_voc(voc, {"cut": EMPTY, "text": EMPTY, "xml": "<annotation>", "lost": EMPTY, "two": DOG}, "more")
    images, annotations = voc / "JPEGImages", voc / "Annotations"
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:-12])
    (images / "text.jpg").write_text("text")
    (annotations / "lost.xml").unlink()
    (annotations / "two.xml").write_text(DOG.replace("<xmax>60<", "<xmax>99<").replace("<name>person", "<name>parson"))
    (voc / "ImageSets/Main/all.txt").write_text("000001\ncut\ntext\nxml\nlost\ntwo\n")
    report = check_dataset(opened(voc, tmp_path, "all", classes=["dog", "person", "cat"]))
    assert report.images == 6
    expected = ["cut.jpg: is damaged", "text.jpg: is not an image", "xml.xml: is not a complete", "lost.xml: no such"]
    expected += ["two.xml: object 1 (dog) has the box", "two.xml: object 2 (parson) has none of the listed classes"]
    assert len(report.problems) == len(expected)
    for problem, words in zip(report.problems, expected, strict=True):
        assert words in problem
    dog, person, cat = (report.classes[name] for name in ("dog", "person", "cat"))
    assert (dog.images, dog.objects, dog.difficult, dog.truncated) == (2, 2, 0, 2)
    assert (person.images, person.objects, person.difficult, person.truncated) == (1, 1, 1, 0)
    assert cat.objects == 0


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ("<xmin>50</xmin><ymin>1</ymin><xmax>10</xmax><ymax>30</ymax>", "inverted"),
        ("<xmin>70</xmin><ymin>1</ymin><xmax>90</xmax><ymax>30</ymax>", "outside its image"),
    ],
)
def test_a_misplaced_object_is_a_problem_and_not_also_one_without_area(
    tmp_path: Path, corners: str, words: str
) -> None:
    before = "<xmin>5</xmin><ymin>1</ymin><xmax>60</xmax><ymax>30</ymax>"
    dataset = opened(make_voc(tmp_path / "voc", {"a": DOG.replace(before, corners)}), tmp_path)
    report = check_dataset(dataset)
    (problem,) = report.problems
    assert words in problem
    assert report.notes == []
    with pytest.raises(BadAnnotation, match=words):
        dataset.record("a")


def test_a_clean_dataset_has_no_problems(voc: Path, tmp_path: Path) -> None:
    assert check_dataset(opened(voc, tmp_path)).problems == []


# Class folders


def class_folders(folder: Path) -> Path:
    for number, name in enumerate(
        ("pie/2.png", "pie/10.jpg", "ant/1.jpeg", "ant/note.txt", ".hidden/1.png", "ant/._1.jpeg")
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return folder


def test_class_folders_are_sorted_and_labelled(tmp_path: Path) -> None:
    dataset = open_classification(f"folder:{class_folders(tmp_path / 'My set')}", work=tmp_path)
    assert isinstance(dataset, ClassificationDataset)
    assert dataset.name == "my-set"
    assert dataset.classes == ("ant", "pie")
    assert dataset.image_ids == ("ant/1.jpeg", "pie/10.jpg", "pie/2.png")
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.labels.dtype == np.int64
    assert dataset.image_path("pie/2.png") == tmp_path / "My set" / "pie" / "2.png"
    assert len(dataset) == 3


def test_a_classification_key_follows_pixels_and_labels_but_not_the_place(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "one")
    before = open_classification(f"folder:{folder}", work=tmp_path)
    moved = Path(shutil.copytree(folder, tmp_path / "two"))
    assert open_classification(f"folder:{moved}", work=tmp_path).key == before.key
    (moved / "pie").rename(moved / "tart")
    renamed = open_classification(f"folder:{moved}", work=tmp_path)
    assert renamed.key != before.key
    assert renamed.images_key == before.images_key
    Image.new("RGB", (8, 8), (99, 0, 0)).save(folder / "pie" / "2.png")
    assert open_classification(f"folder:{folder}", work=tmp_path).images_key != before.images_key


def test_impossible_class_folders(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no such folder"):
        open_dataset(f"folder:{tmp_path / 'none'}", work=tmp_path)
    folder = class_folders(tmp_path / "classes")
    shutil.rmtree(folder / "pie")
    with pytest.raises(BadDataset, match="needs a folder of images per class, and at least two; it has 1"):
        open_dataset(f"folder:{folder}", work=tmp_path)
    (folder / "void").mkdir()
    with pytest.raises(BadDataset, match="void: contains no images"):
        open_dataset(f"folder:{folder}", work=tmp_path)


# The real thing


@pytest.mark.real
def test_real_voc_is_clean(tmp_path: Path) -> None:
    if not os.environ.get("RCNN_VOC"):
        pytest.skip("RCNN_VOC does not name a VOCdevkit folder with real images")
    dataset = open_detection("voc:$RCNN_VOC:val", work=tmp_path)
    report = check_dataset(dataset)
    assert report.problems == []
    assert dataset.classes == VOC_CLASSES
    assert all(count.objects > 0 for count in report.classes.values())


def same_looking(path: Path, content: bytes) -> None:
    """Writes other content of the same length and gives the file its old modification time, as archives do."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("replaced", [False, True])
def test_other_content_of_the_same_size_and_time_is_noticed(voc: Path, tmp_path: Path, replaced: bool) -> None:
    path = voc / "Annotations" / "000001.xml"
    other = DOG.replace("<xmin>5<", "<xmin>7<").encode()
    before = keys(voc, tmp_path)
    if replaced:  # renamed over the old one, as rsync and zip do
        shutil.copy2(path, tmp_path / "other.xml")
        same_looking(tmp_path / "other.xml", other)
        os.replace(tmp_path / "other.xml", path)
    else:
        same_looking(path, other)
    after = keys(voc, tmp_path)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert opened(voc, tmp_path).record("000001").boxes[0, 0] == 6


@pytest.mark.usefixtures("settled")
def test_a_content_check_believes_no_memory(voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(voc, tmp_path)
    memory = memory_of(voc, tmp_path)
    memory.save({name: one._replace(sha256="0" * 64) if "JPEG" in name else one for name, one in memory.load().items()})
    assert keys(voc, tmp_path) != before  # nothing shows that the disk has rotted, or that the memory is wrong
    monkeypatch.setenv("RCNN_CHECK_CONTENT", "1")
    assert keys(voc, tmp_path) == before
    monkeypatch.delenv("RCNN_CHECK_CONTENT")
    assert keys(voc, tmp_path) == before  # and it is remembered


@pytest.mark.usefixtures("settled")
def test_data_check_reads_everything_and_remembers_it(voc: Path, tmp_path: Path) -> None:
    before = keys(voc, tmp_path)
    memory = memory_of(voc, tmp_path)
    memory.save({name: one._replace(sha256="0" * 64) for name, one in memory.load().items()})
    report = check_dataset(opened(voc, tmp_path))
    assert not report.problems
    assert keys(voc, tmp_path) == before


@pytest.mark.usefixtures("settled")
def test_a_memory_of_an_earlier_version_is_read_anew(voc: Path, tmp_path: Path) -> None:
    before = keys(voc, tmp_path)
    memory = memory_of(voc, tmp_path)
    old = {name: [one.size, one.modified_ns, "0" * 64] for name, one in memory.load().items()}
    memory.memory.write_text(json.dumps({"folder": str(voc), "files": old}))
    assert keys(voc, tmp_path) == before


# Files that change while a command runs


def test_a_replaced_image_is_not_decoded(voc: Path, tmp_path: Path) -> None:
    dataset = opened(voc, tmp_path)
    _ = dataset.images_key
    path = voc / "JPEGImages" / "000001.jpg"
    original = path.read_bytes()
    copy = pickle.loads(pickle.dumps(dataset))  # as worker processes get it
    same_looking(path, original[:-1] + b"\x00")
    for one in (dataset, copy):
        with pytest.raises(ChangedInput, match=r"000001\.jpg: changed while"):
            one.read_image("000001")
    path.unlink()
    with pytest.raises(ChangedInput, match="can no longer be read"):
        dataset.read_image("000001")
    path.write_bytes(original)
    assert dataset.read_image("000001").shape == (40, 60, 3)


def test_a_replaced_annotation_is_not_read(voc: Path, tmp_path: Path) -> None:
    dataset = opened(voc, tmp_path)
    _ = dataset.annotations_key
    same_looking(voc / "Annotations" / "000001.xml", DOG.replace("<xmin>5<", "<xmin>7<").encode())
    with pytest.raises(ChangedInput, match=r"000001\.xml"):
        dataset.record("000001")


def test_a_key_is_of_what_was_read_before_it_was_asked_for(voc: Path, tmp_path: Path) -> None:
    before = opened(voc, tmp_path).annotations_key
    dataset = opened(voc, tmp_path)
    assert dataset.record("000001").boxes[0, 0] == 4
    same_looking(voc / "Annotations" / "000001.xml", DOG.replace("<xmin>5<", "<xmin>7<").encode())
    assert dataset.annotations_key == before


def test_digests_of_one_image_and_of_its_annotation(voc: Path, tmp_path: Path) -> None:
    """What decides one image's record: it changes with its own files, not with others'."""
    first = opened(voc, tmp_path)
    before = [(first.image_digest(one), first.annotation_digest(one)) for one in first.image_ids]
    (voc / "Annotations" / "000002.xml").write_text(EMPTY + "\n")
    second = opened(voc, tmp_path)
    after = [(second.image_digest(one), second.annotation_digest(one)) for one in second.image_ids]
    assert before[0] == after[0]
    assert before[1][0] == after[1][0] == hashlib.sha256((voc / "JPEGImages" / "000002.jpg").read_bytes()).hexdigest()
    assert before[1][1] != after[1][1]
