"""The pretrain stage: a classification dataset in, network weights out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from cache import Reader, Schema, Writer
from stages.contract.errors import BadImage, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import ClassificationDataset
from stages.images.batches import images_ahead
from stages.networks import BACKGROUND, NETWORKS
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.pretrain import CROPS, LOG, Settings
from stages.pretrain.crops import CroppedImages, scaled_pixels
from stages.pretrain.training import Examples, Folds, PreTraining
from stages.training.image_memory import MEGABYTE, ImageMemory
from stages.training.loop import network_schema, train
from stages.training.state import reproducible

log = logging.getLogger("stages.pretrain")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """A single item, the network."""
    return [NETWORK]


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """One column per tensor of the network's state dict, and the `log` of epochs."""
    classes = inputs.classification("images").classes
    return network_schema(empty_module(NETWORKS[settings.network], len(classes) + settings.has_background), LOG)


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains the network, saving a checkpoint after every epoch. Raises BadImage and StageError."""
    dataset = inputs.classification("images")
    card = NETWORKS[settings.network]
    with reproducible(settings.threads):
        train(
            lambda: PreTraining(settings, card, len(dataset.classes), execution.device),
            lambda: Folds(*folds(settings, dataset, card.input_size, execution)),
            output,
            execution,
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the final loss and accuracy."""
    dataset = inputs.classification("images")
    record = reader.read(NETWORK)
    names = [*dataset.classes, *([BACKGROUND] if settings.has_background else [])]
    return {
        "network": settings.network,
        "classes": len(names),
        "class_names": names,
        "loss": float(record["log/loss"][-1]),
        "accuracy": float(record["log/held_out"][-1]),
    }


def folds(
    settings: Settings, dataset: ClassificationDataset, side: int, execution: Execution
) -> tuple[Examples, Examples] | tuple[CroppedImages, CroppedImages]:
    """The training set and the held-out images, for a network whose input has `side` pixels. Raises as
    `read_examples`, for crops only where bad images are skipped, as the others are read while training."""
    if settings.views == CROPS:
        return cropped_folds(settings, dataset, side, execution)
    return read_examples(dataset, side, settings.held_out, execution)


def cropped_folds(
    settings: Settings, dataset: ClassificationDataset, side: int, execution: Execution
) -> tuple[CroppedImages, CroppedImages]:
    """The images that crops of `side` pixels are cut from: the training set, and the held-out images.

    If bad images are skipped, every image is read here, so that unreadable ones are left out. Raises StageError if
    there are too few images.
    """
    memory = ImageMemory(dataset, settings.image_memory * MEGABYTE, functools.partial(scaled_pixels, settings.side))
    held_out = held_out_positions(dataset, settings.held_out)
    every = range(len(dataset.image_ids))
    usable = [position for position in every if not execution.skip_bad_images or readable(memory, position)]
    training = [position for position in usable if position not in held_out]
    testing = [position for position in usable if position in held_out]
    check_folds(dataset, len(training), len(testing), settings.held_out)
    threads = images_ahead(execution.device)
    first, second = (
        CroppedImages(
            *(memory, np.array(fold, np.int64), dataset.labels[fold], side, threads),
            area=settings.crop_area,
            colours=settings.crop_colour_jitter,
        )
        for fold in (training, testing)
    )
    return first, second


def readable(memory: ImageMemory, position: int) -> bool:
    """Whether an image can be decoded; logs a warning if not."""
    try:
        memory.read(position)
    except BadImage as error:
        log.warning("%s: skipped, it %s", error.path, error.reason)
        return False
    return True


def held_out_positions(dataset: ClassificationDataset, held_out: int) -> set[int]:
    """The positions of every `held_out`-th image of each class."""
    positions = [np.flatnonzero(dataset.labels == label) for label in range(len(dataset.classes))]
    return {int(position) for group in positions for position in group[held_out - 1 :: held_out]}


def check_folds(dataset: ClassificationDataset, training: int, testing: int, held_out: int) -> None:
    """Raises StageError unless there are at least two images to train on, and two held out."""
    if min(training, testing) < 2:
        raise StageError(
            f"{dataset.name}: only {training} images to train on and {testing} held out; "
            f"give every class at least {held_out} images, or lower pretrain.held_out"
        )


def read_examples(
    dataset: ClassificationDataset, side: int, held_out: int, execution: Execution
) -> tuple[Examples, Examples]:
    """The images resized to `side` x `side`: the training set, and every `held_out`-th image of each class.

    Raises BadImage (unless bad images are skipped), and StageError if there are too few images.
    """
    testing = held_out_positions(dataset, held_out)
    pixels: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for position, image_id in enumerate(dataset.image_ids):
        try:
            image = dataset.read_image(image_id)
        except BadImage as error:
            if not execution.skip_bad_images:
                raise
            log.warning("%s: skipped, it %s", error.path, error.reason)
            continue
        fold = int(position in testing)
        pixels[fold].append(squeezed(image, side))
        labels[fold].append(int(dataset.labels[position]))
    check_folds(dataset, len(labels[0]), len(labels[1]), held_out)
    training, testing_examples = (as_examples(*fold) for fold in zip(pixels, labels, strict=True))
    return training, testing_examples


def squeezed(image: np.ndarray, side: int) -> np.ndarray:
    """An image uint8 [H, W, 3] as uint8 [3, side, side], ignoring its aspect ratio, as regions are warped."""
    if image.shape[:2] != (side, side):
        image = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    return image.transpose(2, 0, 1)


def as_examples(pixels: list[np.ndarray], labels: list[int]) -> Examples:
    """N images uint8 [3, S, S] and their labels, stacked: uint8 [N, 3, S, S] and int64 [N]."""
    return Examples(torch.from_numpy(np.stack(pixels)), torch.tensor(labels, dtype=torch.int64))
