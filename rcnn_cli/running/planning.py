"""`rcnn plan`: what a recipe will take, estimated from a few images that go through the real stages in a folder of
their own. The plan knows no stage by name.

Of a stage that was given n images of N, the plan takes: of a cache of images, bytes and rows in proportion, N / n; of
another (classes, a network), bytes as they are; the time that it takes to begin as it is, the rest in proportion.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cache import Reader
from cache.parts import USER_BLOCK, part_bytes
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import Options, counted, duration, plural, run_node, size
from rcnn_cli.running.status import State
from stages.datasets import ClassificationDataset

log = logging.getLogger("rcnn")

LEAST_SAMPLE = 8
IMAGES_A_JOB = 4  # so that the processes' start does not count as work
NEIGHBOURS = 32  # images of a classification set that stand for one: small ones, of which training takes batches
LOGGERS = ("rcnn", "stages", "cache")


@dataclass(frozen=True)
class Line:
    """What one cache takes: `state` as in `rcnn status`, or "estimated".

    `rows` (with `boxes`, they are boxes) lie within `rows_spread` with about 95 % (None: cannot be told); `bytes` are
    on disk at the end, `bytes_left` still to be written, `seconds` still to be spent.
    """

    name: str
    state: str
    detail: str
    items: int = 0
    item: str = ""
    rows: int = 0
    rows_spread: int | None = None
    boxes: bool = False
    bytes: int = 0
    bytes_left: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All lines, how they were found, and what is free on the disk of the work folder."""

    lines: tuple[Line, ...]
    sample: int
    device: str
    jobs: int
    bytes_left: int
    bytes_free: int
    seconds: float

    @property
    def fits(self) -> bool:
        """Whether the disk has room."""
        return self.bytes_left <= self.bytes_free


class SampleGraph(Graph):
    """The same recipe on `count` images of each dataset, in another work folder."""

    def __init__(self, graph: Graph, folder: Path, count: int) -> None:
        super().__init__(graph.recipe, folder)
        self.whole = graph
        self.count = count

    def dataset(self, name: str, *kinds: str) -> Any:
        """The sample of a split: images spread evenly, or runs of neighbours of a classification set."""
        whole = self.whole.dataset(name, *kinds)
        if name not in self.open_datasets:
            run = NEIGHBOURS if isinstance(whole, ClassificationDataset) else 1
            self.open_datasets[name] = whole.subset(spread(len(whole), self.count, run))
        return self.open_datasets[name]


