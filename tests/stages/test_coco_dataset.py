"""Datasets in COCO's format: what is read, what is refused, and the keys."""

from __future__ import annotations

import json
import logging
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rcnn_cli.main import main
from stages.contract.errors import BadImage, BadSetting
from stages.datasets import BadAnnotation, BadDataset, CocoDataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.digests import combined
from stages.detections import Detections, detections_from_arrays
from stages.eval.coco import write_coco_results

Content = dict[str, Any]


def content() -> Content:
    """Three images (the second without annotations, the third without a size), categories 3 and 90, one crowd."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 42, "file_name": "a.jpg", "width": 60, "height": 40, "license": 1},
            {"id": 7, "file_name": "b.png", "width": 60, "height": 40},
            {"id": 9, "file_name": "deep/c.jpg"},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "traffic light", "supercategory": "x"}],
        "annotations": [
            {"id": 5, "image_id": 9, "category_id": 3, "bbox": [0, 0, 60, 40], "area": 1200.5, "iscrowd": 1},
            {"id": 6, "image_id": 42, "category_id": 90, "bbox": [10.5, 5.25, 20, 30.5], "area": 300.0, "iscrowd": 0},
            {"id": 8, "image_id": 42, "category_id": 3, "bbox": [50, 30, 10.4, 10]},
        ],
    }


def write(folder: Path, stated: Content) -> Path:
    """The file and its images."""
    for name in ("a.jpg", "b.png", "deep/c.jpg"):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.new("RGB", (60, 40), (90, 50, len(name))).save(path)
    path = folder / "instances_toy.json"
    path.write_text(json.dumps(stated))
    return path


def opened(folder: Path, stated: Content | None = None) -> CocoDataset:
    path = write(folder, stated or content())
    dataset = open_detection(f"coco:{path}:{folder / 'images'}", work=folder / "work")
    assert isinstance(dataset, CocoDataset)
    return dataset


def test_records_are_in_the_project_terms(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    assert dataset.name == "instances_toy"
    assert dataset.image_ids == ("7", "9", "42")
    assert dataset.classes == ("traffic light", "toothbrush")
    assert dataset.category_ids == (3, 90)
    assert dataset.image_number("42") == 42
    record = dataset.record("42")
    # The second box reaches 0.4 pixels over the edge, and is cut.
    expected = np.array([[10.5, 5.25, 30.5, 35.75], [50, 30, 60, 40]], np.float32)
    np.testing.assert_array_equal(record.boxes, expected)
    assert record.boxes.dtype == np.float32
    assert record.labels.tolist() == [1, 0]
    assert record.difficult.tolist() == [False, False]
    assert record.areas.tolist() == [300, 104]
    assert record.path == tmp_path / "images" / "a.jpg"


def test_no_annotations_a_crowd_and_a_size_from_the_image(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    empty = dataset.record("7")
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.shape == empty.difficult.shape == empty.areas.shape == (0,)
    crowd = dataset.record("9")
    assert (crowd.width, crowd.height) == (60, 40)
    assert crowd.difficult.tolist() == crowd.crowds.tolist() == [True]
    assert dataset.record("42").crowds.tolist() == [False, False]
    assert dataset.images_with_crowds == {"9"}
    assert crowd.areas.tolist() == [1200.5]


def test_subsets_and_copies(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    one = dataset.subset([1])
    assert one.image_ids == ("9",)
    assert one.classes == dataset.classes
    assert one.key != dataset.key
    assert one.record("9").labels.tolist() == [0]
    assert one.images_with_crowds == {"9"}
    assert not dataset.subset([0, 2]).images_with_crowds
    with pytest.raises(BadDataset, match="has no image '42'"):
        one.record("42")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.key == dataset.key
    np.testing.assert_array_equal(copy.record("42").boxes, dataset.record("42").boxes)


def test_keys_follow_the_content(tmp_path: Path) -> None:
    first = opened(tmp_path / "one")
    same = opened(tmp_path / "two")
    assert (same.images_key, same.annotations_key) == (first.images_key, first.annotations_key)
    changed = content()
    changed["annotations"][1]["bbox"][0] = 11
    other = opened(tmp_path / "three", changed)
    assert other.images_key == first.images_key
    assert other.annotations_key != first.annotations_key
    (tmp_path / "four/images").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(tmp_path / "four/images/a.jpg")
    repainted = opened(tmp_path / "four")
    assert repainted.images_key != first.images_key
    assert repainted.annotations_key == first.annotations_key


def without(table: str, number: int, key: str) -> Callable[[Content], object]:
    return lambda stated: stated[table][number].pop(key)


def put(table: str, number: int, key: str, value: object) -> Callable[[Content], object]:
    return lambda stated: stated[table][number].update({key: value})


REFUSED: dict[str, tuple[Callable[[Content], object], str]] = {
    "no annotations": (lambda stated: stated.pop("annotations"), "has no list 'annotations' of objects"),
    "no images": (lambda stated: stated["images"].clear(), "its list 'images' is empty"),
    "a list of numbers": (lambda stated: stated.update(categories=[3, 90]), "has no list 'categories' of objects"),
    "no id": (without("images", 1, "id"), "image 2 has no 'id'"),
    "a decimal as id": (put("images", 0, "id", 1.5), "image 1 has id = 1.5, neither a whole number nor text"),
    "an id of two lines": (put("images", 0, "id", "a\nb"), r"image 1 has id = 'a\nb', neither a whole number nor text"),
    "half a surrogate": (put("images", 0, "file_name", "\ud800.jpg"), r"image 42 has file_name = '\ud800.jpg'"),
    "a size of text": (put("images", 0, "width", "60"), "image 42 has width = '60', not a whole number"),
    "a huge number": (put("annotations", 1, "area", 10**400), "annotation 6 has area = a number of many digits"),
    "an id twice": (put("images", 0, "id", 7), "image 7 appears twice"),
    "no file": (without("images", 0, "file_name"), "image 42 has file_name = None"),
    "a file elsewhere": (put("images", 0, "file_name", "../a.jpg"), "name a file inside the folder"),
    "a category twice": (put("categories", 0, "id", 3), "category 3 (traffic light): its id or name appears twice"),
    "a name twice": (put("categories", 0, "name", "traffic light"), "its id or name appears twice"),
    "a name of two lines": (put("categories", 0, "name", "a\nb"), r"category 90 has the name 'a\nb'"),
    "an unknown image": (put("annotations", 0, "image_id", 1), "annotation 5 refers to image 1, which the file"),
    "an unknown category": (put("annotations", 0, "category_id", 1), "annotation 5 refers to category 1, which"),
    "no category": (without("annotations", 2, "category_id"), "annotation 8 has no 'category_id'"),
    "no box": (without("annotations", 2, "bbox"), "annotation 8 has bbox = None; give it four numbers"),
    "three numbers": (put("annotations", 1, "bbox", [1, 2, 3]), "annotation 6 has bbox = [1, 2, 3]"),
    "a text in a box": (put("annotations", 1, "bbox", [1, 2, 3, "4"]), "give it four numbers"),
    "an area of text": (put("annotations", 1, "area", "big"), "annotation 6 has area = 'big'"),
    "an id of two objects": (put("annotations", 2, "id", 6), "annotation 6 appears twice, with different content"),
    "a crowd of two": (put("annotations", 1, "iscrowd", 2), "annotation 6 has iscrowd = 2; write 0 or 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_whole_is_one_sentence(tmp_path: Path, case: str) -> None:
    change, words = REFUSED[case]
    stated = content()
    change(stated)
    with pytest.raises(BadDataset) as raised:
        opened(tmp_path, stated)
    assert str(raised.value).startswith(str(tmp_path / "instances_toy.json"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_check_lists_all_that_is_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    stated = content()
    stated["images"][0]["file_name"] = "../a.jpg"
    stated["categories"][1]["name"] = ""
    del stated["annotations"][0]["bbox"]
    stated["annotations"][1]["category_id"] = 4
    path = write(tmp_path, stated)
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", f"coco:{path}:{tmp_path / 'images'}"])
    printed = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    words = [
        "image 42 has file_name",
        "category 3 has the name ''",
        "annotation 5 has bbox",
        "annotation 6 refers to cat",
    ]
    for line, one in zip(printed, words, strict=False):
        assert line.startswith(f"{path}: {one}")
    assert printed[4:] == ["4 problems; images and boxes are checked once the file can be read"]
    stated["annotations"] = [{"id": n} for n in range(30)]
    write(tmp_path, stated)
    with pytest.raises(SystemExit):
        main(["data", "check", f"coco:{path}:{tmp_path / 'images'}"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 22
    assert printed[20] == f"{path}: 12 more problems are not listed; correct those above, then check again"
    assert printed[21].startswith("32 problems;")


def test_an_annotation_that_is_there_twice_is_one_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stated = content()
    stated["annotations"].append(dict(reversed(stated["annotations"][1].items())))
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        dataset = opened(tmp_path, stated)
    told = f"{tmp_path / 'instances_toy.json'}: 1 annotation repeats another exactly, left out: 6"
    assert [one.getMessage() for one in caplog.records] == [told]
    assert dataset.record("42").labels.tolist() == [1, 0]
    assert check_dataset(dataset).notes == [told]
    as_before = combined("coco", [dataset.file.sha256, *dataset.image_ids, "classes", *dataset.classes])
    assert dataset.annotations_key != as_before
    assert opened(tmp_path).annotations_key == combined(
        "coco", [opened(tmp_path).file.sha256, *dataset.image_ids, "classes", *dataset.classes]
    )
    for one in stated["annotations"]:
        del one["id"]  # without ids both are objects: nothing says that they are one
    assert len(opened(tmp_path, stated).record("42").labels) == 3


BAD_BOXES = {
    "a negative width": ([5, 5, -3, 10], "of negative width or height"),
    "a negative height": ([5, 5, 10, -1], "of negative width or height"),
    "over the edge": ([50, 5, 12, 10], "outside its image of 60 x 40 pixels"),
    "beyond the edge": ([61.5, 5, 0.5, 10], "outside its image"),
    "far beyond": ([1e39, 5, 10, 10], "outside its image"),
}


@pytest.mark.parametrize("case", BAD_BOXES)
def test_an_impossible_box_stops_its_own_record_alone(tmp_path: Path, case: str) -> None:
    box, words = BAD_BOXES[case]
    stated = content()
    stated["annotations"][1]["bbox"] = box
    dataset = opened(tmp_path, stated)
    assert len(dataset.record("9").boxes) == 1
    with pytest.raises(
        BadAnnotation, match=r"instances_toy.json: annotation 6 \(toothbrush\) of image 42 has"
    ) as raised:
        dataset.record("42")
    assert words in str(raised.value)


def test_boxes_without_an_area_are_left_out_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = content()
    stated["annotations"][1]["bbox"][2] = 0
    stated["annotations"] += [
        {"id": 100 + n, "image_id": 7, "category_id": 3, "bbox": [n, 2, 3.5, 0], "area": 9.0, "iscrowd": n % 2}
        for n in range(6)
    ]
    warnings: list[str] = []
    monkeypatch.setattr(logging.getLogger("stages.datasets"), "warning", lambda text, *of: warnings.append(text % of))
    dataset = opened(tmp_path, stated)
    for _ in range(2):
        assert dataset.record("42").labels.tolist() == [0]
        assert len(dataset.record("7").boxes) == 0
    (said,) = warnings
    assert said == (
        f"{tmp_path / 'instances_toy.json'}: 7 annotations have no area, left out: 100, 101, 102, 103, 104, ..."
    )
    assert check_dataset(dataset).notes == [said]
    assert check_dataset(dataset).problems == []
    assert opened(tmp_path / "other").notes() == []


NO_AREA = {
    "a width that float32 rounds away": ([10, 5, 1e-7, 10], None),
    "beyond the edge by less than a pixel": ([60, 5, 0.5, 10], None),
    "clipped to nothing": ([59.9999999, 5, 0.5, 10], None),
    "above the upper edge": ([5, -0.5, 10, 0.5], None),
    "not a number": ([math.nan, 5, 5, 10], None),
    "infinite": ([5, 5, math.inf, 10], None),
    "an area below zero": ([5, 5, 10, 10], -1.0),
    "an area that is not a number": ([5, 5, 10, 10], math.nan),
}


@pytest.mark.parametrize("sized", [True, False], ids=["stated size", "size of the file"])
@pytest.mark.parametrize("case", NO_AREA)
def test_what_has_no_area_is_no_object_and_changes_the_key(
    tmp_path: Path, case: str, sized: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither an example nor missed; results of before, when it was an object, have another key."""
    stated = content()
    box, area = NO_AREA[case]
    stated["annotations"][1].update({"bbox": box} if area is None else {"bbox": box, "area": area})
    if not sized:
        stated["images"][0].update(width=-1, height=None)
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        dataset = opened(tmp_path, stated)
    assert [one.getMessage() for one in caplog.records] == [
        f"{tmp_path / 'instances_toy.json'}: 1 annotation has no area, left out: 6"
    ]
    record = dataset.record("42")
    assert record.labels.tolist() == [0]
    assert record.boxes.tolist() == [[50, 30, 60, 40]]
    assert check_dataset(dataset).classes["toothbrush"].objects == 0
    as_before = combined("coco", [dataset.file.sha256, *dataset.image_ids, "classes", *dataset.classes])
    assert dataset.annotations_key != as_before
    stated["annotations"][1].update({"bbox": [1, 2, 0, 4], "area": 1})
    assert opened(tmp_path, stated).annotations_key == combined(
        "coco", [opened(tmp_path, stated).file.sha256, *dataset.image_ids, "classes", *dataset.classes]
    )


