"""How two evaluations differ in what they were made from: settings, wiring, datasets, networks."""

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
    """A setting of a `table` (or of two corresponding tables) that is `a` in one run and `b` in the other.

    Without a `setting`: a table that only one run has; its settings are in `a` or `b`, and the other is None.
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
        note = "" if self.matters else " (does not affect the result)"
        return f"{self.table}.{self.setting} {as_in_recipe(self.a)} -> {as_in_recipe(self.b)}{note}"


def as_in_recipe(value: Any) -> str:
    """A setting's value as a recipe would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def differences(a: Graph, first: Node, b: Graph, second: Node) -> list[Difference]:
    """How what the evaluation `second` of graph `b` was made from differs from what `first` of graph `a` was made from.

    Both are followed upstream through their inputs: two uses of the same stage in corresponding places are compared
    setting by setting, defaults included, whatever their tables are called. The rest is compared by table name.
    """
    walk = Walk(a, b)
    walk.pair(first, second)
    nodes_a, nodes_b = a.needed(first), b.needed(second)
    for node in nodes_b:
        partner = next((each for each in nodes_a if each.name == node.name and each.use.stage is node.use.stage), None)
        if node.name not in walk.paired_b and partner is not None:
            walk.pair(partner, node)
    walk.lone(nodes_a, walk.paired_a, "a")
    walk.lone(nodes_b, walk.paired_b, "b")
    return walk.differences()


class Walk:
    """Walks two graphs in parallel and collects their differences."""

    def __init__(self, a: Graph, b: Graph) -> None:
        self.a, self.b = a, b
        self.paired_a: set[str] = set()
        self.paired_b: set[str] = set()
        self.seen: set[tuple[str, str]] = set()
        self.places: dict[str, set[str]] = {}
        self.noted: dict[tuple[str, str, str], tuple[Difference, set[str]]] = {}

    def pair(self, node_a: Node, node_b: Node) -> None:
        """Compares two uses of the same stage, and everything upstream of them."""
        if (node_a.name, node_b.name) in self.seen:
            return
        self.seen.add((node_a.name, node_b.name))
        self.paired_a.add(node_a.name)
        self.paired_b.add(node_b.name)
        table = either(node_a.use.name, node_b.use.name)
        place = either(str(node_a.split), str(node_b.split)) if node_a.use.stage.follows_split else ""
        self.places.setdefault(table, set()).add(place)
        self.compare(table, all_of(node_a.settings), all_of(node_b.settings), place, unimportant(node_a.settings))
        for role in dict.fromkeys([*node_a.sources, *node_b.sources]):
            self.compare_sources(table, place, role, node_a.sources.get(role), node_b.sources.get(role))

    def compare_sources(
        self, table: str, place: str, role: str, source_a: Node | Described | None, source_b: Node | Described | None
    ) -> None:
        """Compares what fills an input of both."""
        if isinstance(source_a, Node) and isinstance(source_b, Node) and source_a.use.stage is source_b.use.stage:
            self.pair(source_a, source_b)
        elif (
            isinstance(source_a, Described) and isinstance(source_b, Described) and source_a.section == source_b.section
        ):
            compare = self.compare_datasets if source_a.section == DATASETS else self.compare_networks
            compare(either(source_a.table, source_b.table), source_a.name, source_b.name)
        else:
            self.note(Difference(table, f"inputs.{role}", name_of(source_a), name_of(source_b)), place)

    def compare_datasets(self, table: str, name_a: str, name_b: str) -> None:
        """Compares two corresponding datasets if their images or annotations differ."""
        first, second = self.a.dataset(name_a), self.b.dataset(name_b)
        if keys_of(first) == keys_of(second):
            return
        before = len(self.noted)
        self.compare(table, self.a.recipe.datasets[name_a], self.b.recipe.datasets[name_b])
        if len(self.noted) == before and not any(key[0] == table for key in self.noted):
            self.note(Difference(table, "files", "these", "others"))

    def compare_networks(self, table: str, name_a: str, name_b: str) -> None:
        """Compares the tables of two corresponding networks, and the weights that they name."""
        self.compare(table, all_of(self.a.recipe.networks[name_a]), all_of(self.b.recipe.networks[name_b]))
        first, second = self.a.network(name_a).identity(), self.b.network(name_b).identity()
        if first != second and not any(key[0] == table for key in self.noted):
            self.compare(table, first, second)

    def compare(
        self,
        table: str,
        values_a: Mapping[str, Any],
        values_b: Mapping[str, Any],
        place: str = "",
        without_effect: frozenset[str] = frozenset(),
    ) -> None:
        """Records every entry in which two tables differ."""
        for name in dict.fromkeys([*values_a, *values_b]):
            pair = values_a.get(name, NOTHING), values_b.get(name, NOTHING)
            if pair[0] != pair[1]:
                self.note(Difference(table, name, *pair, name not in without_effect), place)

    def note(self, difference: Difference, place: str = "") -> None:
        """Records a difference and the split that it concerns."""
        key = (difference.table, difference.setting, str(difference))
        self.noted.setdefault(key, (difference, set()))[1].add(place)

    def lone(self, nodes: list[Node], paired: set[str], side: str) -> None:
        """Records the tables among `nodes` that have no counterpart in the other run."""
        for name in dict.fromkeys(node.use.name for node in nodes if node.name not in paired):
            uses = [node for node in nodes if node.use.name == name]
            if any(node.name in paired for node in uses):
                continue
            settings = changed(uses[0].settings)
            self.note(Difference(name, "", settings if side == "a" else None, settings if side == "b" else None))

    def differences(self) -> list[Difference]:
        """The recorded differences; one that concerns only some splits of a table names them."""
        collected = []
        for difference, places in self.noted.values():
            everywhere = not difference.setting or places >= self.places.get(difference.table, set())
            at = "" if everywhere else f"@{','.join(sorted(places))}"
            collected.append(dataclasses.replace(difference, table=difference.table + at))
        return collected


def keys_of(dataset: Any) -> tuple[str, ...]:
    """The keys of all that an opened dataset has."""
    masks = (dataset.masks_key,) if getattr(dataset, "has_masks", False) else ()
    return dataset.images_key, dataset.annotations_key, *masks


def either(a: str, b: str) -> str:
    """The names of two corresponding tables as a text."""
    return a if a == b else f"{a} / {b}"


def name_of(source: Node | Described | None) -> str:
    """The name, in the recipe, of what fills an input."""
    if source is None:
        return NOTHING
    return source.use.name if isinstance(source, Node) else source.name


def unimportant(settings: Any) -> frozenset[str]:
    """The settings that cannot change a result."""
    fields = dataclasses.fields(settings)
    return frozenset(field.name for field in fields if not field.metadata.get("identity", True))


def changed(settings: Any) -> dict[str, Any]:
    """The settings whose value is not the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {name: value for name, value in all_of(settings).items() if getattr(settings, name) != defaults[name]}
