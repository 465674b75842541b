"""The extract stage: from images, or their maps, and their proposals to the features of all regions."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Column, Part, Reader, Record, Schema, Writer
from stages.contract.errors import BadImage
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs, ItemReader, OnDemand
from stages.contract.precision import PrecisionTrial
from stages.contract.processes import fill_output
from stages.contract.settings import check_device
from stages.datasets import Dataset
from stages.extract import DENSE, FOREGROUND, MASKS, NONE, WARP, Settings, precision
from stages.extract.features import (
    dense_features,
    extract_features,
    layer_dimensions,
    network_of,
    pooled_features,
    stored_dtype,
    truncated_layers,
)
from stages.extract.parts import network_part
from stages.images.batches import images_ahead, read_ahead
from stages.images.reading import Pixels
from stages.images.warp import MaskOf
from stages.masks import COLUMNS, Mask, check_masks, mask_boxes, read_mask
from stages.networks import NetworkSource
from stages.networks.dense_reading import map_windows
from stages.networks.feature_maps import FeatureMaps, border_of, check_maps, read_maps
from stages.networks.memory import keep_large_buffers
from stages.networks.network import Network
from stages.networks.parts import NetworkPart
from stages.networks.precision import arithmetic, load_first
from stages.networks.truncated_svd import TruncatedLayers

log = logging.getLogger("stages.extract")

PROPOSAL = -1


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images of the dataset."""
    return list(inputs.dataset("images").image_ids)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """For each region, its box, what it is (`label` is -1 for a proposal) and its features, one column per layer; for
    each dense window, the number of its map as well (`level`)."""
    layers = layer_dimensions(settings, inputs.network("network"))
    return Schema(
        item="image",
        rows={
            "boxes": Column("float32", (4,)),
            "is_object": Column("bool"),
            "label": Column("int32"),
            "difficult": Column("bool"),
            **({"level": Column("int32")} if settings.method == DENSE else {}),
            **{name: Column(stored_dtype(settings, name), (dimension,)) for name, dimension in layers.items()},
        },
        per_item={"image_size": Column("int32", (2,))},
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Extracts the features of every image in the parts that can be claimed.

    On the CPU, `execution.jobs` single-threaded processes take one part at a time (two such processes are faster than
    one with two threads); on CUDA, one process feeds the device. Features do not depend on the number of processes.
    """
    with execution.progress("extract", output.remaining_items, "images") as bar:
        task = extraction(settings, inputs, execution)
        fill_output("extract", functools.partial(fill_parts, task, output), output, execution, bar)


def on_demand(settings: Settings, inputs: Inputs, execution: Execution) -> FeaturesOnDemand:
    """The features of every image, as the cache would hold them, computed when they are read."""
    columns = schema(settings, inputs)
    return FeaturesOnDemand(extraction(settings, inputs, execution), columns)


def extraction(settings: Settings, inputs: Inputs, execution: Execution) -> Extraction:
    """What each process needs. Raises BadSetting for a precision that the device lacks, StageError for weights that
    cannot be loaded, and as `Extraction.of`."""
    check_device(settings, execution.device, "extract.")
    if not execution.device.startswith("cuda"):
        load_first(inputs.network("network"), settings.precision, execution)
    return Extraction.of(settings, inputs, execution.in_worker)


def try_precisions(settings: Settings, inputs: Inputs, execution: Execution) -> PrecisionTrial | None:
    """Some proposals of one image in every precision that the CPU has; None on CUDA, for regions and windows of maps
    (which have a precision of their own), and where there are no proposals or no readable image."""
    if execution.device.startswith("cuda") or settings.method != WARP:
        return None
    images, proposals = inputs.dataset("images"), inputs.item_reader("proposals")
    for image_id in images.image_ids:
        boxes = proposals.read(image_id, ["boxes"])["boxes"]
        if len(boxes):
            log.info("Measuring the network's time in each precision, on one core.")
            return precision.try_precisions(images.read_image(image_id), boxes, inputs.network("network"), settings)
    return None


def network_parts(settings: Settings, inputs: Inputs, image_id: str) -> list[NetworkPart]:
    """The layers of regions, windows or crops, with those of this image."""
    task = Extraction.of(replace(settings, precision="float32"), inputs, Execution().in_worker)
    regions = RegionReader(task, pin=False).read(image_id)
    border = 0 if task.maps is None else border_of(task.maps)
    return [network_part(regions.cut_from, regions.boxes, task.network(), settings, border)]


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The network, the dimension of each layer, and the numbers of objects and proposals."""
    source = inputs.network("network")
    objects = sum(int(record["is_object"].sum()) for _, record in reader.records(["is_object"]))
    return {
        "network": source.identity(),
        "class_names": list(source.class_names),
        "layers": {name: source.layers[name] for name in settings.layers},
        "objects": objects,
        "proposals": int(reader.lengths().sum()) - objects,
    }


def attributes(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """The names of the classes that `label` indexes."""
    return {"classes": list(inputs.dataset("images").classes)}


@dataclass(frozen=True)
class Extraction:
    """All that a process needs to compute the features of any image; can be pickled. `maps`: for ROI_POOL and DENSE,
    `layers`: for ROI_POOL; DENSE has no `proposals`. `masks`: the dataset whose object masks come first, if they do."""

    settings: Settings
    images: Dataset
    proposals: ItemReader | None
    source: NetworkSource
    execution: Execution
    maps: ItemReader | None = None
    layers: TruncatedLayers | None = None
    masks: Dataset | None = None

    @staticmethod
    def of(settings: Settings, inputs: Inputs, execution: Execution) -> Extraction:
        """From the inputs of the stage. Raises BadSetting for maps of another trunk and for a fill that needs masks
        which the proposals do not have, and as `truncated_layers`."""
        source = inputs.network("network")
        maps = inputs.item_reader("maps") if settings.method != WARP else None
        if maps is not None:
            check_maps("extract", maps, source, border_of(maps) if settings.method == DENSE else 0)
        layers = truncated_layers(source, settings, execution.device)
        images = inputs.dataset("images")
        proposals = None if settings.method == DENSE else inputs.item_reader("proposals")
        if settings.fill == FOREGROUND and proposals is not None:
            check_masks("extract", f"fill = '{FOREGROUND}'", proposals)
        masks = inputs.dataset("masks") if settings.objects == MASKS else None
        return Extraction(settings, images, proposals, source, execution, maps, layers, masks)

    def network(self) -> Network:
        """The network, loaded once per process."""
        return network_of(self.source, self.settings, self.execution.device, self.layers)


def fill_parts(task: Extraction, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in this process; images are decoded and finished parts written while the network runs.

    Raises BadImage (unless bad images are skipped), StageError, CacheError.
    """
    keep_large_buffers()
    device = task.execution.device
    network = task.network()
    depth = images_ahead(device)
    reader = RegionReader(task, pin=device.startswith("cuda"))
    tasks = ((part, image_id) for part in parts for image_id in part.item_ids)
    with (
        ThreadPoolExecutor(1) as writing,
        contextlib.closing(read_ahead(lambda task: reader.read(task[1]), tasks, ahead=depth, threads=depth)) as images,
    ):
        records: list[Record] = []
        skipped: dict[str, str] = {}
        pending: Future[None] | None = None
        for (part, _), regions in images:
            records.append(record_of(regions, network, task))
            if regions.skipped:
                skipped[regions.image_id] = regions.skipped
            bar.advance(1, len(regions.boxes))
            if len(records) == len(part.item_ids):
                if pending is not None:
                    pending.result()  # at most one part waits in memory
                pending = writing.submit(output.write, part, records, skipped)
                records, skipped = [], {}
        if pending is not None:
            pending.result()


@dataclass(frozen=True)
class Regions:
    """One image with its n regions, ground truth first: boxes float32 [n, 4], labels int32 [n], flags bool [n].

    `cut_from` is what they are cut out of: pixels uint8 [H, W, 3], RGB, or the image's maps. `image_size` is (width,
    height). `levels` int32 [n]: the number of the map of each dense window; None for other regions. `mask_of`: the
    mask of each region by its row, where the network is to see nothing else. For a skipped image, `skipped` is the
    reason; it has size (0, 0) and no regions.
    """

    image_id: str
    cut_from: torch.Tensor | FeatureMaps
    image_size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    difficult: NDArray[np.bool_]
    skipped: str = ""
    levels: NDArray[np.int32] | None = None
    mask_of: MaskOf | None = None


class RegionReader:
    """Reads images and their regions, safely from several threads; `pin` puts the pixels in page-locked memory."""

    def __init__(self, task: Extraction, pin: bool) -> None:
        self.task = task
        self.pin = pin
        self.reading_annotations = threading.Lock()

    def read(self, image_id: str) -> Regions:
        """The regions of an image. Raises BadImage unless bad images are skipped."""
        cut_from, size, reason = self.read_pixels(image_id) if self.task.maps is None else self.read_maps(image_id)
        if reason:
            return Regions(image_id, cut_from, size, *no_regions(), reason, self.no_levels())
        if self.task.proposals is None:
            assert isinstance(cut_from, FeatureMaps)
            return self.windows(image_id, cut_from)
        with self.reading_annotations:
            boxes, labels, difficult, masks = self.objects(image_id)
        foreground = self.task.settings.fill == FOREGROUND
        proposals = self.task.proposals.read(image_id, ["boxes", *(COLUMNS if foreground else ())])
        count = len(proposals["boxes"])
        return Regions(
            image_id,
            cut_from,
            size,
            np.concatenate([boxes, proposals["boxes"]]).astype(np.float32),
            np.concatenate([labels, np.full(count, PROPOSAL)]).astype(np.int32),
            np.concatenate([difficult, np.zeros(count, bool)]),
            mask_of=functools.partial(mask_of_region, masks, proposals) if foreground else None,
        )

    def objects(
        self, image_id: str
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
        """The boxes [n, 4], labels [n] and difficult flags [n] of the objects that come first, and their masks
        [n, H, W] if these are what the objects are."""
        if self.task.settings.objects == NONE:
            return *no_regions(), np.zeros((0, 1, 1), bool)
        if self.task.masks is None:
            record = self.task.images.record(image_id)
            return record.boxes, record.labels, record.difficult, np.zeros((0, 1, 1), bool)
        labels, masks = self.task.masks.object_masks(image_id)
        return mask_boxes(masks), labels, np.zeros(len(labels), bool), masks

    def windows(self, image_id: str, maps: FeatureMaps) -> Regions:
        """The dense windows of an image."""
        assert self.task.maps is not None
        boxes, levels = map_windows(maps, self.task.source.card, border_of(self.task.maps), self.task.settings.fine)
        labels, difficult = np.full(len(boxes), PROPOSAL, np.int32), np.zeros(len(boxes), bool)
        return Regions(image_id, maps, maps.image_size, boxes, labels, difficult, levels=levels)

    def no_levels(self) -> NDArray[np.int32] | None:
        """The levels of an image without regions."""
        return np.zeros(0, np.int32) if self.task.settings.method == DENSE else None

    def read_pixels(self, image_id: str) -> tuple[torch.Tensor, tuple[int, int], str]:
        """(pixels, size, why it is skipped, or "") of an image. Raises BadImage unless bad images are skipped."""
        try:
            pixels = self.task.images.read_image(image_id)
        except BadImage as error:
            return torch.zeros((1, 1, 3), dtype=torch.uint8), (0, 0), self.task.execution.skip(error)
        return self.as_tensor(pixels), (pixels.shape[1], pixels.shape[0]), ""

    def read_maps(self, image_id: str) -> tuple[FeatureMaps, tuple[int, int], str]:
        """As `read_pixels`, with the image's maps."""
        assert self.task.maps is not None
        maps, reason = read_maps(self.task.maps, image_id)
        return maps, maps.image_size, reason

    def as_tensor(self, pixels: Pixels) -> torch.Tensor:
        """The pixels as a tensor, uint8 [H, W, 3]."""
        tensor = torch.from_numpy(pixels)
        return tensor.pin_memory() if self.pin else tensor


def no_regions() -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """The boxes [0, 4], labels [0] and difficult flags [0] of an image without regions."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)


def mask_of_region(objects: NDArray[np.bool_], proposals: Record, row: int) -> Mask:
    """The mask of an image's region `row`: of the `objects` [n, H, W], then of the `proposals`, with the columns of
    `stages.masks.COLUMNS`."""
    return objects[row] if row < len(objects) else read_mask(proposals, row - len(objects), as_searched=True)


def record_of(regions: Regions, network: Network, task: Extraction) -> Record:
    """The image's record: its regions and their features."""
    settings, execution, cut_from = task.settings, task.execution, regions.cut_from
    with arithmetic(settings.precision, execution.device):
        if settings.method == DENSE and isinstance(cut_from, FeatureMaps):
            assert task.maps is not None
            features = dense_features(cut_from, network, settings, border_of(task.maps))
        elif isinstance(cut_from, FeatureMaps):
            features = pooled_features(cut_from, regions.boxes, network, settings, execution.batch_size)
        else:
            features = extract_features(
                cut_from, regions.boxes, network, settings, execution.batch_size, regions.mask_of
            )
    return {
        "boxes": regions.boxes,
        "is_object": regions.labels != PROPOSAL,
        "label": regions.labels,
        "difficult": regions.difficult,
        **({} if regions.levels is None else {"level": regions.levels}),
        "image_size": np.array(regions.image_size, np.int32),
        **features,
    }


class FeaturesOnDemand(OnDemand):
    """The features of each image, computed in the same batches as by the stage; the network runs on one image at a
    time."""

    def __init__(self, task: Extraction, columns: Schema) -> None:
        self.task = task
        self.schema = columns
        self.manifest = {"skipped": {}, "summary": {"class_names": list(task.source.class_names)}}
        self.reader = RegionReader(task, pin=task.execution.device.startswith("cuda"))

    def __reduce__(self) -> tuple[type[FeaturesOnDemand], tuple[Extraction, Schema]]:
        return FeaturesOnDemand, (self.task, self.schema)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images of the dataset."""
        return self.task.images.image_ids

    def record(self, item_id: str) -> Record:
        """One image's record. Raises BadImage unless bad images are skipped."""
        keep_large_buffers()
        regions = self.reader.read(item_id)
        if regions.skipped:
            self.manifest["skipped"][item_id] = regions.skipped
        return record_of(regions, self.task.network(), self.task)
