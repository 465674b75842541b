"""Extraction on one device against the bare network and raw arithmetic: `python -m benchmarks.device`.

For each network and arithmetic, these variants take turns, in regions per second:

- `contiguous`, `channels-last`: the bare forward pass on a ready batch, in either memory format; ours is the second;
- `compiled`: the same pass, channels last, through torch.compile;
- `graph`: the same pass, channels last, replayed as a CUDA graph (CUDA only);
- `stage`: the extract stage, from JPEG files to a float16 cache on disk, one process.

The limit beside them is the rate of a large matrix product in the same arithmetic, measured here, divided by the
operations per region (a multiplication and an addition count as two), counted by PyTorch. Weights are random, as speed
does not depend on them. On a CPU everything uses one thread, like each process of the stage. Variants that a device
does not support are left out, with a message. Prints the date, the device, the versions, the command, and one Markdown
table of medians over the rounds; ratios are medians of the rounds' ratios.
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
from stages.extract.features import load_network
from stages.networks.memory import keep_large_buffers
from stages.networks.network import Network
from stages.networks.precision import COMPUTED_IN, ONLY_ON_CUDA, PRECISIONS, arithmetic

VARIANTS = ("contiguous", "channels-last", "compiled", "graph", "stage")
OURS = "channels-last"
Pass = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table: median regions per second of the variants that were run, and two ratios."""

    network: str
    precision: str
    rates: dict[str, float]
    limit: float
    stage_over_bare: float | None
    bare_over_limit: float | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every network and arithmetic and prints the table."""
    options = parse(arguments)
    device = options.device
    print(f"{datetime.date.today().isoformat()}, {name_of(device)}")
    print(describe_machine(1))
    if device.startswith("cuda"):
        print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    print(f"`python -m benchmarks.device {shlex.join(sys.argv[1:] if arguments is None else arguments)}`\n")
    keep_large_buffers()
    print_head(options.variants)
    for network in options.networks:
        for precision in options.precisions:
            if precision in ONLY_ON_CUDA and not device.startswith("cuda"):
                print(f"{network}: {precision} needs CUDA; left out", file=sys.stderr)
                continue
            case = Case(network, precision, options.batch_size, options.regions, device)
            with arithmetic(precision, device):
                print_row(measure(case, options.variants, options.rounds, options.images), options.variants)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exits with a message if they do not suit the machine."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="cuda, cuda:N or cpu")
    parser.add_argument("--networks", nargs="+", default=["tnet", "alexnet", "onet"], choices=list(LAYERS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--batch-size", type=int, default=512 if cuda else 32)
    parser.add_argument("--regions", type=int, default=2000 if cuda else 64, help="regions per image")
    parser.add_argument(
        "--images", type=int, default=64 if cuda else 2, help="images that the stage extracts per round"
    )
    parser.add_argument("--rounds", type=int, default=5 if cuda else 3)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not cuda:
        parser.error(f"--device {options.device}: PyTorch found no CUDA device; use --device cpu")
    for name in ("batch_size", "regions", "images", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return options


def name_of(device: str) -> str:
    """The name of the device."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def measure(case: Case, variants: Sequence[str], rounds: int, images: int) -> Row:
    """Measures one line: every variant once to warm up, then all in turn, `rounds` times."""
    with tempfile.TemporaryDirectory() as folder:
        works = {
            variant: work_of(variant, case, images, Path(folder)) for variant in variants if possible(variant, case)
        }
        for work, _ in works.values():
            work()
        seen: dict[str, list[float]] = {variant: [] for variant in works}
        limits, per_region = [], operations(case)
        for _ in range(rounds):
            limits.append(matrix_rate(case) / per_region)
            for variant, (work, count) in works.items():
                seen[variant].append(count / seconds(work, case.device))
    return Row(
        case.network,
        case.precision,
        {variant: statistics.median(rates) for variant, rates in seen.items()},
        statistics.median(limits),
        ratio(seen.get("stage"), seen.get(OURS)),
        ratio(seen.get(OURS), limits),
    )


def possible(variant: str, case: Case) -> bool:
    """Whether the device supports the variant."""
    return variant != "graph" or case.device.startswith("cuda")


def work_of(variant: str, case: Case, images: int, folder: Path) -> tuple[Pass, int]:
    """(the work timed in a round, the regions it computes: those of `images` images, in whole batches if bare)."""
    if variant == "stage":
        extract = our_extraction(case, folder)
        return (lambda: extract(images)), images * case.regions
    settings, source = recipe(case)
    forward = bare_pass(variant, case, load_network(source, settings, case.device))
    passes = max(1, images * case.regions // case.batch_size)

    def work() -> None:
        for _ in range(passes):
            forward()

    return work, passes * case.batch_size


def ratio(these: Sequence[float] | None, those: Sequence[float] | None) -> float | None:
    """The median of the rounds' ratios; None unless both were measured."""
    return median_ratio(these, those) if these and those else None


def seconds(work: Pass, device: str) -> float:
    """The seconds until the device has finished `work`."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def bare_pass(variant: str, case: Case, network: Network) -> Pass:
    """The forward pass on one ready batch, in this variant."""
    layer, side = LAYERS[case.network], network.input_size
    order = torch.contiguous_format if variant == "contiguous" else torch.channels_last
    network.module.to(memory_format=order)
    shape = (case.batch_size, 3, side, side)
    batch = torch.randn(shape, dtype=network.dtype, device=case.device).to(memory_format=order)

    def forward(regions: torch.Tensor) -> torch.Tensor:
        return network.forward(regions, [layer])[layer]

    if variant == "compiled":
        forward = torch.compile(forward)
    if variant == "graph":
        return captured(forward, batch)

    def once() -> torch.Tensor:
        with torch.inference_mode():
            return forward(batch)

    return once


def captured(forward: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> Pass:
    """The replay of the pass captured as a CUDA graph, after a few warm-up runs, as PyTorch requires."""
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
    """Multiplications and additions per region, up to the extracted layer."""
    from torch.utils.flop_counter import FlopCounterMode

    network = recipe(Case(case.network, "float32"))[1].load("cpu")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.forward(torch.zeros(1, 3, network.input_size, network.input_size), [LAYERS[case.network]])
    return counter.get_total_flops()


def matrix_rate(case: Case) -> float:
    """Operations per second of a product of two square matrices in the case's arithmetic."""
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


def print_head(variants: Sequence[str]) -> None:
    """Prints the head of the table."""
    cells = ["network", "arithmetic", *variants, "limit", f"stage / {OURS}", f"{OURS} / limit"]
    print("| " + " | ".join(cells) + " |")
    print("|---|---|" + "---:|" * (len(cells) - 2), flush=True)


def print_row(row: Row, variants: Sequence[str]) -> None:
    """Prints a line of the table, with a dash for what was not run."""
    rates = [f"{row.rates[variant]:,.1f}" if variant in row.rates else "-" for variant in variants]
    ratios = ["-" if each is None else f"{each:.2f}" for each in (row.stage_over_bare, row.bare_over_limit)]
    print("| " + " | ".join([row.network, row.precision, *rates, f"{row.limit:,.1f}", *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
