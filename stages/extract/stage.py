"""The stage: images and their proposals in, features of all regions out."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray

from cache import Column, Part, Reader, Record, Schema, Writer
from stages.datasets import Dataset
from stages.errors import BadImage, StageError
from stages.execution import Execution, Progress, SilentProgress, leave_interrupts_to_parent
from stages.extract import Settings
from stages.extract.features import arithmetic, check_layers, extract_features, load_network, stored_dtype
from stages.images import Pixels, read_image
from stages.memory import keep_large_buffers
from stages.networks import NetworkSource
from stages.networks.network import Network

log = logging.getLogger("stages.extract")

PROPOSAL = -1
READ_AHEAD = {"cpu": 1, "cuda": 8}


def items(settings: Settings, inputs: Mapping[str, Any]) -> Sequence[str]:
    """The images of the dataset."""
    return list(inputs["images"].image_ids)


def schema(settings: Settings, inputs: Mapping[str, Any]) -> Schema:
    """For each region its box and what it is (`label` -1 for a proposal), and one column for each layer."""
    layers = check_layers(settings, inputs["network"])
    return Schema(
        item="image",
        rows={
            "boxes": Column("float32", (4,)),
            "is_object": Column("bool"),
            "label": Column("int32"),
            "difficult": Column("bool"),
            **{name: Column(stored_dtype(settings, name), (dimension,)) for name, dimension in layers.items()},
        },
        per_item={"image_size": Column("int32", (2,))},
    )


def run(settings: Settings, inputs: Mapping[str, Any], output: Writer, execution: Execution) -> None:
    """Extracts from every image of the parts that can be claimed.

    On the CPU `execution.jobs` processes of one thread each take a part at a time (two single threads outrun a pair of
    threads); on CUDA one process feeds the device. The features do not depend on the number of processes.
    """
    source: NetworkSource = inputs["network"]
    task = Extraction(settings, inputs["images"], inputs["proposals"], source, output, execution)
    with execution.progress("extract", output.remaining_items, "images") as bar:
        if execution.jobs == 1 or execution.device.startswith("cuda"):
            fill_parts(task, output.claim(), bar)
        else:
            load_network(source, settings, "cpu")  # downloads, and complains, once and here
            fill_in_processes(task, output.claim(), bar)


def summarise(settings: Settings, inputs: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """The network, the dimension of each layer and how many regions are objects."""
    source: NetworkSource = inputs["network"]
    objects = sum(int(record["is_object"].sum()) for _, record in reader.records(["is_object"]))
    return {
        "network": source.identity(),
        "class_names": list(source.class_names),
        "layers": {name: source.layers[name] for name in settings.layers},
        "objects": objects,
        "proposals": int(reader.lengths().sum()) - objects,
    }


@dataclass(frozen=True)
class Extraction:
    """What a process needs to make parts of the cache; may be pickled."""

    settings: Settings
    images: Dataset
    proposals: Reader
    source: NetworkSource
    output: Writer
    execution: Execution


def fill_in_processes(task: Extraction, parts: Iterable[Part], bar: Progress) -> None:
    """Each part in one of several processes, claimed only when a process is free for it.

    Raises whatever a process raised, StageError if one died.
    """
    jobs = task.execution.jobs
    portable = replace(task, execution=replace(task.execution, jobs=1, progress=Execution().progress))
    try:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            workers = Parallel(n_jobs=jobs, pre_dispatch=jobs, batch_size=1, return_as="generator_unordered")
            for images, rows in workers(delayed(fill_part)(portable, part) for part in parts):
                bar.advance(images, rows)
    except TerminatedWorkerError as error:
        raise StageError(
            "extract: a worker process died, most likely for lack of memory; "
            "take fewer --jobs or a smaller --batch-size"
        ) from error
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)  # their buffers are large and kept


def fill_part(task: Extraction, part: Part) -> tuple[int, int]:
    """Makes one part in a process of its own; returns how many images and regions it has."""
    leave_interrupts_to_parent()
    count = Count()
    fill_parts(task, [part], count)
    return count.items, count.rows


class Count(SilentProgress):
    """A progress that is told to nobody, but added up."""

    def __init__(self) -> None:
        self.items = self.rows = 0

    def advance(self, items: int = 1, rows: int = 0) -> None:
        """Adds."""
        self.items += items
        self.rows += rows


def fill_parts(task: Extraction, parts: Iterable[Part], bar: Progress) -> None:
    """Makes `parts` in this process: images are decoded and finished parts written while the network runs.

    Raises BadImage (unless bad images are to be skipped), StageError, CacheError.
    """
    keep_large_buffers()
    device = task.execution.device
    network = loaded(task.source, task.settings, device)
    depth = READ_AHEAD["cuda" if device.startswith("cuda") else "cpu"]
    reader = RegionReader(task, pin=device.startswith("cuda"))
    with (
        arithmetic(task.settings, device),
        ThreadPoolExecutor(depth) as reading,
        ThreadPoolExecutor(1) as writing,
    ):
        records: list[Record] = []
        skipped: dict[str, str] = {}
        pending: Future[None] | None = None
        for part, regions in ahead(reading, reader.read, parts, depth):
            records.append(record_of(regions, network, task))
            if regions.skipped:
                skipped[regions.image_id] = regions.skipped
            bar.advance(1, len(regions.boxes))
            if len(records) == len(part.item_ids):
                if pending is not None:
                    pending.result()  # at most one part waits in memory
                pending = writing.submit(task.output.write, part, records, skipped)
                records, skipped = [], {}
        if pending is not None:
            pending.result()


@functools.lru_cache(maxsize=1)
def loaded(source: NetworkSource, settings: Settings, device: str) -> Network:
    """The network, loaded once in a process."""
    return load_network(source, settings, device)


@dataclass(frozen=True)
class Regions:
    """One image with its n regions, ground truth first: boxes float32 [n, 4], labels int32 [n], flags bool [n].

    `pixels` is uint8 [H, W, 3], RGB. A `skipped` image has no region, one pixel, and the reason.
    """

    image_id: str
    pixels: torch.Tensor
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    difficult: NDArray[np.bool_]
    skipped: str = ""


class RegionReader:
    """Reads images and their regions; may be asked from several threads. `pin` puts pixels into page-locked memory."""

    def __init__(self, task: Extraction, pin: bool) -> None:
        self.task = task
        self.pin = pin
        self.one_at_a_time = threading.Lock()

    def read(self, image_id: str) -> Regions:
        """The regions of an image. Raises BadImage unless bad images are to be skipped."""
        try:
            pixels = read_image(self.task.images.image_path(image_id))
        except BadImage as error:
            if not self.task.execution.skip_bad_images:
                raise
            log.warning("%s: skipped, it %s", error.path, error.reason)
            nothing = torch.zeros((1, 1, 3), dtype=torch.uint8)
            return Regions(image_id, nothing, *no_regions(), error.reason)
        with self.one_at_a_time:
            objects = self.task.images.record(image_id)
            proposals = self.task.proposals.read(image_id, ["boxes"])["boxes"]
        return Regions(
            image_id,
            self.as_tensor(pixels),
            np.concatenate([objects.boxes, proposals]).astype(np.float32),
            np.concatenate([objects.labels, np.full(len(proposals), PROPOSAL)]).astype(np.int32),
            np.concatenate([objects.difficult, np.zeros(len(proposals), bool)]),
        )

    def as_tensor(self, pixels: Pixels) -> torch.Tensor:
        """The pixels as a tensor."""
        tensor = torch.from_numpy(pixels)
        return tensor.pin_memory() if self.pin else tensor


def no_regions() -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """Boxes, labels and flags of an image without regions."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)


def record_of(regions: Regions, network: Network, task: Extraction) -> Record:
    """The image's record: its regions and their features."""
    features = extract_features(regions.pixels, regions.boxes, network, task.settings, task.execution.batch_size)
    height, width = regions.pixels.shape[:2]
    size = (0, 0) if regions.skipped else (width, height)
    return {
        "boxes": regions.boxes,
        "is_object": regions.labels != PROPOSAL,
        "label": regions.labels,
        "difficult": regions.difficult,
        "image_size": np.array(size, np.int32),
        **features,
    }


def ahead(
    threads: ThreadPoolExecutor, read: Callable[[str], Regions], parts: Iterable[Part], depth: int
) -> Iterator[tuple[Part, Regions]]:
    """The regions of every image of `parts` in order, up to `depth` images read before they are asked for."""
    queue: deque[tuple[Part, Future[Regions]]] = deque()
    for part in parts:
        for image_id in part.item_ids:
            queue.append((part, threads.submit(read, image_id)))
            if len(queue) > depth:
                first, regions = queue.popleft()
                yield first, regions.result()
    for first, regions in queue:
        yield first, regions.result()
