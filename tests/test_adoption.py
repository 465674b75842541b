"""A data set that has grown: proposals, features and detections of the images that were there are copied.

The real stages, in this process; the caches are those, byte for byte, of a run in a folder of its own.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from cache import Shard
from cache.files import read_json
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.runner import Options, run_alone, run_nodes
from rcnn_cli.running.status import describe
from stages.contract.execution import Execution
from tests.built_once import BuiltOnce
from tests.in_process import caller, rcnn
from tests.pipeline import contents

RECIPE = """
[datasets.train]
source = "voc:{recipe}/data:train"
[datasets.test]
source = "voc:{recipe}/data:test"
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 40
resize_width = 80
[extract]
layers = ["pool4"]
[train-svm]
layer = "pool4"
[detect]
bbox_regression = false
"""
BY_ITEM = ("propose@test", "extract@test", "detect@test")


@pytest.fixture(scope="module")
def small(built_once: BuiltOnce) -> Path:
    """A folder with a recipe, data of 6 training and 5 test images (every second of ten), and a work folder."""
    return built_once.folder("adoption", build_small)


def build_small(folder: Path) -> None:
    drawn = folder / "drawn"
    rcnn("data", "shapes", drawn, "--set", "train=6", "--set", "val=0", "--set", "test=10", work=folder / "none")
    (drawn).rename(folder / "data")
    (folder / "r.toml").write_text(RECIPE)
    lists = folder / "data" / "ImageSets" / "Main"
    every = (lists / "test.txt").read_text().split()
    (folder / "every.json").write_text(json.dumps(every))
    set_test(folder, every[1::2])
    graph = graph_of(folder)
    run_nodes(graph, graph.caches(), Options(part_size=4))


def set_test(folder: Path, ids: list[str]) -> None:
    (folder / "data" / "ImageSets" / "Main" / "test.txt").write_text("".join(f"{one}\n" for one in ids))


def graph_of(folder: Path, work: str = "work", *changes: str) -> Graph:
    return Graph(load_recipe(folder / "r.toml", changes), folder / work)


@pytest.fixture
def grown(small: Path, tmp_path: Path) -> Path:
    """A copy of that folder, in which the test set has all ten images."""
    shutil.copytree(small, tmp_path / "f")
    set_test(tmp_path / "f", read_json(tmp_path / "f" / "every.json"))
    return tmp_path / "f"


def parts_of(graph: Graph) -> dict[str, Any]:
    """What the caches of the graph hold."""
    names = {graph.folder(node).name for node in graph.caches()}
    return {name: held for name, held in contents(graph.work).items() if name in names}


def adopted_in(folder: Path, name: str) -> int:
    """How many items a finished cache has copied."""
    graph = graph_of(folder)
    return sum(read_json(graph.folder(graph.nodes[name]) / "manifest.json").get("adopted", {}).values())


def adopted(folder: Path) -> list[int]:
    """The same for the caches of the test set."""
    return [adopted_in(folder, name) for name in BY_ITEM]


def run_fresh(folder: Path, *names: str) -> dict[str, Any]:
    """What the caches of the same recipe hold (those named, and what they need) in a work folder of their own."""
    graph = graph_of(folder, "fresh")
    run_nodes(graph, [graph.nodes[name] for name in names], Options(part_size=4))
    return parts_of(graph)


@pytest.fixture(scope="module")
def fresh(small: Path, built_once: BuiltOnce) -> dict[str, Any]:
    """What the caches hold where all ten images of the test set are computed."""

    def build(folder: Path) -> None:
        shutil.copytree(small, folder, ignore=shutil.ignore_patterns("*-test.*"), dirs_exist_ok=True)
        set_test(folder, read_json(folder / "every.json"))
        run_fresh(folder, *BY_ITEM)

    return parts_of(graph_of(built_once.folder("adoption-fresh", build), "fresh"))


def test_what_a_grown_test_set_shares_with_the_old_one_is_copied(grown: Path, fresh, caplog, monkeypatch):
    """Every part has old and new images: 5 of 10, in turn."""
    graph = graph_of(grown)
    states = {state.name: state for state in describe(graph)}
    for name in BY_ITEM:
        assert states[name].adoptable == 5
        assert "missing; 5 of 10 images can be copied from r-test." in states[name].detail
    assert states["train-svm"].state == "complete"
    monkeypatch.setattr(logging.getLogger("rcnn"), "propagate", True)
    caplog.set_level(logging.INFO, "rcnn")
    run_nodes(graph, graph.caches(), Options(part_size=4))
    assert "extract@test: 5 images, 5 copied from r-test." in caplog.text
    assert ", 5 copied, " in caplog.text
    assert adopted(grown) == [5, 5, 5]
    assert parts_of(graph) == fresh


def test_a_smaller_test_set_is_copied_whole_without_running_a_stage(grown: Path, monkeypatch):
    set_test(grown, read_json(grown / "every.json")[5:2:-2])
    graph = graph_of(grown)
    for name in BY_ITEM:
        monkeypatch.setattr(graph.nodes[name].use.stage.load(), "run", None)
    run_nodes(graph, graph.caches(), Options(part_size=1, compression="gzip"))
    assert adopted(grown) == [2, 2, 2]


@pytest.mark.parametrize("options", [Options(Execution(jobs=2), part_size=4), Options(part_size=4, adopt=False)])
def test_processes_and_without_adoption(grown: Path, fresh, options: Options):
    graph = graph_of(grown)
    run_nodes(graph, graph.caches(), options)
    count = 5 if options.adopt else 0
    assert adopted(grown) == [count] * 3
    assert parts_of(graph) == fresh


def test_shards_copy_their_own_parts(grown: Path):
    graph = graph_of(grown)
    for name in BY_ITEM:
        for index in (2, 1):
            run_alone(graph, graph.nodes[name], Options(part_size=2, shard=Shard(index, 2)))
    assert adopted(grown) == [5, 5, 5]


def test_an_image_that_has_changed_is_computed(grown: Path):
    path = grown / "data" / "JPEGImages" / f"{read_json(grown / 'every.json')[1]}.jpg"
    with Image.open(path) as image:
        ImageOps.mirror(image).save(path)
    graph = graph_of(grown)
    run_nodes(graph, [graph.nodes["extract@test"]], Options(part_size=4))
    assert [adopted_in(grown, name) for name in BY_ITEM[:2]] == [4, 4]
    assert parts_of(graph).items() >= run_fresh(grown, "extract@test").items()


def test_an_annotation_that_has_changed_counts_where_it_is_read(grown: Path):
    annotation = grown / "data" / "Annotations" / f"{read_json(grown / 'every.json')[1]}.xml"
    annotation.write_text(annotation.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    graph = graph_of(grown)
    run_nodes(graph, [graph.nodes["extract@test"]], Options(part_size=4))
    assert [adopted_in(grown, name) for name in BY_ITEM[:2]] == [5, 4]
    assert parts_of(graph).items() >= run_fresh(grown, "extract@test").items()


def test_another_setting_and_another_network_are_other_items(grown: Path):
    graph = graph_of(grown, "work", "extract.padding=0")
    assert {state.name: state.adoptable for state in describe(graph) if state.name in BY_ITEM} == {
        "propose@test": 5, "extract@test": 0, "detect@test": 0,
    }  # fmt: skip
    graph = graph_of(grown, "work", "network.seed=1")
    assert {state.name: state.adoptable for state in describe(graph) if state.name in BY_ITEM} == {
        "propose@test": 5, "extract@test": 0, "detect@test": 0,
    }  # fmt: skip


@pytest.mark.parametrize("harm", ["damaged", "removed", "unfinished"])
def test_a_source_that_is_lost_on_the_way_is_no_reason_to_end(grown: Path, fresh, monkeypatch, harm: str):
    old, graph = graph_of(grown), graph_of(grown)
    set_test(grown, read_json(grown / "every.json")[1::2])
    source = old.folder(old.nodes["extract@test"])
    assert (source / "manifest.json").exists()
    set_test(grown, read_json(grown / "every.json"))
    module, calls = graph.nodes["extract@test"].use.stage.load(), []
    run: Callable[..., None] = module.run

    def harmed(settings, inputs, output, execution):
        calls.append(output.remaining_items)
        if len(calls) == 1 and harm == "damaged":
            for path in source.glob("part-*.h5"):
                path.write_bytes(path.read_bytes()[:600].ljust(path.stat().st_size, b"\0"))
        elif len(calls) == 1 and harm == "removed":
            shutil.rmtree(source)
        elif len(calls) == 1:
            (source / "manifest.json").unlink()
        run(settings, inputs, output, execution)

    monkeypatch.setattr(module, "run", harmed)
    node = graph.nodes["extract@test"]
    run_nodes(graph, [node], Options(part_size=4))
    assert calls == [5, 10]
    monkeypatch.undo()
    assert contents(graph.work)[graph.folder(node).name] == fresh[graph.folder(node).name]


def test_a_finished_cache_of_before_gets_the_keys_of_its_items(small: Path, tmp_path: Path):
    shutil.copytree(small, tmp_path / "f")
    graph = graph_of(tmp_path / "f")
    files = {graph.folder(graph.nodes[name]) / "items.json" for name in BY_ITEM}
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.unlink()
    run_nodes(graph, graph.caches(), Options())
    assert {path: path.read_bytes() for path in files} == before


def test_force_and_no_adopt_compute(grown: Path, capsys):
    call = caller(capsys)
    given = (grown / "r.toml", "--work", grown / "work", "--jobs", 1, "--split", "test")
    assert "copied from" in call("propose", *given)[2]
    assert "copied from" not in call("propose", *given, "--force")[2]
    assert "copied from" in call("extract", *given)[2]
    shutil.rmtree(graph_of(grown).folder(graph_of(grown).nodes["extract@test"]))
    assert "copied from" not in call("extract", *given, "--no-adopt")[2]
    assert [adopted_in(grown, name) for name in BY_ITEM[:2]] == [0, 0]
