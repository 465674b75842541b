"""`python -m benchmarks.classes`: training and scoring from 10 to 100,000 classes, against R-CNN section 2.2.

The real stages run, each in its own process, on generated fc7 features: relu(z A - 1.04) with a fixed Gaussian A of
64 x 4,096 and z of unit variance, made of 1.5 parts the direction of the class that a region shows and 1 part noise, so
that 15 % of the numbers are non-zero. Training uses `--images` images of `--regions` regions, among them two objects of
every class, in random order; half of the other regions lie beside an object and show its class weakly (0.7 parts), the
rest lie anywhere and show any class. Scoring uses `--scored-images` images of 2,000 proposals. For more than the
`--classes`, SVMs are random instead of trained.

Prints tables in Markdown; `--plot FILE` draws them; `--results FILE` stores the numbers and reuses those it has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import Column, Identity, Reader, Record, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import identity_of
from stages.datasets import Dataset

DIMENSION, LATENT, PROPOSALS, POSITIVES = 4096, 64, 2000, 2
WIDTH, HEIGHT = 500, 375
OBJECT, BESIDE, ANYWHERE = 1.5, 0.7, 1.5
PAPER_CLASSES, PAPER_SECONDS, PAPER_GIGABYTES = 100_000, 10.0, 1.5
FEATURES = Schema(
    "image",
    {
        "boxes": Column("float32", (4,)),
        "is_object": Column("bool"),
        "label": Column("int32"),
        "difficult": Column("bool"),
        "fc7": Column("float16", (DIMENSION,)),
    },
    {"image_size": Column("int32", (2,))},
)


class Scenes(Dataset):
    """The classes and ids of generated images, which have neither files nor crowds."""

    def __init__(self, classes: tuple[str, ...], image_ids: tuple[str, ...]) -> None:
        self.classes = classes
        self.image_ids = image_ids


# Generated data


def features_of(labels: np.ndarray, strengths: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Features, float16 [n, 4096], of regions that show the classes `labels` [n] with these `strengths` [n]."""
    mixing = np.random.default_rng(0).standard_normal((LATENT, DIMENSION), np.float32) / np.float32(np.sqrt(LATENT))
    different, where = np.unique(labels, return_inverse=True)
    classes = [np.random.default_rng((1, label)).standard_normal(LATENT, np.float32) for label in different.tolist()]
    shown = strengths[:, None] * np.stack(classes)[where] + generator.standard_normal((len(labels), LATENT))
    shown /= np.sqrt(1 + strengths**2)[:, None]
    return np.maximum(shown.astype(np.float32) @ mixing - np.float32(1.04), 0).astype(np.float16)


def image_record(labels: np.ndarray, proposals: int, classes: int, generator: np.random.Generator) -> Record:
    """The record of an image with one object per entry of `labels` and `proposals` other regions."""
    objects = random_boxes(len(labels), generator)
    near = proposals // 2 if len(labels) else 0
    source = generator.integers(0, max(1, len(labels)), near)
    beside = objects[source] + generator.uniform(-30, 30, (near, 4))
    boxes = np.vstack([objects, beside, random_boxes(proposals - near, generator)])
    boxes = np.hstack([boxes[:, :2].clip(0, (WIDTH - 20, HEIGHT - 20)), boxes[:, 2:].clip(20, (WIDTH, HEIGHT))])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 10)
    shown = np.concatenate([labels, labels[source], generator.integers(0, classes, proposals - near)])
    strengths = np.repeat((OBJECT, BESIDE, ANYWHERE), (len(labels), near, proposals - near))
    label = np.full(len(boxes), -1, np.int32)
    label[: len(labels)] = labels
    return {
        "boxes": boxes.astype(np.float32),
        "is_object": label >= 0,
        "label": label,
        "difficult": np.zeros(len(boxes), bool),
        "fc7": features_of(shown, strengths, generator),
        "image_size": np.array([WIDTH, HEIGHT], np.int32),
    }


def random_boxes(count: int, generator: np.random.Generator) -> np.ndarray:
    """Random boxes with sides of 30 to 200 pixels: float64 [count, 4]."""
    corners = generator.uniform(0, (WIDTH - 30, HEIGHT - 30), (count, 2))
    return np.hstack([corners, corners + generator.uniform(30, 200, (count, 2))])


def write_cache(folder: Path, identity: Identity, ids: Sequence[str], schema: Schema, records: Any, size: int) -> None:
    """A finished cache with `records(item number)`."""
    writer = Writer(folder, identity, ids, schema, part_size=size)
    for part in writer.claim():
        low = part.index * size
        writer.write(part, [records(number) for number in range(low, low + len(part.item_ids))])
    writer.finish({"settings": dict(identity.settings)})
    writer.release()


