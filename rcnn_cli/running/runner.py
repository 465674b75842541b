"""Running nodes of the graph: skip what is complete, resume what is not, make damaged parts again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import (
    CacheError,
    CacheState,
    DamagedFile,
    DamagedPart,
    IncompleteCache,
    LostSource,
    Reader,
    Shard,
    Writer,
    find_adoption,
    remove_cache,
    set_aside,
)
from cache.adoption import read_item_keys, write_item_keys
from cache.files import cannot
from cache.view import ATTRIBUTES
from rcnn_cli.recipes.graph import Graph, Node, installed_version
from rcnn_cli.running.demand import Computed, Demand
from rcnn_cli.tracking import tracked
from stages.contract.card import Stage
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.kinds import KINDS
from stages.contract.settings import all_of
from stages.plurals import number_of, plural

if TYPE_CHECKING:
    from stages.datasets.photos import Photos

log = logging.getLogger("rcnn")

VERSIONS = ("torch", "torchvision", "numpy", "h5py", "scikit-learn", "opencv", "numba")
REPAIRS = 20
MANY_PARTS = 500


@dataclass(frozen=True)
class Options:
    """How to run: the execution of stages, the shard, compression and part size of new caches.

    `make_parts` makes all missing parts elsewhere; without it they are made in this process. `adopt`: records that a
    finished cache of the same stage has for the same items are copied (`cache.adoption`). `log_to`: where trainings are
    logged besides (`rcnn_cli.tracking`).
    """

    execution: Execution = field(default_factory=Execution)
    shard: Shard = field(default_factory=Shard)
    compression: str = "none"
    part_size: int | None = None
    make_parts: Callable[[Graph, Node, Writer], None] | None = None
    adopt: bool = True
    log_to: tuple[str, ...] = ()


def look(graph: Graph, node: Node) -> CacheState:
    """What is there of the node's cache now; nothing is changed."""
    return CacheState(graph.folder(node), graph.identity(node).key)


def manifest_of(graph: Graph, node: Node) -> dict[str, Any] | None:
    """The manifest of a complete cache, None if it is not complete. Raises DamagedFile where that is damage."""
    state = look(graph, node)
    if state.damage is not None:
        raise state.damage
    return state.manifest


def mended(graph: Graph, node: Node) -> CacheState:
    """What is there of the node's cache once damaged files of a finished one are set aside, with a warning."""
    while (damage := (state := look(graph, node)).damage) is not None:
        put_aside(damage)
    return state


def complete(graph: Graph, node: Node) -> bool:
    """Whether the node's cache is complete; a damaged part, plan or manifest is set aside, with a warning."""
    return mended(graph, node).complete


def put_aside(error: DamagedFile) -> None:
    """Sets a damaged file of a cache aside and says so."""
    moved = set_aside(error)
    again = (
        "only this part will be recomputed"
        if isinstance(error, DamagedPart)
        else "it will be rewritten; the parts are kept"
    )
    aside = f"moved to {moved.name}; " if moved.exists() else ""
    log.warning("%s: damaged (%s); %s%s", error.path, error.reason, aside, again)


def mend_view(state: CacheState) -> None:
    """Writes the view of a complete cache again, with a warning, if it is missing or not what was written.

    Nothing but people and their programs reads a view: where the folder cannot be written, that is only said.
    """
    if state.view_fault is None:
        return
    try:
        state.write_view()
    except DamagedFile:
        raise
    except CacheError as error:
        log.warning("%s: %s, and it could not be rewritten: %s", state.view, state.view_fault, error)
    else:
        log.warning("%s: %s; rewritten from the parts", state.view, state.view_fault)


States = dict[str, CacheState]
"""Complete caches, by the names of their nodes, as they were seen since anything was last made."""


def run_nodes(graph: Graph, nodes: Sequence[Node], options: Options, seen: States | None = None) -> None:
    """Runs nodes and all that they read, in order; what is complete is skipped and said so.

    At the end all are complete: what was lost meanwhile is made again. Caches that were `seen` complete just now are
    not looked at again before something is made; where nothing is to be done, each is looked at once.
    """
    tell_uncached(graph)
    seen = {} if seen is None else seen
    done: set[str] = set()
    for _ in range(REPAIRS):
        for node in nodes:
            ensure(graph, node, options, done, seen)
        lost = {node.name for node in nodes if node.name not in seen and not complete(graph, node)}
        if not lost or options.shard.count > 1:
            return
        done -= lost
        seen.clear()
    raise lost_too_often(graph)


