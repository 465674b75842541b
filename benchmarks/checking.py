"""What verifying parts detects and what it costs: `python -m benchmarks.checking --gigabytes 10 --repeats 5`.

Flips every bit of a small part, once with the SHA-256 checked and once with a trusted disk (RCNN_TRUST_DISK=1), and
counts what was noticed, what was harmless and what was read wrongly. Then reads a cache of features, and runs a recipe,
with and without the check, alternately, each time in a new process. `--recipe recipes/shapes.toml` runs what `make all`
runs and times every check in all its processes. Exit status 1 if anything was read wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from cache import Column, DamagedPart, Identity, Reader, Schema, Writer
from cache.parts import TRUST_DISK, VERIFIED
from tests.pipeline import PROJECT, SMALL, write_recipe

BOXES, DIMENSION, IMAGES_PER_PART = 2000, 4096, 4
READ = """
import sys, time
from pathlib import Path
from cache import Reader
started, total = time.perf_counter(), 0
for _, record in Reader(Path(sys.argv[1])).records(["fc7"]):
    total += record["fc7"].nbytes
print(time.perf_counter() - started, total)
"""

# Imported by every process at start-up, from PYTHONPATH: logs each check's bytes and processor seconds.
TIMED = """
import os, time
import cache.parts as parts
compare = parts.verify_descriptor
def timed(path, descriptor):
    started = time.thread_time()
    try:
        return compare(path, descriptor)
    finally:
        line = f"{os.fstat(descriptor).st_size} {time.thread_time() - started}\\n"
        with open(os.environ["COMPARISONS"], "a") as file:
            file.write(line)
parts.verify_descriptor = timed
"""


def small_part(folder: Path) -> Path:
    """A part of two images with boxes."""
    schema = Schema(rows={"boxes": Column("float32", (4,))})
    writer = Writer(folder, Identity("flips", 1), ["a", "b"], schema, part_size=2)
    for part in writer.claim():
        writer.write(part, [{"boxes": np.full((rows, 4), rows, np.float32)} for rows in (2, 3)])
    writer.finish({})
    writer.release()
    return folder / "part-00000.h5"


def flip_every_bit(path: Path) -> Counter[str]:
    """Counts the outcomes of reading the whole part with each of its bits flipped in turn."""
    content, counts = path.read_bytes(), Counter({"noticed": 0, "harmless": 0, "wrong": 0})
    reader = Reader(path.parent)
    expected = list(reader.records())
    with path.open("r+b") as file:
        for place, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                VERIFIED.clear()
                counts[outcome(reader, expected)] += 1
            os.pwrite(file.fileno(), bytes([byte]), place)
    return counts


def outcome(reader: Reader, expected: list[tuple[str, dict[str, np.ndarray]]]) -> str:
    """The outcome of opening and reading the part: "noticed", "harmless" or "wrong"."""
    try:
        records = list(reader.records())
    except DamagedPart:
        return "noticed"
    finally:
        reader.close()
    same = len(records) == len(expected) and all(
        item == other and all(np.array_equal(record[name], values) for name, values in right.items())
        for (item, record), (other, right) in zip(records, expected, strict=True)
    )
    return "harmless" if same else "wrong"


def write_features(folder: Path, gigabytes: float) -> None:
    """Writes a cache of fc7 features of about this size, of images with 2,000 boxes."""
    record_bytes = BOXES * DIMENSION * 2
    ids = [f"{number:06d}" for number in range(max(1, round(gigabytes * 1e9 / record_bytes)))]
    schema = Schema(rows={"fc7": Column("float16", (DIMENSION,))})
    values = np.random.default_rng(0).random((BOXES, DIMENSION), np.float32).astype(np.float16)
    writer = Writer(folder, Identity("extract", 1), ids, schema, part_size=IMAGES_PER_PART)
    for part in writer.claim():
        writer.write(part, [{"fc7": np.roll(values, int(item_id), 0)} for item_id in part.item_ids])
    writer.finish({})
    writer.release()


def seconds_to_read(folder: Path, trust: bool) -> float:
    """Wall seconds that a new process takes to read all features."""
    line = [sys.executable, "-c", READ, str(folder)]
    process = subprocess.run(line, env=environment(trust), cwd=PROJECT, capture_output=True, text=True, check=True)
    return float(process.stdout.split()[0])


def seconds_to_run(recipe: Path, folder: Path, trust: bool) -> float:
    """Processor seconds of `rcnn run` on the whole recipe, from scratch."""
    shutil.rmtree(folder, ignore_errors=True)
    line = [sys.executable, "-m", "rcnn_cli", "run", str(recipe), "--work", str(folder), "--jobs", "1"]
    before = os.times()
    subprocess.run(line, env=environment(trust), cwd=PROJECT, capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def share_of(recipe: Path, folder: Path) -> str:
    """Runs the recipe and its report as `make all` does; returns one line on the time that its checks took."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TIMED)
    comparisons = folder / "comparisons"
    path = os.pathsep.join([str(folder), str(PROJECT)])
    environment = {**os.environ, TRUST_DISK: "0", "PYTHONPATH": path, "COMPARISONS": str(comparisons)}
    before = os.times()
    for command in ("run", "report"):
        line = [sys.executable, "-m", "rcnn_cli", command, str(recipe), "--work", str(folder / "work")]
        subprocess.run(line, env=environment, cwd=PROJECT, capture_output=True, check=True)
    after = os.times()
    total = after.children_user + after.children_system - before.children_user - before.children_system
    checks = [[float(cell) for cell in row.split()] for row in comparisons.read_text().splitlines()]
    size, seconds = sum(row[0] for row in checks) / 1e9, sum(row[1] for row in checks)
    return (
        f"{recipe}: {len(checks)} checks of {size:.2f} GB in {seconds:.1f} of {total:.0f} processor seconds "
        f"({100 * seconds / total:.2f} %), {after.elapsed - before.elapsed:.0f} s of wall time"
    )