def test_listed_classes_are_a_subset_in_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, content())
    source = f"coco:{path}:{tmp_path / 'images'}"
    whole = open_detection(source, work=tmp_path)
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        one = open_detection(source, work=tmp_path, options={"classes": ["toothbrush"]})
    assert [line.getMessage() for line in caplog.records] == [
        f"{path}: 2 annotations are of classes that are not listed, left out: traffic light 2"
    ]
    assert one.classes == ("toothbrush",)
    assert one.category_ids == (90,)
    assert one.image_ids == whole.image_ids
    assert one.record("42").labels.tolist() == [0]
    assert one.record("42").boxes.tolist() == [[10.5, 5.25, 30.5, 35.75]]
    assert len(one.record("9").boxes) == len(one.record("9").difficult) == 0
    assert one.images_key == whole.images_key
    assert one.annotations_key != whole.annotations_key
    both = open_detection(source, work=tmp_path, options={"classes": ["toothbrush", "traffic light"]})
    assert both.record("42").labels.tolist() == [0, 1]
    assert both.category_ids == (90, 3)
    same = open_detection(source, work=tmp_path, options={"classes": ["traffic light", "toothbrush"]})
    assert same.annotations_key == whole.annotations_key
    with pytest.raises(
        BadDataset, match=r"instances_toy\.json: has no category 'tothbrush', did you mean 'toothbrush'"
    ):
        open_detection(source, work=tmp_path, options={"classes": ["tothbrush"]})


