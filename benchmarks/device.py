"""Extraction on one device against the bare network and against arithmetic itself: `python -m benchmarks.device`.

For each network and arithmetic these take turns, in regions a second:

- `contiguous`, `channels-last`: the bare forward pass on a ready batch, in either order of memory; the second is ours;
- `compiled`: the same pass, channels last, through torch.compile;
- `graph`: the same pass, channels last, replayed as a CUDA graph (on CUDA alone);
- `stage`: the extract stage, from JPEG files to a float16 cache on disk, one process.

Beside them stands the limit: the rate of a large matrix product in the same arithmetic, measured here, over the
operations of one region (a multiplication and an addition are two), counted by PyTorch. Weights are random, for speed
does not depend on them. On a CPU all of it has one thread, as each process of the stage has there. What a device has
not got is left out and said. Printed are the date, the device, the versions, the command, and one Markdown table of
medians over the rounds; ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.extraction import LAYERS, Case, describe_machine, median_ratio, our_extraction, recipe
from stages.extract import ONLY_ON_CUDA
from stages.extract.features import COMPUTED_IN, arithmetic, load_network
from stages.networks.memory import keep_large_buffers
from stages.networks.network import Network

PRECISIONS = tuple(COMPUTED_IN)
WAYS = ("contiguous", "channels-last", "compiled", "graph", "stage")
OURS = "channels-last"
Pass = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table: medians in regions a second (a way that was not run is missing), and two ratios."""

    network: str
    precision: str
    rates: dict[str, float]
    limit: float
    stage_over_bare: float | None
    bare_over_limit: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(arguments)
    device = options.device
    print(f"{datetime.date.today().isoformat()}, {name_of(device)}")
    print(describe_machine(1))
    if device.startswith("cuda"):
        print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    print(f"`python -m benchmarks.device {shlex.join(sys.argv[1:] if arguments is None else arguments)}`\n")
    keep_large_buffers()
    print_head(options.ways)
    for network in options.networks:
        for precision in options.precisions:
            if precision in ONLY_ON_CUDA and not device.startswith("cuda"):
                print(f"{network}: {precision} needs CUDA, left out", file=sys.stderr)
                continue
            case = Case(network, precision, options.batch_size, options.regions, device)
            with arithmetic(recipe(case)[0], device):
                print_row(measure(case, options.ways, options.rounds, options.images), options.ways)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; ends with a sentence where they do not fit the machine."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="cuda, cuda:N or cpu")
    parser.add_argument("--networks", nargs="+", default=["tnet", "alexnet", "onet"], choices=list(LAYERS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--batch-size", type=int, default=512 if cuda else 32)
    parser.add_argument("--regions", type=int, default=2000 if cuda else 64, help="of each image")
    parser.add_argument("--images", type=int, default=64 if cuda else 2, help="that the stage extracts in a round")
    parser.add_argument("--rounds", type=int, default=5 if cuda else 3)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not cuda:
        parser.error(f"--device {options.device}: PyTorch finds no CUDA device here; take --device cpu")
    for name in ("batch_size", "regions", "images", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return options


def name_of(device: str) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def measure(case: Case, ways: Sequence[str], rounds: int, images: int) -> Row:
    """One line: every way once to warm up, then all of them in turn, `rounds` times."""
    with tempfile.TemporaryDirectory() as folder:
        works = {way: work_of(way, case, images, Path(folder)) for way in ways if possible(way, case)}
        for work, _ in works.values():
            work()
        seen: dict[str, list[float]] = {way: [] for way in works}
        limits, of_a_region = [], operations(case)
        for _ in range(rounds):
            limits.append(matrix_rate(case) / of_a_region)
            for way, (work, count) in works.items():
                seen[way].append(count / seconds(work, case.device))
    return Row(
        case.network,
        case.precision,
        {way: statistics.median(rates) for way, rates in seen.items()},
        statistics.median(limits),
        ratio(seen.get("stage"), seen.get(OURS)),
        ratio(seen.get(OURS), limits),
    )


def possible(way: str, case: Case) -> bool:
    """Whether the device has got it."""
    return way != "graph" or case.device.startswith("cuda")


def work_of(way: str, case: Case, images: int, folder: Path) -> tuple[Pass, int]:
    """What is timed in a round, and how many regions it computes: `images` of them, bare passes in whole batches."""
    if way == "stage":
        extract = our_extraction(case, folder)
        return (lambda: extract(images)), images * case.regions
    settings, source = recipe(case)
    forward = bare_pass(way, case, load_network(source, settings, case.device))
    passes = max(1, images * case.regions // case.batch_size)

    def work() -> None:
        for _ in range(passes):
            forward()

    return work, passes * case.batch_size


def ratio(these: Sequence[float] | None, those: Sequence[float] | None) -> float | None:
    """The median of the rounds' ratios, where both were measured."""
    return median_ratio(these, those) if these and those else None


def seconds(work: Pass, device: str) -> float:
    """How long `work` takes, until the device has done all of it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def bare_pass(way: str, case: Case, network: Network) -> Pass:
    """The forward pass on one ready batch, as `way` says."""
    layer, side = LAYERS[case.network], network.input_size
    order = torch.contiguous_format if way == "contiguous" else torch.channels_last
    network.module.to(memory_format=order)
    shape = (case.batch_size, 3, side, side)
    batch = torch.randn(shape, dtype=network.dtype, device=case.device).to(memory_format=order)

    def forward(regions: torch.Tensor) -> torch.Tensor:
        return network.forward(regions, [layer])[layer]

    if way == "compiled":
        forward = torch.compile(forward)
    if way == "graph":
        return captured(forward, batch)

    def once() -> torch.Tensor:
        with torch.inference_mode():
            return forward(batch)

    return once


def captured(forward: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> Pass:
    """The pass recorded as a CUDA graph, to be replayed; it is run a few times first, as PyTorch asks for."""
    with torch.inference_mode():
        side_stream = torch.cuda.Stream()
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(3):
                forward(batch)
        torch.cuda.current_stream().wait_stream(side_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            forward(batch)
    return graph.replay


def operations(case: Case) -> int:
    """Multiplications and additions of one region, up to the layer that is extracted."""
    from torch.utils.flop_counter import FlopCounterMode

    network = recipe(Case(case.network, "float32"))[1].load("cpu")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.forward(torch.zeros(1, 3, network.input_size, network.input_size), [LAYERS[case.network]])
    return counter.get_total_flops()


def matrix_rate(case: Case) -> float:
    """Operations a second of a product of two square matrices in the case's arithmetic."""
    cuda = case.device.startswith("cuda")
    side, passes = (8192, 20) if cuda else (2048, 2)
    dtype = getattr(torch, COMPUTED_IN[case.precision])
    left, right = torch.randn((2, side, side), device=case.device).to(dtype)
    products = torch.empty_like(left)

    def multiply() -> None:
        for _ in range(passes):
            torch.mm(left, right, out=products)

    multiply()
    return passes * 2 * side**3 / seconds(multiply, case.device)


def print_head(ways: Sequence[str]) -> None:
    """The table's first lines."""
    cells = ["network", "arithmetic", *ways, "limit", f"stage / {OURS}", f"{OURS} / limit"]
    print("| " + " | ".join(cells) + " |")
    print("|---|---|" + "---:|" * (len(cells) - 2), flush=True)


def print_row(row: Row, ways: Sequence[str]) -> None:
    """One line of it; what was not run is a dash."""
    rates = [f"{row.rates[way]:,.1f}" if way in row.rates else "-" for way in ways]
    ratios = ["-" if one is None else f"{one:.2f}" for one in (row.stage_over_bare, row.bare_over_limit)]
    print("| " + " | ".join([row.network, row.precision, *rates, f"{row.limit:,.1f}", *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
