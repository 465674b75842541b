"""`rcnn plan`: what a recipe needs, estimated by putting a few images through the real stages in a temporary folder.
No stage is known by name.

From a stage that was given n of N images: the bytes and rows of a cache of images are scaled by N / n; the bytes of any
other cache (classes, a network) are taken as they are; start-up time is taken as it is, the rest scaled by N / n.
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
from rcnn_cli.running.precisions import PrecisionComparison, compare_precisions
from rcnn_cli.running.runner import Options, counted, duration, run_node, size
from rcnn_cli.running.status import State
from stages.contract.execution import OpenProgress, Progress, SilentProgress
from stages.datasets import ClassificationDataset
from stages.plurals import number_of, plural

log = logging.getLogger("rcnn")

LEAST_SAMPLE = 4
IMAGES_PER_JOB = 2  # the first of each process is not timed: starting the process does not count as work
NEIGHBOURS = 32  # images of a classification set per sampled image: they are small, and training uses batches
LOGGERS = ("rcnn", "stages", "cache")


@dataclass(frozen=True)
class Line:
    """What one cache needs: `state` as in `rcnn status`, or "estimated".

    The number of `rows` (boxes, if `boxes`) is within ±`rows_spread` with about 95 % probability (None: unknown);
    `bytes`: on disk at the end; `bytes_left`: still to be written; `seconds`: still to be spent.
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
    """All lines, how they were estimated, the bytes free on the work folder's disk, and how precisions compare."""

    lines: tuple[Line, ...]
    sample: int
    device: str
    jobs: int
    bytes_left: int
    bytes_free: int
    seconds: float
    precisions: tuple[PrecisionComparison, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the disk has enough room."""
        return self.bytes_left <= self.bytes_free


class SampleGraph(Graph):
    """The same recipe on `count` images of each dataset, in another work folder."""

    def __init__(self, graph: Graph, folder: Path, count: int) -> None:
        super().__init__(graph.recipe, folder)
        self.whole = graph
        self.count = count

    def dataset(self, name: str, *kinds: str) -> Any:
        """The sample of a split: evenly spaced images, or runs of neighbours in a classification set."""
        whole = self.whole.dataset(name, *kinds)
        if name not in self.open_datasets:
            run = NEIGHBOURS if isinstance(whole, ClassificationDataset) else 1
            self.open_datasets[name] = whole.subset(spread(len(whole), self.count, run))
        return self.open_datasets[name]


def spread(total: int, count: int, run: int = 1) -> list[int]:
    """The positions of `count` evenly spaced runs of `run` neighbours among `total`; all if there are no more."""
    runs = -(-total // run)
    kept = min(count, runs)
    firsts = [run * int((index + 0.5) * runs / kept) for index in range(kept)]
    return [position for first in firsts for position in range(first, min(first + run, total))]


def make_plan(
    graph: Graph, states: Mapping[str, State], options: Options, count: int | None, say: Callable[[str], None]
) -> Plan:
    """Runs a sample through the stages whose caches are incomplete, by their `states`, and extrapolates. Leaves nothing
    behind except datasets' digests and generated datasets, which `rcnn run` needs too."""
    jobs = options.execution.jobs
    count = count or max(LEAST_SAMPLE, IMAGES_PER_JOB * jobs)
    pending = [node.name for node in graph.caches() if states[node.name].state != "complete"]
    with tempfile.TemporaryDirectory(prefix="rcnn-plan-") as folder:
        small = SampleGraph(graph, Path(folder), count)
        measured: dict[str, Line] = {}
        names = needed(small, pending)
        for node in small.caches():
            if node.name in names:
                say(f"{node.name}: measuring on a sample ({len(measured) + 1} of {len(names)})")
                measured[node.name] = measure(small, node, options, states[node.name])
        makers = small.makers([small.nodes[name] for name in pending])
        precisions = tuple(compare_precisions(small, makers, options.execution))
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
    return Plan(tuple(lines), count, options.execution.device, jobs, left, free, seconds, precisions)


def needed(graph: Graph, names: Sequence[str]) -> set[str]:
    """The caches `names` and everything upstream of them."""
    upstream = set(names)
    for node in reversed(graph.caches()):
        if node.name in upstream:
            upstream |= {source.name for source in graph.reads(node)}
    return upstream


def line_of(graph: Graph, node: Node, state: State) -> Line:
    """The line of a node that needs no work: its complete cache, or that it has none."""
    if state.state != "complete":
        return Line(node.name, state.state, state.detail)
    reader = Reader(graph.folder(node))
    manifest = reader.manifest
    boxes = "boxes" in reader.schema.rows
    rows, item = manifest["rows"], reader.schema.item
    return Line(
        node.name, "complete", f"complete ({counted(manifest)})", len(reader), item, rows, 0, boxes, manifest["bytes"]
    )


# Measuring


class Stopwatch:
    """Records the progress of one stage as (seconds since the start, items) events, and passes it on to a display."""

    def __init__(self, show: OpenProgress, clock: Callable[[], float] = time.perf_counter) -> None:
        self.show = show
        self.clock = clock
        self.started = clock()
        self.first: float | None = None
        self.shown: Progress = SilentProgress()
        self.events: list[tuple[float, int]] = []

    @contextlib.contextmanager
    def opened(self, label: str, total: int, unit: str, done: int = 0) -> Iterator[Stopwatch]:
        """Called when the stage begins its work; acts as the stage's progress display, and shows it, too."""
        self.first = self.first or self.elapsed()
        with self.show(f"{label}, sample", total, unit, done) as shown:
            self.shown = shown
            yield self

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Records that `items` more are done."""
        self.events.append((self.elapsed(), items))
        self.shown.advance(items, rows)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started


def seconds_per_item(events: Sequence[tuple[float, int]], first: float, jobs: int) -> float:
    """Seconds per item once a stage is under way, from `events` (seconds, items).

    The first `jobs` events are skipped, as they include process start-up; with no more events than that, time is
    counted from `first`, when the stage began its work.
    """
    if not events:
        return 0.0
    since, skipped = (events[jobs - 1][0], jobs) if len(events) > jobs else (first, 0)
    return (events[-1][0] - since) / sum(items for _, items in events[skipped:])


def measure(small: SampleGraph, node: Node, options: Options, state: State) -> Line:
    """Runs a node on the sample and extrapolates to all images, minus what is done according to `state`."""
    execution, part_size = options.execution, options.part_size or node.use.stage.part_size
    watch = Stopwatch(execution.progress)
    few = max(1, min(part_size, small.count // (2 * execution.jobs)))  # enough parts for all processes
    with quiet():
        watched = replace(options, execution=replace(execution, progress=watch.opened), part_size=few, adopt=False)
        run_node(small, node, watched)
    finished = watch.elapsed()
    reader = Reader(small.folder(node))
    sample, whole = small.dataset(node.dataset), small.whole.dataset(node.dataset)
    grows, factor = reader.item_ids == tuple(sample.image_ids), len(whole) / len(sample)
    rate = seconds_per_item(watch.events, watch.first or finished, execution.jobs)
    begin = max(0.0, finished - rate * sum(items for _, items in watch.events))
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
    """(the share of a cache's `items` still to be written, the share to be computed rather than copied)."""
    left = 1 - state.items_done / state.items if state.items else 1.0
    return left, max(0.0, left - state.adoptable / max(1, items))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the stages: what they say about a sample (e.g. a class without objects) may not hold for the dataset."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def bytes_in_parts(reader: Reader, items: int, part_size: int, compression: str) -> int:
    """The bytes of `items` items like the reader's in parts of `part_size`: a linear fit of bytes per part and bytes
    per item, obtained by packing the reader's items into parts of two sizes."""
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
    per_item, per_part = np.polyfit(counts, lengths, 1)
    return round(-(-items // part_size) * per_part + items * per_item)


def spread_of_total(lengths: Sequence[int], items: int) -> int | None:
    """Twice the standard error of the total rows of `items` items, from a sample of `lengths`; None for one sample."""
    count = len(lengths)
    if count >= items:
        return 0
    if count < 2:
        return None
    mean = sum(lengths) / count
    variance = sum((length - mean) ** 2 for length in lengths) / (count - 1)
    return round(2 * items * math.sqrt(variance / count * (1 - count / items)))


# Output


def format_plan(plan: Plan, work: Path, as_json: bool) -> str:
    """One line per cache, the totals and how they were estimated; or JSON."""
    if as_json:
        totals = {name: value for name, value in asdict(plan).items() if name != "lines"}
        return json.dumps({"caches": [asdict(line) for line in plan.lines], **totals, "fits": plan.fits}, indent=2)
    table: list[tuple[str, ...]] = [("cache", "items", "rows", "disk", "time", "")]
    table += [cells(line) for line in plan.lines]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    output = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in table
    ]
    if all(line.state != "estimated" for line in plan.lines):
        return "\n".join([*output, "Everything is complete; nothing to do."])
    output.append(
        f"To do: {size(plan.bytes_left)} and {duration(plan.seconds)}; free in {work}: {size(plan.bytes_free)}"
    )
    output.append(
        f"Estimated from up to {number_of(plan.sample, 'image')} per split on {plan.device} with "
        f"{number_of(plan.jobs, 'job')}; +- is twice the standard error.\n"
        "Times for training and evaluation are rough guesses, proportional to the number of images."
    )
    output += [line for comparison in plan.precisions for line in comparison.lines()]
    return "\n".join(output)


def cells(line: Line) -> tuple[str, ...]:
    """One row of the table."""
    if not line.items:
        return (line.name, "", "", "", "", line.detail)
    items = f"{line.items:,} {plural(line.item, line.items)}"
    margin = f" +- {line.rows_spread:,}" if line.rows_spread else ""
    rows = f"{line.rows:,}{margin} {plural('box' if line.boxes else 'row', line.rows)}" if line.rows else ""
    if line.state == "complete":
        return (line.name, items, rows, size(line.bytes), "", "complete")
    return (line.name, items, rows, size(line.bytes), duration(line.seconds), line.detail)