def test_ids_may_be_text_and_names_may_have_slashes(tmp_path: Path) -> None:
    stated = content()
    names = {42: "night/0001", 7: "caf\u00e9 (1)", 9: 9}
    for image in stated["images"]:
        image["id"] = names[image["id"]]
    for number, one in enumerate(stated["annotations"]):
        one.update(image_id=names[one["image_id"]], id=f"a{number}", category_id=str(one["category_id"]))
    stated["categories"][0].update(id="90", name="cups/mugs")
    stated["categories"][1].update(id="3")
    dataset = opened(tmp_path, stated)
    assert dataset.image_ids == ("9", "caf\u00e9 (1)", "night/0001")
    assert dataset.classes == ("traffic light", "cups/mugs")
    assert dataset.record("night/0001").labels.tolist() == [1, 0]
    assert [dataset.image_number(one) for one in dataset.image_ids] == [9, "caf\u00e9 (1)", "night/0001"]
    stated["annotations"][1]["bbox"] = [50, 5, 12, 10]
    with pytest.raises(BadAnnotation, match=r"annotation a1 \(cups/mugs\) of image night/0001 has the box"):
        opened(tmp_path, stated).record("night/0001")
    stated["images"].append({"id": "9", "file_name": "a.jpg"})
    with pytest.raises(BadDataset, match="image 9 appears twice"):
        opened(tmp_path, stated)


