"""`rcnn run` makes again whatever of a stage's inputs gets lost on the way, between stages and while they work."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import CacheState, DamagedPart
from cache.files import write_sealed
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running import runner
from rcnn_cli.running.runner import Options, complete, run_nodes, run_until_shown
from rcnn_cli.running.status import describe, state_of
from stages.contract.errors import StageError
from tests.built_once import BuiltOnce
from tests.cache.samples import manifest_of
from tests.in_process import caller
from tests.pipeline import contents

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 6
[datasets.test]
source = "shapes:test"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 20
[extract]
layers = ["pool4"]
[train-svm]
layer = "pool4"
[detect]
bbox_regression = false
[eval]
"""
OPTIONS = Options(part_size=2)


@pytest.fixture(scope="module")
def finished(built_once: BuiltOnce) -> Path:
    """The folder of a recipe that was run undisturbed."""

    def build(folder: Path) -> None:
        (folder / "r.toml").write_text(RECIPE)
        graph = graph_of(folder)
        run_nodes(graph, graph.caches(), OPTIONS)

    return built_once.folder("repair", build)


def graph_of(folder: Path, *changes: str) -> Graph:
    return Graph(load_recipe(folder / "r.toml", changes), folder / "work")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Callable[..., Graph]:
    """The graph in a copy of that folder without the caches named."""

    def copy(*without: str, changes: tuple[str, ...] = ()) -> Graph:
        shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
        graph = graph_of(tmp_path, *changes)
        for name in without:
            shutil.rmtree(graph.folder(graph.nodes[name]))
        return graph

    return copy


def remove(folder: Path) -> None:
    (folder / "part-00001.h5").unlink()


def truncate(folder: Path) -> None:
    os.truncate(folder / "part-00001.h5", 700)


def spoil(folder: Path) -> None:
    path = folder / "part-00001.h5"
    content = bytearray(path.read_bytes())
    content[600:] = bytes(len(content) - 600)
    path.write_bytes(content)


def unfinish(folder: Path) -> None:
    (folder / "manifest.json").unlink()


HARM = [remove, truncate, spoil, unfinish, shutil.rmtree]


def once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, harm: Callable[[], None], when=lambda *_: True):
    """Does `harm` when `owner.name` is called for the first time, before what it does."""
    original = getattr(owner, name)
    done: list[bool] = []

    def harmed(*arguments, **named):
        if not done and when(*arguments):
            done.append(True)
            harm()
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, harmed)
    return done


