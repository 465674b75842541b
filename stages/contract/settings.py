"""Settings of a stage: frozen dataclasses whose every default is the paper's value and carries the paper's section."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from stages.contract.errors import BadSetting

Condition = tuple[str, *tuple[Any, ...]]
"""(SETTING, VALUE, ...): holds where that setting has one of these values."""

TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def setting(
    default: Any,
    what: str,
    *,
    source: str = "",
    choices: tuple[Any, ...] | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    identity: bool = True,
    later: bool = False,
    only_with: Condition | None = None,
    of_network: Callable[[Any], Any] | None = None,
    on_cuda: tuple[str, ...] = (),
) -> Any:
    """One field of a settings dataclass.

    `what` says in a sentence what it does: --help shows it to readers who know the field but not the code. `source` is
    the paper's section or the file of the authors' release that the default comes from. `choices`, `at_least`,
    `at_most` (inclusive) and `above` (exclusive) bound the value (each element, for a tuple).
    `identity=False` marks a setting that cannot change the result and so stays out of the cache's key. `later=True`
    marks one that came after caches had been made: at its default it stays out of the key, so that they keep theirs.
    `only_with=(SETTING, VALUE, ...)` marks one that means something only where that setting has one of these values, as
    a method's own settings do; elsewhere it is refused, and so never differs from its default. With `later=True` it is
    in the key there and nowhere else.
    `of_network`: the value that a recipe takes which does not say, as a function of the network's card; the default is
    that of the paper's network. `on_cuda` are the values that need a CUDA device.
    """
    bounds = {"choices": choices, "at_least": at_least, "at_most": at_most, "above": above}
    roles = {"identity": identity, "later": later, "only_with": only_with, "of_network": of_network, "on_cuda": on_cuda}
    return dataclasses.field(default=default, metadata={"what": what, "source": source, **roles, **bounds})


def build_settings(settings: type, values: Mapping[str, Any], place: str = "settings") -> Any:
    """The settings dataclass made from `values` (as TOML gives them), each checked for its type and bounds.

    What is left to the network is empty until `with_network`. `place` begins each message, as "recipes/shapes.toml:
    [extract]". Raises BadSetting, naming the nearest valid key.
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}
    hints = typing.get_type_hints(settings)
    for name in values:
        if name not in fields:
            raise BadSetting(f"{place}: unknown setting '{name}'{nearest(name, fields)}")
    checked = {
        name: check_value(f"{place}: {name}", hints[name], value, fields[name].metadata)
        for name, value in values.items()
    }
    for name, field in fields.items():
        if field.metadata.get("of_network") is None:
            continue
        if name not in values:
            checked[name] = () if isinstance(field.default, tuple) else ""
        elif not checked[name]:
            raise BadSetting(f"{place}: {name} = {values[name]!r} is empty; name some, or leave the setting out")
    try:
        built = settings(**checked)
    except BadSetting as error:  # two that do not fit each other
        raise BadSetting(f"{place}: {error}") from None
    for name in values:
        if not applies(built, fields[name]):
            condition = fields[name].metadata["only_with"]
            other = condition[0]
            raise BadSetting(
                f"{place}: '{name}' is a setting of {condition_words(condition)}, and {other} is "
                f"'{getattr(built, other)}'; leave it out"
            )
    return built


def applies(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field means something beside the other `settings` (see `only_with` of `setting`)."""
    return holds(settings, field.metadata.get("only_with"))


def holds(settings: Any, condition: Condition | None) -> bool:
    """Whether the `settings` meet a condition, if there is one."""
    return condition is None or getattr(settings, condition[0]) in condition[1:]


def condition_words(condition: Condition) -> str:
    """ "score = 'svm' or 'svr'"."""
    setting, *values = condition
    quoted = [f"'{value}'" for value in values]
    return f"{setting} = {' or '.join(quoted)}"


def is_open(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field waits for the network to be known (see `of_network` of `setting`)."""
    return field.metadata.get("of_network") is not None and not getattr(settings, field.name)


def with_network(settings: Any, card: Any) -> Any:
    """The settings with what they leave to the network, whose card this is."""
    chosen = {
        field.name: field.metadata["of_network"](card)
        for field in dataclasses.fields(settings)
        if is_open(settings, field)
    }
    return dataclasses.replace(settings, **chosen) if chosen else settings


def check_device(settings: Any, device: str, place: str) -> None:
    """Raises BadSetting, beginning with `place`, where a setting needs CUDA and `device` has none."""
    for field in dataclasses.fields(settings):
        value, on_cuda = getattr(settings, field.name), field.metadata.get("on_cuda", ())
        if value in on_cuda and not device.startswith("cuda"):
            others = " or ".join(f"'{one}'" for one in field.metadata["choices"] if one not in on_cuda)
            raise BadSetting(f"{place}{field.name} = '{value}' needs --device cuda; on a CPU take {others}")


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest of the `valid` ones, or all of them."""
    import difflib

    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f", did you mean '{close[0]}'?"
    return f"; it may be one of {', '.join(sorted(names))}" if names else ""


def check_value(place: str, hint: Any, value: Any, metadata: Mapping[str, Any]) -> Any:
    """`value` as the type `hint`, checked against the bounds in `metadata`; BadSetting if it does not fit."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise BadSetting(f"{place} = {value!r} must be a list")
        return tuple(check_value(place, element, one, metadata) for one in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise BadSetting(f"{place} = {value!r} must be {TYPE_NAMES[hint]}")
    check_bounds(place, value, metadata)
    return value


def check_bounds(place: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raises BadSetting if `value` is outside the bounds that `setting` recorded in `metadata`."""
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        raise BadSetting(f"{place} = {value!r} must be one of {', '.join(map(str, choices))}")
    for bound, is_within, words in (
        ("at_least", lambda limit: value >= limit, "at least"),
        ("at_most", lambda limit: value <= limit, "at most"),
        ("above", lambda limit: value > limit, "more than"),
    ):
        limit = metadata.get(bound)
        if limit is not None and not is_within(limit):
            raise BadSetting(f"{place} = {value!r} must be {words} {limit}")


def identity_of(settings: Any) -> dict[str, Any]:
    """The settings that change the result, as JSON values: what enters the cache's key."""
    return {
        field.name: as_json(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if field.metadata.get("identity", True) and not (field.metadata.get("later") and is_as_before(settings, field))
    }


def is_as_before(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a setting that came later leaves the result what it was before."""
    if field.metadata.get("only_with") is not None:
        return not applies(settings, field)
    return bool(getattr(settings, field.name) == field.default)


def all_of(settings: Any) -> dict[str, Any]:
    """Every setting that applies and is not left to a network not yet known, as JSON values: what manifests record."""
    return {
        field.name: as_json(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if applies(settings, field) and not is_open(settings, field)
    }


def as_json(value: Any) -> Any:
    """Tuples become lists, all else stays."""
    return [as_json(one) for one in value] if isinstance(value, tuple) else value
