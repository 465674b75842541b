"""Recipes, grids, cluster files, `--set`, annotations of VOC, COCO and YOLO, image sets: spoilt, read or refused."""

from __future__ import annotations

import copy
import json
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rcnn_cli.clusters.cluster_file import load_cluster
from rcnn_cli.experiments.grid import is_grid, load_grid
from rcnn_cli.looking.inspection import inspect_file
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.datasets import open_detection
from stages.datasets.check import check_dataset
from tests.fuzz.mutations import ODD_VALUES, Mutation, as_json, mutated, mutated_json, mutated_tree, mutations, written
from tests.fuzz.verdict import fuzz, read_or_said

PROJECT = Path(__file__).parents[2]
RECIPES = [path.read_bytes() for path in sorted((PROJECT / "recipes").glob("*.toml"))]
GRIDS = [path.read_bytes() for path in sorted((PROJECT / "recipes/grids").glob("*.toml"))]
CLUSTER = b"""[default]
partition = "gpu"
time = "4:00:00"
gpus = 1
cpus = 4
memory = "16G"
array = 8
sbatch = ["--constraint=a100", "--comment='x y'"]
setup = ["module load cuda", "source env.sh"]

[propose]
gpus = 0
array = 64
"""
TOML_WORDS = [
    b"nan", b"inf", b"-1", b"1e400", b"0x", b"9" * 5000, b'"\\ud800"', b'"\\u0000"', b"[" * 2000, b"{a=" * 500,
    b"[]", b"{}", b"true", b'""', b"1979-05-27", b"[[x]]", b"[x]\n", b"a.b.c = 1\n", b"'''", b'"', b"\x00", b"\xff",
    b'["a", 1, [2]]', b"stage = []\n", b'inputs = "x"\n', b"split = 1\n", b"[datasets]\n", b"[network]\n",
    b"[eval]\n", b"\n", b"..", b"@",
]  # fmt: skip
ANNOTATION = b"""<annotation>
  <folder>VOC2007</folder><filename>a.jpg</filename>
  <size><width>60</width><height>40</height><depth>3</depth></size>
  <segmented>0</segmented>
  <object>
    <name>cat</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
    <bndbox><xmin>3</xmin><ymin>4.5</ymin><xmax>30</xmax><ymax>33</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>3</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
  </object>
  <object>
    <name>dog</name><pose>Unspecified</pose><truncated>1</truncated><occluded>1</occluded><difficult>0</difficult>
    <bndbox><xmin>10</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox>
  </object>
</annotation>
"""
BOMB = b'<!DOCTYPE a [<!ENTITY b "%s">%s]>' % (
    b"x" * 100,
    b"".join(b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 50) for c in range(ord("c"), ord("k"))),
)
XML_WORDS = [
    b"nan", b"inf", b"-1", b"1e400", b"9" * 5000, b"0", b"1", b"yes", b"True", b"0.5", b" ", b"", b"../../x",
    b"x" * 300, b"a\tb", b"&amp;", b"&#0;", b"&#xd800;", b"&j;", BOMB, b"<object>", b"</object>", b"<object/>",
    b"<bndbox/>", b"<name/>", b"<size/>", b"</annotation>", b"<!--", b"<![CDATA[", b"\xff\xfe", b"\xef\xbb\xbf",
    b'<?xml version="1.0" encoding="utf-7"?>', b'<?xml version="1.0" encoding="nosuch"?>', b"<a>" * 5000,
    b"xmlns='x' ",
]  # fmt: skip
LIST_WORDS = [
    b"\n", b" 1", b" -1", b"a", b"b", b"../a", b"\xff", b"\x00", b"x" * 300, b"a.jpg", b"  ", b"\xef\xbb\xbf",
    b"a b",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which each example writes its file over the last one's."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("voc/JPEGImages", "voc/Annotations", "voc/ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (60, 40), (90, 50, 10)).save(folder / f"voc/JPEGImages/{name}.jpg")
        (folder / f"voc/Annotations/{name}.xml").write_bytes(ANNOTATION)
    (folder / "voc/ImageSets/Main/train.txt").write_text("a\nb\n")
    return folder


def wired(path: Path) -> None:
    """Reads a recipe as `rcnn status` does, up to its data."""
    recipe = load_recipe(path)
    graph = Graph(recipe, path.parent / "work")
    for node in graph.caches():
        graph.label(node)
    json.dumps(recipe.as_json(), default=str).encode()


@fuzz(20)
@given(st.sampled_from(RECIPES), mutations(), st.sampled_from(RECIPES))
def test_recipes(place: Path, good: bytes, wanted: list[Mutation], other: bytes) -> None:
    path = written(place / "r.toml", mutated(good, wanted, TOML_WORDS, other))
    read_or_said(lambda: wired(path))
    read_or_said(lambda: is_grid(path))
    read_or_said(lambda: inspect_file(path))


@fuzz(20)
@given(
    st.sampled_from([*RECIPES, *GRIDS, CLUSTER]).map(lambda text: tomllib.loads(text.decode())).flatmap(mutated_tree)
)
def test_tables_with_odd_values(place: Path, tree: Any) -> None:
    """Whatever TOML may hold, without its syntax: as a recipe, as a grid, as a cluster file."""
    path, as_toml = (
        place / "r.toml",
        {"rcnn_cli.recipes.recipe.read_tables", "rcnn_cli.clusters.cluster_file.read_tables"},
    )
    table = copy.deepcopy(tree) if isinstance(tree, dict) else {}
    recipe = load_recipe(written(place / "good.toml", RECIPES[0]))
    with ExitStack() as stack:
        for name in as_toml:
            stack.enter_context(patch(name, lambda _: copy.deepcopy(table)))
        read_or_said(lambda: wired(path))
        read_or_said(lambda: load_grid(path))
        read_or_said(lambda: load_cluster(path, recipe))


@fuzz(13)
@given(st.sampled_from(GRIDS), mutations(), st.sampled_from(RECIPES))
def test_grids(place: Path, good: bytes, wanted: list[Mutation], other: bytes) -> None:
    path = written(place / "g.toml", mutated(good, wanted, TOML_WORDS, other))
    read_or_said(lambda: load_grid(path))
    read_or_said(lambda: inspect_file(path))


@fuzz(13)
@given(mutations(), st.sampled_from(RECIPES))
def test_cluster_files(place: Path, wanted: list[Mutation], other: bytes) -> None:
    path = written(place / "cluster.toml", mutated(CLUSTER, wanted, TOML_WORDS, other))
    recipe = load_recipe(written(place / "r.toml", RECIPES[0]))
    read_or_said(lambda: load_cluster(path, recipe))


KEYS = [
    "extract.padding", "extract.layers", "datasets.train.source", "network", "name", "svm", "a.b.c", "eval",
    "eval.test",
]  # fmt: skip


@fuzz(20)
@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(TOML_WORDS) | st.binary(max_size=9)), max_size=3),
    st.text(),
)
def test_changes_on_the_command_line(place: Path, changes: list[tuple[str, bytes]], text: str) -> None:
    path = written(place / "r.toml", RECIPES[0])
    words = [f"{key}={value.decode('utf-8', 'surrogateescape')}" for key, value in changes]
    read_or_said(lambda: load_recipe(path, words))
    read_or_said(lambda: load_recipe(path, [text.encode("utf-8", "replace").decode()]))


