"""A setting as an option of its stage's command: its help, its metavar, and its value as the recipe would have it."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

METAVARS = {int: "INTEGER", float: "FLOAT", str: "TEXT"}


def setting_help(field: dataclasses.Field[Any]) -> str:
    """What the setting does, then its default, where that comes from, its bounds, and when it matters."""
    told = field.metadata
    source = f" ({told['source']})" if told["source"] else ""
    other = "; networks without such layers have their own" if told["of_network"] else ""
    ends = [f"default: {shown(field.default)}{source}{other}", bounds(told)]
    if told["only_with"]:
        other, *values = told["only_with"]
        ends.append(f"only with {other} = {' or '.join(map(str, values))}")
    if not told["identity"]:
        ends.append("not part of the cache's key")
    return f"{told['what']}  [{'; '.join(end for end in ends if end)}]"


def shown(value: Any) -> str:
    """A default as it would be typed: "fc7,pool5", "true", "none"."""
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps(value) if isinstance(value[0], tuple) else ",".join(map(str, value))
    return str(value)


def bounds(told: Mapping[str, Any]) -> str:
    """ "0<=x<=1", as click writes a range; "" without one."""
    low = f"{told['at_least']}<=" if told["at_least"] is not None else ""
    low = f"{told['above']}<" if told["above"] is not None else low
    high = f"<={told['at_most']}" if told["at_most"] is not None else ""
    if low and not high:
        return f"x>{'=' if low.endswith('=') else ''}{low.rstrip('<=')}"
    return f"{low}x{high}" if low or high else ""


def plain(hint: Any) -> Any:
    """The type without "or None"."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(one for one in get_args(hint) if one is not type(None))
    return hint


def setting_values(hint: Any, choices: tuple[Any, ...] | None) -> tuple[str, ...]:
    """The values that there are, where these are few."""
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
    """A value given as an option, as TOML: of a list, "fc7,pool5" may stand for `["fc7", "pool5"]`."""
    hint = plain(hint)
    if get_origin(hint) is not tuple or text.lstrip().startswith("["):
        return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return json.dumps(parts) if get_args(hint)[0] is str else f"[{', '.join(parts)}]"