def tell_uncached(graph: Graph, wanted: Collection[Node] | None = None) -> None:
    """Says where `cache = false` does not hold, and where it makes the same be computed more than once, in making the
    caches `wanted` (None: all)."""
    made = {node.name for node in (graph.caches() if wanted is None else wanted)}
    for node in graph.nodes.values():
        if node.wants_cache or complete(graph, node):
            continue
        if not graph.is_cached(node):
            names = [
                other.name
                for other in graph.caches()
                if other.name in made
                and node.name in (source.name for source in graph.uncached_sources(other))
                and not complete(graph, other)
            ]
            if len(names) > 1:
                log.warning(
                    "%s: is computed %d times, for %s; with a cache only once", node.name, len(names), listed(names)
                )
        elif node.name in made and (
            readers := [reader.name for reader in graph.readers(node) if not complete(graph, reader)]
        ):
            log.info("%s: cached despite cache = false, for %s", node.name, listed(readers))


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def ensure(graph: Graph, node: Node, options: Options, done: set[str], seen: States | None = None) -> None:
    """Makes the node's inputs, then the node; what of an input is found missing or damaged meanwhile is made again.

    Nodes whose names are in `done` are taken for complete; those that are run are added. What was `seen` is forgotten
    as soon as anything is made.
    """
    if node.name in done:
        return
    seen = {} if seen is None else seen
    for _ in range(REPAIRS):
        for source in graph.reads(node):
            ensure(graph, source, options, done, seen)
        try:
            run_node(graph, node, options, seen)
        except (CacheError, StageError) as error:
            seen.clear()
            if not repairable(graph, node, error, done):
                raise
            continue
        done.add(node.name)
        return
    raise StageError(f"{node.name}: its inputs were damaged {REPAIRS} times; check the disk under {graph.work}")


def repairable(graph: Graph, node: Node, error: Exception, done: set[str]) -> bool:
    """Whether a node failed because a part of it or something of its inputs is lost; lost inputs leave `done`.

    A damaged file is set aside. Any other error counts if an input is not complete any longer: a process elsewhere that
    does not see what is complete here is no reason to make it again.
    """
    if isinstance(error, DamagedFile):
        put_aside(error)
    if isinstance(error, LostSource):
        log.warning("%s", error)
        return True
    lost = {source.name for source in graph.reads(node) if not complete(graph, source)}
    again = lost & done
    done -= lost
    for name in sorted(again):
        log.warning("%s: is no longer complete; the missing parts will be recomputed for %s", name, node.name)
    return isinstance(error, DamagedFile) or bool(again)


def run_until_shown(
    graph: Graph, nodes: Sequence[Node], options: Options, show: Callable[[], None], seen: States | None = None
) -> None:
    """`run_nodes`, then `show`, which reads some of what was made; what it finds lost or damaged is made again."""
    seen = {} if seen is None else seen
    for _ in range(REPAIRS):
        run_nodes(graph, nodes, options, seen)
        seen.clear()
        try:
            return show()
        except (CacheError, StageError) as error:
            if isinstance(error, DamagedFile):
                put_aside(error)
            elif all(complete(graph, node) for node in nodes):
                raise
    raise lost_too_often(graph)


def lost_too_often(graph: Graph) -> StageError:
    """The error where repairing leads nowhere."""
    return StageError(f"{graph.recipe.path}: caches were damaged {REPAIRS} times; check the disk under {graph.work}")


