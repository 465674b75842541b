"""A whole recipe in small, and the real `rcnn` commands to run it with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cache.files import read_json

PROJECT = Path(__file__).parents[1]

SMALL = """
[datasets.pretraining]
source = "shapes-classification:train"
per_class = 12

[datasets.train]
source = "shapes:train"
images = 12

[datasets.test]
source = "shapes:test"
images = 8

[pretrain]
epochs = 3
threads = 1

[propose]
max_boxes = 60
resize_width = 240

[extract]
layers = ["pool4"]
padding = 4

[train-svm]
layer = "pool4"
retrain_after = 100

[train-bbox]
layer = "pool4"

[detect]

[eval]
"""
SMALLER = SMALL.replace("resize_width = 240", "resize_width = 170\nseed = 4")
"""The same in less time; 60 boxes per image all the same, which with this seed find a few objects."""
FOUR_IMAGES = """
[datasets.train]
source = "shapes:train"
images = 4
[datasets.test]
source = "shapes:train"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 40
resize_width = 160
seed = 4
"""
"""The beginning of recipes on four images: what is proposed, and a network with random weights."""

STAGES = ("pretrain", "propose", "extract", "train-svm", "train-bbox", "detect", "eval")


def write_recipe(folder: Path, text: str = SMALLER) -> Path:
    """The small recipe as a file."""
    path = folder / "small.toml"
    path.write_text(text)
    return path


def command(*arguments: object, work: Path) -> tuple[list[str], dict[str, str]]:
    """The command line of `rcnn` and the environment to run it in."""
    environment = {**os.environ, "RCNN_WORK": str(work), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    return [sys.executable, "-m", "rcnn_cli", *map(str, arguments)], environment


def rcnn(
    *arguments: object, work: Path, check: bool = True, folder: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    """Runs `rcnn`; with `check`, a failure shows what it printed."""
    line, environment = command(*arguments, work=work)
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def torchrun(*arguments: object, work: Path) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 -m rcnn_cli ...`, as a user starts it."""
    line, environment = command(*arguments, work=work)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    started = [*launcher, *line[2:]]
    return subprocess.run(started, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=240)


def run_small(folder: Path) -> None:
    """Makes `folder`: the small recipe, its undisturbed run with one process in work/, and what that printed."""
    (folder / "printed.txt").write_text(rcnn("run", write_recipe(folder), "--jobs", 1, work=folder / "work").stdout)


def contents(work: Path) -> dict[str, Any]:
    """What every cache holds, by folder name: the bytes of its parts, and what its manifest says of them."""
    found: dict[str, Any] = {}
    for manifest in sorted((work / "caches").glob("*/*/manifest.json")):
        value = read_json(manifest)
        parts = {path.name: path.read_bytes() for path in sorted(manifest.parent.glob("part-*.h5"))}
        told = {name: value[name] for name in ("key", "items", "rows", "skipped", "summary", "parts")}
        found[manifest.parent.name] = (parts, told)
    return found
