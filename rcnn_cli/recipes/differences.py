"""Where two evaluations differ in what made them: settings, wiring, datasets, networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rcnn_cli.recipes.graph import Described, Graph, Node
from stages.contract.kinds import DATASETS
from stages.contract.settings import all_of

NOTHING = "none"


@dataclass(frozen=True)
class Difference:
    """One setting of a `table` (or of two that play the same part) that is `a` in the one run and `b` in the other.

    Without a `setting`, `a` or `b` is None and the other holds all settings of a table that only one run has.
    `matters` is False for a setting that cannot change a result.
    """

    table: str
    setting: str
    a: Any
    b: Any
    matters: bool = True

    def __str__(self) -> str:
        if not self.setting:
            settings = ", ".join(f"{name} = {as_in_recipe(value)}" for name, value in (self.a or self.b or {}).items())
            return f"{self.table}: only in {'A' if self.b is None else 'B'}{f' ({settings})' if settings else ''}"
        note = "" if self.matters else " (cannot change a result)"
        return f"{self.table}.{self.setting} {as_in_recipe(self.a)} -> {as_in_recipe(self.b)}{note}"


def as_in_recipe(value: Any) -> str:
    """A setting's value as a recipe has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def differences(a: Graph, first: Node, b: Graph, second: Node) -> list[Difference]:
    """Where the evaluation `second` of the graph `b` was made from other things than `first` of `a`.

    Both are followed upstream by what fills each input: two uses of one stage in the same place are compared setting by
    setting, whatever their tables are called, defaults included. What is left is compared by its table's name.
    """
    walk = Walk(a, b)
    walk.pair(first, second)
    ours, theirs = a.needed(first), b.needed(second)
    for other in theirs:
        partner = next((one for one in ours if one.name == other.name and one.use.stage is other.use.stage), None)
        if other.name not in walk.paired_b and partner is not None:
            walk.pair(partner, other)
    walk.lone(ours, walk.paired_a, "a")
    walk.lone(theirs, walk.paired_b, "b")
    return walk.differences()


class Walk:
    """Two graphs gone through together; what differs is collected on the way."""

    def __init__(self, a: Graph, b: Graph) -> None:
        self.a, self.b = a, b
        self.paired_a: set[str] = set()
        self.paired_b: set[str] = set()
        self.seen: set[tuple[str, str]] = set()
        self.places: dict[str, set[str]] = {}
        self.found: dict[tuple[str, str, str], tuple[Difference, set[str]]] = {}

    def pair(self, one: Node, other: Node) -> None:
        """Compares two uses of one stage, and all that is upstream of them."""
        if (one.name, other.name) in self.seen:
            return
        self.seen.add((one.name, other.name))
        self.paired_a.add(one.name)
        self.paired_b.add(other.name)
        table = either(one.use.name, other.use.name)
        place = either(str(one.split), str(other.split)) if one.use.stage.follows_split else ""
        self.places.setdefault(table, set()).add(place)
        self.compare(table, all_of(one.settings), all_of(other.settings), place, unimportant(one.settings))
        for role in dict.fromkeys([*one.sources, *other.sources]):
            self.compare_sources(table, place, role, one.sources.get(role), other.sources.get(role))

    def compare_sources(
        self, table: str, place: str, role: str, one: Node | Described | None, other: Node | Described | None
    ) -> None:
        """What fills one input of each."""
        if isinstance(one, Node) and isinstance(other, Node) and one.use.stage is other.use.stage:
            self.pair(one, other)
        elif isinstance(one, Described) and isinstance(other, Described) and one.section == other.section:
            compare = self.compare_datasets if one.section == DATASETS else self.compare_networks
            compare(either(one.table, other.table), one.name, other.name)
        else:
            self.note(Difference(table, f"inputs.{role}", name_of(one), name_of(other)), place)

    def compare_datasets(self, table: str, one: str, other: str) -> None:
        """Two datasets that play the same part; only if their images or annotations differ."""
        first, second = self.a.dataset(one), self.b.dataset(other)
        if (first.images_key, first.annotations_key) == (second.images_key, second.annotations_key):
            return
        before = len(self.found)
        self.compare(table, self.a.recipe.datasets[one], self.b.recipe.datasets[other])
        if len(self.found) == before and not any(key[0] == table for key in self.found):
            self.note(Difference(table, "files", "these", "others"))

    def compare_networks(self, table: str, one: str, other: str) -> None:
        """The tables of two networks that play the same part, and the weights that they name."""
        self.compare(table, all_of(self.a.recipe.networks[one]), all_of(self.b.recipe.networks[other]))
        first, second = self.a.network(one).identity(), self.b.network(other).identity()
        if first != second and not any(key[0] == table for key in self.found):
            self.compare(table, first, second)

    def compare(
        self,
        table: str,
        one: Mapping[str, Any],
        other: Mapping[str, Any],
        place: str = "",
        without_effect: frozenset[str] = frozenset(),
    ) -> None:
        """Notes every entry in which two tables differ."""
        for name in dict.fromkeys([*one, *other]):
            values = one.get(name, NOTHING), other.get(name, NOTHING)
            if values[0] != values[1]:
                self.note(Difference(table, name, *values, name not in without_effect), place)

    def note(self, difference: Difference, place: str = "") -> None:
        """Remembers a difference and the split that it is on."""
        key = (difference.table, difference.setting, str(difference))
        self.found.setdefault(key, (difference, set()))[1].add(place)

    def lone(self, nodes: list[Node], paired: set[str], side: str) -> None:
        """The tables among `nodes` that the other run has nothing for."""
        for name in dict.fromkeys(node.use.name for node in nodes if node.name not in paired):
            uses = [node for node in nodes if node.use.name == name]
            if any(node.name in paired for node in uses):
                continue
            settings = changed(uses[0].settings)
            self.note(Difference(name, "", settings if side == "a" else None, settings if side == "b" else None))

    def differences(self) -> list[Difference]:
        """All that was found; one that holds on some splits of a table alone names them."""
        found = []
        for difference, places in self.found.values():
            everywhere = not difference.setting or places >= self.places.get(difference.table, set())
            at = "" if everywhere else f"@{','.join(sorted(places))}"
            found.append(dataclasses.replace(difference, table=difference.table + at))
        return found


def either(one: str, other: str) -> str:
    """Two names that play the same part."""
    return one if one == other else f"{one} / {other}"


def name_of(source: Node | Described | None) -> str:
    """What fills an input, as a recipe names it."""
    if source is None:
        return NOTHING
    return source.use.name if isinstance(source, Node) else source.name


def unimportant(settings: Any) -> frozenset[str]:
    """The settings that cannot change a result."""
    fields = dataclasses.fields(settings)
    return frozenset(field.name for field in fields if not field.metadata.get("identity", True))


def changed(settings: Any) -> dict[str, Any]:
    """The settings that are not the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {name: value for name, value in all_of(settings).items() if getattr(settings, name) != defaults[name]}