def run_node(graph: Graph, node: Node, options: Options, seen: States | None = None) -> bool:
    """Runs one node whose inputs are complete; True if its cache is complete afterwards. One that was `seen` complete
    just now is not looked at again; if it has to be made, all that was seen is forgotten.

    Raises IncompleteCache, naming the command to run, if an input is not complete.
    """
    seen = {} if seen is None else seen
    state = seen.get(node.name) or mended(graph, node)
    folder = state.folder
    if state.manifest is not None:
        seen[node.name] = state
        mend_view(state)
        log.info("%s: complete (%s), skipped: %s", node.name, counted(state.manifest), folder)
        keep_item_keys(graph, node)
        return True
    seen.clear()
    stage, settings, inputs = node.use.stage, node.settings, open_inputs(graph, node, options.execution)
    module = stage.load()
    started = time.time()
    schema, item_ids = module.schema(settings, inputs), module.items(settings, inputs)
    writer = Writer(
        folder,
        graph.identity(node),
        item_ids,
        schema,
        part_size=options.part_size or part_size_of(stage, settings, inputs, len(item_ids)),
        shard=options.shard,
        compression=options.compression,
        adoption=find_adoption(folder, graph.item_keys(node), schema) if options.adopt else None,
        digests=graph.image_digests(node),
    )
    with being_made(node, writer):
        announce(node, writer)
        if options.make_parts is not None:
            options.make_parts(graph, node, writer)
        else:
            execution = tracked(options.execution, options.log_to, graph.work, folder, stage, settings)
            work_until_done(node, writer, settings, inputs, execution)
        missing = len(writer.unfinished())
        if missing:
            log.info(
                "%s: shard %d/%d done, %s of other shards %s missing",
                node.name,
                options.shard.index,
                options.shard.count,
                number_of(missing, "part"),
                "is" if missing == 1 else "are",
            )
            return False
        if options.execution.rank:  # of torchrun's processes the first closes the cache
            while not complete(graph, node):
                time.sleep(0.2)
            return True
        summarise, attributes = stage.function("summarise"), stage.function("attributes")
        named = {ATTRIBUTES: attributes(settings, inputs)} if attributes else {}
        manifest = writer.finish(
            {**provenance(graph, node, started), **named},
            (lambda reader: summarise(settings, inputs, reader)) if summarise else None,
            graph.item_keys(node),
        )
    log.info("%s: done (%s) in %s: %s", node.name, counted(manifest), duration(time.time() - started), folder)
    tell_skipped(node, manifest)
    return True


def keep_item_keys(graph: Graph, node: Node) -> None:
    """Gives a finished cache the keys of its items if it has none that are sound (one of an earlier version, say)."""
    if node.use.stage.by_item and read_item_keys(graph.folder(node), graph.identity(node).key) is None:
        try:
            write_item_keys(graph.folder(node), graph.identity(node).key, graph.item_keys(node))
        except CacheError as error:  # a work folder that may only be read is no reason to end
            log.debug("%s: %s", node.name, error)


making: tuple[str, Writer] | None = None


@contextlib.contextmanager
def being_made(node: Node, writer: Writer) -> Iterator[None]:
    """Gives the writer's claims back at the end; an interruption leaves in `making` what it interrupted."""
    global making
    making = (node.name, writer)
    try:
        yield
    except Exception:
        making = None
        raise
    else:
        making = None
    finally:
        writer.release()


def kept_of_interrupted() -> str:
    """What an interrupted process leaves of the cache that it was making, as the end of a sentence: ", of extract@train
    48 of 200 images (3 of 13 parts)"; nothing where it was making none."""
    if making is None or not making[1].folder.is_dir():  # `rcnn plan` works in a folder that goes with it
        return ""
    name, writer = making
    try:
        left = writer.unfinished()
    except (CacheError, OSError):
        return ""  # the next run says what is wrong with it
    total = len(writer.item_ids)
    kept = total - sum(len(part.item_ids) for part in left)
    parts = f"{len(writer.parts) - len(left)} of {len(writer.parts)} {plural('part', len(writer.parts))}"
    checkpoint = " and a checkpoint" if any(writer.checkpoint(part).path.exists() for part in left) else ""
    return f", of {name} {kept} of {total} {plural(writer.schema.item, total)} ({parts}){checkpoint}"


def part_size_of(stage: Stage, settings: Any, inputs: Inputs, count: int) -> int:
    """How many of `count` items a part of a new cache gets if nobody says."""
    chosen = stage.function("part_size")
    return chosen(settings, inputs) if chosen else grown_part_size(stage.part_size, count)


