"""A setting as an option of its stage's command: help, metavar, and conversion of its value to TOML."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

NOT_IN_KEY = "not part of the cache's key"
METAVARS = {int: "INTEGER", float: "FLOAT", str: "TEXT"}


def setting_help(field: dataclasses.Field[Any]) -> str:
    """The option's help: what the setting does, its default and source, its bounds, and when it applies."""
    metadata = field.metadata
    source = f" ({metadata['source']})" if metadata["source"] else ""
    other = "; some networks have their own" if metadata["of_network"] else ""
    ends = [f"default: {shown(field.default)}{source}{other}", bounds(metadata)]
    if metadata["only_with"]:
        other, *values = metadata["only_with"]
        ends.append(f"only with {other} = {' or '.join(map(str, values))}")
    if not metadata["identity"]:
        ends.append("its content, not its name, is part of the cache's key" if metadata["by_content"] else NOT_IN_KEY)
    return f"{metadata['what']}  [{'; '.join(end for end in ends if end)}]"


def shown(value: Any) -> str:
    """A default as one would type it: "fc7,pool5", "true", "none"."""
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps(value) if isinstance(value[0], tuple) else ",".join(map(str, value))
    return str(value)


def bounds(metadata: Mapping[str, Any]) -> str:
    """The bounds as click writes a range, e.g. "0<=x<=1"; "" if there are none."""
    low = f"{metadata['at_least']}<=" if metadata["at_least"] is not None else ""
    low = f"{metadata['above']}<" if metadata["above"] is not None else low
    high = f"<={metadata['at_most']}" if metadata["at_most"] is not None else ""
    if low and not high:
        return f"x>{'=' if low.endswith('=') else ''}{low.rstrip('<=')}"
    return f"{low}x{high}" if low or high else ""


def plain(hint: Any) -> Any:
    """The type without `| None`."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(member for member in get_args(hint) if member is not type(None))
    return hint


def setting_values(hint: Any, choices: tuple[Any, ...] | None) -> tuple[str, ...]:
    """The setting's possible values if they are a fixed few, else ()."""
    return ("true", "false") if plain(hint) is bool else tuple(map(str, choices or ()))


def setting_metavar(hint: Any, choices: tuple[Any, ...] | None) -> str:
    """What --help shows for the value: its choices or its type."""
    values = setting_values(hint, choices)
    if values:
        return f"[{'|'.join(values)}]"
    hint = plain(hint)
    if get_origin(hint) is not tuple:
        return METAVARS[hint]
    element = get_args(hint)[0]
    return '[["A","B"],...]' if get_origin(element) is tuple else f"{METAVARS[element]},..."


def toml_value(hint: Any, text: str) -> str:
    """A value given as an option, as TOML; for a list, "fc7,pool5" means `["fc7", "pool5"]`."""
    hint = plain(hint)
    if get_origin(hint) is not tuple or text.lstrip().startswith("["):
        return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return json.dumps(parts) if get_args(hint)[0] is str else f"[{', '.join(parts)}]"
