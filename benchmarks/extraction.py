"""How much of the network's speed extraction keeps: `python -m benchmarks.extraction`.

Three variants compute the features of the same regions in turn on all cores:

- `bare`: the network's forward pass on ready-made batches, nothing else; one single-threaded process per core;
- `ours`: the extract stage, from JPEG files to a float16 cache on disk, in as many processes with the same batches,
  arithmetic and memory settings;
- `loop`: the naive version: crop with Pillow, torchvision's transforms, one region at a time under no_grad, PyTorch's
  own threads and memory; one process.

Weights are random, as speed does not depend on them. Prints medians over the rounds and the ratios ours / bare (target:
at least 0.85) and ours / loop (target: at least 2.5 in the same arithmetic, float32).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.datasets import Dataset, ImageRecord

if TYPE_CHECKING:
    from stages.extract import Settings
    from stages.networks import NetworkSource

LAYERS = {"squeezenet1_0": "fire9_2x2", "alexnet": "fc7", "tnet": "fc7", "onet": "fc7"}
SMALL = ("squeezenet1_0", "alexnet")  # the networks compared with the plain loop
WIDTH, HEIGHT = 500, 375
REGIONS = 96  # per image


@dataclass(frozen=True)
class Case:
    """The features to compute, and on which device."""

    network: str
    precision: str
    batch_size: int = 32
    regions: int = REGIONS  # per image
    device: str = "cpu"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `--worker` is how the benchmark starts its own processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2, help="images per process in a round of ours and bare")
    parser.add_argument("--networks", nargs="+", default=list(SMALL), choices=list(SMALL))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--worker", nargs=4, metavar=("VARIANT", "NETWORK", "PRECISION", "THREADS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    if options.worker:
        variant, network, precision, threads = options.worker
        serve(variant, Case(network, precision), int(threads))
        return
    print(describe_machine(options.cores))
    print(f"{'network':15}{'arithmetic':12}{'bare':>8}{'ours':>8}{'loop':>8}   regions/s   ours/bare  ours/loop")
    for network in options.networks:
        for precision in options.precisions:
            rates = compare(Case(network, precision), options.rounds, options.images, options.cores)
            print_row(network, precision, rates)


def describe_machine(cores: int) -> str:
    """The processor, the cores used, the load before the start, and the versions."""
    import torch
    import torchvision

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), model)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{model}, {cores} cores used, load {os.getloadavg()[0]:.1f}\n{versions}"


def print_row(network: str, precision: str, rates: dict[str, list[float]]) -> None:
    """Prints a line of the table; the ratios are medians of the rounds' ratios."""
    middle = {variant: statistics.median(values) for variant, values in rates.items()}
    against = {variant: median_ratio(rates["ours"], rates[variant]) for variant in ("bare", "loop")}
    print(
        f"{network:15}{precision:12}{middle['bare']:8.1f}{middle['ours']:8.1f}{middle['loop']:8.1f}"
        f"{against['bare']:23.2f}{against['loop']:11.2f}",
        flush=True,
    )


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def compare(case: Case, rounds: int, images: int, cores: int) -> dict[str, list[float]]:
    """Regions per second of each variant in each round; the ways take turns. The loop always computes in float32."""
    loop = Case(case.network, "float32")
    ways = {
        "bare": [Worker("bare", case, 1) for _ in range(cores)],
        "ours": [Worker("ours", case, 1) for _ in range(cores)],
        "loop": [Worker("loop", loop, cores)],
    }
    try:
        for workers in ways.values():
            together(workers, 1)
        rates: dict[str, list[float]] = {variant: [] for variant in ways}
        for _ in range(rounds):
            for variant, workers in ways.items():
                rates[variant].append(together(workers, 1 if variant == "loop" else images))
        return rates
    finally:
        for workers in ways.values():
            for worker in workers:
                worker.stop()


def together(workers: Sequence[Worker], images: int) -> float:
    """Regions per second of workers that start together, each on this many images, until the last one ends."""
    started = time.perf_counter()
    for worker in workers:
        worker.start(images)
    for worker in workers:
        worker.wait()
    return len(workers) * images * REGIONS / (time.perf_counter() - started)


