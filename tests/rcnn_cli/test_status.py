"""`rcnn status`: the reason it gives for a missing cache is a difference from a cache that the same table made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rcnn_cli.main import main

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 4

[datasets.test]
source = "shapes:test"
images = 3

[network]
name = "shapenet"
weights = "random"

[propose]
method = "sliding-window"
max_boxes = 5

[extract]
layers = ["pool4"]
padding = 4

[train-svm]
layer = "pool4"

[detect]

[eval]
"""
Call = Callable[..., str]
Why = Callable[..., dict[str, list[str]]]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `rcnn` in this process, in a folder with the recipes a.toml and b.toml: what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCNN_WORK", raising=False)
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(RECIPE)

    def run(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([*arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def why(call: Call) -> Why:
    """The reasons that `rcnn status` gives, by cache."""

    def run(*arguments: str) -> dict[str, list[str]]:
        states = json.loads(call("status", *arguments, "--json"))
        return {state["name"]: state["why"] for state in states if state["why"]}

    return run


def test_a_cache_of_another_split_is_no_reason(call: Call, why: Why) -> None:
    call("propose", "a.toml", "--split", "train", "--jobs", "1")
    assert why("a.toml") == {}


def test_proposals_that_are_not_cached_have_not_changed(call: Call, why: Why) -> None:
    uncached = ("--set", "propose.cache=false")
    call("extract", "a.toml", "--split", "train", "--jobs", "1", *uncached)
    assert why("a.toml", *uncached) == {}
    assert why("a.toml", *uncached, "--set", "propose.max_boxes=4") == {"extract@train": ["proposals changed upstream"]}


def test_a_cache_of_another_recipe_is_named(call: Call, why: Why) -> None:
    call("propose", "a.toml", "--jobs", "1")
    call("extract", "a.toml", "--split", "train", "--jobs", "1")
    fewer = ("--set", "propose.max_boxes=4")
    assert why("a.toml", *fewer) == {
        "propose@train": ["propose.max_boxes 5 -> 4"],
        "propose@test": ["propose.max_boxes 5 -> 4"],
        "extract@train": ["proposals changed upstream"],
    }
    assert why("b.toml", *fewer) == {
        "propose@train": ["unlike propose@train of a: propose.max_boxes 5 -> 4"],
        "propose@test": ["unlike propose@test of a: propose.max_boxes 5 -> 4"],
    }
    assert why("b.toml") == {}