def grown_part_size(part_size: int, count: int) -> int:
    """A stage's usual part size, up to twice as large where `count` items would make more than MANY_PARTS: whoever
    opens the one-file view opens them all. No larger: a part is built in memory, and lost when its process is killed.
    """
    return min(2 * part_size, max(part_size, -(-count // MANY_PARTS)))


def run_alone(graph: Graph, node: Node, options: Options) -> bool:
    """Runs one node and nothing that it reads, as a task of an array job does; True if its cache is then complete.

    Inputs whose parts are all there are closed first: on a network filesystem the last of several writers may not have
    seen the others' parts yet. A damaged part is set aside: one of this node is made again, one of an input ends the
    run. Raises IncompleteCache if an input is not complete. A node that is not cached has nothing to be run.
    """
    if not graph.is_cached(node):
        log.info("%s: %s", node.name, not_cached(graph, node))
        return True
    for _ in range(REPAIRS):
        try:
            for source in graph.reads(node):
                state = mended(graph, source)
                if not state.complete and state.missing_parts == []:
                    run_node(graph, source, options)
            return run_node(graph, node, options)
        except DamagedFile as error:
            put_aside(error)
            for source in graph.reads(node):
                if graph.folder(source) == error.path.parent:
                    raise needed(graph, node, source) from error
        except LostSource as error:
            log.warning("%s", error)
    raise StageError(f"{node.name}: was damaged {REPAIRS} times; check the disk under {graph.work}")


def work_until_done(node: Node, writer: Writer, settings: Any, inputs: Inputs, execution: Execution) -> None:
    """Calls the stage until the shard's parts are all there, waiting for parts that other processes hold."""

    def tell(parts: int) -> None:
        log.info("%s: waiting for %d %s that another process is making", node.name, parts, plural("part", parts))

    while True:
        if not writer.remaining_items:
            writer.copy_parts()
        else:
            node.use.stage.load().run(settings, inputs, writer, execution)
        if not writer.unfinished_here():
            return
        if not writer.wait(tell):
            return


def announce(node: Node, writer: Writer) -> None:
    """Says what is going to be made, and what is already there."""
    left, total = writer.remaining_items, len(writer.item_ids)
    there = total - sum(len(part.item_ids) for part in writer.unfinished())
    copied = writer.adopted()
    adopted = f", {sum(copied.values())} copied from {listed_caches(copied)}" if copied else ""
    resumed = f", resuming: {there} of {total} are done" if there else ""
    log.info("%s: %d %s%s%s", node.name, left, plural(writer.schema.item, left), adopted, resumed)


def listed_caches(counts: Mapping[str, int]) -> str:
    """The caches from which records are copied: the name of one, else their number."""
    return next(iter(counts)) if len(counts) == 1 else f"{len(counts)} caches"


def not_cached(graph: Graph, node: Node) -> str:
    """What people read of a node without a cache."""
    return f"not cached (cache = false): computed by {listed([reader.name for reader in graph.readers(node)])}"


def check_readable(graph: Graph, node: Node, purpose: str) -> None:
    """Raises IncompleteCache, or StageError with `cache = false`, unless the node's cache is complete. `purpose`: what
    it is read for, as "to measure recall"."""
    if complete(graph, node):
        return
    path = graph.recipe.path
    if not graph.is_cached(node):
        raise StageError(
            f"{path}: {node.name}: {not_cached(graph, node)}; {purpose}, set {node.table}.cache = true and run it"
        )
    raise IncompleteCache(
        f"{path}: {node.name} is not complete ({graph.folder(node)}); run "
        f"`{graph.command_making(node, on_split=True)}` first"
    )


def demand_of(
    graph: Graph, execution: Execution, photos: Photos | None = None, computed: Computed | None = None
) -> Demand:
    """The recipe's graph, computed on demand down to what is cached."""
    held = {} if computed is None else computed
    return Demand(graph.recipe.path, graph.described, partial(cached_input, graph), execution, photos, held)


def cached_input(graph: Graph, node: Node, source: Node) -> Any:
    """What the stage of `node` is given of the cache of `source`; None where it is not cached, unless its cache happens
    to be there from another run. Raises IncompleteCache if it is not complete."""
    if complete(graph, source):
        return KINDS[source.use.stage.makes].open_cache(Reader(graph.folder(source)))
    if not graph.is_cached(source):
        return None
    raise needed(graph, node, source)


def open_inputs(
    graph: Graph, node: Node, execution: Execution, photos: Photos | None = None, computed: Computed | None = None
) -> Inputs:
    """What the stage is given. With `photos`, these take the place of the node's split. Raises as `open_input`."""
    return demand_of(graph, execution, photos, computed).inputs(node)


def open_input(
    graph: Graph,
    node: Node,
    role: str,
    execution: Execution,
    photos: Photos | None = None,
    computed: Computed | None = None,
) -> Any:
    """What the stage is given in one role (see `Demand.input`). Raises IncompleteCache if that is a cache which is not
    complete."""
    return demand_of(graph, execution, photos, computed).input(node, role)


def on_demand(
    graph: Graph, node: Node, execution: Execution, photos: Photos | None = None, computed: Computed | None = None
) -> Any:
    """What the node makes of its split's images, or of `photos` in their place (see `Demand.reader`). Raises
    IncompleteCache for an input that is not complete, StageError where the stage, or its method, cannot."""
    return demand_of(graph, execution, photos, computed).reader(node)


def needed(graph: Graph, node: Node, source: Node) -> IncompleteCache:
    """The error for an input that is not complete; names the command to run."""
    commands = dict.fromkeys((graph.command_making(source), f"rcnn run {graph.recipe.arguments}"))
    return IncompleteCache(
        f"{node.name} needs {source.name}, which is not complete ({graph.folder(source)}); "
        f"run {' or '.join(f'`{command}`' for command in commands)} first"
    )


def provenance(graph: Graph, node: Node, started: float) -> dict[str, Any]:
    """What the manifest records besides the identity: enough to run it again. An input on demand has no folder."""
    inputs = {}
    for role, source in node.sources.items():
        if isinstance(source, Node):
            folder = os.path.relpath(graph.folder(source), graph.work) if complete(graph, source) else None
            inputs[role] = {"name": source.name, "folder": folder}
    return {
        "use": node.use.name,
        "split": node.split,
        "all_settings": all_of(node.settings),
        "input_caches": inputs,
        "recipe": graph.recipe.as_json(),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in VERSIONS}},
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.time() - started, 2),
    }


