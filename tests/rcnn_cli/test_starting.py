"""`rcnn init`: what it finds in a folder, how it divides the images, and the recipe that it writes."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rcnn_cli.commands.starting import SYSTEMS as NAMED
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.starting import start
from rcnn_cli.starting.differences import different_tables, list_change
from rcnn_cli.starting.findings import likely_misspelt
from rcnn_cli.starting.sizing import fitted, largest
from rcnn_cli.starting.systems import DRAWN, IMAGENET, SYSTEMS, Backbone, Sizes, recipe_text
from rcnn_cli.starting.trial import Cost
from stages.datasets import Dataset
from tests.in_process import caller
from tests.rcnn_cli.starting_folders import IDS, LAYOUTS, draw, images_alone, name_of, voc, write_xml, yolo, yolo_beside

Rcnn = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def rcnn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rcnn:
    """`rcnn` in an empty folder, where machines are not measured: every image costs a second."""
    monkeypatch.chdir(tmp_path)

    def costs(*_: object) -> Mapping[str, Cost]:
        return {"extract@train": Cost(0, 1, 12, by_region=True), "train-fast": Cost(0, 1, 6, trains=True)}

    monkeypatch.setattr(start, "trial", costs)
    return caller(capsys)


def make(layout: Callable[[Path], None], folder: str = "photos") -> Path:
    """A folder in the current one."""
    path = Path(folder)
    path.mkdir()
    layout(path)
    return path


def datasets(recipe: str) -> dict[str, Dataset]:
    """The datasets of a recipe, opened."""
    graph = Graph(load_recipe(Path(recipe)), Path("work"))
    graph.check()
    return {name: graph.dataset(name) for name in graph.recipe.datasets}


def boxes(dataset: Dataset) -> dict[str, tuple[str, list[int]]]:
    """The class and box of the only object of each image, by the image's name."""
    records = [dataset.record(image_id) for image_id in dataset.image_ids]
    return {
        record.path.stem: (dataset.classes[record.labels[0]], np.rint(record.boxes[0]).astype(int).tolist())
        for record in records
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_becomes_a_recipe_with_the_same_objects(rcnn: Rcnn, layout: str) -> None:
    folder = make(LAYOUTS[layout])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, said, _ = rcnn("init", folder)
    assert code == 0, said
    assert "Next:\n  rcnn run photos-fast.toml" in said
    found = datasets("photos-fast.toml")
    ids = [Path(image_id).name for dataset in found.values() for image_id in boxes(dataset)]
    assert sorted(ids) == list(IDS)
    names = {"cat": "class-0", "dog": "class-1"} if layout == "yolo_beside" else {"cat": "cat", "dog": "dog"}
    for dataset in found.values():
        assert boxes(dataset) == {name: (names[name_of(name)], [10, 5, 30, 25]) for name in boxes(dataset)}
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("layout", ["voc_with_lists", "coco", "yolo_yaml"])
def test_a_new_folder_for_the_recipe_and_a_path_from_the_root(rcnn: Rcnn, layout: str, tmp_path: Path) -> None:
    make(LAYOUTS[layout])
    for number, folder in enumerate(("photos", tmp_path / "photos")):
        place = Path(f"some/new{number}")
        code, _, error = rcnn("init", folder, "-o", place)
        assert code == 0, error
        assert (f"{tmp_path}" in (place / "photos-fast.toml").read_text()) == bool(number)
        assert sum(map(len, datasets(f"{place}/photos-fast.toml").values())) == len(IDS)


@pytest.mark.parametrize("layout", ["voc_with_lists", "xml_in_splits", "yolo_yaml"])
def test_a_division_of_the_folder_stays(rcnn: Rcnn, layout: str) -> None:
    code, said, _ = rcnn("init", make(LAYOUTS[layout]))
    assert code == 0
    assert "Divided as in the folder: " in said
    found = datasets("photos-fast.toml")
    assert "--fractions" not in said
    if layout == "yolo_yaml":
        assert "there is no test set, so results will be measured on val" in said
        assert {name: len(dataset) for name, dataset in found.items()} == {"train": 8, "test": 4}
        assert sorted(Path().glob("photos*.txt")) == []
    else:
        assert {name: len(dataset) for name, dataset in found.items()} == {"train": 6, "val": 3, "test": 3}


def test_a_list_that_other_recipes_name_is_not_changed_in_silence(rcnn: Rcnn) -> None:
    make(yolo)
    rcnn("init", "photos")
    code, said, _ = rcnn("init", "photos", "--system", "rcnn")
    assert code == 0
    assert "change" not in said
    _, said, _ = rcnn("init", "photos", "--system", "rcnn", "--seed", "7", "--force")
    assert (
        "Note: photos-train.txt, photos-val.txt, photos-test.txt change, and with it what photos-fast.toml is about"
        in said
    )


def test_a_data_yaml_with_a_fault_is_named(rcnn: Rcnn) -> None:
    folder = make(yolo)
    (folder / "data.yaml").write_text("nc: 3\nnames: [cat, dog]\n")
    (folder / "other.yaml").write_text("[1, 2]\n")
    _, said, _ = rcnn("init", "photos")
    assert "Note: photos/data.yaml: nc = 3, but there are 2 names; correct one of them; it is not used" in said
    assert "other.yaml" not in said
    assert "classes from classes.txt" in said


def test_every_fault_of_a_file_is_said(rcnn: Rcnn) -> None:
    folder = make(LAYOUTS["coco"])
    path = folder / "annotations.json"
    path.write_text(path.read_text().replace('"category_id": 2', '"category_id": 5'))
    code, said, error = rcnn("init", folder)
    assert code == 2
    assert said.count("refers to category 5, which the file does not list") == 6
    assert "annotations.json: has 6 problems, above; correct them, then run this again" in error


def test_the_division_is_even_and_the_seed_decides(rcnn: Rcnn) -> None:
    make(yolo)
    rcnn("init", "photos")
    first = {name: boxes(dataset) for name, dataset in datasets("photos-fast.toml").items()}
    assert {name: len(one) for name, one in first.items()} == {"train": 8, "val": 2, "test": 2}
    assert Counter(name for name, _ in first["train"].values()) == {"cat": 4, "dog": 4}
    rcnn("init", "photos")
    assert {name: boxes(dataset) for name, dataset in datasets("photos-fast.toml").items()} == first
    rcnn("init", "photos", "--seed", "1", "--fractions", "0.5,0,0.5", "--force")
    second = datasets("photos-fast.toml")
    assert {name: len(dataset) for name, dataset in second.items()} == {"train": 6, "test": 6}


def test_copies_stay_together(rcnn: Rcnn) -> None:
    folder = make(voc)
    for image_id, other in (("00", "20"), ("01", "21"), ("02", "22")):
        image = Image.open(folder / "JPEGImages" / f"{image_id}.png")
        image.save(folder / "JPEGImages" / f"{other}.jpg", quality=90)
        write_xml(folder / "Annotations" / f"{other}.xml", image_id)
    code, said, _ = rcnn("init", folder)
    assert code == 0
    assert "Note: 6 images are copies or near-duplicates of others and stay together: 00 = 20, 01 = 21, 02 = 22" in said
    split_of = {one: name for name, dataset in datasets("photos-fast.toml").items() for one in dataset.image_ids}
    assert all(split_of[one] == split_of[other] for one, other in (("00", "20"), ("01", "21"), ("02", "22")))


def test_shares_that_are_not_used_are_named(rcnn: Rcnn) -> None:
    _, said, _ = rcnn("init", make(LAYOUTS["voc_with_lists"]), "--fractions", "0.5,0,0.5")
    assert "--fractions is for a folder that does not divide its images" in said


def test_copies_between_the_folders_own_sets_are_named(rcnn: Rcnn) -> None:
    folder = make(LAYOUTS["voc_with_lists"])
    content = (folder / "JPEGImages" / "00.png").read_bytes()
    (folder / "JPEGImages" / "09.png").write_bytes(content)
    _, said, _ = rcnn("init", folder)
    assert "1 image of test is also in train, or nearly, which makes results too good: 09 (00)" in said


def test_what_is_wrong_is_said_and_left_out(rcnn: Rcnn) -> None:
    folder = make(voc)
    (folder / "JPEGImages" / "00.png").write_bytes(b"no image")
    (folder / "Annotations" / "01.xml").write_text("<annotation>")
    draw(folder / "JPEGImages" / "30.png", 30)
    text = (folder / "Annotations" / "02.xml").read_text()
    (folder / "Annotations" / "02.xml").write_text(text.replace("cat", "Cat"))
    code, said, _ = rcnn("init", folder)
    assert code == 0
    assert "photos/JPEGImages/00.png: " in said
    assert "photos/Annotations/01.xml: " in said
    assert "2 images left out for the problems above: 00.png, 01.png" in said
    assert "1 image left out, as they have no annotation file: 30.png" in said
    assert "'Cat' (1 object) may be 'cat' (5) misspelt" in said
    assert "few objects of Cat (1), cat (5), dog (5)" in said
    assert sum(map(len, datasets("photos-fast.toml").values())) == 10
    code, said, _ = rcnn("init", folder, "--unannotated", "background", "--force")
    assert sum(map(len, datasets("photos-fast.toml").values())) == 11


def test_chosen_classes(rcnn: Rcnn) -> None:
    make(voc)
    code, said, _ = rcnn("init", "photos", "--classes", "dog")
    assert code == 0
    assert {dataset.classes for dataset in datasets("photos-fast.toml").values()} == {("dog",)}
    assert "6 objects are of classes that are not listed, left out: cat 6" in said
    code, _, error = rcnn("init", "photos", "--classes", "dgo")
    assert (code, error) == (2, "rcnn: --classes: photos has no object of class 'dgo', did you mean 'dog'?\n")


def test_classes_name_the_numbers_of_labels(rcnn: Rcnn) -> None:
    make(yolo_beside)
    _, said, _ = rcnn("init", "photos")
    assert "no file names the classes, so they are called class-0, class-1" in said
    rcnn("init", "photos", "--classes", "tabby,hound", "--force")
    assert datasets("photos-fast.toml")["train"].classes == ("tabby", "hound")
    code, _, error = rcnn("init", "photos", "--classes", "tabby")
    assert code == 2
    assert "names 1 class, but the labels have the numbers 0 to 1" in error


def test_images_alone_get_advice_and_no_recipe(rcnn: Rcnn) -> None:
    make(images_alone)
    code, said, _ = rcnn("init", "photos")
    assert code == 1
    assert said.startswith("photos: 12 images without annotations")
    assert "rcnn predict" in said
    assert list(Path().glob("*.toml")) == []


def test_an_edited_recipe_stays(rcnn: Rcnn) -> None:
    make(yolo)
    rcnn("init", "photos")
    recipe = Path("photos-fast.toml")
    recipe.write_text(recipe.read_text().replace("[diagnose]", "# not this\n"))
    edited = recipe.read_text()
    code, _, error = rcnn("init", "photos")
    assert code == 2
    assert "photos-fast.toml: already exists and was not written by rcnn, or has changed since" in error
    assert recipe.read_text() == edited
    code, _, _ = rcnn("init", "photos", "-o", "elsewhere")
    assert code == 0
    assert len(datasets("elsewhere/photos-fast.toml")["train"]) == 8


def test_a_recipe_that_is_there_is_not_measured_again(rcnn: Rcnn, monkeypatch: pytest.MonkeyPatch) -> None:
    make(yolo)
    rcnn("init", "photos")
    recipe, lists = Path("photos-fast.toml"), Path("photos-test.txt")
    before = recipe.read_text(), lists.read_text()
    slow = {"train-fast": Cost(0, 1000, 6, trains=True)}
    monkeypatch.setattr(start, "trial", lambda *_: slow)
    lists.unlink()
    code, said, error = rcnn("init", "photos")
    assert code == 0, error
    assert "photos-fast.toml: exists already, written by rcnn init; --force measures again" in said
    assert said.endswith("Next:\n  rcnn run photos-fast.toml\n")
    assert (recipe.read_text(), lists.read_text()) == before
    code, _, _ = rcnn("init", "photos", "--force")
    assert code == 0
    assert recipe.read_text() != before[0]
    assert rcnn("init", "photos")[0] == 0  # its sizes are others, which is no difference


def unlisted(folder: Path) -> None:
    """Two images less."""
    for image_id in IDS[:2]:
        (folder / "images" / f"{image_id}.png").unlink()


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (lambda _: None, ("--classes", "dog"), "[datasets.train], [datasets.val], [datasets.test]"),
        (lambda _: None, ("--minutes", "60"), "another: --minutes 60 (it was 10); add"),
        (lambda folder: (folder / "classes.txt").write_text("kitten\ndog\n"), (), "another: photos.yaml; add"),
        (unlisted, (), "fewer)"),
    ],
)
def test_what_differs_from_the_recipe_that_is_there_is_said(
    rcnn: Rcnn, change: Callable[[Path], object], arguments: tuple[str, ...], said: str
) -> None:
    folder = make(yolo)
    rcnn("init", "photos")
    before = {path: path.read_text() for path in Path().glob("photos*.*")}
    change(folder)
    code, _, error = rcnn("init", "photos", *arguments)
    assert code == 2
    assert "photos-fast.toml: was written by rcnn init, which would now write another: " in error
    assert said in error
    assert "add --force to replace it, or choose another folder with -o to keep both" in error
    assert {path: path.read_text() for path in Path().glob("photos*.*")} == before
    code, _, error = rcnn("init", "photos", *arguments, "--force")
    assert code == 0, error


