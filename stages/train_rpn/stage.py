"""The train-rpn stage: annotated images and a network in, the network with a region proposal network out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cache import Column, Reader, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.train_rpn import LOG, STAGE, Settings
from stages.train_rpn.training import ProposalTraining
from stages.training.anchor_examples import AnchorExamples, draw_anchors
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
    source = inputs.network("network")
    network = empty_module(trained_card(STAGE, settings, source), source.classes)
    return network_schema(network, LOG, {"objects": Column("int64")}, validated=ROLE in inputs)


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, saving checkpoints, in one or several processes."""
    source = inputs.network("network")

    def find(image: TrainingImage[None], drawn: DrawnImage) -> AnchorExamples:
        return draw_anchors(image, settings.head, source.card.trunk.stride, settings, drawn.random)

    train_on_images(
        STAGE.name,
        settings,
        inputs,
        output,
        execution,
        partial(ProposalTraining, settings, source, execution.device),
        find,
        regions_per_image=settings.anchors_per_image,
    )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the mean losses and accuracies of the last iterations."""
    source = inputs.network("network")
    card = trained_card(STAGE, settings, source)
    return network_summary(STAGE, settings, card, source, source.classes, source.class_names, reader)
