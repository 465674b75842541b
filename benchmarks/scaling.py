"""How propose + extract scale here, and what limits them on many machines: `python -m benchmarks.scaling`.

Measures the wall time of the two commands with 1..N workers (N: the cores), as `--jobs` of one command and as separate
`--shard` commands; then the cost of an image on one core, the disk's speed, and the cost of a part. From these, a model
(benchmarks/scaling_model.py) estimates 10 thousand to 10 million images on 1 to 1,000 workers. Its assumptions about
other machines, storage and network, are options.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.extraction import describe_machine
from benchmarks.scaling_model import (
    Costs,
    break_even_workers,
    first_bottleneck,
    paid_seconds,
    stage_times,
    total_bytes,
    total_seconds,
)

if TYPE_CHECKING:
    from cache import Reader
    from rcnn_cli.recipes.graph import Graph
    from rcnn_cli.recipes.recipe import Recipe

RECIPE = """
[datasets.train]
source = "voc:{folder}:{list}"

[network]
name = "{network}"
weights = "random"

[propose]
max_boxes = {boxes}

[extract]
layers = [{layers}]

[propose-windows]
stage = "propose"
method = "sliding-window"
max_boxes = 1
"""
IMAGES = np.array([[10**4], [10**5], [10**6], [10**7]])
WORKERS = np.array([[1, 10, 100, 1000]])
UNITS = {
    "propose": (1, "propose, core-seconds per image"),
    "extract": (1, "extract, core-seconds per image"),
    "pass_": (1, "train-svm's pass, seconds per image"),
    "image_bytes": (1e6, "image file, MB"),
    "proposal_bytes": (1e6, "proposals of an image, MB"),
    "feature_bytes": (1e6, "features of an image, MB"),
    "images_per_part": (1, "images per part of features"),
    "part": (1e-3, "a part, apart from its data, ms"),
    "looks": (1, "reads by each worker of each part's header"),
    "own_looks": (1, "further reads by a worker of its own parts' headers"),
    "look_rate": (1, "header reads per second, all workers together"),
    "storage_rate": (1e6, "storage, MB/s, all workers together"),
    "storage_bytes": (1e12, "storage, TB"),
    "machine_rate": (1e6, "network per machine, MB/s"),
    "cores": (1, "workers per machine"),
}
CLASSES = 20
FILE_BYTES = 1 << 28
PARTS = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables and draws the plot."""
    options = parse(arguments)
    print(describe_machine(options.cores), flush=True)
    with tempfile.TemporaryDirectory(dir=options.work) as place:
        folder = Path(place)
        recipe = write_recipe(folder, options)
        runs = measured_scaling(recipe, folder, options.cores, options.rounds)
        print_scaling(runs)
        costs = measured_costs(recipe, folder, options)
    print_costs(costs)
    print_model(costs, options.price)
    if options.plot:
        plot(options.plot, runs, costs)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; those that are None are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", default="shapes:train", help="the dataset to measure on, as in a recipe [%(default)s]"
    )
    parser.add_argument("--images", type=int, default=24, help="images to measure on [%(default)s]")
    parser.add_argument("--boxes", type=int, default=96, help="boxes per image, measured [%(default)s]")
    parser.add_argument("--regions", type=int, default=2000, help="boxes per image in the model [%(default)s]")
    parser.add_argument("--network", default="alexnet")
    parser.add_argument("--layers", nargs="+", default=["fc7", "pool5"])
    parser.add_argument("--rounds", type=int, default=2, help="rounds; the fastest counts [%(default)s]")
    parser.add_argument(
        "--cores", type=int, default=len(os.sched_getaffinity(0)), help="maximum number of workers [all cores]"
    )
    parser.add_argument("--regions-per-second", type=float, help="speed of one worker, e.g. a GPU [measured]")
    parser.add_argument("--storage-rate", type=float, help="MB/s of the shared storage [measured: this disk's]")
    parser.add_argument("--storage-size", type=float, default=100, help="TB of shared storage [%(default)s]")
    parser.add_argument(
        "--look-rate", type=float, help="part headers read per second by all workers [measured: this disk's]"
    )
    parser.add_argument("--machine-rate", type=float, default=1250, help="MB/s of a machine's network [%(default)s]")
    parser.add_argument("--machine-cores", type=float, default=16, help="workers per machine [%(default)s]")
    parser.add_argument("--price", type=float, help="price of a core-hour")
    parser.add_argument("--work", type=Path, help="folder on the disk to measure [$TMPDIR]")
    parser.add_argument("--plot", type=Path, help="a PNG to write")
    return parser.parse_args(arguments)


