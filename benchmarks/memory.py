"""Peak memory of each stage on few and on many images: `python -m benchmarks.memory [--images 100 400]`.

Each stage runs as its own `rcnn` process on the project's generated scenes; the number is the largest resident set of
that process or of one of its workers, as the operating system reports it at the end (ru_maxrss).

train-svm runs twice: as in R-CNN, keeping every hard negative, whose number grows with the images, and with a bound on
them. liblinear needs all examples of a class at once, 16 bytes per non-zero number, and scikit-learn passes them as a
sparse matrix of 12 bytes per number; the sum for the class with the most examples is also printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from cache import Reader

RECIPE = """
[datasets.train]
source = "shapes:train"
images = {images}

[datasets.test]
source = "shapes:test"
images = {images}

[network]
name = "shapenet"
weights = "random"

[propose]
max_boxes = 300
resize_width = 240

[extract]
layers = ["pool4"]
padding = 4

[train-svm]
layer = "pool4"

[train-bbox]
layer = "pool4"

[detect]

[eval]
"""
SVMS, BOUNDED = "train-svm", "train-svm, max_negatives = 1000"
STAGES: dict[str, tuple[str, ...]] = {
    "propose": (),
    "extract": (),
    SVMS: (),
    BOUNDED: ("--set", "train-svm.max_negatives=1000"),
    "train-bbox": (),
    "detect": (),
    "eval": (),
}
BYTES_PER_NUMBER = 12 + 16


def peak_megabytes(arguments: Sequence[str], work: Path) -> float:
    """Runs `rcnn`; returns the peak resident set of it or of its largest child, in MB."""
    line = [sys.executable, "-m", "rcnn_cli", *arguments]
    process = subprocess.Popen(line, env={**os.environ, "RCNN_WORK": str(work)}, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(line)} failed:\n{errors}")
    return usage.ru_maxrss / 1000


def measure(images: int, folder: Path, jobs: int) -> dict[str, float]:
    """The peak memory of every stage, in MB, with `images` images in each split."""
    recipe = folder / f"{images}.toml"
    recipe.write_text(RECIPE.format(images=images))
    return {
        name: peak_megabytes([name.split(",")[0], str(recipe), "--jobs", str(jobs), *options], folder / "work")
        for name, options in STAGES.items()
    }


def example_megabytes(images: int, folder: Path) -> float:
    """The memory, in MB, that scikit-learn and liblinear need for the class and round with the most examples."""
    line = [sys.executable, "-m", "rcnn_cli", "status", str(folder / f"{images}.toml"), "--json"]
    status = subprocess.run(line, env={**os.environ, "RCNN_WORK": str(folder / "work")}, capture_output=True, text=True)
    caches = {cache["name"]: Reader(Path(cache["folder"])) for cache in json.loads(status.stdout)}
    records = caches[SVMS].records(["positives", "log/negatives"])
    rows = max(int(record["positives"]) + int(record["log/negatives"].max(initial=0)) for _, record in records)
    sample = [record["pool4"] for _, record in islice(caches["extract@train"].records(["pool4"]), 50)]
    numbers = sum(map(np.count_nonzero, sample)) / sum(map(len, sample))
    return rows * numbers * BYTES_PER_NUMBER / 1e6


def main() -> None:
    """Prints the table; exit status 1 if a stage other than unbounded train-svm grows by 20 % or more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs=2, default=(100, 400), metavar=("FEW", "MANY"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    few, many = options.images
    with tempfile.TemporaryDirectory() as folder:
        peaks = [measure(images, Path(folder), options.jobs) for images in (few, many)]
        examples = [example_megabytes(images, Path(folder)) for images in (few, many)]
    print(f"\n| stage | {few} images, MB | {many} images, MB | growth |\n|---|---|---|---|")
    grown = []
    for stage in STAGES:
        growth = peaks[1][stage] / peaks[0][stage] - 1
        grown += [stage] if growth >= 0.2 and stage != SVMS else []
        print(f"| {stage} | {peaks[0][stage]:.0f} | {peaks[1][stage]:.0f} | {100 * growth:+.0f} % |")
    print(f"\nExamples of the largest class in liblinear: about {examples[0]:.0f} MB and {examples[1]:.0f} MB.")
    if grown:
        sys.exit(f"grew by 20 % or more: {', '.join(grown)}")


if __name__ == "__main__":
    main()