def spread(total: int, count: int, run: int = 1) -> list[int]:
    """`count` runs of `run` neighbours of `total`, each in the middle of its share; all if there are no more."""
    runs = -(-total // run)
    kept = min(count, runs)
    firsts = [run * int((index + 0.5) * runs / kept) for index in range(kept)]
    return [position for first in firsts for position in range(first, min(first + run, total))]


def make_plan(
    graph: Graph, states: Mapping[str, State], options: Options, count: int | None, say: Callable[[str], None]
) -> Plan:
    """Runs the sample through what the recipe lacks by the `states` of its nodes, and estimates; leaves nothing behind
    but the digests of datasets and the generated ones, which `rcnn run` needs too."""
    jobs = options.execution.jobs
    count = count or max(LEAST_SAMPLE, IMAGES_A_JOB * jobs)
    pending = [node.name for node in graph.caches() if states[node.name].state != "complete"]
    with tempfile.TemporaryDirectory(prefix="rcnn-plan-") as folder:
        small = SampleGraph(graph, Path(folder), count)
        measured: dict[str, Line] = {}
        for node in small.caches():
            if node.name in needed(small, pending):
                say(f"{node.name}: measured on a sample")
                measured[node.name] = measure(small, node, options, states[node.name])
    lines: list[Line] = []
    keys: dict[str, str] = {}
    for node in graph.nodes.values():
        key = states[node.name].key
        if node.name not in pending:
            lines.append(line_of(graph, node, states[node.name]))
        elif key in keys:
            lines.append(replace(measured[node.name], detail=f"is {keys[key]}", bytes=0, bytes_left=0, seconds=0.0))
        else:
            lines.append(measured[node.name])
        keys.setdefault(key, node.name)
    left, seconds = sum(line.bytes_left for line in lines), sum(line.seconds for line in lines)
    free = shutil.disk_usage(graph.work).free
    return Plan(tuple(lines), count, options.execution.device, jobs, left, free, seconds)


def needed(graph: Graph, names: Sequence[str]) -> set[str]:
    """The caches `names` and all that they are made from."""
    found = set(names)
    for node in reversed(graph.caches()):
        if node.name in found:
            found |= {source.name for source in graph.reads(node)}
    return found


def line_of(graph: Graph, node: Node, state: State) -> Line:
    """The line of a cache that needs no work: what is there, or that it has no cache."""
    if state.state != "complete":
        return Line(node.name, state.state, state.detail)
    reader = Reader(graph.folder(node))
    told = reader.manifest
    boxes = "boxes" in reader.schema.rows
    rows, item = told["rows"], reader.schema.item
    return Line(node.name, "complete", f"complete ({counted(told)})", len(reader), item, rows, 0, boxes, told["bytes"])


# Measuring


class Stopwatch:
    """The progress of one stage as (seconds since the start, items)."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.started = clock()
        self.first: float | None = None
        self.events: list[tuple[float, int]] = []

    @contextlib.contextmanager
    def opened(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Stopwatch]:
        """The stage begins to work."""
        self.first = self.first or self.elapsed()
        yield self

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """`items` more are done."""
        self.events.append((self.elapsed(), items))

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started


def seconds_an_item(events: Sequence[tuple[float, int]], first: float, jobs: int) -> float:
    """The rate of a stage whose work flows, from `events` (seconds, items): without the `jobs` first ones, which are
    those of processes that just started. With no more events than that: since `first`, when the stage began to work.
    """
    if not events:
        return 0.0
    since, skipped = (events[jobs - 1][0], jobs) if len(events) > jobs else (first, 0)
    return (events[-1][0] - since) / sum(items for _, items in events[skipped:])


def measure(small: SampleGraph, node: Node, options: Options, state: State) -> Line:
    """Runs a node on the sample and tells what it will take on all images, less what `state` says is done."""
    execution, part_size = options.execution, options.part_size or node.use.stage.part_size
    watch = Stopwatch()
    few = max(1, min(part_size, small.count // (2 * execution.jobs)))  # parts enough for all processes
    with quiet():
        watched = replace(options, execution=replace(execution, progress=watch.opened), part_size=few, adopt=False)
        run_node(small, node, watched)
    finished = watch.elapsed()
    reader = Reader(small.folder(node))
    sample, whole = small.dataset(node.dataset), small.whole.dataset(node.dataset)
    grows, factor = reader.item_ids == tuple(sample.image_ids), len(whole) / len(sample)
    flow = seconds_an_item(watch.events, watch.first or finished, execution.jobs) * sum(one for _, one in watch.events)
    begin = max(0.0, finished - flow)
    scale = factor if grows else 1.0
    items, lengths = round(len(reader) * scale), reader.lengths()
    total = bytes_in_parts(reader, items, part_size, options.compression)
    left, computed = shares_left(state, items)
    return Line(
        node.name,
        "estimated",
        state.detail if state.items or state.adoptable else "",
        items,
        reader.schema.item,
        round(scale * int(lengths.sum())),
        spread_of_total(lengths.tolist(), items) if grows else 0,
        "boxes" in reader.schema.rows,
        total,
        round(left * total),
        begin + computed * (finished - begin) * factor,
    )


def shares_left(state: State, items: int) -> tuple[float, float]:
    """Which shares of a cache's `items` are still to be written, and to be computed: the rest of them is copied."""
    left = 1 - state.items_done / state.items if state.items else 1.0
    return left, max(0.0, left - state.adoptable / max(1, items))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What stages say of a sample (classes without an object, for one) is not true of the dataset."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def bytes_in_parts(reader: Reader, items: int, part_size: int, compression: str) -> int:
    """The bytes of `items` items like the reader's in parts of `part_size`: so much a part and so much an item, as
    found by packing those that are there into parts of two sizes."""
    import numpy as np

    size = min(part_size, len(reader))
    packed = []
    for step in {size, -(-size // 2)}:
        for first in range(0, len(reader), step):
            ids = reader.item_ids[first : first + step]
            records = [reader.read(item_id) for item_id in ids]
            packed.append((len(ids), USER_BLOCK + len(part_bytes(reader.schema, ids, records, {}, compression))))
    counts, lengths = np.array(packed, float).T
    if counts.min() == counts.max():
        return round(items * lengths.sum() / counts.sum())
    an_item, a_part = np.polyfit(counts, lengths, 1)
    return round(-(-items // part_size) * a_part + items * an_item)


def spread_of_total(lengths: Sequence[int], items: int) -> int | None:
    """Twice the standard error of `items` times the mean of a sample of `lengths`; None for a sample of one."""
    count = len(lengths)
    if count >= items:
        return 0
    if count < 2:
        return None
    mean = sum(lengths) / count
    variance = sum((length - mean) ** 2 for length in lengths) / (count - 1)
    return round(2 * items * math.sqrt(variance / count * (1 - count / items)))


# Telling


def format_plan(plan: Plan, work: Path, as_json: bool) -> str:
    """A line a cache, the sum, and how it was found; or JSON."""
    if as_json:
        totals = {name: value for name, value in asdict(plan).items() if name != "lines"}
        return json.dumps({"caches": [asdict(line) for line in plan.lines], **totals, "fits": plan.fits}, indent=2)
    table: list[tuple[str, ...]] = [("cache", "items", "rows", "disk", "time", "")]
    table += [cells(line) for line in plan.lines]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in table
    ]
    if all(line.state != "estimated" for line in plan.lines):
        return "\n".join([*told, "Everything is complete: nothing to do."])
    told.append(f"To do: {size(plan.bytes_left)} and {duration(plan.seconds)}; free in {work}: {size(plan.bytes_free)}")
    told.append(
        f"Estimated from up to {plan.sample} images of each split on {plan.device}, {plan.jobs} "
        f"{plural('job', plan.jobs)}; +- is twice the standard error.\n"
        "Times for training and evaluation are guesses, proportional to the number of images."
    )
    return "\n".join(told)


def cells(line: Line) -> tuple[str, ...]:
    """One row of the table."""
    if not line.items:
        return (line.name, "", "", "", "", line.detail)
    items = f"{line.items:,} {plural(line.item, line.items)}"
    margin = f" +- {line.rows_spread:,}" if line.rows_spread else ""
    rows = f"{line.rows:,}{margin} {'boxes' if line.boxes else 'rows'}" if line.rows else ""
    if line.state == "complete":
        return (line.name, items, rows, size(line.bytes), "", "complete")
    return (line.name, items, rows, size(line.bytes), duration(line.seconds), line.detail)
