"""`rcnn status`: the state of each cache of a recipe, and how a missing one differs from the most similar one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cache import CacheState, find_adoption, nearest_relative
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import counted, listed_caches, look, not_cached
from stages.plurals import plural


@dataclass(frozen=True)
class State:
    """The state of one node's cache: a `CacheState.condition` ("complete", "partial", "damaged", "foreign", "newer",
    "missing") or, for a node without a cache, "on demand".

    `detail` and `why` are text for people. `adoptable`: the number of items whose records can be copied from finished
    caches.
    """

    name: str
    state: str
    detail: str
    why: tuple[str, ...]
    folder: str
    key: str
    items: int
    items_done: int
    adoptable: int = 0
    jobs: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be made: the cache is complete, or the node has none."""
        return self.state in ("complete", "on demand")


def describe(graph: Graph) -> list[State]:
    """The states of all nodes, inputs first, with what can be copied. Changes nothing."""
    seen = [(node, look(graph, node)) for node in graph.nodes.values()]
    return [with_adoptable(graph, node, cache, state_as_seen(graph, node, cache)) for node, cache in seen]


def state_of(graph: Graph, node: Node) -> State:
    """The state of one node. Changes nothing."""
    return state_as_seen(graph, node, look(graph, node))


def state_as_seen(graph: Graph, node: Node, cache: CacheState) -> State:
    """The state of a node, given that of its cache."""
    folder, identity = str(cache.folder), graph.identity(node)
    if not graph.is_cached(node) and not cache.finished:
        return State(node.name, "on demand", not_cached(graph, node), (), folder, identity.key, 0, 0)
    why = reasons(graph, node, cache.folder.parent) if cache.condition == "missing" else ()
    done = 0 if cache.condition == "newer" else cache.items_done
    return State(node.name, cache.condition, described(cache), tuple(why), folder, identity.key, cache.items, done)


def reasons(graph: Graph, node: Node, parent: Path) -> tuple[str, ...]:
    """Why the node's cache is missing: how it differs from the most similar one that the same table of this recipe made
    of the same split. If that has made none, how it differs from another recipe's, unless their inputs differ, too.
    """
    name, identity = graph.recipe.name, graph.identity(node)

    def made_here(manifest: Mapping[str, Any]) -> bool:
        recipe = manifest.get("recipe") or {}
        return (recipe.get("name"), manifest.get("use"), manifest.get("split")) == (name, node.use.name, node.split)

    def same_inputs(manifest: Mapping[str, Any]) -> bool:
        return bool(manifest["inputs"] == identity.inputs)

    if (earlier := nearest_relative(parent, identity, made_here)) is not None:
        return tuple(earlier[0])
    other = nearest_relative(parent, identity, same_inputs)
    if other is None:
        return ()
    differences, manifest = other
    table, split = manifest.get("use", node.use.stage.name), manifest.get("split")
    made_by = f"{table}@{split}" if split and node.use.stage.follows_split else table
    recipe = (manifest.get("recipe") or {}).get("name")
    return (f"unlike {made_by}{f' of {recipe}' if recipe not in (None, name) else ''}: {', '.join(differences)}",)


def described(cache: CacheState) -> str:
    """The state of a cache in a few words: "312 of 500 images", "damaged part 12; 480 of 500 images"."""
    condition, fault = cache.condition, cache.fault
    if condition == "missing":
        return condition
    if condition == "newer":
        return fault
    if cache.manifest is not None:
        whole = f"complete ({counted(cache.manifest)})"
        return f"{fault}; otherwise {whole}" if fault else whole
    if not cache.items:
        return fault
    progress = f"{cache.items_done} of {cache.items} {plural(item_of(cache), 2)}"
    return f"{progress}{fault and f', but {fault}'}" if condition == "partial" else f"{fault}; {progress}"


def item_of(cache: CacheState) -> str:
    """What the cache's items are called: "image" unless its plan says otherwise."""
    return "image" if cache.sound_plan is None else cache.sound_plan.schema.item


def with_adoptable(graph: Graph, node: Node, cache: CacheState, state: State) -> State:
    """The state, with what an incomplete cache can copy from finished ones of the same stage."""
    keys = graph.item_keys(node) if state.state in ("missing", "partial", "damaged") else {}
    if not keys:
        return state
    plan, missing = cache.sound_plan, list(keys)
    if plan is not None:
        missing = [item_id for index in cache.missing_parts or () for item_id in plan.items_of(index)]
    counts = find_adoption(cache.folder, keys).counts(missing)
    if not counts:
        return state
    count = sum(counts.values())
    copyable = (
        f"{count} of {len(missing)} {plural(item_of(cache), len(missing))} can be copied from {listed_caches(counts)}"
    )
    return replace(state, detail=f"{state.detail}; {copyable}", adoptable=count)


def format_status(states: Sequence[State], as_json: bool) -> str:
    """One line per cache, or JSON."""
    if as_json:
        return json.dumps([asdict(state) for state in states], indent=2)
    width = width_of(states)
    return "\n".join(line for state in states for line in lines_of(state, width))


def width_of(states: Sequence[State]) -> int:
    """The width of the column of names."""
    return max(len(state.name) for state in states)


def lines_of(state: State, width: int) -> list[str]:
    """A cache's state on one line, the name in a column of `width`; then a line for the log of each failed task."""
    why = f"  ({'; '.join(state.why)})" if state.why else ""
    job = f"  [{state.jobs[0]}]" if state.jobs else ""
    logs = [f"{'':<{width}}  {line}" for line in state.jobs[1:]]
    return [f"{state.name:<{width}}  {state.detail}{why}{job}", *logs]
