"""The train-joint stage: annotated images and a network in, the network with both heads of a detector out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache import Column, Reader, Schema, Writer
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import check_device
from stages.networks import BACKGROUND, NetworkSource, PlannedNetwork
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.train_joint import LOG, STAGE, Settings
from stages.train_joint.training import JointExamples, JointTraining, joint_examples
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
    classes = len(inputs.dataset("images").classes)
    network = empty_module(planned(settings, inputs.network("network")).card, classes + 1)
    return network_schema(network, LOG, {"objects": Column("int64")})


def planned(settings: Settings, source: NetworkSource) -> PlannedNetwork:
    """What the stage makes of the network."""
    network = PlannedNetwork(source.card, bool(source.class_names))
    return STAGE.plans(settings, network)  # type: ignore[misc]


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, saving checkpoints, in one or several processes."""
    dataset, source = inputs.dataset("images"), inputs.network("network")
    check_device(settings, execution.device, "train-joint.")
    settings.check_ranks("train-joint", execution.ranks)
    memory = ImageMemory(dataset, settings.image_memory * MEGABYTE)

    def find(image: TrainingImage[None], drawn: DrawnImage) -> JointExamples:
        return joint_examples(image, drawn, settings, source.card.trunk.stride)

    def make_sampler() -> WholeImages[JointExamples]:
        return WholeImages(
            settings,
            dataset,
            memory,
            source,
            find,
            execution,
            ranks,
            regions_per_step=settings.images_per_batch * settings.regions_per_image,
            maps=maps_of_trunk(inputs, source, "train-joint"),
            counts=count_objects("train-joint", dataset, settings.difficult, execution),
        )

    with joined("train-joint", execution) as ranks, reproducible(settings.threads, settings.precision == "tf32"):
        train(
            lambda: JointTraining(settings, source, len(dataset.classes), execution.device, ranks),
            make_sampler,
            output,
            execution,
            ranks,
            checkpoint_seconds=settings.checkpoint_seconds,
        )


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the mean losses and accuracies of the last iterations."""
    dataset, source = inputs.dataset("images"), inputs.network("network")
    return {
        "network": source.name,
        "preprocessing": source.preprocessing.as_json(),
        "classes": len(dataset.classes) + 1,
        "class_names": [*dataset.classes, BACKGROUND],
        "objects": int(reader.read(NETWORK, ["objects"])["objects"]),
        "heads": planned(settings, source).card.heads.as_json(),
        **last_means(reader, STAGE),
    }