def opened(source: str, place: Path) -> None:
    """Reads all that a dataset tells, as the stages and `rcnn data check` do."""
    dataset = open_detection(source, work=place / "work")
    for image_id in dataset.image_ids:
        record = dataset.record(image_id)
        assert len(record.boxes) == len(record.labels) == len(record.crowds)
    assert dataset.key
    json.dumps(dataset.classes, ensure_ascii=False).encode()


def checked(source: str, place: Path) -> None:
    """What `rcnn data check` says, which reads on where the stages stop."""
    report = check_dataset(open_detection(source, work=place / "work"))
    "".join([*report.problems, *report.notes]).encode()


@fuzz(20)
@given(mutations(), mutations(1))
def test_annotations_in_vocs_format(place: Path, wanted: list[Mutation], others: list[Mutation]) -> None:
    written(place / "voc/Annotations/a.xml", mutated(ANNOTATION, wanted, XML_WORDS))
    written(place / "voc/Annotations/b.xml", mutated(ANNOTATION, others, XML_WORDS))
    written(place / "voc/ImageSets/Main/train.txt", b"a\nb\n")
    read_or_said(lambda: opened(f"voc:{place / 'voc'}:train", place))
    read_or_said(lambda: checked(f"voc:{place / 'voc'}:train", place))