def test_an_archive_with_a_folder_at_its_top(rcnn: Rcnn) -> None:
    Path("unpacked").mkdir()
    make(yolo, "unpacked/birds")
    code, said, _ = rcnn("init", "unpacked")
    assert code == 0
    assert said.startswith("unpacked/birds: YOLO labels, classes from classes.txt; 12 images, 2 classes")
    assert Path("birds-fast.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such folder"),
        (("photos.zip",), "photos.zip: is a file; unpack an archive first"),
        (("empty",), "empty: contains no images"),
        (("photos", "--fractions", "0.5,0.5"), "write three numbers"),
        (("photos", "--fractions", "1,0,0"), "must add up to 1, and leave something for train and test"),
        (("a:b",), "has ':' in its name"),
    ],
)
def test_what_cannot_be_begun(rcnn: Rcnn, arguments: tuple[str, ...], message: str) -> None:
    make(yolo)
    make(voc, "a:b")
    Path("empty").mkdir()
    Path("photos.zip").write_bytes(b"PK")
    code, _, error = rcnn("init", *arguments)
    assert code == 2
    assert message in error


def test_the_command_names_every_system() -> None:
    assert tuple(SYSTEMS) == NAMED


@pytest.mark.parametrize("network", [IMAGENET, DRAWN], ids=lambda one: one.name)
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_recipe_fits_its_network(tmp_path: Path, system: str, network: Backbone) -> None:
    for side in network.sides:
        tables = {name: {"source": f"shapes:{name}"} for name in ("train", "val", "test")}
        sizes = Sizes(side, 200, 300)
        path = tmp_path / f"{side}.toml"
        path.write_text(recipe_text("One line\nanother", 'A "name"', tables, SYSTEMS[system], network, sizes))
        graph = Graph(load_recipe(path), tmp_path)
        assert graph.recipe.description == 'A "name"'
        graph.check()
        assert [node.use.stage.name for node in graph.making("detections")] == ["detect"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_sizes_are_no_difference(system: str) -> None:
    tables = {"train": {"source": "shapes:train"}}

    def recipe(network: Backbone, sizes: Sizes) -> dict[str, Any]:
        return tomllib.loads(recipe_text("", "", tables, SYSTEMS[system], network, sizes))

    small = recipe(IMAGENET, Sizes(240, 100, 100))
    assert different_tables(small, recipe(IMAGENET, Sizes(400, 4000, 2000))) == []
    assert {"[network]", "[pretrain]"} <= {*different_tables(small, recipe(DRAWN, Sizes(240, 100, 100)))}


def test_list_changes() -> None:
    assert list_change("a-train.txt", "1\n2\n", "2\n3\n4\n") == "a-train.txt (2 images more, 1 fewer)"
    assert list_change("a.yaml", "1\n", "2\n") == "a.yaml"


def test_misspelt_names() -> None:
    assert likely_misspelt({"traffic light": 40, "Traffic_Light": 3, "trafic light": 2, "car": 9, "cars": 9}) == [
        ("trafic light", "traffic light"),
        ("Traffic_Light", "traffic light"),
        ("car", "cars"),
    ]
    assert likely_misspelt({"class-1": 1, "class-2": 90, "cat": 5, "bat": 9, "none": 0}) == []


def test_boxes_fit_the_time() -> None:
    costs = {
        "propose": Cost(2, 1, 50),
        "extract": Cost(1, 2, 50, by_region=True),  # 50 boxes an image take 2 s
        "svm": Cost(7, 0, 50),
    }
    system, wanted = SYSTEMS["rcnn"], largest(SYSTEMS["rcnn"], IMAGENET, 40)
    assert wanted.boxes == 2000
    sizes, seconds = fitted(system, IMAGENET, wanted, costs, 460)
    assert (sizes.boxes, seconds) == (200, 2 + 50 + 1 + 7 + 400)
    assert fitted(system, IMAGENET, wanted, costs, 1e6)[0].boxes == 2000
    assert fitted(system, IMAGENET, wanted, costs, 10) == (Sizes(400, 400, 100), 260)


def test_sides_and_iterations_fit_the_time() -> None:
    costs = {"maps": Cost(10, 1, 50), "train": Cost(0, 0.5, 6, trains=True)}
    system, wanted = SYSTEMS["faster"], largest(SYSTEMS["faster"], IMAGENET, 40)
    assert (wanted.side, wanted.iterations) == (400, 400)
    assert fitted(system, IMAGENET, wanted, costs, 260) == (wanted, 10 + 50 + 200)
    sizes, seconds = fitted(system, IMAGENET, wanted, costs, 171)
    assert sizes.side == 320
    assert seconds == pytest.approx(10 + 0.64 * 250)
    sizes, seconds = fitted(system, IMAGENET, wanted, costs, 64)
    assert (sizes.side, sizes.iterations) == (240, 200)
    assert seconds == pytest.approx(10 + 0.36 * (50 + 100))
    assert fitted(system, IMAGENET, wanted, costs, 1)[0].iterations == 100
    assert [largest(system, IMAGENET, count).iterations for count in (3, 100, 5000)] == [200, 1000, 4000]
