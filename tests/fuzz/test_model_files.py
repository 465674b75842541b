"""Exported detectors, spoilt: they are read or refused in a sentence, even where the checksums were mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load, save

from cache.files import SEAL, seal_of
from rcnn_cli.exporting.card import KEY, Held
from rcnn_cli.exporting.description import describe_model
from rcnn_cli.exporting.model_file import detector_of_file
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from tests import exported
from tests.built_once import BuiltOnce
from tests.fuzz.mutations import Mutation, as_json, mutated, mutated_tree, mutations, written
from tests.fuzz.verdict import fuzz, read_or_said

PIXELS = np.random.default_rng(3).integers(0, 255, (60, 90, 3), np.uint8)
FILES: dict[str, bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def files(built_once: BuiltOnce) -> None:
    folder = built_once.folder("exported", exported.build)
    FILES.update({name: (folder / f"{name}.safetensors").read_bytes() for name in exported.SYSTEMS})


def used(path: Path) -> None:
    """Everything that is done with such a file: it is described, opened, and detects."""
    read_or_said(lambda: describe_model(path))
    detector = read_or_said(lambda: detector_of_file(path, Execution()))
    if detector is not None:
        read_or_said(lambda: detector.showing.as_json(detector.detect(PIXELS, "photo")))


@fuzz(30)
@given(st.sampled_from(exported.SYSTEMS), st.sampled_from(exported.SYSTEMS), mutations())
def test_spoilt_bytes(place: Path, one: str, other: str, wanted: list[Mutation]) -> None:
    words = [b"rcnn.detector", b"__metadata__", b'"F64"', b"null", b"-1", b"99999999999999999999"]
    used(written(place / "m.safetensors", mutated(FILES[one], wanted, words, FILES[other])))


def parts_of(content: bytes, place: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The card and the tensors of a sound file."""
    with safe_open(written(place / "sound.safetensors", content), "np") as file:
        return json.loads(file.metadata()[KEY]), load(content)


def mended(card: Any, tensors: dict[str, np.ndarray]) -> str:
    """The card with checksums that fit, as far as it is one."""
    if not isinstance(card, dict):
        return json.dumps(card)
    for name, entry in card["held"].items() if isinstance(card.get("held"), dict) else ():
        own = {key.removeprefix(f"{name}/"): one for key, one in tensors.items() if key.startswith(f"{name}/")}
        try:
            entry[SEAL] = Held.from_json({SEAL: "", **entry}).content.with_columns(own).digest
        except Exception:
            continue
    return json.dumps({**card, SEAL: seal_of(card)})


def forged(card: Any, tensors: dict[str, np.ndarray]) -> bytes:
    """A file with this card and tensors, and checksums that fit."""
    return save(tensors, {KEY: mended(card, tensors)})


@fuzz(40)
@given(st.data(), st.sampled_from(exported.SYSTEMS))
def test_forged_cards(place: Path, data: st.DataObject, system: str) -> None:
    card, tensors = parts_of(FILES[system], place)
    part = data.draw(st.sampled_from(["nodes", "held", "classes", "measured", None]))
    tree = card if part is None else card[part]
    changed = data.draw(mutated_tree(tree))
    try:
        changed = json.loads(as_json(changed))
    except (ValueError, RecursionError):
        return  # numbers and nesting that json refuses are in test_spoilt_cards
    whole = changed if part is None else {**card, part: changed}
    used(written(place / "m.safetensors", forged(whole, tensors)))


@fuzz(20)
@given(st.data(), st.sampled_from(exported.SYSTEMS))
def test_spoilt_cards(place: Path, data: st.DataObject, system: str) -> None:
    card, tensors = parts_of(FILES[system], place)
    text = as_json(data.draw(mutated_tree(card))).decode()
    used(written(place / "m.safetensors", save(tensors, {KEY: text})))


