"""Settings of a stage: frozen dataclasses whose defaults are the papers' values, each with its source."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from stages.contract.errors import BadSetting

Condition = tuple[str, *tuple[Any, ...]]
"""(SETTING, VALUE, ...): holds if that setting has one of these values."""

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
    distinct: bool = False,
    identity: bool = True,
    by_content: bool = False,
    later: bool = False,
    only_with: Condition | None = None,
    of_network: Callable[[Any], Any] | None = None,
    on_cuda: tuple[str, ...] = (),
) -> Any:
    """A field of a settings dataclass.

    `what` describes it in a sentence, shown by --help to readers who know the field but not the code. `source` is the
    section of the paper or the file of the authors' release that the default comes from. `choices`, `at_least`,
    `at_most` (inclusive) and `above` (exclusive) restrict the value (or each element of a tuple). `distinct=True`: the
    elements of a tuple must differ, as repeating one would change the key and not the result.

    `identity=False`: the setting cannot change the result, and is not part of the cache's key; with `by_content=True`
    it names a file whose content is (`Stage.reads_files`). `later=True`: it was introduced after caches had been made;
    at its default it is not part of the key, so existing caches keep theirs. `only_with=(SETTING, VALUE, ...)`: it
    applies only if that setting has one of these values, like the settings of a method; otherwise it is refused, and so
    always has its default. With `later=True` it is part of the key only where it applies. `of_network`: the value used
    if the recipe gives none, as a function of the network's card; the default is that of the paper's network.
    `on_cuda`: the values that need a CUDA device.
    """
    bounds = {"choices": choices, "at_least": at_least, "at_most": at_most, "above": above, "distinct": distinct}
    roles = {
        "identity": identity,
        "by_content": by_content,
        "later": later,
        "only_with": only_with,
        "of_network": of_network,
        "on_cuda": on_cuda,
    }
    return dataclasses.field(default=default, metadata={"what": what, "source": source, **roles, **bounds})


def with_default(settings: type, name: str, default: Any, source: str) -> Any:
    """The field `name` of the dataclass `settings` with another default, for a dataclass that inherits from it."""
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return dataclasses.field(default=default, metadata={**fields[name].metadata, "source": source})


def build_settings(settings: type, values: Mapping[str, Any], place: str = "settings") -> Any:
    """Builds the settings dataclass from `values` (as read from TOML), checking types and bounds.

    Settings left to the network are empty until `with_network`. Messages start with `place`, such as
    "recipes/shapes.toml: [extract]". Raises BadSetting; for an unknown key it suggests the nearest one.
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
    except BadSetting as error:  # settings that do not fit each other
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


def with_own(settings: type, common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The `common` values for the dataclass `settings`, with a split's `own` in their place.

    Where the split chooses another method, say, common settings of the method that it does not use are left out; what
    the split states itself stays, for `build_settings` to refuse.
    """
    inherited = dict(common)
    for field in dataclasses.fields(settings):
        condition = field.metadata.get("only_with")
        if condition is not None and condition[0] in own and own[condition[0]] not in condition[1:]:
            inherited.pop(field.name, None)
    return {**inherited, **own}


def applies(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field applies, given the other `settings` (see `only_with` of `setting`)."""
    return holds(settings, field.metadata.get("only_with"))


def holds(settings: Any, condition: Condition | None) -> bool:
    """Whether the `settings` meet a condition, if any."""
    return condition is None or getattr(settings, condition[0]) in condition[1:]


def check_unchanged(settings: Any, condition: Condition, *names: str) -> None:
    """Raises BadSetting if a condition does not hold, and one of the settings `names`, which need it, is not at its
    default. In place of `only_with`, for settings that would otherwise enter, or leave, the keys of existing caches."""
    if holds(settings, condition):
        return
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in names and value != field.default:
            other = condition[0]
            raise BadSetting(
                f"{field.name} = {as_json(value)!r} is for {condition_words(condition)}, and {other} is "
                f"'{getattr(settings, other)}'; leave it out"
            )


def condition_words(condition: Condition) -> str:
    """A condition in words, such as "score = 'svm' or 'svr'"."""
    setting, *values = condition
    *others, last = (f"'{value}'" for value in values)
    return f"{setting} = {', '.join(others)} or {last}" if others else f"{setting} = {last}"


def is_open(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a field is not set until the network is known (see `of_network` of `setting`)."""
    return field.metadata.get("of_network") is not None and not getattr(settings, field.name)


def with_network(settings: Any, card: Any) -> Any:
    """The settings completed with the values that depend on the network with this `card`."""
    chosen = {
        field.name: field.metadata["of_network"](card)
        for field in dataclasses.fields(settings)
        if is_open(settings, field)
    }
    return dataclasses.replace(settings, **chosen) if chosen else settings


def check_device(settings: Any, device: str, place: str) -> None:
    """Raises BadSetting, its message starting with `place`, if a setting needs CUDA and `device` is not CUDA."""
    for field in dataclasses.fields(settings):
        value, on_cuda = getattr(settings, field.name), field.metadata.get("on_cuda", ())
        if value in on_cuda and not device.startswith("cuda"):
            others = " or ".join(f"'{choice}'" for choice in field.metadata["choices"] if choice not in on_cuda)
            raise BadSetting(f"{place}{field.name} = '{value}' needs --device cuda; on a CPU use {others}")


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest `valid` name, or all of them."""
    names = list(valid)
    close = None if name in names else closest(name, names, 0.5)
    if close is not None:
        return f", did you mean '{close}'?"
    return f"; it may be one of {', '.join(sorted(names))}" if names and name not in names else ""


def closest(name: str, names: typing.Sequence[str], similarity: float) -> str | None:
    """The one of `names` that is most like `name`, None if none has this similarity (0 to 1)."""
    import difflib

    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=similarity)), None)


