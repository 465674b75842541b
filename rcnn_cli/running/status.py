"""`rcnn status`: the state of each cache of a recipe, and how a missing one differs from its nearest relative."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cache import CacheError, DamagedFile, DamagedPart, DamagedPlan, Identity, differences, find_adoption
from cache.files import is_temporary, is_there
from cache.manifest import MANIFEST, read_manifest
from cache.plan import PLAN, Plan, read_plan
from cache.view import VIEW, view_fault
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import counted, listed_caches, manifest_of, missing_parts, not_cached, plural

DAMAGED = ".h5.damaged-"
ASIDE = ".damaged-"


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
    from rcnn_cli.clusters.jobs import job_lines

    states = [with_adoptable(graph, node, state_of(graph, node)) for node in graph.nodes.values()]
    jobs = job_lines(graph, [graph.nodes[state.name] for state in states if state.state != "complete"])
    return [replace(state, jobs=tuple(jobs.get(state.name, ()))) for state in states]


def state_of(graph: Graph, node: Node) -> State:
    """The state of one cache; nothing is changed."""
    folder, key = graph.folder(node), graph.identity(node).key
    if not graph.is_cached(node) and not is_there(folder / MANIFEST):
        return State(node.name, "on demand", not_cached(graph, node), (), str(folder), key, 0, 0)
    try:
        plan = read_plan(folder)
    except FileNotFoundError:
        if parts := [path for path in folder.glob("part-*.h5") if not is_temporary(path.name)]:
            there = f"{len(parts)} {plural('part', len(parts))} {'are' if len(parts) > 1 else 'is'} there"
            detail = f"{gone(folder, PLAN)}, but {there}; the next run writes it again and keeps what fits"
            return State(node.name, "damaged", detail, (), str(folder), key, 0, 0)
        why = tuple(nearest_relative(graph, node))
        return State(node.name, "missing", "missing", why, str(folder), key, 0, 0)
    except DamagedPlan as error:
        return State(node.name, "damaged", f"damaged plan.json ({error.reason})", (), str(folder), key, 0, 0)
    total, item = len(plan.item_ids), plan.schema.item
    done, broken = parts_there(folder, plan)
    lost = sorted({*broken, *(set_aside_parts(folder) - set(done))})
    items = sum(len(plan.items_of(index)) for index in done)
    if len(done) == plan.part_count:
        try:
            manifest, fault = manifest_of(graph, node), view_fault(folder, plan)
        except DamagedFile as error:
            detail = f"damaged {error.path.name} ({error.reason}); {items} of {total} {plural(item, 2)}"
            return State(node.name, "damaged", detail, (), str(folder), key, total, items)
        if manifest is not None and fault is not None:
            detail = f"damaged {VIEW} ({fault}); otherwise complete ({counted(manifest)})"
            return State(node.name, "damaged", detail, (), str(folder), key, total, total)
        if manifest is not None:
            return State(node.name, "complete", f"complete ({counted(manifest)})", (), str(folder), key, total, total)
    if lost:
        parts_lost = f"damaged part{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))}"
        detail = f"{parts_lost}; {items} of {total} {plural(item, 2)}"
        return State(node.name, "damaged", detail, (), str(folder), key, total, items)
    detail = f"{items} of {total} {plural(item, 2)}"
    if items == total:
        detail += f", but {gone(folder, MANIFEST)}; the next run writes it"
    return State(node.name, "partial", detail, (), str(folder), key, total, items)


def gone(folder: Path, name: str) -> str:
    """That a file of the cache is not there, and where it went if it was set aside."""
    aside = sorted(folder.glob(f"{name}{ASIDE}*"), key=lambda path: path.stat().st_mtime_ns)
    return f"no {name}" + (f" (a damaged one was set aside as {aside[-1].name})" if aside else "")


def with_adoptable(graph: Graph, node: Node, state: State) -> State:
    """The state of a cache that is not complete, with what can be copied from finished ones of the same stage."""
    keys = graph.item_keys(node) if state.state in ("missing", "partial", "damaged") else {}
    if not keys:
        return state
    folder = Path(state.folder)
    missing, item = list(keys), "image"
    with contextlib.suppress(FileNotFoundError, DamagedPlan):
        plan = read_plan(folder)
        item = plan.schema.item
        missing = [one for index in missing_parts(folder) or () for one in plan.items_of(index)]
    counts = find_adoption(folder, keys).counts(missing)
    if not counts:
        return state
    count = sum(counts.values())
    told = f"{count} of {len(missing)} {plural(item, len(missing))} can be copied from {listed_caches(counts)}"
    return replace(state, detail=f"{state.detail}; {told}", adoptable=count)


def parts_there(folder: Path, plan: Plan) -> tuple[list[int], list[int]]:
    """The indices of the parts that are there, and of those whose header or length is not what it should be."""
    done, broken = [], []
    for index in range(plan.part_count):
        try:
            plan.header(folder, index)
            done.append(index)
        except FileNotFoundError:
            pass
        except DamagedPart:
            broken.append(index)
    return done, broken


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
    for path in sorted((work / "caches" / stage).glob(f"*/{MANIFEST}")):
        try:
            manifest = read_manifest(path)
        except CacheError:  # said where that cache itself is asked for
            continue
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