class Worker:
    """A process that computes features on request."""

    def __init__(self, variant: str, case: Case, threads: int) -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.extraction",
            "--worker",
            variant,
            case.network,
            case.precision,
            str(threads),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )

    def start(self, images: int) -> None:
        """Starts work on this many images."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{images}\n")

    def wait(self) -> None:
        """Waits until the work is done. Raises RuntimeError if the process died."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "done\n":
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} died")  # type: ignore[arg-type]

    def stop(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(variant: str, case: Case, threads: int) -> None:
    """The worker's loop: for each number on standard input, computes that many images, then prints "done"."""
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        work = {"bare": bare_forward, "ours": our_extraction, "loop": plain_loop}[variant](case, Path(folder))
        for line in sys.stdin:
            work(int(line))
            print("done", flush=True)


def random_boxes(seed: int, count: int = REGIONS) -> np.ndarray:
    """Boxes of all sizes inside the image: float32 [count, 4]."""
    generator = np.random.default_rng(seed)
    sides = np.exp(generator.uniform(np.log(20), np.log((WIDTH, HEIGHT)), (count, 2)))
    corners = generator.uniform(0, np.array((WIDTH, HEIGHT)) - sides)
    return np.hstack([corners, corners + sides]).round().astype(np.float32)


def image_file(folder: Path) -> Path:
    """The path of a JPEG file of smooth noise, written if needed."""
    from PIL import Image

    path = folder / "image.jpg"
    if not path.exists():
        noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 15, WIDTH // 15, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def bare_forward(case: Case, folder: Path) -> Callable[[int], None]:
    """The forward pass alone, on as many batches as the extraction would need for the same regions."""
    import torch

    from stages.extract.features import load_network
    from stages.networks.memory import keep_large_buffers

    keep_large_buffers()
    settings, source = recipe(case)
    network = load_network(source, settings, "cpu")
    side = network.input_size
    batch = torch.randn(case.batch_size, 3, side, side).to(network.dtype, memory_format=torch.channels_last)

    def work(images: int) -> None:
        with torch.inference_mode():
            for _ in range(images * case.regions // case.batch_size):
                network.forward(batch, settings.layers)

    return work


def recipe(case: Case) -> tuple[Settings, NetworkSource]:
    """The extract stage's settings and the network."""
    from stages.extract import Settings
    from stages.networks import NetworkSettings, NetworkSource

    settings = Settings(layers=(LAYERS[case.network],), precision=case.precision)
    return settings, NetworkSource.from_settings(NetworkSettings(case.network, "random"))


class OneImage(Dataset):
    """A dataset of the same image file under many names, without objects."""

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.image_ids = tuple(f"{number:06}" for number in range(count))

    def image_path(self, image_id: str) -> Path:
        """The path of the one file."""
        return self.path

    def read_image(self, image_id: str) -> np.ndarray:
        """The same pixels, decoded on every call."""
        from stages.images.reading import read_image

        return read_image(self.path)

    def record(self, image_id: str) -> ImageRecord:
        """A record without objects."""
        nothing = np.zeros(0, bool)
        boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        return ImageRecord(image_id, self.path, WIDTH, HEIGHT, boxes, labels, nothing, nothing, nothing, ())


def our_extraction(case: Case, folder: Path) -> Callable[[int], None]:
    """The extract stage as the command runs it, writing a new cache each time."""
    from cache import Column, Identity, Reader, Schema, Writer
    from stages.contract.execution import Execution
    from stages.contract.inputs import Inputs
    from stages.extract import STAGE, stage

    settings, source = recipe(case)
    runs = 0

    def work(images: int) -> None:
        nonlocal runs
        runs += 1
        dataset = OneImage(image_file(folder), images)
        schema = Schema(rows={"boxes": Column("float32", (4,))})
        proposals = Writer(
            folder / f"proposals-{runs}", Identity("propose", 1), dataset.image_ids, schema, part_size=images
        )
        for part in proposals.claim():
            proposals.write(part, [{"boxes": random_boxes(seed, case.regions)} for seed in range(images)])
        proposals.finish({})
        proposals.release()
        inputs = Inputs({"images": dataset, "proposals": Reader(folder / f"proposals-{runs}"), "network": source})
        output = Writer(
            folder / f"features-{runs}",
            Identity("extract", 1),
            stage.items(settings, inputs),
            stage.schema(settings, inputs),
            part_size=STAGE.part_size,
        )
        stage.run(settings, inputs, output, Execution(batch_size=case.batch_size, device=case.device))
        output.release()

    return work


def plain_loop(case: Case, folder: Path) -> Callable[[int], None]:
    """The naive version, one region at a time."""
    import torch
    from PIL import Image
    from torchvision import models, transforms

    network = models.get_model(case.network, weights=None).eval()
    prepare = transforms.Compose(
        [
            transforms.Resize((227, 227)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def features(region: torch.Tensor) -> torch.Tensor:
        maps = network.features(region)
        if case.network == "alexnet":
            return network.classifier[:6](network.avgpool(maps).flatten(1))
        return torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)

    def work(images: int) -> None:
        with torch.no_grad():
            for seed in range(images):
                image = Image.open(image_file(folder)).convert("RGB")
                rows = [
                    features(prepare(image.crop(tuple(box))).unsqueeze(0)).numpy()
                    for box in random_boxes(seed).tolist()
                ]
                np.concatenate(rows).astype(np.float16)

    return work


if __name__ == "__main__":
    main()