ODD_ARRAYS = [
    lambda array: np.full_like(array, np.nan if array.dtype.kind == "f" else -1),
    lambda array: np.full_like(array, np.inf if array.dtype.kind == "f" else np.iinfo(array.dtype).max),
    lambda array: array[..., :-1] if array.ndim else array[None],
    lambda array: array[:0],
    lambda array: array.astype(np.float64 if array.dtype == np.float32 else np.float32),
    lambda array: np.concatenate([array, array]),
    lambda array: array * 0,
]


@fuzz(30)
@given(st.data(), st.sampled_from(exported.SYSTEMS), st.booleans())
def test_forged_tensors(place: Path, data: st.DataObject, system: str, described: bool) -> None:
    card, tensors = parts_of(FILES[system], place)
    name = data.draw(st.sampled_from(sorted(name for name, one in tensors.items() if one.ndim)))
    tensors[name] = np.ascontiguousarray(data.draw(st.sampled_from(ODD_ARRAYS))(tensors[name]))
    table, _, column = name.partition("/")
    schema = card["held"][table]["schema"]
    group, _, leaf = column.rpartition("/")
    for columns in (schema["rows"], schema["per_item"], schema["tables"].get(group, {})):
        for own in {column, leaf} & set(columns):
            if described:
                columns[own] = [str(tensors[name].dtype), list(tensors[name].shape[1:])]
    used(written(place / "m.safetensors", forged(card, tensors)))


def test_numbers_that_are_not_finite_are_refused(place: Path) -> None:
    card, tensors = parts_of(FILES["detect"], place)
    for number in (float("inf"), float("nan")):
        card["held"]["train-svm"]["summary"]["more"] = number
        path = written(place / "m.safetensors", forged(card, tensors))
        with pytest.raises(StageError, match="its card cannot be read"):
            detector_of_file(path, Execution())


SOUND = {"rule": "best F1 on val", "scores": {}}
NO_NUMBERS: list[Any] = [True, "1", [], 1e39, -1e39, 10**400]
NO_THRESHOLDS: list[Any] = [
    True,
    [],
    {},
    "best",
    {**SOUND, "scores": [1.0]},
    {**SOUND, "rule": "\x1b[2J"},
    {**SOUND, "rule": ["best"]},
    {**SOUND, "more": {"nobody": 1.0}},
    *({**SOUND, "one": one} for one in NO_NUMBERS),
]
"""Of thresholds that are none; `one` is that of the first class, `more` are those of no class."""


@pytest.mark.parametrize("value", NO_THRESHOLDS)
def test_thresholds_that_are_none_are_refused(value: Any, place: Path) -> None:
    card, tensors = parts_of(FILES["detect"], place)
    first, *others = card["classes"]
    if isinstance(value, dict) and value.get("scores") == {}:
        scores = {first: value.get("one", 1.0), **dict.fromkeys(others, 1), **value.get("more", {})}
        value = {"rule": value["rule"], "scores": scores}
    path = written(place / "m.safetensors", forged({**card, "thresholds": value}, tensors))
    with pytest.raises(StageError, match="its card is not valid"):
        detector_of_file(path, Execution())


def test_thresholds_of_integers_and_none_are_believed(place: Path) -> None:
    card, tensors = parts_of(FILES["detect"], place)
    first, *others = card["classes"]
    value = {**SOUND, "scores": {**dict.fromkeys(reversed(others), 1), first: None}}
    path = written(place / "m.safetensors", forged({**card, "thresholds": value}, tensors))
    cuts = detector_of_file(path, Execution()).showing.cuts
    np.testing.assert_array_equal(cuts, np.array([np.inf, *[1] * len(others)], np.float32))
    assert f"thresholds (best F1 on val): {first} none" in describe_model(path)
    del card["thresholds"]  # as a card from before there were any
    assert detector_of_file(written(path, forged(card, tensors)), Execution()).showing.rule == "a precision of 0.5"


def test_the_forger_is_believed_where_nothing_is_changed(place: Path) -> None:
    card, tensors = parts_of(FILES["detect"], place)
    path = written(place / "m.safetensors", forged(card, tensors))
    assert len(detector_of_file(path, Execution()).classes) == 10
