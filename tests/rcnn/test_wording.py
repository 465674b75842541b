"""The command line's sentences in Python's words, and Python's values as TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcnn.wording import as_changes, in_python, in_python_words
from stages.contract.errors import BadImage, StageError


def test_options_become_arguments_except_in_commands() -> None:
    told = "--precision: no evaluation; run `rcnn run r.toml --set a.b=1 --device cpu` or pass --threshold, --set-up"
    wanted = "precision: no evaluation; run `rcnn run r.toml --set a.b=1 --device cpu` or pass threshold, --set-up"
    assert in_python_words(told) == wanted
    assert in_python_words("--set x.y=1: unknown") == "changes x.y=1: unknown"


def test_errors_keep_their_type_and_attributes() -> None:
    with pytest.raises(BadImage, match=r"^a.png: is damaged; try device cpu$") as caught, in_python():
        raise BadImage("a.png", "is damaged", "try --device cpu")
    assert caught.value.reason == "is damaged"
    with pytest.raises(ValueError, match="--device"), in_python():
        raise ValueError("--device")


VALUES: dict[str, Any] = {
    "text": "a \"quoted\" 'text' with \\ and \n",
    "number": 3,
    "share": 0.25,
    "truth": True,
    "list": ["pool4", "fc5"],
    "tuple": (1, 2.5),
    "table": {"proposals": "rpn"},
    "numpy": np.float32(0.5),
    "integer": np.int64(7),
    "truth of numpy": np.bool_(False),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_settings(name: str) -> None:
    (change,) = as_changes({"stage.key": VALUES[name]})
    key, _, text = change.partition("=")
    assert key == "stage.key"
    value = VALUES[name]
    assert tomllib.loads(f"value = {text}")["value"] == (list(value) if isinstance(value, tuple) else value)


SCALARS = st.text() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.booleans()


@given(SCALARS | st.lists(SCALARS, max_size=4))
def test_any_value_comes_back(value: Any) -> None:
    (change,) = as_changes({"a.b": value})
    assert tomllib.loads(f"value = {change.removeprefix('a.b=')}")["value"] == value


@pytest.mark.parametrize("value", [None, Path("a"), np.zeros(3), object(), {"a": None}])
def test_what_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(StageError, match=r"^changes: 'a.b' is of type \w+; give text, a number"):
        as_changes({"a.b": value})


def test_nothing_to_change() -> None:
    assert as_changes(None) == as_changes({}) == ()
