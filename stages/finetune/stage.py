"""The finetune stage: annotated images, proposals and a pre-trained network in, fine-tuned weights out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Column, Reader, Schema, Writer
from stages.boxes import Boxes
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import check_device
from stages.datasets import Dataset, ImageRecord
from stages.finetune import LOG, STAGE, Settings, check
from stages.finetune.reading import WindowSampler
from stages.finetune.training import FineTuning
from stages.finetune.windows import Windows, joined_windows
from stages.matching.examples import unused_regions
from stages.matching.ground_truth import check_proposals
from stages.matching.windows import UNUSED, window_labels
from stages.networks import BACKGROUND, PlannedNetwork
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.training.image_memory import MEGABYTE, ImageMemory
from stages.training.log import last_means
from stages.training.loop import network_schema, train
from stages.training.ranks import joined
from stages.training.state import reproducible
from stages.training.validation import Validation, validation_summary
from stages.training.validation_images import check_validation_classes
from stages.training.validation_settings import PROPOSALS, ROLE

log = logging.getLogger("stages.finetune")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """A single item, the network."""
    return [NETWORK]


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """One column per tensor of the network's state dict, the numbers of windows, the `log` of iterations and, with a
    validation set, the `validation`s."""
    network = empty_module(inputs.network("network").base.card, len(inputs.dataset("images").classes) + 1)
    columns = {"positive_windows": Column("int64"), "background_windows": Column("int64")}
    return network_schema(network, LOG, columns, validated=ROLE in inputs)


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, saving checkpoints, in one or several processes."""
    dataset = inputs.dataset("images")
    source = inputs.network("network").base
    check(settings, PlannedNetwork(source.card, bool(source.class_names)), inputs.opened)
    check_device(settings, execution.device, "finetune.")
    if settings.batch_size < execution.ranks:
        raise BadSetting(
            f"finetune.batch_size = {settings.batch_size} is smaller than the number of processes, {execution.ranks}; "
            "start fewer with torchrun"
        )

    def sampler_of(dataset: Dataset, proposals: Reader, memory: ImageMemory) -> WindowSampler:
        windows = find_windows(settings, dataset, proposals, memory, execution)
        label = partial(labels_in_image, settings, dataset)
        return WindowSampler(settings, memory, windows, source, execution, ranks, label)

    def make_sampler() -> WindowSampler:
        memory = ImageMemory(dataset, settings.image_memory * MEGABYTE)
        return sampler_of(dataset, inputs.reader("proposals"), memory)

    def validation() -> Validation[FineTuning] | None:
        if ROLE not in inputs:
            return None
        validated = inputs.dataset(ROLE)
        check_validation_classes("finetune", validated, dataset)
        windows = sampler_of(validated, inputs.reader(PROPOSALS), ImageMemory(validated, 0))
        return Validation.of(settings, lambda trainer: trainer.validated(windows.validation()))

    with joined("finetune", execution) as ranks, reproducible(settings.threads, settings.precision == "tf32"):
        train(
            lambda: FineTuning(settings, source, len(dataset.classes), execution.device, ranks),
            make_sampler,
            output,
            execution,
            ranks,
            checkpoint_seconds=settings.checkpoint_seconds,
            validation=validation(),
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, the mean loss and accuracies of the last iterations, and the validation
    of the weights that were kept."""
    dataset = inputs.dataset("images")
    source = inputs.network("network").base
    windows = reader.read(NETWORK, ["positive_windows", "background_windows"])
    return {
        "network": source.name,
        "preprocessing": source.preprocessing.as_json(),
        "classes": len(dataset.classes) + 1,
        "class_names": [*dataset.classes, BACKGROUND],
        "positive_windows": int(windows["positive_windows"]),
        "background_windows": int(windows["background_windows"]),
        **last_means(reader, STAGE),
        **validation_summary(reader, settings),
    }


def find_windows(
    settings: Settings, dataset: Dataset, proposals: Reader, memory: ImageMemory, execution: Execution
) -> Windows:
    """The windows of all images; in each image, objects come first, then proposals.

    Raises StageError if the proposals were made from other images or there is nothing to draw from. If bad images are
    skipped, every image is read here, so that the windows of unreadable ones are left out.
    """
    check_proposals("finetune", proposals, dataset)
    images = []
    with execution.progress("finetune: windows", len(dataset.image_ids), "images") as bar:
        for position, image_id in enumerate(dataset.image_ids):
            found = proposals.read(image_id, ["boxes"])["boxes"]
            boxes = np.concatenate([dataset.record(image_id).boxes, found]).astype(np.float32)
            labels = region_labels(settings, dataset.record(image_id), len(dataset.classes), boxes)
            if execution.skip_bad_images and not readable(memory, position):
                boxes, labels = boxes[:0], labels[:0]
            images.append((boxes, labels))
            bar.advance(1, len(boxes))
    windows = joined_windows(images, len(dataset.classes))
    check_windows(windows, settings, dataset)
    return windows


def region_labels(settings: Settings, objects: ImageRecord, classes: int, boxes: Boxes) -> NDArray[np.int32]:
    """The label of each of the `boxes` [n, 4] in an image, its m objects first: int32 [n], as `window_labels`."""
    unused = unused_regions(boxes, objects.difficult, objects.crowds, settings.difficult)
    limits = settings.positive_overlap, settings.background_overlap
    labels = window_labels(boxes, objects.boxes, objects.labels, classes, *limits, unused)
    if not objects.exhaustive:  # what looks like background may be an object
        labels[labels == classes] = UNUSED
    return labels


def labels_in_image(settings: Settings, dataset: Dataset, position: int, boxes: Boxes) -> NDArray[np.int32]:
    """The label of each of the `boxes` [n, 4] in the image at `position`, none of them an object: int32 [n]."""
    objects = dataset.record(dataset.image_ids[position])
    every = np.concatenate([objects.boxes, boxes]).astype(np.float32)
    return region_labels(settings, objects, len(dataset.classes), every)[len(objects.boxes) :]


def readable(memory: ImageMemory, position: int) -> bool:
    """Whether an image can be decoded; logs a warning if not."""
    try:
        memory.read(position)
    except BadImage as error:
        log.warning("%s: skipped, it %s", error.path, error.reason)
        return False
    return True


def check_windows(windows: Windows, settings: Settings, dataset: Dataset) -> None:
    """Logs the numbers of windows. Raises StageError if there are no positive, or no background, windows to draw."""
    positives = settings.positives_of_batch
    if not len(windows.positive):
        raise StageError(
            f"finetune: none of the {len(dataset.image_ids)} images of {dataset.name} has a positive window, since "
            "none has an object to train on (crowds, unreadable images and ignored difficult objects do not count); "
            "annotate objects, or use another split"
        )
    if positives < settings.batch_size and not len(windows.negative):
        raise StageError(
            f"finetune: none of the {len(dataset.image_ids)} images of {dataset.name} has a background window (IoU "
            f"below {settings.background_overlap}; images with exhaustive = false give none); propose more boxes"
        )
    counts = np.bincount(windows.labels[windows.positive], minlength=len(dataset.classes))
    without = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
    if without:
        log.warning("no positive windows of %s: the network cannot learn these classes", ", ".join(without))
    log.info("%d positive windows, %d background windows", len(windows.positive), len(windows.negative))
