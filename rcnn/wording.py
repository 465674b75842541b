"""What the command line's options are called in Python: in the values that it is given, and in its sentences."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cache.errors import Error
from stages.contract.errors import StageError

ARGUMENTS = {
    "set": "changes",
    **{name: name for name in ("detector", "device", "jobs", "precision", "split", "threshold", "thresholds", "work")},
}
"""Options, and the arguments that stand for them."""
OPTION = re.compile(rf"--({'|'.join(ARGUMENTS)})(?![\w-])")


@contextlib.contextmanager
def in_python() -> Iterator[None]:
    """Errors in the block speak of Python's arguments, not of options, except in the commands that they advise."""
    try:
        yield
    except Error as error:
        error.args = (in_python_words(str(error)), *error.args[1:])
        raise


def in_python_words(sentence: str) -> str:
    """The sentence with "device" for "--device" and so on; what is between backticks is a command line and stays."""
    pieces = sentence.split("`")
    pieces[::2] = [OPTION.sub(lambda option: ARGUMENTS[option[1]], piece) for piece in pieces[::2]]
    return "`".join(pieces)


def as_changes(changes: Mapping[str, Any] | None) -> tuple[str, ...]:
    """{"extract.padding": 0} as the values of --set, "extract.padding = 0". Raises StageError for a value that is not
    one of TOML's."""
    return tuple(f"{name}={toml_value(str(name), value)}" for name, value in (changes or {}).items())


def toml_value(name: str, value: Any) -> str:
    """The value of a setting, called `name`, in TOML. Raises StageError."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml_value(name, one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(name, one) for one in value) + "]"
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()
    try:
        return tomlkit.item(value).as_string()
    except (TOMLKitError, ValueError, TypeError):
        raise StageError(
            f"changes: '{name}' is of type {type(value).__name__}; give text, a number, true or false, or a list"
        ) from None
