"""`rcnn status`: the state of each cache of a recipe, and how a missing one differs from its nearest relative."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cache import CacheError, Identity, differences, find_adoption
from cache.files import is_temporary, read_json
from cache.manifest import read_manifest
from cache.parts import part_name, read_header
from rcnn_cli.graph import Graph, Node
from rcnn_cli.runner import counted, listed_caches, missing_parts, not_cached, plural

DAMAGED = ".h5.damaged-"


@dataclass(frozen=True)
class State:
    """The state of one cache: "complete", "partial", "damaged", "missing" or, without a cache of its own, "on demand".

    The rest of the text is for people. `adoptable`: items whose records can be copied from finished caches.
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


def describe(graph: Graph) -> list[State]:
    """The states of all caches of a recipe, inputs first, with the jobs that were submitted for those not complete."""
    from rcnn_cli.jobs import job_lines

    states = [with_adoptable(graph, node, state_of(graph, node)) for node in graph.nodes.values()]
    jobs = job_lines(graph, [graph.nodes[state.name] for state in states if state.state != "complete"])
    return [replace(state, jobs=tuple(jobs.get(state.name, ()))) for state in states]


def state_of(graph: Graph, node: Node) -> State:
    """The state of one cache; nothing is changed."""
    folder, key = graph.folder(node), graph.identity(node).key
    if not graph.is_cached(node) and not (folder / "manifest.json").exists():
        return State(node.name, "on demand", not_cached(graph, node), (), str(folder), key, 0, 0)
    if not (folder / "plan.json").exists():
        why = tuple(nearest_relative(graph, node))
        return State(node.name, "missing", "missing", why, str(folder), key, 0, 0)
    plan = read_json(folder / "plan.json")
    total, size, item = len(plan["item_ids"]), plan["part_size"], plan["schema"]["item"]
    parts = -(-total // size)
    done, broken = [], []
    for index in range(parts):
        try:
            read_header(folder / part_name(index))
            done.append(index)
        except FileNotFoundError:
            pass
        except CacheError:
            broken.append(index)
    manifest = read_manifest(folder / "manifest.json")
    lost = sorted({*broken, *(set_aside_parts(folder) - set(done))})
    items = sum(min(size, total - index * size) for index in done)
    if manifest is not None and len(done) == parts:
        return State(node.name, "complete", f"complete ({counted(manifest)})", (), str(folder), key, total, total)
    if lost:
        parts_lost = f"damaged part{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))}"
        detail = f"{parts_lost}; {items} of {total} {plural(item, 2)}"
        return State(node.name, "damaged", detail, (), str(folder), key, total, items)
    return State(node.name, "partial", f"{items} of {total} {plural(item, 2)}", (), str(folder), key, total, items)


def with_adoptable(graph: Graph, node: Node, state: State) -> State:
    """The state of a cache that is not complete, with what can be copied from finished ones of the same stage."""
    keys = graph.item_keys(node) if state.state in ("missing", "partial", "damaged") else {}
    if not keys:
        return state
    folder = Path(state.folder)
    missing, item = list(keys), "image"
    if (folder / "plan.json").exists():
        plan = read_json(folder / "plan.json")
        ids, size, item = plan["item_ids"], plan["part_size"], plan["schema"]["item"]
        missing = [one for index in missing_parts(folder) or () for one in ids[index * size : (index + 1) * size]]
    counts = find_adoption(folder, keys).counts(missing)
    if not counts:
        return state
    count = sum(counts.values())
    told = f"{count} of {len(missing)} {plural(item, len(missing))} can be copied from {listed_caches(counts)}"
    return replace(state, detail=f"{state.detail}; {told}", adoptable=count)


def set_aside_parts(folder: Path) -> set[int]:
    """The indices of parts that were set aside as damaged."""
    names = [path.name for path in folder.glob(f"part-*{DAMAGED}*") if not is_temporary(path.name)]
    return {int(name.split(".")[0].removeprefix("part-")) for name in names}


def nearest_relative(graph: Graph, node: Node) -> list[str]:
    """How the missing cache differs from the complete one of the same stage that differs least."""
    wanted = graph.identity(node)
    found = [differences(old, wanted) for old in relatives(graph.work, wanted.stage)]
    return min(found, key=len, default=[])


def relatives(work: Path, stage: str) -> Iterator[Identity]:
    """The identities of the complete caches of a stage."""
    for path in sorted((work / "caches" / stage).glob("*/manifest.json")):
        manifest = read_manifest(path)
        if manifest is not None:
            yield Identity.from_json(manifest)


def format_status(states: Sequence[State], as_json: bool) -> str:
    """A line a cache, or JSON."""
    if as_json:
        return json.dumps([asdict(state) for state in states], indent=2)
    width = max(len(state.name) for state in states)
    lines = []
    for state in states:
        why = f"  ({'; '.join(state.why)})" if state.why else ""
        job = f"  [{state.jobs[0]}]" if state.jobs else ""
        lines.append(f"{state.name:<{width}}  {state.detail}{why}{job}")
        lines += [f"{'':<{width}}  {line}" for line in state.jobs[1:]]
    return "\n".join(lines)
