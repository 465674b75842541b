"""What `--log-to` costs, as a share of the training: `python -m benchmarks.tracking CACHE...`.

The log of a finished training, `training.csv` in its cache's folder, is handed to each tracker again, offline, in the
portions that checkpoints make of it; printed are the seconds that this takes, opening and closing included, and their
ratio to the seconds of the training itself. Trackers whose package is missing are left out, aloud.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rcnn_cli.tracking import TRACKERS, Run

CHECKPOINT_SECONDS = 300.0
"""The stages' default."""


def main() -> None:
    """Prints a line for each tracker and cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path, metavar="CACHE", help="the folder of a training's cache")
    for cache in parser.parse_args().caches:
        seconds, steps = read_training(cache)
        whole = sum(seconds)
        print(f"{cache.name}: {len(steps)} steps of {1000 * whole / len(steps):.1f} ms")
        for name, kind in TRACKERS.items():
            if find_spec(kind.package) is None:
                print(f"  {name:<12} left out: the package {kind.package} is not installed")
                continue
            took = replayed(name, cache, steps, portions(seconds))
            print(f"  {name:<12} {took:6.2f} s  {1000 * took / len(steps):6.3f} ms a step  ratio {took / whole:.5f}")


def read_training(cache: Path) -> tuple[list[float], list[dict[str, float]]]:
    """The seconds of each step in a cache's training.csv, and the values that trackers get of it."""
    with (cache / "training.csv").open(encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row.pop("seconds") for row in rows], rows


def portions(seconds: Sequence[float], every: float = CHECKPOINT_SECONDS) -> list[int]:
    """The last step of each portion, from 1: as many steps as take `every` seconds."""
    ends, passed = [], 0.0
    for step, one in enumerate(seconds, 1):
        passed += one
        if passed >= every or step == len(seconds):
            ends.append(step)
            passed = 0.0
    return ends


def replayed(name: str, cache: Path, steps: Sequence[Mapping[str, float]], ends: Sequence[int]) -> float:
    """The seconds that a tracker takes for a training's `steps`, in portions that end with the steps `ends`."""

    def after(last: int, step: int) -> Sequence[Mapping[str, float]]:
        return steps[step:last]

    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), cache.parent.name, cache.name, {})
        with TRACKERS[name].opened(run, 0):  # imports the library, which is not measured
            pass
        started = time.monotonic()
        with TRACKERS[name].opened(run, 0) as tracker:
            for last in ends:
                tracker.track(partial(after, last))
        return time.monotonic() - started


if __name__ == "__main__":
    main()