def write_recipe(folder: Path, options: argparse.Namespace) -> Path:
    """Writes the recipe and its list of images, evenly spaced in the dataset."""
    from rcnn_cli.running.planning import spread
    from stages.datasets import open_detection

    dataset = open_detection(options.dataset, work=folder)
    few = dataset.subset(spread(len(dataset), options.images))
    (folder / "list.txt").write_text("\n".join(few.image_ids))
    layers = ", ".join(f'"{layer}"' for layer in options.layers)
    names = {"network": options.network, "layers": layers, "boxes": options.boxes}
    path = folder / "scaling.toml"
    path.write_text(RECIPE.format(folder=few.folder.absolute(), list=folder / "list.txt", **names))
    return path


# This machine


@dataclass(frozen=True)
class Run:
    """One way to divide the work: wall seconds of each stage, and processor seconds of both."""

    way: str
    workers: int
    propose: float
    extract: float
    processor: float

    @property
    def seconds(self) -> float:
        """The wall seconds of both stages."""
        return self.propose + self.extract


def measured_scaling(recipe: Path, folder: Path, cores: int, rounds: int) -> list[Run]:
    """Runs both stages with every number of workers, in turn; returns the fastest round of each."""
    ways = [("--jobs", count) for count in range(1, cores + 1)] + [("--shard", count) for count in range(2, cores + 1)]
    runs = [[measured_run(recipe, folder / "work", way, workers) for way, workers in ways] for _ in range(rounds)]
    return [min(same, key=lambda run: run.seconds) for same in zip(*runs, strict=True)]


def measured_run(recipe: Path, work: Path, way: str, workers: int) -> Run:
    """Runs both stages, one after the other, from scratch."""
    shutil.rmtree(work, ignore_errors=True)
    before = processor_seconds()
    propose, extract = (wall_seconds(recipe, work, stage, way, workers) for stage in ("propose", "extract"))
    return Run(way, workers, propose, extract, processor_seconds() - before)


def wall_seconds(recipe: Path, work: Path, stage: str, way: str, workers: int) -> float:
    """The wall seconds of one stage: one command with `workers` jobs, or `workers` commands with one job each."""
    line = [
        sys.executable,
        "-m",
        "rcnn_cli",
        "run",
        str(recipe),
        "--work",
        str(work),
        "--device",
        "cpu",
        "--only",
        stage,
    ]
    if way == "--jobs":
        lines = [[*line, "--jobs", str(workers)]]
    else:
        lines = [[*line, "--jobs", "1", "--shard", f"{index}/{workers}"] for index in range(1, workers + 1)]
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in lines]
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"{' '.join(map(str, process.args))} failed:\n{errors}")  # type: ignore[arg-type]
    return time.perf_counter() - started