def remove(graph: Graph, node: Node) -> None:
    """Removes the node's cache, for --force; says so."""
    folder = graph.folder(node)
    if folder.exists():
        log.info("%s: --force removes %s", node.name, folder)
        remove_cache(folder)


def tell_skipped(node: Node, manifest: Mapping[str, Any]) -> None:
    """Lists the images that were skipped on request."""
    for item, reason in manifest.get("skipped", {}).items():
        log.warning("%s: skipped %s (%s)", node.name, item, reason)


def counted(manifest: Mapping[str, Any]) -> str:
    """ "500 images, 1,145,000 rows, 2.3 GB" of a manifest."""
    rows = f", {number_of(manifest['rows'], 'row')}" if manifest.get("rows") else ""
    skipped = f", {len(manifest['skipped'])} skipped" if manifest.get("skipped") else ""
    adopted = f", {sum(manifest['adopted'].values()):,} copied" if manifest.get("adopted") else ""
    items = manifest.get("items", 0)
    return f"{items:,} {plural('item', items)}{rows}{skipped}{adopted}, {size(manifest.get('bytes', 0))}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def manifest_json(manifest: Mapping[str, Any]) -> str:
    """A manifest for people: without the list of parts."""
    return json.dumps(
        {name: value for name, value in manifest.items() if name != "parts"}, indent=2, ensure_ascii=False
    )


def work_folder(option: Path | None) -> Path:
    """--work, else $RCNN_WORK, else work/ in the current folder. Raises StageError if it cannot be made."""
    folder = option or Path(os.environ.get("RCNN_WORK") or "work")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"--work {folder}: " + cannot("be created as a folder", error, "choose another place")
        ) from error
    return folder
