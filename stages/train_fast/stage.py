"""The train-fast stage: annotated images, proposals and a network in, the network with a region head out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from cache import Column, Reader, Schema, Writer
from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import Dataset
from stages.matching.ground_truth import check_proposals
from stages.networks import BACKGROUND
from stages.networks.architectures import empty_module
from stages.networks.weights import NETWORK
from stages.train_fast import BOXES_ALONE, FIXED, LOG, STAGE, Settings
from stages.train_fast.training import RegionHeadTraining
from stages.training.loop import network_schema
from stages.training.region_examples import DeltaStatistics, RegionExamples, draw_regions, statistics_of
from stages.training.validation_settings import PROPOSALS, ROLE
from stages.training.whole_image_stage import network_summary, train_on_images, trained_card
from stages.training.whole_images import DrawnImage, Find, Objects, TrainingImage, objects_of


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """A single item, the network."""
    return [NETWORK]


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """One column per tensor of the network, the number of objects, the statistics of the deltas [K, 4], the `log` of
    iterations and, with a validation set, the `validation`s."""
    classes = len(inputs.dataset("images").classes)
    network = empty_module(trained_card(STAGE, settings, inputs.network("network")), classes + 1)
    statistics = Column("float64", (classes, 4))
    columns = {"objects": Column("int64"), "delta_means": statistics, "delta_stds": statistics}
    return network_schema(network, LOG, columns, validated=ROLE in inputs)


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains for `settings.iterations`, saving checkpoints, in one or several processes."""
    dataset, source, proposals = inputs.dataset("images"), inputs.network("network"), inputs.reader("proposals")
    check_proposals("train-fast", proposals, dataset)
    if settings.outputs == BOXES_ALONE and source.class_names != (*dataset.classes, BACKGROUND):
        raise StageError(
            f"train-fast: outputs = 'boxes' needs a network trained for the classes of {dataset.name}, but it has "
            f"{len(source.class_names)} others; name the network of a train-fast table on the same classes"
        )

    @cache
    def statistics() -> DeltaStatistics:
        if settings.delta_normalisation == FIXED:
            return DeltaStatistics.fixed(len(dataset.classes))
        images = regions_of(settings, dataset, proposals, execution)
        return statistics_of(images, len(dataset.classes), settings, settings.mirror)

    def find_among(proposals: Reader, dataset: Dataset) -> Find[RegionExamples]:
        def find(image: TrainingImage[None], drawn: DrawnImage) -> RegionExamples:
            boxes = proposals.read(dataset.image_ids[drawn.position], ["boxes"])["boxes"]
            seen = image.view.regions(boxes, settings.least_visible)
            return draw_regions(seen, image.objects, statistics(), settings, drawn.random, image.inputs.device)

        return find

    validated, find_in_validation = inputs.optional_reader(PROPOSALS), None
    if validated is not None:
        check_proposals("train-fast", validated, inputs.dataset(ROLE))
        find_in_validation = find_among(validated, inputs.dataset(ROLE))

    train_on_images(
        STAGE.name,
        settings,
        inputs,
        output,
        execution,
        lambda ranks: RegionHeadTraining(settings, source, statistics(), execution.device, ranks, validated),
        find_among(proposals, dataset),
        find_in_validation=find_in_validation,
        regions_per_image=settings.regions_per_image,
        statistics=lambda: {"delta_means": statistics().means, "delta_stds": statistics().stds},
    )


def regions_of(
    settings: Settings, dataset: Dataset, proposals: Reader, execution: Execution
) -> Iterator[tuple[Boxes, Objects]]:
    """The proposals and objects of each image."""
    with execution.progress("train-fast: regions", len(dataset.image_ids), "images") as bar:
        for image_id in dataset.image_ids:
            boxes = proposals.read(image_id, ["boxes"])["boxes"]
            yield boxes, objects_of(dataset, image_id, settings.difficult)
            bar.advance(1, len(boxes))


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs, and the mean losses and accuracies of the last iterations."""
    source, names = inputs.network("network"), (*inputs.dataset("images").classes, BACKGROUND)
    return network_summary(STAGE, settings, trained_card(STAGE, settings, source), source, len(names), names, reader)