def write_features(folder: Path, images: int, regions: int, classes: int, seed: int) -> None:
    """Writes training features: `POSITIVES` objects of every class, distributed evenly over the images."""
    every = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), POSITIVES))
    objects = np.array_split(every, images)

    def record(number: int) -> Record:
        labels = objects[number]
        return image_record(labels, max(0, regions - len(labels)), classes, np.random.default_rng((seed, number)))

    ids = [f"{number:06}" for number in range(images)]
    write_cache(folder, Identity("extract", 1, {"classes": classes, "seed": seed}), ids, FEATURES, record, 4)


def write_scenes(folder: Path, images: int, classes: int) -> None:
    """Writes features to score: 2,000 proposals per image and no objects."""

    def record(number: int) -> Record:
        return image_record(np.zeros(0, np.int64), PROPOSALS, classes, np.random.default_rng((7, number)))

    ids = [f"{number:06}" for number in range(images)]
    write_cache(folder, Identity("extract", 1, {"scenes": classes}), ids, FEATURES, record, 1)


def write_random_svms(folder: Path, classes: int, features: Path) -> None:
    """Writes SVMs with random weights for these features: as large and as expensive as trained ones."""
    from stages.train_svm import Settings
    from stages.train_svm.stage import schema

    columns = schema(Settings(), Inputs({"features": Reader(features)}))

    def record(label: int) -> Record:
        generator = np.random.default_rng((9, label))
        drawn = {"weights": 0.01 * generator.standard_normal(DIMENSION), "bias": np.array(-1.0), "scale": np.array(0.3)}
        return {**columns.empty(), **drawn}

    names = class_names(classes)
    write_cache(folder, Identity("train-svm", 1, identity_of(Settings())), names, columns, record, 64)


def class_names(classes: int) -> list[str]:
    """The names class000000, class000001 and so on."""
    return [f"class{label:06}" for label in range(classes)]


# Measurements, each in its own process


def train(folder: Path, features: Path, classes: int, jobs: int, memory: float) -> dict[str, float]:
    """Runs train-svm; returns its time, memory, and statistics of its result."""
    from stages.train_svm import Settings
    from stages.train_svm import stage as train_svm

    settings = Settings(memory=memory)
    reader = Reader(features)
    inputs = Inputs({"images": Scenes(tuple(class_names(classes)), reader.item_ids), "features": reader})
    passes, hold = [0], train_svm.Mining.hold_examples

    def counted(self: Any) -> None:
        passes[0] += 1
        hold(self)

    train_svm.Mining.hold_examples = counted  # type: ignore[method-assign]
    made = run_stage(train_svm, "train-svm", settings, inputs, folder, Execution(jobs=jobs))
    kept = [len(record["log/image"]) for _, record in Reader(folder).records(["log/image"])]
    negatives = [int(record["log/negatives"].max(initial=0)) for _, record in Reader(folder).records(["log/negatives"])]
    disk = sum(path.stat().st_size for path in folder.glob("part-*.h5"))
    return {
        **made,
        "passes": passes[0],
        "rounds": float(np.mean(kept)),
        "negatives": float(np.median(negatives)),
        "disk": disk / 1e6,
    }


def detect(folder: Path, features: Path, svms: Path, jobs: int) -> dict[str, float]:
    """Runs detect without box regression; returns its time, memory and output size."""
    import torchvision.ops  # noqa: F401 - imported here, as its 1.5 s are not the stage's

    from stages.detect import Settings
    from stages.detect import stage as detecting

    inputs = Inputs({"features": Reader(features), "svm": Reader(svms)})
    settings = Settings(bbox_regression=False)
    made = run_stage(detecting, "detect", settings, inputs, folder, Execution(jobs=jobs))
    disk = sum(path.stat().st_size for path in folder.glob("part-*.h5"))
    return {**made, "images": len(inputs.reader("features")), "disk": disk / 1e6}


def score(features: Path, svms: Path, repeats: int) -> dict[str, float]:
    """Times one image of 2,000 proposals: the bare matrix product on one thread and on all, and all of detection."""
    from threadpoolctl import threadpool_limits

    from stages.detect import Settings
    from stages.detect.scoring import Head
    from stages.detect.trace import detect_image
    from stages.features.linear_models import read_svms

    start = time.perf_counter()
    models = read_svms(Reader(svms))
    reading = time.perf_counter() - start
    record = Reader(features).read("000000")
    boxes, rows = record["boxes"], {"fc7": record["fc7"]}
    plain = record["fc7"].astype(np.float32)
    with threadpool_limits(1, user_api="blas"):
        alone = median_times(lambda: plain @ models.weights.T, repeats)
    together = median_times(lambda: plain @ models.weights.T, repeats)
    with threadpool_limits(1, user_api="blas"):
        head = Head(models)
        whole = median_times(
            lambda: detect_image(head.scored(boxes, rows, (WIDTH, HEIGHT)), Settings()).detections, repeats
        )
    return {
        "reading": reading,
        "product": alone[1],
        "product_wall": alone[0],
        "product_threads_wall": together[0],
        "whole": whole[1],
        "whole_wall": whole[0],
        "weights": models.weights.nbytes / 1e6,
    }


