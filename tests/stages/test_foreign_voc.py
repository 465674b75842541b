"""VOC's annotations as other programs write them: what can mean one thing only is read, the rest is a sentence.

And the folders, names and lists that people have: XML beside images, any ending, ids with spaces, accents and folders.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from stages.contract.errors import BadImage, StageError
from stages.datasets import VOC_CLASSES, BadAnnotation, BadDataset, Dataset, open_detection
from stages.datasets.annotations import read_annotation
from stages.datasets.check import check_dataset

SIZE = (60, 40)  # width, height
NAMED = """<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>gear</name><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>60</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def xml_of(
    name: str = "gear", box: tuple[object, ...] = (5, 1, 60, 30), size: tuple[object, object] | None = SIZE
) -> str:
    corners = "".join(
        f"<{corner}>{value}</{corner}>" for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    stated = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{stated}<object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>"


def save_image(path: Path, size: tuple[int, int] = SIZE, colour: tuple[int, int, int] = (9, 50, 90)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def make(folder: Path, annotations: Mapping[str, str | bytes], suffix: str = ".png", lines: str | None = None) -> Path:
    """A folder in VOC's layout with the image set `train`."""
    for image_id, xml in annotations.items():
        save_image(folder / "JPEGImages" / f"{image_id}{suffix}")
        path = folder / "Annotations" / f"{image_id}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    (sets / "train.txt").write_text("".join(f"{one}\n" for one in annotations) if lines is None else lines, "utf-8")
    return folder


def opened(folder: Path, split: str = "train", **options: object) -> Dataset:
    return open_detection(f"voc:{folder}:{split}", work=folder.parent / "work", options=options)


# Annotations


READ: dict[str, tuple[str | bytes, dict[str, list[bool]]]] = {
    "a fraction": (NAMED.replace("<truncated>0", "<truncated>0.0597"), {"truncated": [True]}),
    "a tiny fraction": (NAMED.replace("<truncated>0", "<truncated>5.9e-05"), {"truncated": [True]}),
    "no part of it": (NAMED.replace("<truncated>0", "<truncated>0.0"), {"truncated": [False]}),
    "True": (NAMED.replace("<difficult>0", "<difficult>True"), {"difficult": [True]}),
    "no": (NAMED.replace("<difficult>0", "<difficult> no "), {"difficult": [False]}),
    "1.0": (NAMED.replace("<difficult>0", "<difficult>1.0"), {"difficult": [True]}),
    "Unspecified": (NAMED.replace("<truncated>0", "<truncated>Unspecified"), {"truncated": [False]}),
    "a decimal size": (NAMED.replace("<width>60", "<width>60.0"), {}),
    "an unknown size": (NAMED.replace("<width>60", "<width>-1"), {}),
    "an empty size": (NAMED.replace("<width>60", "<width>"), {}),
    "a namespace": (NAMED.replace("<annotation>", '<annotation xmlns="http://x.y/z" verified="yes">'), {}),
    "capitals": (
        NAMED.replace("object>", "Object>").replace("bndbox", "bndBox").replace("annotation", "Annotation"),
        {},
    ),
    "a byte order mark": (codecs.BOM_UTF8 + NAMED.encode(), {}),
    "a mark and a declaration": (codecs.BOM_UTF8 + b"<?xml version='1.0' encoding='gb2312'?>" + NAMED.encode(), {}),
    "blank lines first": ('\n\n<?xml version="1.0"?>' + NAMED, {}),
    "UTF-16 in name only": ('<?xml version="1.0" encoding="utf-16"?>' + NAMED, {}),
    "UTF-16": (('<?xml version="1.0" encoding="utf-16"?>' + NAMED).encode("utf-16"), {}),
}


@pytest.mark.parametrize("case", READ)
def test_what_can_mean_one_thing_only_is_read(tmp_path: Path, case: str) -> None:
    xml, flags = READ[case]
    record = opened(make(tmp_path / "mine", {"a": xml})).record("a")
    np.testing.assert_array_equal(record.boxes, np.array([[4, 0, 60, 30]], np.float32))
    assert (record.width, record.height) == SIZE
    for name, value in flags.items():
        assert getattr(record, name).tolist() == value


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "big5", "shift_jis", "euc-kr", "windows-1251", "iso-8859-15"])
def test_a_declared_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    name = {
        "big5": "齒輪",
        "shift_jis": "歯車",
        "euc-kr": "기어",
        "windows-1251": "шестерня",
        "iso-8859-15": "Œil",
    }.get(encoding, "齿轮")
    xml = f'<?xml version="1.0" encoding="{encoding}"?>\n{xml_of(name)}'
    assert opened(make(tmp_path / "mine", {"a": xml.encode(encoding)})).classes == (name,)


