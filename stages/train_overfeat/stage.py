"""The train-overfeat stage: annotated images and a network in, the network with a window head out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from cache import Column, Reader, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.networks import BACKGROUND
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.train_overfeat import LOG, STAGE, Settings
from stages.train_overfeat.examples import WindowExamples, windows_of_image
from stages.train_overfeat.training import WindowTraining
from stages.training.log import read_log
from stages.training.loop import network_schema
from stages.training.validation_settings import ROLE
from stages.training.whole_image_stage import network_summary, train_on_images, trained_card
from stages.training.whole_images import DrawnImage, TrainingImage

log = logging.getLogger("stages.train_overfeat")


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """A single item, the network."""
    return [NETWORK]


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """One column per tensor of the network, the number of objects, the `log` of iterations and, with a
    validation set, the `validation`s."""
    classes = len(inputs.dataset("images").classes)
    network = empty_module(trained_card(STAGE, settings, inputs.network("network")), classes + 1)
    return network_schema(network, LOG, {"objects": Column("int64")}, validated=ROLE in inputs)


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, saving checkpoints, in one or several processes."""
    source, classes = inputs.network("network"), len(inputs.dataset("images").classes)
    card = trained_card(STAGE, settings, source)

    def find(image: TrainingImage[None], drawn: DrawnImage) -> WindowExamples:
        return windows_of_image(image, card, classes, settings, drawn.random)

    train_on_images(
        STAGE.name,
        settings,
        inputs,
        output,
        execution,
        lambda ranks: WindowTraining(settings, source, classes, execution.device, ranks),
        find,
        regions_per_image=settings.windows_per_image,
    )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the mean losses and accuracies of the last iterations."""
    source, names = inputs.network("network"), (*inputs.dataset("images").classes, BACKGROUND)
    if not read_log(reader, NETWORK)["object_accuracy"].any():
        log.warning(
            "train-overfeat recognised no window with an object in the whole training; if no window fits the objects "
            "(positive_overlap = %s), lower it, or train at more sides",
            settings.positive_overlap,
        )
    return network_summary(STAGE, settings, trained_card(STAGE, settings, source), source, len(names), names, reader)