def environment(trust: bool) -> dict[str, str]:
    """The environment of a process that trusts the disk or checks SHA-256s."""
    return {**os.environ, TRUST_DISK: str(int(trust)), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}


def alternately(measure: Callable[[bool], float], repeats: int) -> dict[bool, list[float]]:
    """Calls `measure(trust)` for False and True in turn, after one warm-up call."""
    measure(True)
    measured: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for trust in (False, True):
            measured[trust].append(measure(trust))
    return measured


def row(name: str, measured: dict[bool, list[float]]) -> str:
    """One line of the table: medians (minimum to maximum) and the overhead of checking."""
    checked, trusted = measured[False], measured[True]
    cells = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in (checked, trusted)]
    overhead = statistics.median(checked) / statistics.median(trusted) - 1
    return f"| {name} | {cells[0]} | {cells[1]} | {100 * overhead:+.1f} % |"


def main() -> None:
    """Measures and prints the tables; exit status 1 if anything was read wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10, help="size of the features to read; 0: do not measure")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement; 0: only flip bits")
    parser.add_argument("--no-flips", action="store_true", help="do not flip bits")
    parser.add_argument("--recipe", type=Path, help="run this recipe and report the share of time that its checks take")
    arguments = parser.parse_args()
    wrong = 0
    folder = Path(tempfile.mkdtemp(prefix="checking-"))
    try:
        if not arguments.no_flips:
            path = small_part(folder / "flips")
            print(f"a part of {path.stat().st_size} bytes, every bit flipped:")
            for trust in ("0", "1"):
                os.environ[TRUST_DISK] = trust
                counts = flip_every_bit(path)
                wrong += counts["wrong"]
                print(f"{TRUST_DISK}={trust}: {json.dumps(counts)}", flush=True)
            del os.environ[TRUST_DISK]
        if arguments.repeats:
            print("| seconds, median (min. to max.) | checked | trusted | overhead |\n|---|---:|---:|---:|")
        if arguments.repeats and arguments.gigabytes:
            started = time.perf_counter()
            write_features(folder / "features", arguments.gigabytes)
            print(f"written in {time.perf_counter() - started:.0f} s", file=sys.stderr)
            measured = alternately(lambda trust: seconds_to_read(folder / "features", trust), arguments.repeats)
            print(row(f"reading {arguments.gigabytes:g} GB of features", measured), flush=True)
            shutil.rmtree(folder / "features")
        if arguments.repeats:
            recipe = write_recipe(folder, SMALL)
            measured = alternately(lambda trust: seconds_to_run(recipe, folder / "work", trust), arguments.repeats)
            print(row("the tests' small recipe, processor seconds", measured))
        if arguments.recipe:
            print(share_of(arguments.recipe.resolve(), folder / "recipe"), flush=True)
        versions = f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, NumPy {np.__version__}"
        print(f"Python {platform.python_version()}, {versions}, {platform.system()} {platform.release()}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