SAID = {
    "an ampersand": (NAMED.replace("gear", "nuts & bolts"), "is not a complete XML file"),
    "an unknown encoding": (f'<?xml version="1.0" encoding="klingon"?>{NAMED}', "unknown encoding: klingon"),
    "no encoding of documents": (f'<?xml version="1.0" encoding="punycode"?>{NAMED}', "unknown encoding: punycode"),
    "half of a size": (NAMED.replace("<width>60", "<width>60.5"), "its size's width is '60.5', not a whole number"),
    "occluded by KITTI": (
        NAMED.replace("truncated>", "occluded>").replace("ed>0", "ed>2"),
        "has occluded = '2'; write",
    ),
    "half difficult": (NAMED.replace("<difficult>0", "<difficult>0.5"), "has difficult = '0.5'; write 0 or 1"),
    "a word": (NAMED.replace("<difficult>0", "<difficult>maybe"), "has difficult = 'maybe'; write 0 or 1"),
    "objects in a list": (
        NAMED.replace("<object>", "<objects><object>").replace("</object>", "</object></objects>"),
        "has a <bndbox> outside every <object>",
    ),
    "two boxes": (NAMED.replace("</bndbox>", "</bndbox><bndbox/>"), r"object 1 \(gear\) has 2 boxes"),
    "nested very deep": (f"<annotation>{'<object>' * 10**5}{'</object>' * 10**5}</annotation>", "nested more than 100"),
    "another kind": ("<annotations/>", "begins with <annotations>, not with <annotation>"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_all_files_of_a_folder_share_is_said_of_the_first(tmp_path: Path, case: str) -> None:
    """Never that no image has an object."""
    xml, words = SAID[case]
    folder = make(tmp_path / "mine", {"a": xml, "b": xml})
    with pytest.raises(BadAnnotation, match=rf"a\.xml: .*{words}"):
        opened(folder).record("a")


def test_a_check_lists_all_that_is_wrong_with_a_file(tmp_path: Path) -> None:
    objects = [
        NAMED[NAMED.index("<object>") : NAMED.index("</annotation>")].replace(*change)
        for change in (
            ("<difficult>0", "<difficult>maybe"),
            ("", ""),
            ("<xmin>", "<xmin>x"),
            ("<name>gear", "<name>"),
            ("<xmin>", "<xmin>-"),
        )
    ]
    head = NAMED[: NAMED.index("<object>")].replace("<width>60", "<width>wide")
    folder = make(tmp_path / "mine", {"a": f"{head}{''.join(objects)}</annotation>", "b": NAMED})
    report = check_dataset(opened(folder))
    words = [
        "object 1 (gear) has difficult = 'maybe'",
        "object 3 (gear) has the box",
        "object 4 has the class name ''",
        "its size's width is 'wide'",
        "object 5 (gear) has the box (-",
    ]
    for problem, one in zip(report.problems, words, strict=True):
        assert problem.startswith(f"{folder}/Annotations/a.xml: {one}")
    assert report.problem_count == 5
    with pytest.raises(BadAnnotation, match=r"object 1 \(gear\) has difficult"):
        opened(folder).record("a")


def test_what_is_unusual_is_noted_by_a_check(tmp_path: Path) -> None:
    xml = NAMED.replace("<truncated>0", "<truncated>0.2").replace("<width>60", "<width>-1")
    report = check_dataset(opened(make(tmp_path / "mine", {"a": xml, "b": xml, "c": NAMED})))
    assert report.problems == []
    assert report.notes == [
        "mine-train: 2 annotation files have a size of -1, taken as unknown: a.xml, b.xml",
        "mine-train: 2 annotation files have truncated as a fraction, taken as 1 if above 0: a.xml, b.xml",
    ]


@given(st.sampled_from(sorted(READ)), st.binary(min_size=1, max_size=3), st.integers(0, 400))
@example("UTF-16 in name only", b"\n", 245)  # a line break inside a number
def test_a_spoilt_file_is_read_or_said(
    tmp_path_factory: pytest.TempPathFactory, case: str, put: bytes, at: int
) -> None:
    xml = READ[case][0]
    content = xml if isinstance(xml, bytes) else xml.encode()
    path = tmp_path_factory.mktemp("a") / "a.xml"
    path.write_bytes(content[:at] + put + content[at + len(put) :])
    try:
        read_annotation(path)
    except StageError as error:
        said = str(error)
    else:
        return
    assert said.startswith(str(path))
    assert "\n" not in said


# Objects without area, other classes, images without annotation


def test_objects_without_area_are_no_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Corners counted from 0 may lie on one line; "nan" is what a division by zero left."""
    boxes = {
        "a": (5, 5, 5, 9),
        "b": (0, 0, 60, 40),
        "c": ("nan", 1, 2, 3),
        "d": (1, 2, "inf", 3),
        "e": (3, 0, 3.0000000001, 9),
    }
    folder = make(tmp_path / "mine", {one: xml_of(box=box) for one, box in boxes.items()})
    for _ in range(2):
        dataset = opened(folder, zero_based=True)
        with caplog.at_level(logging.WARNING, "stages.datasets"):
            caplog.clear()
            _ = dataset.annotations_key
        told = (
            "mine-train: 4 objects have no area, left out: a.xml object 1 (gear), c.xml object 1 (gear), "
            "d.xml object 1 (gear), e.xml object 1 (gear)"
        )
        assert [one.getMessage() for one in caplog.records] == [told]
        assert [len(dataset.record(one).boxes) for one in dataset.image_ids] == [0, 1, 0, 0, 0]
        report = check_dataset(dataset)
        assert (report.problems, report.notes) == ([], [told])
        assert report.classes["gear"].objects == 1


def test_what_is_left_out_follows_the_options(tmp_path: Path) -> None:
    """It is remembered, but not from one reading of the same files for another."""
    two = NAMED.replace("</annotation>", xml_of("bolt", (5, 5, 5, 9)).removeprefix("<annotation>"))
    folder = make(tmp_path / "mine", {"a": two})
    for _ in range(2):
        assert opened(folder).notes() == []
        assert opened(folder, zero_based=True).notes() == [
            "mine-train: 1 object has no area, left out: a.xml object 2 (bolt)"
        ]
        assert opened(folder, classes=["gear"], other_classes="leave-out").notes() == [
            "mine-train: 1 object is of classes that are not listed, left out: bolt 1"
        ]
        assert opened(folder, classes=["gear", "bolt"], other_classes="leave-out").notes() == []


def test_zero_based_corners_are_edges(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": xml_of(box=(0, 0, 60, 40)), "b": xml_of(box=(1.5, 2, 3, 4))})
    dataset = opened(folder, zero_based=True)
    assert dataset.record("a").boxes.tolist() == [[0, 0, 60, 40]]
    assert dataset.record("b").boxes.tolist() == [[1.5, 2, 3, 4]]
    with pytest.raises(BadAnnotation, match=r"outside its image.*count from 1 .*zero_based = true"):
        opened(folder).record("a")
    assert opened(folder).record("b").boxes.tolist() == [[0.5, 1, 3, 4]]
    assert opened(folder).annotations_key != dataset.annotations_key
    assert opened(folder).annotation_digest("b") != dataset.annotation_digest("b")


def test_objects_of_other_classes_may_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two = NAMED.replace("</annotation>", xml_of("bolt").removeprefix("<annotation>"))
    folder = make(tmp_path / "mine", {"a": two, "b": xml_of("nut"), "c": xml_of("bolt")})
    with pytest.raises(
        BadAnnotation, match=r'object 2 \(bolt\) has none of the listed classes \(gear\).*other_classes = "leave-out"'
    ):
        opened(folder, classes=["gear"]).record("a")
    dataset = opened(folder, classes=["gear"], other_classes="leave-out")
    assert [len(dataset.record(one).boxes) for one in dataset.image_ids] == [1, 0, 0]
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        _ = dataset.annotations_key
    assert [one.getMessage() for one in caplog.records] == [
        "mine-train: 3 objects are of classes that are not listed, left out: bolt 2, nut 1"
    ]
    assert check_dataset(dataset).problems == []


def test_images_without_annotation_may_be_background(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": NAMED, "b": NAMED})
    (folder / "Annotations" / "b.xml").unlink()
    with pytest.raises(BadAnnotation, match=r'b\.xml: no such annotation file.*unannotated = "background"'):
        _ = opened(folder).annotations_key
    assert check_dataset(opened(folder)).problems[0].startswith(str(folder / "Annotations" / "b.xml"))
    dataset = opened(folder, unannotated="background")
    record = dataset.record("b")
    assert (len(record.boxes), record.width, record.height) == (0, *SIZE)
    assert dataset.notes() == ["mine-train: 1 image has no annotation file and counts as an image without objects"]
    before = dataset.annotations_key, dataset.annotation_digest("b")
    (folder / "Annotations" / "b.xml").write_text(NAMED)
    after = opened(folder, unannotated="background")
    assert (after.annotations_key, after.annotation_digest("b")) != before
    assert after.annotations_key == opened(folder).annotations_key


# Classes


def test_a_folder_of_cats_has_one_class_and_a_folder_of_the_devkit_twenty(tmp_path: Path) -> None:
    assert opened(make(tmp_path / "pets", {"a": xml_of("cat")})).classes == ("cat",)
    assert opened(make(tmp_path / "four", {"a": xml_of("dog"), "b": xml_of("cat")})).classes == ("cat", "dog")
    assert opened(make(tmp_path / "VOC2007", {"a": xml_of("cat")})).classes == VOC_CLASSES
    assert opened(make(tmp_path / "VOC2012", {"a": xml_of("cat"), "b": xml_of("ant")})).classes == ("ant", "cat")
    every = {f"{number:02}": xml_of(name) for number, name in enumerate(VOC_CLASSES)}
    assert opened(make(tmp_path / "mine", every)).classes == VOC_CLASSES


def test_names_of_classes_may_have_slashes(tmp_path: Path) -> None:
    dataset = opened(make(tmp_path / "mine", {"a": xml_of("cups/mugs")}))
    assert dataset.classes == ("cups/mugs",)
    assert dataset.record("a").labels.tolist() == [0]


# Names of files


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tif", ".TIFF", ".Jpg", ".gif", ".ppm", ".jfif"])
def test_any_ending_is_read_in_any_case(tmp_path: Path, suffix: str) -> None:
    folder = make(tmp_path / "mine", {"a": xml_of(size=None)})
    save_image(folder / "JPEGImages" / f"a{suffix.lower()}")
    (folder / "JPEGImages" / "a.png").unlink()
    (folder / "JPEGImages" / f"a{suffix.lower()}").rename(folder / "JPEGImages" / f"a{suffix}")
    dataset = opened(folder)
    assert dataset.image_path("a").name == f"a{suffix}"
    assert dataset.read_image("a").shape == (40, 60, 3)
    assert (dataset.record("a").width, dataset.record("a").height) == SIZE


def test_another_ending_is_named_with_those_that_are_taken(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": NAMED})
    (folder / "JPEGImages" / "a.png").rename(folder / "JPEGImages" / "a.heic")
    with pytest.raises(
        BadImage, match=r"a\.jpg: does not exist, but there is a\.heic \(image files end in \.jpg, .*webp"
    ):
        _ = opened(folder).images_key


def test_of_two_images_of_one_name_the_annotation_decides_or_both_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": NAMED.replace("a.jpg", "C:\\photos\\A.PNG")})
    save_image(folder / "JPEGImages" / "a.jpg", colour=(200, 0, 0))
    dataset = opened(folder)
    assert dataset.image_path("a").name == "a.png"
    assert check_dataset(dataset).notes == [
        "mine-train: 1 image has several files of one name, <filename> decides: a.png (not a.jpg)"
    ]
    for undecided in ("<filename>b.jpg<", "<filename>a<", "<filename><"):
        (folder / "Annotations" / "a.xml").write_text(NAMED.replace("<filename>a.jpg<", undecided))
        with pytest.raises(BadImage, match=r"a\.jpg: has the name of a\.png, and <filename> does not say which is 'a'"):
            opened(folder).image_path("a")
        (problem, *_) = check_dataset(opened(folder, classes=["gear"])).problems
        assert "a.jpg: has the name of a.png" in problem


def test_a_name_that_ends_twice_and_an_id_that_is_a_name(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a.jpg": NAMED}, ".jpg")
    assert opened(folder).image_path("a.jpg").name == "a.jpg.jpg"
    assert len(opened(folder).record("a.jpg").boxes) == 1
    make(folder, {"b": NAMED}, ".jpg", "b.jpg\n")
    with pytest.raises(BadDataset, match=r"'b\.jpg', is the name of a file; write image ids, .*: b$"):
        opened(folder)


IDS = ("a b", "photo (1)", "photo 1", "caf\u00e9", "night/0001", "n\u00e4chte/\u00fcber 2", "%41", "#1", "猫")


def test_ids_are_kept_as_they_are(tmp_path: Path) -> None:
    dataset = opened(make(tmp_path / "mine", dict.fromkeys(IDS, NAMED)))
    assert dataset.image_ids == IDS
    for image_id in IDS:
        assert len(dataset.record(image_id).boxes) == 1
    assert check_dataset(dataset).problems == []
    assert len(dataset.images_key) == len(dataset.annotations_key) == 64


def test_accents_may_be_composed_in_one_place_and_not_in_another(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"ne\u0301/cafe\u0301": NAMED}, lines="n\u00e9/caf\u00e9\n")
    dataset = opened(folder)
    assert dataset.image_ids == ("n\u00e9/caf\u00e9",)
    assert dataset.image_path(dataset.image_ids[0]).is_file()
    assert len(dataset.record(dataset.image_ids[0]).boxes) == 1


def test_files_that_macos_leaves_are_no_images_and_no_annotations(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": NAMED})
    (folder / "Annotations" / "._a.xml").write_bytes(b"\x00\x05\x16\x07")
    (folder / "Annotations" / ".ipynb_checkpoints").mkdir()
    (folder / "Annotations" / ".ipynb_checkpoints" / "a-checkpoint.xml").write_text(xml_of("old"))
    assert opened(folder).classes == ("gear",)
    make(folder, {".b": NAMED})
    assert opened(folder).image_path(".b").name == ".b.png"


# Image sets


def test_the_list_of_a_class_lists_all_images_of_its_set(tmp_path: Path) -> None:
    """As the devkit has it: 1, 0 (only difficult ones) and -1 (none) are what the annotations say, too."""
    folder = make(tmp_path / "mine", {"a": NAMED, "b": NAMED, "c 1": NAMED})
    sets = folder / "ImageSets" / "Main"
    (sets / "gear_train.txt").write_text("a  1\nb -1\nc 1  0\n")
    assert opened(folder, "gear_train").image_ids == ("a", "b", "c 1")
    assert opened(folder, "gear_train").annotations_key == opened(folder).annotations_key
    (sets / "spaced.txt").write_text("c 1\n")
    assert opened(folder, "spaced").image_ids == ("c 1",)


def test_a_list_that_powershell_wrote(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": NAMED, "b": NAMED})
    (folder / "ImageSets" / "Main" / "wide.txt").write_text("a\r\nb\r\n", "utf-16")
    assert opened(folder, "wide").image_ids == ("a", "b")


# XML beside the images


def test_xml_beside_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for place, name in (("train", "gear"), ("train/night", "bolt"), ("test", "nut")):
        save_image(folder / place / "1.jpg")
        (folder / place / "1.xml").write_text(xml_of(name))
    train, test = opened(folder), opened(folder, "test")
    assert train.name == "mine-train"
    assert train.image_ids == ("1", "night/1")
    assert test.image_ids == ("1",)
    assert train.classes == test.classes == ("bolt", "gear", "nut")
    assert train.record("night/1").labels.tolist() == [0]
    assert check_dataset(train).problems == []
    assert train.annotations_key != test.annotations_key


def test_xml_beside_the_images_with_a_list(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("a", "b", "c"):
        save_image(folder / f"{name}.jpg")
        (folder / f"{name}.xml").write_text(NAMED)
    (folder / "train.txt").write_text("c\na\n")
    assert opened(folder).image_ids == ("c", "a")
    assert opened(folder, ".").image_ids == ("a", "b", "c")
    (folder / "b.xml").unlink()
    (folder / "c.jpg").unlink()
    problems = check_dataset(opened(folder, ".")).problems
    assert [next(name for name in ("b.xml", "c.jpg") if name in one) for one in problems] == ["b.xml", "c.jpg"]
    with pytest.raises(BadDataset, match=r"trian\.txt: no such image set"):
        opened(folder, "trian")


def test_xml_in_the_folder_of_images(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", {"a": NAMED})
    (folder / "Annotations" / "a.xml").rename(folder / "JPEGImages" / "a.xml")
    (folder / "Annotations").rmdir()
    assert len(opened(folder).record("a").boxes) == 1
    assert opened(folder).classes == ("gear",)


# Keys


def test_keys_of_sound_datasets_stay_what_they_were(tmp_path: Path) -> None:
    """Of bytes that no library can change: a key that is another one throws away everybody's caches."""
    home = tmp_path / "VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (home / part).mkdir(parents=True)
    for number, name in enumerate(("dog", "person")):
        (home / "JPEGImages" / f"00000{number}.jpg").write_bytes(b"image %d" % number)
        box = "<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>"
        size = "<size><width>60</width><height>40</height></size>"
        text = f"<annotation>{size}<object><name>{name}</name>{box}</object></annotation>"
        (home / "Annotations" / f"00000{number}.xml").write_text(text)
    (home / "ImageSets/Main/train.txt").write_text("000000\n000001\n")
    found = opened(home)
    assert (found.images_key[:16], found.annotations_key[:16]) == ("5e68f501caa1532e", "94fe1c9c87503d14")
    listed = opened(home, classes=["person", "dog"])
    assert (listed.images_key[:16], listed.annotations_key[:16]) == ("5e68f501caa1532e", "2afb0bc9dd9fd1cf")
    (tmp_path / "toy.json").write_text(
        '{"images": [{"id": 3, "file_name": "000000.jpg", "width": 60, "height": 40}, '
        '{"id": 1, "file_name": "000001.jpg", "width": 60, "height": 40}], '
        '"categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "traffic light"}], '
        '"annotations": [{"id": 1, "image_id": 3, "category_id": 3, "bbox": [0, 0, 20, 10]}, '
        '{"id": 2, "image_id": 1, "category_id": 90, "bbox": [5, 5, 0, 10]}]}'
    )
    coco = open_detection(f"coco:{tmp_path}/toy.json:{home}/JPEGImages", work=tmp_path)
    assert (coco.images_key[:16], coco.annotations_key[:16]) == ("1c39efa8584ee5f5", "45d52128af181f21")


@pytest.mark.parametrize("zero_based", [False, True])
def test_normalised_corners_are_refused(tmp_path: Path, zero_based: bool) -> None:
    folder = make(tmp_path / "voc", {"a": xml_of(), "b": xml_of(box=(0.1, 0, 0.8, 1))})
    dataset = opened(folder, classes=["gear"], zero_based=zero_based)
    with pytest.raises(BadAnnotation, match=r"b\.xml: all its boxes lie between 0 and 1, .* in pixels"):
        dataset.record("b")