def test_status_says_what_of_a_cache_is_gone(copied: Callable[..., Graph]) -> None:
    graph = copied()
    node = graph.nodes["extract@train"]
    folder = graph.folder(node)

    def detail() -> tuple[str, str]:
        state = state_of(graph, node)
        return state.state, state.detail

    for name in ("plan.json", "manifest.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"a", b"b"))
        assert detail()[0] == "damaged"
        assert f"damaged {name}" in detail()[1]
        assert not complete(graph, node)  # which sets it aside
        aside = f"no {name} (a damaged one was set aside as {name}.damaged-0)"
        if name == "plan.json":
            assert detail() == (
                "damaged",
                f"{aside}, but 3 parts exist; the next run rewrites it and keeps the parts that match",
            )
            (folder / name).write_bytes(content)
        else:
            assert detail() == ("partial", f"6 of 6 images, but {aside}; the next run writes it")
    (folder / "manifest.json.damaged-0").unlink()
    assert detail() == ("partial", "6 of 6 images, but no manifest.json; the next run writes it")
    before = (folder / "part-00000.h5").stat().st_mtime_ns
    run_nodes(graph, [node], OPTIONS)
    assert detail()[0] == "complete"
    assert (folder / "part-00000.h5").stat().st_mtime_ns == before


def test_a_run_with_nothing_to_do_looks_at_each_cache_once(
    copied: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = copied()
    looks, original = [], CacheState.__init__

    def counted(self, folder, key=None):
        looks.append(folder)
        original(self, folder, key)

    monkeypatch.setattr(CacheState, "__init__", counted)
    run_nodes(graph, graph.caches(), OPTIONS)
    assert sorted(looks) == sorted(graph.folder(node) for node in graph.caches())


def test_status_goes_on_after_a_cache_of_a_newer_version(copied: Callable[..., Graph]) -> None:
    graph = copied()
    path = graph.folder(graph.nodes["extract@train"]) / "manifest.json"
    write_sealed(path, {**manifest_of(path.parent), "format": 99})
    states = {state.name: state for state in describe(graph)}
    newer = states.pop("extract@train")
    assert (newer.state, newer.detail) == (
        "newer", "written by a newer version (format 99); update rcnn, or use another --work"
    )  # fmt: skip
    assert {state.state for state in states.values()} == {"complete"}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize(
    ("victim", "owner", "moment"),
    [
        ("extract@train", runner, "open_inputs"),
        ("extract@train", "train-svm", "run"),
        ("extract@test", "detect", "run"),
        ("train-svm", "detect", "summarise"),
    ],
)
def test_what_is_lost_of_an_input_is_made_again(finished, copied, monkeypatch, harm, victim, owner, moment):
    """Between stages (before the inputs are opened), while a stage reads them, and where its manifest is written."""
    made = "train-svm" if "train" in victim and moment != "summarise" else "detect@test"
    graph = copied(made, "eval")
    module = owner if owner is runner else graph.nodes[made].use.stage.load()
    harmed = once(
        monkeypatch,
        module,
        moment,
        lambda: harm(graph.folder(graph.nodes[victim])),
        lambda *arguments: owner is not runner or arguments[1].name == made,
    )
    run_nodes(graph, graph.caches(), OPTIONS)
    assert harmed
    assert contents(graph.work) == contents(finished / "work")


def test_what_is_lost_of_an_input_of_an_uncached_stage_is_made_again(finished, copied, monkeypatch):
    graph = copied("extract@test", "detect@test", "eval", changes=("extract.cache=false",))
    proposals = graph.folder(graph.nodes["propose@test"])
    once(monkeypatch, graph.nodes["detect@test"].use.stage.load(), "run", lambda: remove(proposals))
    run_nodes(graph, graph.caches(), OPTIONS)
    expected = contents(finished / "work")
    del expected[graph.folder(graph.nodes["extract@test"]).name]
    assert contents(graph.work) == expected


@pytest.mark.parametrize("error", [StageError("worker: an input is not complete"), None])
def test_what_is_lost_while_parts_are_made_elsewhere_is_made_again(finished, copied, error):
    """As `--dask` does: the error is what a worker says, a DamagedPart or a sentence of its own."""
    graph, calls = copied("detect@test", "eval"), []
    features = graph.folder(graph.nodes["extract@test"])

    def elsewhere(graph, node, writer):
        calls.append(node.name)
        if calls == ["detect@test"]:
            remove(features)
            raise error or DamagedPart(features / "part-00001.h5", "the file is missing")
        inputs = runner.open_inputs(graph, node, OPTIONS.execution)
        node.use.stage.load().run(node.settings, inputs, writer, OPTIONS.execution)

    run_nodes(graph, graph.caches(), Options(part_size=2, make_parts=elsewhere))
    assert calls == ["detect@test", "extract@test", "detect@test", "eval"]
    assert contents(graph.work) == contents(finished / "work")


def test_an_error_with_all_inputs_complete_ends_the_run_at_once(copied):
    graph, calls = copied("eval"), []

    def elsewhere(graph, node, writer):
        calls.append(node.name)
        raise StageError("worker: does not see that detect@test is complete")

    with pytest.raises(StageError, match="does not see"):
        run_nodes(graph, graph.caches(), Options(make_parts=elsewhere))
    assert calls == ["eval"]


def test_an_input_that_is_lost_again_and_again_ends_the_run(copied, monkeypatch):
    graph = copied("train-svm")
    features = graph.folder(graph.nodes["extract@train"])
    module = graph.nodes["train-svm"].use.stage.load()
    run, calls = module.run, []

    def harmed(*arguments):
        calls.append(True)
        remove(features)
        run(*arguments)

    monkeypatch.setattr(module, "run", harmed)
    monkeypatch.setattr(runner, "REPAIRS", 3)
    with pytest.raises(StageError, match="its inputs were damaged 3 times; check the disk"):
        run_nodes(graph, graph.caches(), OPTIONS)
    assert len(calls) == 3


def test_what_is_lost_when_results_are_shown_is_made_again(finished, copied):
    graph = copied()
    folder, shown = graph.folder(graph.nodes["detect@test"]), []

    def show():
        shown.append(True)
        if len(shown) == 1:
            remove(folder)
            raise DamagedPart(folder / "part-00001.h5", "the file is missing")

    run_until_shown(graph, graph.caches(), OPTIONS, show)
    assert len(shown) == 2
    assert contents(graph.work) == contents(finished / "work")


def test_the_command_of_one_stage_names_the_command_for_its_lost_input(finished, copied, monkeypatch, capsys, caplog):
    graph = copied("train-svm")
    features = graph.folder(graph.nodes["extract@train"])
    once(monkeypatch, graph.nodes["train-svm"].use.stage.load(), "run", lambda: remove(features))
    monkeypatch.setattr(logging.getLogger("rcnn"), "propagate", True)
    code, _, errors = caller(capsys)("train-svm", graph.recipe.path, "--work", graph.work)
    assert code == 2
    assert "part-00001.h5: damaged (the file is missing); only this part will be recomputed" in errors
    assert f"rcnn: train-svm needs extract@train, which is not complete ({features}); run `rcnn extract" in errors