def processor_seconds() -> float:
    """The processor seconds of all ended descendants of this process."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# The cost of an image


def measured_costs(recipe: Path, folder: Path, options: argparse.Namespace) -> Costs:
    """The model's numbers: measured in this process, on one core, or given as options."""
    from cache import Reader
    from rcnn_cli.recipes.graph import Graph
    from rcnn_cli.recipes.recipe import load_recipe

    graph = Graph(load_recipe(recipe), folder / "costs")
    propose, _ = core_seconds(graph, "propose@train")
    extract, regions = core_seconds(graph, "extract@train")
    features = Reader(graph.folder(graph.nodes["extract@train"]))
    dataset = graph.dataset("train")
    write, read = disk_rates(folder)
    part, look_rate = part_costs(folder)
    looks, own_looks = looks_per_part(graph.recipe, folder)
    bytes_per_region = sum(
        int(np.prod(column.shape)) * np.dtype(column.dtype).itemsize for column in features.schema.rows.values()
    )
    print(f"\nDisk, MB/s: {write / 1e6:.0f} written, {read / 1e6:.0f} read.")
    return Costs(
        propose=propose,
        extract=options.regions / (options.regions_per_second or regions / extract),
        pass_=pass_seconds(features) * options.regions / regions,
        image_bytes=statistics.mean(dataset.image_path(image_id).stat().st_size for image_id in dataset.image_ids),
        proposal_bytes=16.0 * options.regions,
        feature_bytes=float(bytes_per_region * options.regions),
        images_per_part=float(graph.nodes["extract@train"].use.stage.part_size),
        part=part,
        looks=looks,
        own_looks=own_looks,
        look_rate=options.look_rate or look_rate,
        storage_rate=1e6 * options.storage_rate if options.storage_rate else min(write, read),
        storage_bytes=1e12 * options.storage_size,
        machine_rate=1e6 * options.machine_rate,
        cores=options.machine_cores,
    )


def core_seconds(graph: Graph, name: str) -> tuple[float, float]:
    """(processor seconds per image, rows per image) of a stage run in this process with one image per part."""
    from cache import Reader
    from rcnn_cli.running.planning import Stopwatch, seconds_per_item
    from rcnn_cli.running.runner import Options, run_node
    from stages.contract.execution import Execution, silent

    watch, node = Stopwatch(silent, time.process_time), graph.nodes[name]
    run_node(graph, node, Options(Execution(progress=watch.opened), part_size=1))
    rows = Reader(graph.folder(node)).lengths()
    return seconds_per_item(watch.events, 0.0, jobs=1), float(rows.mean())


def pass_seconds(features: Reader) -> float:
    """Processor seconds per image of train-svm's pass: reading a layer, scaling it, scoring 20 classes."""
    from stages.features.reading import scaled
    from stages.train_svm.mining import BlockScorer, ClassMiner

    layer = next(iter(features.manifest["summary"]["layers"]))
    dimension = features.schema.rows[layer].shape[0]
    scorer = BlockScorer(dimension)
    for label in range(CLASSES):
        nothing = np.zeros(0, np.int64)
        scorer.update(ClassMiner(str(label), label, nothing, np.random.default_rng(label).normal(size=dimension)))
    started = time.process_time()
    for _, record in features.records(["boxes", "is_object", "label", layer]):
        rows = scaled(record[layer], 1.0)
        for block in scorer.weights:
            scorer.scores(rows, block)
    return (time.process_time() - started) / len(features)


