"""Peak memory of each stage on few and on many images: `python -m benchmarks.memory [--images 100 400]`.

Each stage runs as its own `rcnn` process on the project's generated scenes; the figure is the largest resident set of
that process or of one of its workers, as the operating system reports it at the end (ru_maxrss).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
STAGES = ("propose", "extract", "train-svm", "train-bbox", "detect", "eval")


def peak_megabytes(arguments: Sequence[str], work: Path) -> float:
    """Runs `rcnn` and returns the peak resident set of it or of its largest child, in MB."""
    line = [sys.executable, "-m", "rcnn_cli", *arguments]
    process = subprocess.Popen(line, env={**os.environ, "RCNN_WORK": str(work)}, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(line)} failed:\n{told}")
    return usage.ru_maxrss / 1000


def measure(images: int, folder: Path, jobs: int) -> dict[str, float]:
    """Peak memory of every stage with `images` images in each split."""
    recipe = folder / f"{images}.toml"
    recipe.write_text(RECIPE.format(images=images))
    return {stage: peak_megabytes([stage, str(recipe), "--jobs", str(jobs)], folder / "work") for stage in STAGES}


def main() -> None:
    """Prints the table; exit status 1 if a stage grows by 20 % or more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs=2, default=(100, 400), metavar=("FEW", "MANY"))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    few, many = options.images
    with tempfile.TemporaryDirectory() as folder:
        peaks = [measure(images, Path(folder), options.jobs) for images in (few, many)]
    print(f"\n| stage | {few} images, MB | {many} images, MB | growth |\n|---|---|---|---|")
    grown = []
    for stage in STAGES:
        growth = peaks[1][stage] / peaks[0][stage] - 1
        grown += [stage] if growth >= 0.2 else []
        print(f"| {stage} | {peaks[0][stage]:.0f} | {peaks[1][stage]:.0f} | {100 * growth:+.0f} % |")
    if grown:
        sys.exit(f"over 20 %: {', '.join(grown)}")


if __name__ == "__main__":
    main()