@fuzz(13)
@given(mutations())
def test_image_sets(place: Path, wanted: list[Mutation]) -> None:
    for name in ("a", "b"):
        written(place / f"voc/Annotations/{name}.xml", ANNOTATION)
    written(place / "voc/ImageSets/Main/train.txt", mutated(b"a\nb\n", wanted, LIST_WORDS))
    read_or_said(lambda: opened(f"voc:{place / 'voc'}:train", place))
    read_or_said(lambda: checked(f"voc:{place / 'voc'}:train", place))


COCO: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 42, "file_name": "a.jpg", "width": 60, "height": 40},
        {"id": 7, "file_name": "b.jpg"},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "traffic light"}],
    "annotations": [
        {"id": 5, "image_id": 42, "category_id": 3, "bbox": [0, 0, 60, 40], "area": 1200.5, "iscrowd": 1},
        {"id": 6, "image_id": 42, "category_id": 90, "bbox": [10.5, 5.25, 20, 30.5], "area": 300.0, "iscrowd": 0},
        {"id": 8, "image_id": 7, "category_id": 3, "bbox": [50, 30, 10.4, 10]},
    ],
}


@fuzz(33)
@given(
    mutated_json(COCO)
    | mutations().map(lambda wanted: mutated(as_json(COCO), wanted, [b"9" * 5000, b"\xed\xa0\x80", b"1e999"]))
)
def test_files_in_cocos_format(place: Path, content: bytes) -> None:
    path = written(place / "all.json", content)
    source = f"coco:{path}:{place / 'voc/JPEGImages'}"
    read_or_said(lambda: opened(source, place))
    read_or_said(lambda: checked(source, place))
    read_or_said(lambda: inspect_file(path))


YAML = b"""path: .
train: images/train
val: [images/val, images/more]
nc: 2
names:
  0: cat
  1: "traffic light"
"""
YAML_WORDS = [
    b"nan", b"-1", b"9" * 5000, b"[" * 2000, b"{a: " * 500, b"*a", b"&a [*a, *a]", b"!!python/object:os.system",
    b"null", b"? ", b": ", b"- ", b"|", b">", b"---", b"...", b"\x00", b"\xff", b"\xef\xbb\xbf", b"../../..", b"1e999",
    b"2001-01-01", b"<<: x", b'"\\ud800"', b"~", b"\n", b"yes", b"/etc",
]  # fmt: skip
LABELS = b"0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.2 0.1 0.2 0.3 0.05 0.2\n"
LABEL_WORDS = [
    b"nan", b"inf", b"-1", b"1.5", b"2", b"0", b"9" * 5000, b"1e400", b"\n", b"\xff", b"\x00", b"cat", b" ", b"0x1",
    b"1_0",
]  # fmt: skip


@fuzz(20)
@given(st.just([]) | mutations(), st.just([]) | mutations())
def test_yolos_files(place: Path, of_yaml: list[Mutation], of_labels: list[Mutation]) -> None:
    home = place / "yolo"
    for split in ("images/train", "labels/train", "images/val"):
        (home / split).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(home / "images/train/a.jpg")
    written(home / "labels/train/a.txt", mutated(LABELS, of_labels, LABEL_WORDS))
    path = written(home / "data.yaml", mutated(YAML, of_yaml, YAML_WORDS))
    for split in ("train", "val"):
        read_or_said(lambda split=split: opened(f"yolo:{path}:{split}", place))  # type: ignore[misc]
        read_or_said(lambda split=split: checked(f"yolo:{path}:{split}", place))  # type: ignore[misc]


SOURCES = [
    "voc:{0}:train", "voc:{0}", "coco:{0}", "folder:{0}", "shapes:{1}", "{1}", "voc:{0}:{1}", "coco:{0}:{1}",
    "yolo:{0}:{1}", "yolo:{1}:train",
]  # fmt: skip


@fuzz(13)
@given(st.sampled_from(SOURCES), st.sampled_from(ODD_VALUES) | st.text(), st.sampled_from(["classes", "year", "name"]))
def test_sources_and_options_of_datasets(place: Path, source: str, value: Any, option: str) -> None:
    text = source.format(place / "voc", value)
    read_or_said(lambda: open_detection(text, work=place / "work"))
    read_or_said(lambda: open_detection(f"voc:{place / 'voc'}:train", work=place / "work", options={option: value}))
