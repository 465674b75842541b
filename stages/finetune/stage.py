"""The stage: images, annotations, proposals and a pre-trained network in, the weights of the fine-tuned network out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from cache import Column, Reader, Schema, Writer
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import check_device
from stages.datasets import Dataset
from stages.finetune import LOG, Settings, check
from stages.finetune.reading import WindowSampler
from stages.finetune.training import FineTuning
from stages.finetune.windows import Windows, joined_windows
from stages.matching.examples import unused_regions
from stages.matching.windows import window_labels
from stages.networks import BACKGROUND, PlannedNetwork
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.training.image_memory import MEGABYTE, ImageMemory
from stages.training.log import TABLE
from stages.training.loop import network_schema, train
from stages.training.ranks import joined
from stages.training.state import reproducible

log = logging.getLogger("stages.finetune")
LAST = 100


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """One item: the network."""
    return [NETWORK]


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """The network's tensors, each a column named as in its state dict, numbers of windows, the `log` of iterations."""
    network = empty_module(inputs.network("network").card, len(inputs.dataset("images").classes) + 1)
    return network_schema(network, LOG, {"positive_windows": Column("int64"), "background_windows": Column("int64")})


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, with a checkpoint now and then; perhaps in several processes at once."""
    dataset = inputs.dataset("images")
    source = inputs.network("network")
    check(settings, PlannedNetwork(source.card, bool(source.class_names)), {})
    check_device(settings, execution.device, "finetune.")
    if settings.batch_size < execution.ranks:
        raise BadSetting(
            f"finetune.batch_size = {settings.batch_size} is less than the {execution.ranks} processes that share it; "
            "start fewer with torchrun"
        )
    memory = ImageMemory(dataset, settings.image_memory * MEGABYTE)

    def make_sampler() -> WindowSampler:
        windows = find_windows(settings, dataset, inputs.reader("proposals"), memory, execution)
        return WindowSampler(settings, memory, windows, source, execution, ranks)

    with joined("finetune", execution) as ranks, reproducible(settings.threads, settings.precision == "tf32"):
        train(
            lambda: FineTuning(settings, source, len(dataset.classes), execution.device, ranks),
            make_sampler,
            output,
            execution,
            ranks,
            checkpoint_seconds=settings.checkpoint_seconds,
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and how well the network has learnt at the end."""
    dataset = inputs.dataset("images")
    source = inputs.network("network")
    record = reader.read(NETWORK)
    measured = (*LOG.losses, *LOG.accuracies)
    last = {name: float(record[f"{TABLE}/{name}"][-LAST:].mean()) for name in measured}
    return {
        "network": source.name,
        "preprocessing": source.preprocessing.as_json(),
        "classes": len(dataset.classes) + 1,
        "class_names": [*dataset.classes, BACKGROUND],
        "positive_windows": int(record["positive_windows"]),
        "background_windows": int(record["background_windows"]),
        **last,
    }


def find_windows(
    settings: Settings, dataset: Dataset, proposals: Reader, memory: ImageMemory, execution: Execution
) -> Windows:
    """The windows of all images: objects first, then proposals.

    Raises StageError for proposals of other images and where there is nothing to draw; BadImage only later, or at once
    where bad images are to be skipped: then every image is read first.
    """
    unknown = [one for one in dataset.image_ids if one not in proposals.positions]
    if unknown:
        raise StageError(
            f"finetune: the proposals in {proposals.folder} are not of the images of {dataset.name} (they lack "
            f"'{unknown[0]}'); name proposals of the same split as inputs.proposals"
        )
    classes, limits = len(dataset.classes), (settings.positive_overlap, settings.background_overlap)
    images = []
    with execution.progress("finetune: windows", len(dataset.image_ids), "images") as bar:
        for position, image_id in enumerate(dataset.image_ids):
            objects = dataset.record(image_id)
            boxes = np.concatenate([objects.boxes, proposals.read(image_id, ["boxes"])["boxes"]]).astype(np.float32)
            unused = unused_regions(boxes, objects.difficult, objects.crowds, settings.difficult)
            labels = window_labels(boxes, objects.boxes, objects.labels, classes, *limits, unused)
            if execution.skip_bad_images and not readable(memory, position):
                boxes, labels = boxes[:0], labels[:0]
            images.append((boxes, labels))
            bar.advance(1, len(boxes))
    windows = joined_windows(images, classes)
    check_windows(windows, settings, dataset)
    return windows


def readable(memory: ImageMemory, position: int) -> bool:
    """Whether an image can be decoded; says so if it cannot."""
    try:
        memory.read(position)
    except BadImage as error:
        log.warning("%s: skipped, it %s", error.path, error.reason)
        return False
    return True


def check_windows(windows: Windows, settings: Settings, dataset: Dataset) -> None:
    """Says how many windows there are. Raises StageError if positive ones or background are wanted and missing."""
    positives = settings.positives_of_batch
    if not len(windows.positive):
        raise StageError(
            f"finetune: no window of the {len(dataset.image_ids)} images of {dataset.name} is positive, for no object "
            "is annotated in them; annotate objects, or name another split"
        )
    if positives < settings.batch_size and not len(windows.negative):
        raise StageError(
            f"finetune: no window of the {len(dataset.image_ids)} images of {dataset.name} is background (IoU below "
            f"{settings.background_overlap}); give [propose] more boxes"
        )
    counts = np.bincount(windows.labels[windows.positive], minlength=len(dataset.classes))
    without = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
    if without:
        log.warning("no window shows %s: the network will not learn to know it", ", ".join(without))
    log.info("%d positive windows, %d of background", len(windows.positive), len(windows.negative))
