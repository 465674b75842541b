"""The train-joint stage: annotated images and a network in, the network with both heads of a detector out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cache import Column, Reader, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.networks import BACKGROUND
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.train_joint import LOG, STAGE, Settings
from stages.train_joint.training import JointExamples, JointTraining, joint_examples
from stages.training.loop import network_schema
from stages.training.validation_settings import ROLE
from stages.training.whole_image_stage import network_summary, train_on_images, trained_card
from stages.training.whole_images import DrawnImage, TrainingImage


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
    dataset, source = inputs.dataset("images"), inputs.network("network")

    def find(image: TrainingImage[None], drawn: DrawnImage) -> JointExamples:
        return joint_examples(image, drawn, settings, source.card.trunk.stride)

    train_on_images(
        STAGE.name,
        settings,
        inputs,
        output,
        execution,
        partial(JointTraining, settings, source, len(dataset.classes), execution.device),
        find,
        regions_per_image=settings.regions_per_image,
    )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the mean losses and accuracies of the last iterations."""
    source, names = inputs.network("network"), (*inputs.dataset("images").classes, BACKGROUND)
    return network_summary(STAGE, settings, trained_card(STAGE, settings, source), source, len(names), names, reader)