def test_results_have_the_ids_of_the_file(tmp_path: Path) -> None:
    """pycocotools takes them for those of the annotations, numbers or text."""
    from pycocotools.coco import COCO

    stated = content()
    stated["images"][0]["id"] = stated["annotations"][1]["image_id"] = stated["annotations"][2]["image_id"] = "a"
    dataset = opened(tmp_path, stated)
    found = Detections(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([1], np.int32))
    detections = detections_from_arrays(dataset.classes, [("a", found)], {"a": (60, 40)})
    write_coco_results(dataset, detections, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == [
        {"image_id": "a", "category_id": 90, "bbox": [1, 2, 2, 2], "score": 0.5}
    ]
    assert len(COCO(str(dataset.file.path)).loadRes(str(tmp_path / "results.json")).anns) == 1


def test_a_file_name_is_found_whatever_the_form_of_its_accents(tmp_path: Path) -> None:
    stated = content()
    stated["images"][0]["file_name"] = "caf\u00e9/\u00e9.jpg"
    path = tmp_path / "images" / "cafe\u0301" / "e\u0301.jpg"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(path)
    assert opened(tmp_path, stated).image_path("42") == path


def test_sources_that_cannot_be_opened(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    with pytest.raises(BadDataset, match=r"other\.json: no such file"):
        open_detection(f"coco:{tmp_path}/other.json:{tmp_path}/images", work=tmp_path)
    with pytest.raises(BadDataset, match="lost: no such folder; end the source with"):
        open_detection(f"coco:{path}:{tmp_path}/lost", work=tmp_path)
    with pytest.raises(BadDataset, match=r"coco:ANNOTATIONS\.json:IMAGES"):
        open_detection(f"coco:{path.name}", work=tmp_path)
    with pytest.raises(BadSetting, match="unknown setting 'year'"):
        open_detection(f"coco:{path}:{tmp_path}/images", work=tmp_path, options={"year": 2017})
    path.write_text('{"images": [')
    with pytest.raises(BadDataset, match=r"instances_toy\.json: is not a complete JSON file"):
        open_detection(f"coco:{path}:{tmp_path}/images", work=tmp_path)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    dataset = opened(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    assert len(dataset.record("7").boxes) == 0
    with pytest.raises(BadImage, match=r"b\.png: does not exist"):
        _ = dataset.images_key


def test_the_command_checks_every_image_and_box(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    path = write(tmp_path, content())
    source = f"coco:{path}:{tmp_path / 'images'}"
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", source])
    printed = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert printed[1].split() == ["traffic", "light", "2", "2", "1", "0"]
    assert printed[-1] == "3 images, 0 problems"
    stated = content()
    stated["annotations"][2]["bbox"][2] = 0
    write(tmp_path, stated)
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", source])
    output, errors = capsys.readouterr()
    assert ended.value.code == 0
    told = f"{path}: 1 annotation has no area, left out: 8"
    assert output.splitlines()[-2:] == [told, "3 images, 0 problems"]
    assert errors.splitlines() == [f"warning: {told}"]
    stated["annotations"][2]["bbox"][2] = -2
    stated["images"][1]["width"] = 61
    write(tmp_path, stated)
    (tmp_path / "images/deep/c.jpg").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", source])
    printed = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    assert "states 61 x 40 pixels for image 7" in printed[0]
    assert "c.jpg" in printed[1]
    assert "annotation 8 (traffic light) of image 42 has the box [50, 30, -2, 10]" in printed[2]
    assert printed[-1] == "3 images, 3 problems"


def test_normalised_boxes_are_refused(tmp_path: Path) -> None:
    stated = content()
    for annotation, box in zip(
        stated["annotations"], ([0, 0, 1, 1], [0.1, 0.2, 0.5, 0.3], [0.5, 0, 0.1, 1]), strict=True
    ):
        annotation["bbox"] = box
    with pytest.raises(BadDataset, match=r"instances_toy\.json: all its boxes lie between 0 and 1, .* in pixels"):
        opened(tmp_path, stated)


def listed(folder: Path, text: str) -> CocoDataset:
    path = write(folder, content())
    (folder / "some.txt").write_text(text)
    options = {"images_listed_in": str(folder / "some.txt")}
    dataset = open_detection(f"coco:{path}:{folder / 'images'}", work=folder / "work", options=options)
    assert isinstance(dataset, CocoDataset)
    return dataset


def test_a_list_names_the_images_to_take(tmp_path: Path) -> None:
    dataset, whole = listed(tmp_path, "42\n\n 7 \n"), opened(tmp_path)
    assert dataset.image_ids == ("42", "7")
    assert dataset.name == "instances_toy-some"
    assert dataset.classes == whole.classes
    assert dataset.key != whole.key
    np.testing.assert_array_equal(dataset.record("42").boxes, whole.record("42").boxes)
    with pytest.raises(BadDataset, match="has no image '9'"):
        dataset.record("9")
    assert check_dataset(dataset).problem_count == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("42\n43\n", "some.txt: line 2, '43', is not the id of an image in .*instances_toy.json"),
        ("42\n7\n42\n", "'42' is on lines 1 and 3"),
        ("\n", "lists no images"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadDataset, match=message):
        listed(tmp_path, text)
