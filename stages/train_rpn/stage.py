"""The train-rpn stage: annotated images and a network in, the network with a region proposal network out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache import Column, Reader, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import check_device
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.train_rpn import LOG, STAGE, Settings
from stages.train_rpn.training import ProposalTraining
from stages.training.anchor_examples import AnchorExamples, draw_anchors
from stages.training.image_memory import MEGABYTE, ImageMemory
from stages.training.log import last_means
from stages.training.loop import network_schema, train
from stages.training.ranks import joined
from stages.training.state import reproducible
from stages.training.whole_images import DrawnImage, TrainingImage, WholeImages, count_objects, maps_of_trunk


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """A single item, the network."""
    return [NETWORK]


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """One column per tensor of the network, the number of objects, and the `log` of iterations."""
    source = inputs.network("network")
    card = source.card.with_heads(settings.heads(source.heads))
    return network_schema(empty_module(card, source.classes), LOG, {"objects": Column("int64")})


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, saving checkpoints, in one or several processes."""
    dataset, source = inputs.dataset("images"), inputs.network("network")
    check_device(settings, execution.device, "train-rpn.")
    settings.check_ranks("train-rpn", execution.ranks)
    memory = ImageMemory(dataset, settings.image_memory * MEGABYTE)

    def find(image: TrainingImage[None], drawn: DrawnImage) -> AnchorExamples:
        return draw_anchors(image, settings.head, source.card.trunk.stride, settings, drawn.random)

    def make_sampler() -> WholeImages[AnchorExamples]:
        return WholeImages(
            settings,
            dataset,
            memory,
            source,
            find,
            execution,
            ranks,
            regions_per_step=settings.images_per_batch * settings.anchors_per_image,
            maps=maps_of_trunk(inputs, source, "train-rpn"),
            counts=count_objects("train-rpn", dataset, settings.difficult, execution),
        )

    with joined("train-rpn", execution) as ranks, reproducible(settings.threads, settings.precision == "tf32"):
        train(
            lambda: ProposalTraining(settings, source, execution.device, ranks),
            make_sampler,
            output,
            execution,
            ranks,
            checkpoint_seconds=settings.checkpoint_seconds,
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the mean losses and accuracies of the last iterations."""
    source = inputs.network("network")
    return {
        "network": source.name,
        "preprocessing": source.preprocessing.as_json(),
        "classes": source.classes,
        **({"class_names": list(source.class_names)} if source.class_names else {}),
        "heads": settings.heads(source.heads).as_json(),
        "objects": int(reader.read(NETWORK, ["objects"])["objects"]),
        **last_means(reader, STAGE),
    }
