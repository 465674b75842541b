"""Several datasets as one, the papers' 07+12 among them."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import RecipeError, load_recipe
from stages.contract.errors import BadSetting
from stages.datasets import VOC_CLASSES, BadDataset, Dataset, open_dataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.combined import CombinedDataset
from stages.datasets.records import record_digest

SIZE = (60, 40)  # width, height


def save_image(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (colour, 50, 90)).save(path)


def make_voc(folder: Path, objects: dict[str, str], split: str = "trainval") -> str:
    """A source: a folder with one object of this class on each image."""
    for number, (image_id, name) in enumerate(objects.items()):
        save_image(folder / "JPEGImages" / f"{image_id}.png", number)
        box = "<bndbox><xmin>5</xmin><ymin>1</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>"
        path = folder / "Annotations" / f"{image_id}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation><object><name>{name}</name>{box}</object></annotation>")
    sets = folder / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    (sets / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in objects))
    return f"voc:{folder}:{split}"


def make_coco(folder: Path, name: str, ids: tuple[int, ...] = (1, 2), crowd: int = 0) -> str:
    """A source: a file with one object of the class `name` on each image."""
    for number in ids:
        save_image(folder / "images" / f"{number}.png", number)
    content = {
        "images": [{"id": one, "file_name": f"{one}.png", "width": 60, "height": 40} for one in ids],
        "categories": [{"id": 7, "name": name}, {"id": 9, "name": "tail"}],
        "annotations": [
            {"id": one, "image_id": one, "category_id": 7, "bbox": [1, 2, 30, 20], "iscrowd": crowd} for one in ids
        ],
    }
    (folder / "toy.json").write_text(json.dumps(content))
    return f"coco:{folder}/toy.json:{folder}/images"


def opened(sources: list[str], work: Path, **options: object) -> CombinedDataset:
    dataset = open_detection(sources, work=work, options=options)
    assert isinstance(dataset, CombinedDataset)
    return dataset


def test_digests_of_records_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [make_voc(tmp_path / "a", {"x": "cow"}), make_coco(tmp_path / "b", "cow")]
    for chosen in (sources, sources[1:], sources[:1]):
        dataset = open_detection(chosen, work=tmp_path, options={})
        expected = {one: record_digest(dataset.record(one)) for one in dataset.image_ids}
        assert dataset.record_digests == expected
        with monkeypatch.context() as patched:
            patched.setattr(type(dataset), "record", lambda *_: pytest.fail("read again"))
            assert open_detection(chosen, work=tmp_path, options={}).record_digests == expected


def test_voc_07_and_12(tmp_path: Path) -> None:
    sources = [
        make_voc(tmp_path / "VOC2007", {"000005": "chair", "000007": "car"}),
        make_voc(tmp_path / "VOC2012", {"2008_000002": "tvmonitor"}),
    ]
    dataset = opened(sources, tmp_path)
    assert dataset.name == "voc2007-trainval-voc2012-trainval"
    assert dataset.image_ids == ("000005", "000007", "2008_000002")
    assert dataset.classes == VOC_CLASSES
    labels = [VOC_CLASSES[dataset.record(one).labels[0]] for one in dataset.image_ids]
    assert labels == ["chair", "car", "tvmonitor"]
    assert dataset.record("2008_000002").image_id == "2008_000002"
    assert dataset.read_image("2008_000002").shape == (40, 60, 3)
    report = check_dataset(dataset)
    assert (report.images, report.problems) == (3, [])
    assert report.classes["car"].objects == 1
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.images_key, copy.annotations_key) == (dataset.images_key, dataset.annotations_key)


def test_classes_are_those_of_all_and_labels_follow(tmp_path: Path) -> None:
    one = make_voc(tmp_path / "one", {"a": "dog", "b": "cat"})
    other = make_coco(tmp_path / "other", "dog")
    dataset = opened([one, other], tmp_path)
    assert dataset.classes == ("cat", "dog", "tail")
    assert [dataset.record(image_id).labels.tolist() for image_id in dataset.image_ids] == [[1], [0], [1], [1]]
    np.testing.assert_array_equal(dataset.record("2").boxes, np.array([[1, 2, 31, 22]], np.float32))
    assert dataset.category_ids == (1, 2, 3)
    assert [dataset.image_number(image_id) for image_id in dataset.image_ids] == [1, 2, 3, 4]
    turned = opened([other, one], tmp_path)
    assert turned.classes == ("dog", "tail", "cat")
    assert turned.record("b").labels.tolist() == [2]


def test_listed_classes_are_those_of_any_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = [make_coco(tmp_path / "one", "dog"), make_coco(tmp_path / "other", "cat", (3, 4))]
    with caplog.at_level(logging.WARNING, "stages.datasets"):
        dataset = opened(sources, tmp_path, classes=["cat"])
    assert caplog.messages == [
        f"{tmp_path}/one/toy.json: 2 annotations are of classes that are not listed, left out: dog 2"
    ]
    assert dataset.classes == ("cat",)
    assert [len(dataset.record(image_id).boxes) for image_id in dataset.image_ids] == [0, 0, 1, 1]
    with pytest.raises(BadDataset, match="has no class 'cow'"):
        opened(sources, tmp_path, classes=["cat", "cow"])


def test_ids_that_clash_are_refused_or_get_the_name_of_their_set(tmp_path: Path) -> None:
    sources = [make_coco(tmp_path / "one", "dog"), make_coco(tmp_path / "other", "dog", (2, 3), crowd=1)]
    with pytest.raises(BadDataset, match=r"image '2' is in toy and in toy; .* prefix_ids = true"):
        opened(sources, tmp_path)
    dataset = opened(sources, tmp_path, prefix_ids=True)
    assert dataset.image_ids == ("toy/1", "toy/2", "toy-2/2", "toy-2/3")
    assert dataset.image_path("toy-2/2") == tmp_path / "other" / "images" / "2.png"
    assert dataset.images_with_crowds == {"toy-2/2", "toy-2/3"}
    assert dataset.record("toy-2/3").image_id == "toy-2/3"


def test_an_unknown_id_is_named(tmp_path: Path) -> None:
    sources = [make_voc(tmp_path / "one", {"a": "dog"}), make_coco(tmp_path / "other", "dog")]
    for ask in (Dataset.record, Dataset.image_path, Dataset.image_number, Dataset.annotation):
        with pytest.raises(BadDataset, match="has no image 'c'"):
            ask(opened(sources, tmp_path), "c")


def test_a_subset_and_keys(tmp_path: Path) -> None:
    one = make_voc(tmp_path / "one", {"a": "dog", "b": "cat"})
    other = make_coco(tmp_path / "other", "dog")
    dataset = opened([one, other], tmp_path)
    some = dataset.subset([3, 0])
    assert some.image_ids == ("2", "a")
    assert some.classes == dataset.classes
    assert some.record("2").labels.tolist() == [1]
    assert [len(part) for part in some.parts] == [1, 1]
    keys = {one.annotations_key for one in (dataset, some, opened([other, one], tmp_path))}
    assert len(keys) == 3
    assert opened([one, other], tmp_path).annotations_key == dataset.annotations_key
    before = dataset.images_key, dataset.annotations_key
    path = tmp_path / "one" / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<xmin>5", "<xmin>6"))
    after = opened([one, other], tmp_path)
    assert after.images_key == before[0]
    assert after.annotations_key != before[1]


def test_one_source_in_a_list_is_that_source(tmp_path: Path) -> None:
    source = make_voc(tmp_path / "one", {"a": "dog"})
    alone, listed = open_detection(source, work=tmp_path), open_detection([source], work=tmp_path)
    assert type(listed) is Dataset
    assert listed.key == alone.key


def test_lists_that_cannot_be(tmp_path: Path) -> None:
    source = make_voc(tmp_path / "one", {"a": "dog"})
    with pytest.raises(BadDataset, match="list at least one source"):
        opened([source, source], tmp_path)
    with pytest.raises(BadDataset, match="list at least one source, each only once"):
        opened([], tmp_path)
    with pytest.raises(BadSetting, match="unknown setting 'zero_base', did you mean 'zero_based'"):
        opened([source, make_coco(tmp_path / "other", "dog")], tmp_path, zero_base=True)
    with pytest.raises(BadSetting, match="prefix_ids = 1 must be true or false"):
        opened([source, make_coco(tmp_path / "other", "dog")], tmp_path, prefix_ids=1)
    for name in ("x", "y"):
        save_image(tmp_path / "classes" / name / "1.png", 3)
    with pytest.raises(BadDataset, match="has classes but no boxes; sources that are combined must have boxes"):
        opened([source, f"folder:{tmp_path / 'classes'}"], tmp_path)


def test_an_option_reaches_the_sources_that_know_it(tmp_path: Path) -> None:
    sources = [make_voc(tmp_path / "one", {"a": "dog"}), make_coco(tmp_path / "other", "dog")]
    dataset = opened(sources, tmp_path, zero_based=True)
    assert dataset.record("a").boxes.tolist() == [[5, 1, 60, 30]]


def test_a_recipe_lists_them(tmp_path: Path) -> None:
    make_voc(tmp_path / "one", {"a": "dog"})
    make_voc(tmp_path / "two", {"b": "cat"})
    path = tmp_path / "r.toml"
    text = """[datasets.train]
source = ["voc:{recipe}/one:trainval", "voc:{recipe}/two:trainval"]
[propose]
method = "sliding-window"
"""
    path.write_text(text)
    graph = Graph(load_recipe(path), tmp_path / "work")
    assert graph.dataset("train").image_ids == ("a", "b")
    assert graph.dataset("train") is graph.dataset("train")
    graph.open_own_data()
    path.write_text(text.replace('"voc:{recipe}/two:trainval"', "3"))
    with pytest.raises(RecipeError, match=r"\[datasets\.train\] needs source = .*, or a list of them"):
        load_recipe(path)
    assert isinstance(open_dataset(["shapes:test"], work=tmp_path, options={"images": 1}), Dataset)