def check_value(place: str, hint: Any, value: Any, metadata: Mapping[str, Any]) -> Any:
    """`value` converted to the type `hint` and checked against the bounds in `metadata`. Raises BadSetting."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise BadSetting(f"{place} = {value!r} must be a list{list_advice(place, element, value, metadata)}")
        checked = tuple(check_value(place, element, entry, {**metadata, "nested": True}) for entry in value)
        if metadata.get("distinct"):
            check_distinct(place, checked)
        return checked
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise BadSetting(f"{place} = {value!r} must be {TYPE_NAMES[hint]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadSetting(f"{place} = {value!r} must be a finite number")
    check_bounds(place, value, metadata)
    return value


def list_advice(place: str, element: Any, value: Any, metadata: Mapping[str, Any]) -> str:
    """How to write a list in place of `value`, also in a shell; `place` ends with the setting's table and name. Nothing
    for lists of lists."""
    if metadata.get("nested") or typing.get_origin(element) is tuple:
        return ""
    words = [word.strip() for word in str(value).strip("[]").split(",")]
    written = ", ".join(words if element in (int, float) else [f'"{word}"' for word in words])
    named = re.search(r"\[([^\]]+)\]: (\w+)$", place)
    shell = f" (--set '{named[1]}.{named[2]}=[{written}]')" if named and "'" not in written else ""
    return f", as in [{written}]{shell}"


def check_distinct(place: str, values: tuple[Any, ...]) -> None:
    """Raises BadSetting if one of the `values` is repeated."""
    repeated = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if repeated is not None:
        raise BadSetting(
            f"{place} = {as_json(values)} has {as_json(repeated)!r} more than once; leave out the repetition"
        )


def check_bounds(place: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raises BadSetting if `value` violates the bounds in `metadata`, as recorded by `setting`."""
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        close = closest(str(value), [str(choice) for choice in choices], 0.6)
        suggestion = f"; did you mean '{close}'?" if close is not None else ""
        raise BadSetting(f"{place} = {value!r} must be one of {', '.join(map(str, choices))}{suggestion}")
    for bound, is_within, words in (
        ("at_least", lambda limit: value >= limit, "at least"),
        ("at_most", lambda limit: value <= limit, "at most"),
        ("above", lambda limit: value > limit, "more than"),
    ):
        limit = metadata.get(bound)
        if limit is not None and not is_within(limit):
            raise BadSetting(f"{place} = {value!r} must be {words} {limit}")


def identity_of(settings: Any) -> dict[str, Any]:
    """The settings that change the result, as JSON values: the part of the cache's key that they make."""
    return {
        field.name: as_json(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if field.metadata.get("identity", True) and not (field.metadata.get("later") and is_as_before(settings, field))
    }


def changes_result(settings: Any) -> dict[str, Any]:
    """All settings that apply and change the result, whether or not they are at their defaults, as JSON values."""
    fields = {field.name: field for field in dataclasses.fields(settings)}
    return {name: value for name, value in all_of(settings).items() if fields[name].metadata.get("identity", True)}


def named_files(settings: Any) -> dict[str, str]:
    """The settings that name a file whose content changes the result, where they do."""
    return {
        field.name: value
        for field in dataclasses.fields(settings)
        if field.metadata.get("by_content") and (value := getattr(settings, field.name))
    }


def is_as_before(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a setting introduced later leaves the result as it was before."""
    if field.metadata.get("only_with") is not None:
        return not applies(settings, field)
    return bool(getattr(settings, field.name) == field.default)


def all_of(settings: Any) -> dict[str, Any]:
    """All settings that apply and are already set, as JSON values: what manifests record."""
    return {
        field.name: as_json(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if applies(settings, field) and not is_open(settings, field)
    }


def as_json(value: Any) -> Any:
    """A setting's value for JSON: tuples become lists."""
    return [as_json(entry) for entry in value] if isinstance(value, tuple) else value