def disk_rates(folder: Path) -> tuple[float, float]:
    """Bytes per second (written and fsynced; read, uncached) with a file of 256 MB: medians of three."""
    block = np.random.default_rng(0).bytes(1 << 22)
    path = folder / "file"
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        started = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(FILE_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        rates[0].append(FILE_BYTES / (time.perf_counter() - started))
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            started = time.perf_counter()
            while file.read(len(block)):
                pass
        rates[1].append(FILE_BYTES / (time.perf_counter() - started))
        path.unlink()
    return statistics.median(rates[0]), statistics.median(rates[1])


def part_costs(folder: Path) -> tuple[float, float]:
    """(seconds to claim and write a part apart from its data, part headers read per second)."""
    from cache import Column, Identity, Schema, Writer

    schema = Schema(rows={"boxes": Column("float32", (4,))})
    ids = [str(number) for number in range(PARTS)]
    writer = Writer(folder / "parts", Identity("parts", 1), ids, schema, part_size=1)
    started = time.perf_counter()
    for part in writer.claim():
        writer.write(part, [{"boxes": np.zeros((1, 4), np.float32)}])
    wrote = time.perf_counter() - started
    started = time.perf_counter()
    writer.unfinished()
    looked = time.perf_counter() - started
    writer.release()
    return wrote / PARTS, PARTS / looked


def looks_per_part(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """(how often a worker reads each part's header, how often more its own parts'), from shards 1/2 and 1/4."""
    from cache import Shard
    from rcnn_cli.recipes.graph import Graph
    from rcnn_cli.running.runner import Options, run_node

    opened: list[str] = []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
    counts, own = [], []
    for shards in (2, 4):
        graph = Graph(recipe, folder / f"looks-{shards}")
        node = graph.nodes["propose-windows@train"]
        opened.clear()
        run_node(graph, node, Options(part_size=1, shard=Shard(1, shards)))
        seen = [path for path in opened if Path(path).name.startswith("part-") and path.endswith(".h5")]
        parts = len(graph.dataset("train"))
        counts.append(len(seen) / parts)
        own.append(-(-parts // shards) / parts)
    each = (counts[0] - counts[1]) / (own[0] - own[1])
    return counts[0] - each * own[0], each


# Output


def print_scaling(runs: Sequence[Run]) -> None:
    """Prints the table of the measured runs."""
    print("\n| workers | | propose, s | extract, s | both | speed-up | efficiency | processor seconds |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for run in runs:
        gain = runs[0].seconds / run.seconds
        print(
            f"| {run.workers} | `{run.way}` | {run.propose:.1f} | {run.extract:.1f} | {run.seconds:.1f} | {gain:.2f} "
            f"| {gain / run.workers:.0%} | {run.processor:.0f} |",
            flush=True,
        )


def print_costs(costs: Costs) -> None:
    """Prints the model's numbers."""
    print("\n| the model's numbers | |\n|---|---:|")
    for name, (unit, words) in UNITS.items():
        print(f"| {words} | {getattr(costs, name) / unit:,.4g} |")
    print(
        f"\nWith more than {break_even_workers(costs):,.0f} workers, recomputing features is faster than reading them."
    )


def print_model(costs: Costs, price: float | None) -> None:
    """Prints the model's table."""
    times = stage_times(IMAGES, WORKERS, costs)
    hours, paid = total_seconds(times) / 3600, paid_seconds(IMAGES, WORKERS, times)
    limits, size = first_bottleneck(IMAGES, times, costs), total_bytes(IMAGES, costs) / 1e12
    money = " price |" if price else ""
    print(f"\n| images | TB | workers | hours | core-seconds per image |{money} first bottleneck |")
    print(f"|---:|---:|---:|---:|---:|{'---:|' if price else ''}---|")
    for row, column in np.ndindex(hours.shape):
        cost = f" {paid[row, column] * IMAGES[row, 0] / 3600 * price:,.0f} |" if price else ""
        print(
            f"| {IMAGES[row, 0]:,} | {size[row, 0]:,.2f} | {WORKERS[0, column]:,} | {hours[row, column]:,.1f} "
            f"| {paid[row, column]:,.1f} |{cost} {limits[row, column]} |"
        )


def plot(path: Path, runs: Sequence[Run], costs: Costs) -> None:
    """Draws the measured speed-ups (left) and the model, coloured by what limits first (right)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1, 2), layout="constrained")
    most = max(run.workers for run in runs)
    left.plot([1, most], [1, most], color="0.7", label="ideal")
    for way in ("--jobs", "--shard"):
        own = [runs[0], *[run for run in runs[1:] if run.way == way]]
        left.plot([run.workers for run in own], [runs[0].seconds / run.seconds for run in own], "o-", label=way)
    left.set(title="measured: propose + extract", xlabel="workers", ylabel="speed-up", xticks=range(1, most + 1))
    left.legend()
    workers = np.unique(np.logspace(0, 3, 61).round())[None]
    times = stage_times(IMAGES, workers, costs)
    limits = first_bottleneck(IMAGES, times, costs)
    colours = {name: f"C{number}" for number, name in enumerate(sorted(set(limits.ravel())))}
    for hours, limit, images in zip(total_seconds(times) / 3600, limits, IMAGES[:, 0], strict=True):
        right.plot(workers[0], hours, color="0.8", zorder=0)
        right.annotate(f"{images:,} images", (1.1, hours[0] * 1.25), fontsize=8)
        right.scatter(workers[0], hours, 12, [colours[name] for name in limit])
    for name, colour in colours.items():
        right.scatter([], [], 12, colour, label=name)
    right.set(xscale="log", yscale="log", title="model: first bottleneck", xlabel="workers", ylabel="hours")
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"\nplot: {path}")


if __name__ == "__main__":
    main()
