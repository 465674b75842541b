"""A network read densely against the same network window by window, in one run: `python -m benchmarks.dense`.

Both score the windows that lie inside an image: one pass of trunk and head over the whole image, or every window cut
out of it and run through the network, in batches. They take turns, on one core of the CPU; printed are the processor
times, the median and the 5th and 95th percentile of window by window / dense, the same ratio of counted multiply-adds,
and that of OverFeat's accurate network at the paper's six scales, which is counted without computing anything. Weights
are random, as speed does not depend on them. Exit status 1 if the median ratio misses its target.

`--windows N` runs only N windows one by one and multiplies their time.

`--compare IMAGE...` compares the class scores of both instead, with the weights of `--weights`: where convolutions pad,
a crop sees zeros beyond its edge, and a dense window its neighbours.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.extraction import describe_machine
from stages.images.reading import read_image
from stages.networks import NETWORKS, NetworkSettings, NetworkSource
from stages.networks.architectures import empty_module
from stages.networks.dense_reading import dense_outputs, windows_of
from stages.networks.network import Network
from stages.plurals import number_of

TARGET = 40.0
SIX_SCALES = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))
"""Heights and widths of OverFeat's inputs (the paper's appendix; docs/overfeat.md)."""


@dataclass(frozen=True)
class BothWays:
    """Class scores [n, K] of the n windows that lie inside preprocessed `inputs` [1, 3, H, W], computed in two ways."""

    network: Network
    inputs: torch.Tensor
    batch_size: int = 32

    @property
    def layer(self) -> str:
        """The layer of class scores."""
        return self.network.card.check_classifier()

    @property
    def corners(self) -> list[tuple[int, int]]:
        """The rows and columns of the windows' first pixels, row by row."""
        windows = windows_of(self.network.card)
        begin, stride, (rows, columns) = round(windows.begin), windows.stride, self.inside
        return [(begin + row * stride, begin + column * stride) for row in range(rows) for column in range(columns)]

    @property
    def inside(self) -> tuple[int, int]:
        """How many rows and columns of windows lie inside the image; pooling that rounds up makes further ones."""
        windows = windows_of(self.network.card)
        rows, columns = ((side - windows.pixels) // windows.stride + 1 for side in self.inputs.shape[2:])
        return rows, columns

    def dense(self) -> torch.Tensor:
        """In one pass over the image."""
        cells = self.network.maps(self.inputs)
        scores = dense_outputs(self.network, cells, [self.layer], windows_of(self.network.card).cells)[self.layer]
        rows, columns = self.inside
        return scores.values[0, :, :rows, :columns].flatten(1).T

    def cropped(self, corners: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Window by window."""
        side = self.network.input_size
        scores = []
        for first in range(0, len(corners), self.batch_size):
            crops = [
                self.inputs[:, :, top : top + side, left : left + side]
                for top, left in corners[first : first + self.batch_size]
            ]
            batch = torch.cat(crops).contiguous(memory_format=torch.channels_last)
            scores.append(self.network.forward(batch, [self.layer])[self.layer])
        return torch.cat(scores)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; exit status 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="squeezenet1_0", choices=list(NETWORKS))
    parser.add_argument("--size", type=size_of, default=(500, 375), metavar="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, help="windows that are run one by one in a round  [default: all]")
    parser.add_argument("--compare", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--weights", default="random", help="for --compare: a file, or torchvision")
    parser.add_argument("--preprocessing", help="for --compare: that of the weights, as in a recipe")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{datetime.date.today().isoformat()}, {describe_machine(1)}")
    settings = NetworkSettings(options.network, options.weights, options.preprocessing)
    network = NetworkSource.from_settings(settings).load()
    if options.compare:
        compare(network, options.compare)
        return
    width, height = options.size
    inputs = torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    both = BothWays(network, inputs.contiguous(memory_format=torch.channels_last))
    print(f"{options.network}, {width} x {height}: {number_of(len(both.corners), 'window')} of {network.input_size} px")
    ratio = measure(both, options.rounds, options.windows or len(both.corners))
    print_counts(options.network, [(height, width)])
    print_counts("overfeat-accurate", SIX_SCALES)
    if ratio < TARGET:
        sys.exit(f"dense reading is {ratio:.1f} times as fast, not {TARGET:g}")


def size_of(text: str) -> tuple[int, int]:
    """ "500x375" as (500, 375)."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def measure(both: BothWays, rounds: int, windows: int) -> float:
    """Times both ways in turn, `windows` one by one; prints the times, and returns the median of their ratios."""
    corners = both.corners
    picks = np.linspace(0, len(corners) - 1, min(windows, len(corners))).round().astype(int)
    chosen = [corners[pick] for pick in picks]
    factor = len(corners) / len(chosen)
    seconds: dict[str, list[float]] = {"dense": [], "window by window": []}
    with torch.inference_mode():
        both.dense(), both.cropped(chosen[: both.batch_size])
        for _ in range(rounds):
            seconds["dense"].append(timed(both.dense))
            seconds["window by window"].append(factor * timed(lambda: both.cropped(chosen)))
    for name, taken in seconds.items():
        extrapolated = f", from {number_of(len(chosen), 'window')}" if name != "dense" and factor > 1 else ""
        print(f"{name}: median {1000 * np.median(taken):,.0f} ms of processor time{extrapolated}")
    ratios = np.array(seconds["window by window"]) / np.array(seconds["dense"])
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    print(f"window by window / dense: {middle:.1f} ({low:.1f} to {high:.1f}), {number_of(rounds, 'round')}")
    return float(middle)


def timed(compute: Callable[[], Any]) -> float:
    """The processor time that it takes."""
    started = time.process_time()
    compute()
    return time.process_time() - started


def print_counts(name: str, sizes: Sequence[tuple[int, int]]) -> None:
    """Prints how many multiply-adds both ways need for images of these `sizes` (height, width)."""
    card = NETWORKS[name]
    network = Network(card, empty_module(card, card.classes), card.classes, card.preprocessing)
    ways = [BothWays(network, torch.empty((1, 3, *size), device="meta")) for size in sizes]
    windows = sum(len(both.corners) for both in ways)
    dense = sum(multiply_adds(both.dense) for both in ways)
    single = multiply_adds(lambda: ways[0].cropped([(0, 0)]))
    print(
        f"{name}, {number_of(len(sizes), 'scale')}, {number_of(windows, 'window')}: {dense / 1e9:.2f} billion "
        f"multiply-adds, window by window {windows * single / 1e9:,.1f}: {windows * single / dense:.1f} times as many"
    )


def multiply_adds(compute: Callable[[], Any]) -> int:
    """The multiply-adds of convolutions and fully connected layers."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops() // 2


def compare(network: Network, paths: Sequence[Path]) -> None:
    """Prints how far the class scores of dense windows differ from those of crops, in each image and in all of them."""
    differences, agreements, places = [], [], []
    for path in paths:
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
        inputs = network.preprocessing.apply(pixels)[None].contiguous(memory_format=torch.channels_last)
        both = BothWays(network, inputs)
        with torch.inference_mode():
            dense, cropped = both.dense(), both.cropped(both.corners)
        best = cropped.argmax(dim=1, keepdim=True)
        differences.append(((dense - cropped).norm(dim=1) / cropped.norm(dim=1)).numpy())
        agreements.append((dense.argmax(dim=1, keepdim=True) == best)[:, 0].numpy())
        places.append((dense.topk(5, dim=1).indices == best).any(dim=1).numpy())
        print(f"{path.name}: {words(differences[-1], agreements[-1], places[-1])}")
    if len(paths) > 1:
        print(f"all {len(paths)}: {words(*(np.concatenate(parts) for parts in (differences, agreements, places)))}")


def words(differences: np.ndarray, agreements: np.ndarray, places: np.ndarray) -> str:
    """The relative differences |dense - crop| / |crop| of windows [n], and in how many the best classes agree."""
    low, middle, high = np.percentile(differences, (5, 50, 95))
    return (
        f"{number_of(len(differences), 'window')}, relative difference {middle:.2f} ({low:.2f} to {high:.2f}), "
        f"same best class {agreements.mean():.0%}, crop's best in dense top 5 {places.mean():.0%}"
    )


if __name__ == "__main__":
    main()
