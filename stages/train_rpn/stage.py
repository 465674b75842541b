"""The train-rpn stage: annotated images and a network in, the network with a region proposal network out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cache import Column, Reader, Record, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import check_device
from stages.datasets import Dataset
from stages.matching.examples import unused_regions
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
from stages.training.whole_images import DrawnImage, TrainingImage, WholeImages, maps_of_trunk


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
            counts=count_objects(settings, dataset, execution),
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


def count_objects(settings: Settings, dataset: Dataset, execution: Execution) -> Record:
    """The number of objects to learn from, for the cache. Raises StageError if there are none."""
    count = 0
    with execution.progress("train-rpn: objects", len(dataset.image_ids), "images") as bar:
        for image_id in dataset.image_ids:
            record = dataset.record(image_id)
            unused = unused_regions(record.boxes, record.difficult, record.crowds, settings.difficult)
            count += int((~unused).sum())
            bar.advance()
    if not count:
        raise StageError(
            f"train-rpn: none of the {len(dataset.image_ids)} images of {dataset.name} has an object to train on "
            "(crowds and ignored difficult objects do not count); annotate objects, or use another split"
        )
    return {"objects": np.array(count)}


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
