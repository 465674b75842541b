"""YOLO's labels: a data.yaml in each form that programs write, text files of labels, and what is wrong with them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.contract.errors import BadSetting
from stages.datasets import BadAnnotation, BadDataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.digests import combined
from stages.datasets.yolo import YoloDataset

SIZE = (200, 100)  # width, height
BOX = "0 0.5 0.5 0.25 0.5"  # the middle of the image: (75, 25) to (125, 75)


def make(
    folder: Path, labels: Mapping[str, str | None], yaml: str = "train: images/train\nnames: [cat, dog]\n"
) -> Path:
    """A data.yaml, an image for each of the labels below images/train, and a label file unless it is None."""
    for name, text in labels.items():
        image = folder / "images" / "train" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (len(name), 90, 50)).save(image)
        label = folder / "labels" / "train" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            label.write_text(text)
    path = folder / "data.yaml"
    path.write_text(yaml, "utf-8")
    return path


def opened(path: Path, split: str = "train", **options: object) -> YoloDataset:
    dataset = open_detection(f"yolo:{path}:{split}", work=path.parent / "work", options=options)
    assert isinstance(dataset, YoloDataset)
    return dataset


def test_boxes_and_polygons_in_pixels(tmp_path: Path) -> None:
    polygon = "1 0.1 0.2 0.3 0.2 0.2 0.9"
    path = make(tmp_path, {"a": f"{BOX}\n\n{polygon}\n", "b": "", "c": None})
    dataset = opened(path)
    assert dataset.image_ids == ("a", "b", "c")
    assert dataset.classes == ("cat", "dog")
    record = dataset.record("a")
    np.testing.assert_allclose(record.boxes, [[75, 25, 125, 75], [20, 20, 60, 90]], atol=1e-4)
    assert record.boxes.dtype == np.float32
    assert record.labels.tolist() == [0, 1]
    assert (record.width, record.height) == SIZE
    assert record.difficult.tolist() == [False, False]
    assert len(dataset.record("b").boxes) == len(dataset.record("c").boxes) == 0
    report = check_dataset(dataset)
    assert report.problems == []
    assert report.notes == [f"{dataset.name}: 1 image has no label file, and so no objects: c"]
    assert report.classes["dog"].objects == 1


@pytest.mark.parametrize(
    "yaml",
    [
        "names: {0: cat, 1: dog}\nnc: 2\ntrain: images/train",
        "names:\n  '1': dog\n  '0': cat\ntrain: [images/train]",
        "path: .\nnames: [cat, dog]\ntrain: ./images/train/",
        "path: ROOT\nnames: [cat, dog]\ntrain: images",
        "names: [cat, dog]\ntrain: ../images/train  # as Roboflow writes it",
        "names: [cat, dog]\ntrain: list.txt",
        "names: [cat, dog]\ntrain: ROOT/list.txt",
        "\ufeffnames: [cat, dog]\nval: nowhere\ntrain: images/train\ndownload: |\n  rm -r nothing\n",
    ],
)
def test_forms_of_data_yaml(tmp_path: Path, yaml: str) -> None:
    path = make(tmp_path / "set", {"a": BOX}, yaml.replace("ROOT", str(tmp_path / "set")))
    (path.parent / "list.txt").write_text("./images/train/a.jpg\n")
    dataset = opened(path)
    assert [dataset.image_path(one).name for one in dataset.image_ids] == ["a.jpg"]
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.record(dataset.image_ids[0]).boxes) == 1


def test_ids_are_paths_below_what_the_split_names(tmp_path: Path) -> None:
    path = make(tmp_path, {"b": BOX, "night/a 1": BOX, "caf\u00e9": BOX})
    assert opened(path).image_ids == ("b", "caf\u00e9", "night/a 1")
    path.write_text("names: [cat, dog]\ntrain: list.txt\n")
    (tmp_path / "list.txt").write_text("images/train/night/a 1.jpg\nimages/train/b.jpg\n")
    assert opened(path).image_ids == ("night/a 1", "b")
    (tmp_path / "images" / "more").mkdir()
    shutil.copy(tmp_path / "images/train/b.jpg", tmp_path / "images/more/b.jpg")
    path.write_text("names: [cat, dog]\ntrain: [images/train, images/more]\n")
    assert opened(path).image_ids == ("train/b", "train/caf\u00e9", "train/night/a 1", "more/b")


def test_labels_may_lie_beside_the_images(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(BOX)
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: .\n")
    assert len(opened(tmp_path / "data.yaml").record("a").boxes) == 1


def test_a_subset_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make(tmp_path, {"a": f"{BOX}\n1 0.5 0.5 1 1\n"})
    dataset = opened(path, classes=["dog"])
    assert dataset.record("a").labels.tolist() == [0]
    assert dataset.record("a").boxes.tolist() == [[0, 0, 200, 100]]
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        _ = dataset.annotations_key
    assert [one.getMessage() for one in caplog.records] == [
        f"{dataset.name}: 1 object is of classes that are not listed, left out: cat 1"
    ]
    with pytest.raises(BadDataset, match="has no class 'dgo', did you mean 'dog'"):
        opened(path, classes=["dgo"])
    with pytest.raises(BadSetting, match="unknown setting 'year'"):
        opened(path, year=2007)


def test_what_has_no_area_is_left_out_and_named(tmp_path: Path) -> None:
    lines = [BOX, "0 0.5 0.5 0 0.5", "0 nan 0.5 0.1 0.1", "1 1.005 0.5 0.01 0.5", "1 0.1 0.1 0.1 0.2 0.1 0.3"]
    dataset = opened(make(tmp_path, {"a": "\n".join(lines)}))
    assert dataset.record("a").boxes.tolist() == [[75, 25, 125, 75]]
    told = "a.txt line 2 (cat), a.txt line 3 (cat), a.txt line 4 (dog), a.txt line 5 (dog)"
    assert dataset.notes() == [f"{dataset.name}: 4 objects have no area, left out: {told}"]


def test_edges_a_little_outside_are_cut(tmp_path: Path) -> None:
    dataset = opened(make(tmp_path, {"a": "0 0.5 0.5 1.009 1.0\n"}))
    assert dataset.record("a").boxes.tolist() == [[0, 0, 200, 100]]


BAD_LINES = {
    "a word": ("cat 0.5 0.5 0.1 0.1", r"line 2, 'cat 0\.5 0\.5 0\.1 0\.1', is not a list of numbers"),
    "a class too many": ("2 0.5 0.5 0.1 0.1", r"line 2 is of class 2, but .*data\.yaml has the classes 0 to 1"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", r"line 2 is of class 0\.5"),
    "no class": ("nan 0.5 0.5 0.1 0.1", "line 2 is of class nan"),
    "three numbers": ("1 0.5 0.5 0.1", r"line 2 \(dog\) has 4 numbers; write class x y width height"),
    "a confidence": ("1 0.5 0.5 0.1 0.1 0.9", r"line 2 \(dog\) has 6 numbers"),
    "pixels": ("1 75 25 50 50", r"line 2 \(dog\) has the number 75; write fractions of the image"),
    "a side below zero": ("1 0.5 0.5 -0.005 0.1", r"line 2 \(dog\) has a width or height below zero"),
    "corner and sides": ("0 0.0 0.0 0.5 0.5", r"line 2 \(cat\) is a box from \(-0\.25, -0\.25\) to .*outside it"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_corrupted_line_is_named(tmp_path: Path, case: str) -> None:
    line, words = BAD_LINES[case]
    dataset = opened(make(tmp_path, {"a": BOX, "b": f"{BOX}\n{line}\n"}))
    assert len(dataset.record("a").boxes) == 1
    with pytest.raises(BadAnnotation, match=rf"labels/train/b\.txt: {words}"):
        dataset.record("b")
    (problem,) = check_dataset(dataset).problems
    assert "b.txt: line 2" in problem


def test_the_check_lists_every_bad_line_and_counts_what_is_too_much(tmp_path: Path) -> None:
    lines = [line for line, _ in BAD_LINES.values()]
    path = make(tmp_path, {"a": "\n".join([BOX, *lines, "1 0.5 0.5 0.2 0.2"]), "b": BOX})
    report = check_dataset(opened(path))
    places = [problem.partition("a.txt: line ")[2].split()[0].rstrip(",") for problem in report.problems]
    assert sorted(map(int, places)) == list(range(2, 2 + len(lines)))
    assert report.problem_count == len(lines)
    assert {name: count.objects for name, count in report.classes.items()} == {"cat": 3, "dog": 1}
    with pytest.raises(BadAnnotation, match=r"a\.txt: line 2, 'cat"):
        opened(path).record("a")
    report = check_dataset(opened(make(tmp_path, {"a": "cat\n" * 33})))
    assert len(report.problems) == 21
    assert report.problems[-1] == (
        f"{tmp_path}/labels/train/a.txt: 13 more problems are not listed; correct those above, then check again"
    )
    assert report.problem_count == 33


def test_an_object_outside_is_a_problem_and_not_also_one_without_area(tmp_path: Path) -> None:
    report = check_dataset(opened(make(tmp_path, {"a": f"{BOX}\n0 1.0 0.5 0.0 0.5\n", "b": "1 1.0 1.0 1.0 1.0\n"})))
    assert ["b.txt: line 1 (dog) is a box" in problem for problem in report.problems] == [True]
    (note,) = [note for note in report.notes if "no area" in note]
    assert note.endswith("-train: 1 object has no area, left out: a.txt line 2 (cat)")


def test_a_line_that_is_there_twice_is_one_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    polygon = "1 0.1 0.2 0.3 0.2 0.2 0.9"
    once = {"a": f"{BOX}\n{polygon}\n", "b": BOX}
    twice = {"a": f"{BOX}\n{polygon}\n0 0.50 0.5 0.25 0.5\n{polygon}\n", "b": BOX}
    plain, dataset = opened(make(tmp_path / "once", once)), opened(make(tmp_path / "twice", twice))
    assert dataset.record("a").boxes.tolist() == plain.record("a").boxes.tolist()
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        key, _ = dataset.annotations_key, plain.annotations_key
    told = f"{dataset.name}: 2 objects repeat another exactly, left out: a.txt (2)"
    assert [one.getMessage() for one in caplog.records] == [told]
    assert check_dataset(dataset).notes == [told]
    assert check_dataset(dataset).problems == []
    # Caches made when these lines were objects have another key; those of other images and data sets keep theirs.
    as_before = combined("classes", [dataset._annotations_digest, *dataset._reading, *dataset.classes])
    assert key != as_before
    assert plain.annotations_key == combined("classes", [plain._annotations_digest, *plain._reading, *plain.classes])
    assert dataset.annotation_digest("b") == plain.annotation_digest("b")
    content = dataset._files.entry(dataset.annotation_path("a"), image=False).sha256
    of_all_lines = combined("annotation", [content, *dataset._reading, "classes", *dataset.classes])
    assert dataset.annotation_digest("a") != of_all_lines
    assert dataset.subset([1]).annotations_key == plain.subset([1]).annotations_key


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    path = make(tmp_path, {"a": BOX})
    (tmp_path / "labels/train/a.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BadAnnotation, match=r"a\.txt: is not a text file"):
        opened(path).record("a")


def test_keypoints_are_no_polygon(tmp_path: Path) -> None:
    yaml = "train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 2]\n"
    record = opened(make(tmp_path, {"a": f"{BOX} 0.1 0.1 0.9 0.9\n"}, yaml)).record("a")
    assert record.boxes.tolist() == [[75, 25, 125, 75]]


ALIASES = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Sixteen million words, were they written out."""
BAD_YAML = {
    "no names": ("train: images/train", "has no list 'names' of classes"),
    "a count that is another": ("train: images/train\nnames: [cat]\nnc: 2", "nc = 2, but there are 1 names"),
    "a gap": ("train: images/train\nnames: {0: cat, 2: dog}", "names are not numbered from 0 to 1"),
    "Norway": ("train: images/train\nnames: [se, no]", "class 1 has the name False; write a name in quotes"),
    "a name twice": ("train: images/train\nnames: [cat, cat]", "the class 'cat' appears twice"),
    "no such split": ("val: images/train\nnames: [cat]", "has no images for 'train'; it may be one of val"),
    "no such folder": ("train: images/trian\nnames: [cat]", "train has 'images/trian', but .* is neither a folder"),
    "no such root": ("path: nowhere\ntrain: images/train\nnames: [cat]", "path = 'nowhere', but there is no folder"),
    "no YAML": ("train: [", "is not valid YAML"),
    "no table": ("- a\n- b", "is not a table"),
    "an object of Python": ("names: !!python/object/apply:os.system ['false']", "is not valid YAML"),
    "numbers": ("train: 3\nnames: [cat]", "train has 3, which is neither a folder nor a list of images"),
    "an empty list": ("train: empty.txt\nnames: [cat]", "train has no images"),
    "a list of other things": (
        "train: odd.txt\nnames: [cat]",
        r"odd\.txt: line 1, 'images/train/x\.jpg', is not an image",
    ),
    "a huge number": (f"train: images/train\nnames: [cat]\nnc: 0x{'f' * 9000}", "a number of many digits"),
    "a deep list": (f"names: {'[' * 5000}", "is not valid YAML"),
    "aliases": (f"a: &a [x, x, x, x, x, x, x, x]\n{ALIASES}names: [*i]\n", "class 0 has the name a list of 8"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_a_data_yaml_that_is_not_whole_is_one_sentence(tmp_path: Path, case: str) -> None:
    text, words = BAD_YAML[case]
    path = make(tmp_path, {"a": BOX}, text)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "odd.txt").write_text("images/train/x.jpg\n")
    with pytest.raises(BadDataset, match=words) as raised:
        opened(path)
    assert "\n" not in str(raised.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"data\.yaml: no such file"):
        opened(tmp_path / "data.yaml")
    with pytest.raises(
        BadDataset, match=r"none of the 2 images of train has a label file; add them \(that of .*labels/train/a\.txt"
    ):
        opened(make(tmp_path, {"a": None, "b": None}))
    with pytest.raises(BadDataset, match="is not a dataset"):
        open_detection("yolo:data.yaml", work=tmp_path)


def test_two_images_of_one_label_file(tmp_path: Path) -> None:
    path = make(tmp_path, {"a": BOX})
    Image.new("RGB", SIZE).save(tmp_path / "images/train/a.png")
    with pytest.raises(BadDataset, match=r"a\.jpg and .*a\.png: share a label file as image 'a'"):
        opened(path)


def test_keys_follow_labels_names_and_images_but_not_the_place(tmp_path: Path) -> None:
    labels: dict[str, str | None] = {"a": BOX, "b": None}
    first, same = opened(make(tmp_path / "one", labels)), opened(make(tmp_path / "two", labels))
    assert (first.images_key, first.annotations_key) == (same.images_key, same.annotations_key)
    changed = opened(make(tmp_path / "three", {"a": BOX, "b": ""}))
    assert changed.images_key == first.images_key
    assert changed.annotations_key != first.annotations_key
    one = opened(make(tmp_path / "four", labels), classes=["cat"])
    assert one.annotations_key != first.annotations_key
    turned = "train: images/train\nnames: [dog, cat]\n"
    other = opened(make(tmp_path / "five", labels, turned), classes=["cat"])
    assert other.annotations_key != one.annotations_key
    assert first.subset([1]).annotations_key != first.annotations_key