def median_times(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """The median wall and processor seconds of `work`, after one warm-up call."""
    work()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return statistics.median(walls), statistics.median(processors)


def run_stage(
    stage: Any, name: str, settings: Any, inputs: Inputs, folder: Path, execution: Execution
) -> dict[str, float]:
    """Fills and finishes a cache; returns wall and processor seconds, including those of workers, and peak MB."""
    identity = Identity(name, 1, identity_of(settings))
    items, schema = stage.items(settings, inputs), stage.schema(settings, inputs)
    wall, before = time.perf_counter(), time.process_time()
    writer = Writer(folder, identity, items, schema, part_size=stage.part_size(settings, inputs))
    stage.run(settings, inputs, writer, execution)
    ran = time.perf_counter()
    writer.finish(
        {"settings": identity_of(settings)},
        lambda reader: stage.summarise(settings, inputs, reader),
    )
    writer.release()
    finished = time.perf_counter()
    if execution.jobs > 1 and name == "train-svm":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    processor = time.process_time() - before
    return {
        "wall": ran - wall,
        "finish": finished - ran,
        "cpu": processor + workers.ru_utime + workers.ru_stime,
        "cpu_own": processor,
        "peak": own.ru_maxrss / 1e3,
        "peak_worker": workers.ru_maxrss / 1e3,
    }


MEASURES: dict[str, Callable[..., dict[str, float]]] = {"train": train, "detect": detect, "score": score}


def measured(kind: str, **arguments: Any) -> dict[str, float]:
    """Calls one of MEASURES in a fresh process."""
    line = [sys.executable, "-m", "benchmarks.classes", "--measure", kind, json.dumps(arguments, default=str)]
    return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


# Everything


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Measures everything that is not in `--results` yet; each measurement is added to it at once."""
    results = json.loads(options.results.read_text()) if options.results and options.results.exists() else {}

    def once(name: str, kind: str, **arguments: Any) -> None:
        if name in results:
            return
        print(f"{name} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        results[name] = measured(kind, **arguments)
        if options.results:
            options.results.write_text(json.dumps(results, indent=1))

    scenes = folder / "scenes"
    write_scenes(scenes, options.scored_images, max(options.classes))
    for classes in (*options.classes, *options.random):
        svms, random = folder / f"svm-{classes}", classes in options.random
        if random:
            write_random_svms(svms, classes, scenes)
        else:
            features = folder / f"features-{classes}"
            write_features(features, options.images, options.regions, classes, seed=classes)
            shared = {"features": features, "classes": classes, "jobs": options.jobs}
            once(f"train {classes}", "train", folder=svms, memory=options.memory, **shared)
            if classes == options.bounded:
                memory = options.bounded_memory
                once(f"bounded {classes}", "train", folder=folder / "bounded", memory=memory, **shared)
            if not svms.exists():  # they were trained in an earlier run
                write_random_svms(svms, classes, scenes)
        read = {"features": scenes, "svms": svms}
        once(f"score {classes}", "score", repeats=options.repeats, **read)
        once(f"detect {classes}", "detect", folder=folder / f"detect-{classes}", jobs=options.jobs, **read)
        for done in folder.glob(f"*-{classes}"):
            shutil.rmtree(done)
    return results


def training_table(results: dict[str, dict[str, float]]) -> Iterator[str]:
    """The training measurements as lines of a Markdown table."""
    yield (
        "| classes | rounds | negatives | passes | wall, s | processor, s | of which the stage's process "
        "| per class, ms | stage's process, MB | largest worker, MB | weights on disk, MB | finishing the cache, s |"
    )
    yield "|" + "---:|" * 12
    for name, run in results.items():
        kind, classes = name.split()
        if kind in ("train", "bounded"):
            bound = " (`memory` bounded)" if kind == "bounded" else ""
            yield (
                f"| {int(classes):,}{bound} | {run['rounds']:.1f} | {run['negatives']:,.0f} | {run['passes']} "
                f"| {run['wall']:,.0f} | {run['cpu']:,.0f} | {run['cpu_own']:,.0f} "
                f"| {1e3 * run['cpu'] / int(classes):.0f} | {run['peak']:,.0f} | {run['peak_worker']:,.0f} "
                f"| {run['disk']:,.1f} | {run['finish']:.1f} |"
            )


def scoring_table(results: dict[str, dict[str, float]]) -> Iterator[str]:
    """The scoring measurements as lines of a Markdown table."""
    yield (
        "| classes | weights in memory, MB | product, s | product on all cores, s | whole image, s | product's share "
        "| detect, s per image | detect, peak MB | its cache, MB per image |"
    )
    yield "|" + "---:|" * 9
    for name, run in results.items():
        kind, classes = name.split()
        if kind == "score":
            stage, share = results[f"detect {classes}"], run["product"] / run["whole"]
            yield (
                f"| {int(classes):,} | {run['weights']:,.1f} | {run['product']:.3f} "
                f"| {run['product_threads_wall']:.3f} | {run['whole']:.3f} | {share:.0%} "
                f"| {stage['cpu'] / stage['images']:.2f} | {stage['peak']:,.0f} "
                f"| {stage['disk'] / stage['images']:,.1f} |"
            )


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    """Draws time and memory by number of classes on logarithmic axes, with the paper's figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def points(kind: str, value: Callable[[dict[str, float]], float]) -> tuple[list[int], list[float]]:
        chosen = [(int(name.split()[1]), run) for name, run in results.items() if name.split()[0] == kind]
        return [classes for classes, _ in chosen], [value(run) for _, run in chosen]

    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    time_axes, memory_axes = figure.subplots(1, 2)
    lines: list[tuple[Any, str, str, Callable[[dict[str, float]], float], str, str]] = [
        (time_axes, "detecting in an image", "score", lambda run: run["whole"], "#2563ab", "o-"),
        (time_axes, "of which the matrix product", "score", lambda run: run["product"], "#2563ab", "o:"),
        (time_axes, "training, all classes", "train", lambda run: run["cpu"], "#d1602b", "s-"),
        (memory_axes, "detect", "detect", lambda run: run["peak"] / 1e3, "#2563ab", "o-"),
        (memory_axes, "of which the weights", "score", lambda run: run["weights"] / 1e3, "#2563ab", "o:"),
        (memory_axes, "train-svm", "train", lambda run: run["peak"] / 1e3, "#d1602b", "s-"),
    ]
    for ax, label, kind, value, colour, style in lines:
        ax.plot(*points(kind, value), style, color=colour, label=label, markersize=4, linewidth=1.3)
    time_axes.plot(PAPER_CLASSES, PAPER_SECONDS, "k*", markersize=11, label="R-CNN, section 2.2: 10 s per image")
    memory_axes.plot(PAPER_CLASSES, PAPER_GIGABYTES, "k*", markersize=11, label="R-CNN, section 2.2: 1.5 GB of weights")
    time_axes.set(ylabel="core-seconds", title="Time")
    memory_axes.set(ylabel="GB", title="Memory (peak resident set of the process)")
    for ax in (time_axes, memory_axes):
        ax.set(xlabel="classes", xscale="log", yscale="log")
        ax.grid(color="#e3e3e3", linewidth=0.6)
        ax.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def describe() -> str:
    """The processor and the relevant versions."""
    import sklearn
    from threadpoolctl import threadpool_info

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    blas = next(library for library in threadpool_info() if library["user_api"] == "blas")
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}, numpy {np.__version__} "
        f"({blas['internal_api']} {blas['version']}, {blas['architecture']}), scikit-learn {sklearn.__version__}"
    )


def main() -> None:
    """Measures, prints the tables and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="*", default=[10, 100, 1000, 10_000], help="train and score")
    parser.add_argument("--random", type=int, nargs="*", default=[100_000], help="score only, with random weights")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--regions", type=int, default=400)
    parser.add_argument("--scored-images", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--memory", type=float, default=1024.0, help="train-svm's `memory`")
    parser.add_argument("--bounded", type=int, default=1000, help="also train this many classes with --bounded-memory")
    parser.add_argument("--bounded-memory", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=5, help="timings of scoring; the median is reported")
    parser.add_argument("--results", type=Path, help="JSON of the measurements; those that it has are not repeated")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, arguments = options.measure[0], json.loads(options.measure[1])
        paths = {name: Path(value) for name, value in arguments.items() if name in ("folder", "features", "svms")}
        print(json.dumps(MEASURES[kind](**{**arguments, **paths})))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = measure_all(options, Path(folder))
    print(describe())
    print("", *training_table(results), "", *scoring_table(results), sep="\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
