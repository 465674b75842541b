"""What the stages share that train a detector on whole images: their run, and the card and summary of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cache import Reader, Record, Writer
from stages.contract.card import Stage
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import check_device
from stages.matching.ground_truth import check_exhaustive
from stages.networks import NetworkCard, NetworkSource, PlannedNetwork
from stages.networks.weights import NETWORK
from stages.training.detectors import DetectorTraining
from stages.training.image_memory import MEGABYTE, ImageMemory
from stages.training.log import last_means
from stages.training.loop import train
from stages.training.ranks import Ranks, joined
from stages.training.settings import WholeImageTraining
from stages.training.state import reproducible
from stages.training.validation import Validation, validation_summary
from stages.training.validation_images import ValidationImages, check_validation_set
from stages.training.validation_settings import ROLE
from stages.training.whole_images import Examples, Find, WholeImages, count_objects, maps_of_trunk


def train_on_images(
    stage: str,
    settings: WholeImageTraining,
    inputs: Inputs,
    output: Writer,
    execution: Execution,
    make_trainer: Callable[[Ranks], DetectorTraining[Examples]],
    find: Find[Examples],
    *,
    find_in_validation: Find[Examples] | None = None,
    regions_per_image: int,
    statistics: Callable[[], Record] = dict,
) -> None:
    """Trains for `settings.iterations` on images in which `find` draws examples, saving checkpoints, in one or several
    processes. Examples of a validation set are drawn by `find_in_validation`, or by `find` as well. The cache gets the
    number of objects and the `statistics` of the training set. Raises BadSetting for a
    device or a number of processes that does not fit the settings, and StageError if there are no objects, or if images
    may show some that are not annotated."""
    dataset, source = inputs.dataset("images"), inputs.network("network")
    check_exhaustive(stage, dataset, "would be trained on as background")
    check_device(settings, execution.device, f"{stage}.")
    settings.check_ranks(stage, execution.ranks)
    memory = ImageMemory(dataset, settings.image_memory * MEGABYTE)

    def make_sampler() -> WholeImages[Examples]:
        return WholeImages(
            settings,
            dataset,
            memory,
            source,
            find,
            execution,
            ranks,
            regions_per_step=settings.images_per_batch * regions_per_image,
            maps=maps_of_trunk(inputs, source, stage, settings.map_border),
            counts={**count_objects(stage, dataset, settings.difficult, execution), **statistics()},
        )

    def validation() -> Validation[DetectorTraining[Examples]] | None:
        if ROLE not in inputs:
            return None
        check_validation_set(stage, settings, inputs.dataset(ROLE), dataset, execution)
        images = ValidationImages(settings, inputs.dataset(ROLE), source, find_in_validation or find, execution, ranks)
        return Validation.of(settings, lambda trainer: trainer.validated(images))

    with joined(stage, execution) as ranks, reproducible(settings.threads, settings.precision == "tf32"):
        train(
            lambda: make_trainer(ranks),
            make_sampler,
            output,
            execution,
            ranks,
            checkpoint_seconds=settings.checkpoint_seconds,
            validation=validation(),
        )


def trained_card(stage: Stage, settings: Any, source: NetworkSource) -> NetworkCard:
    """The card of the network that the stage makes of `source`."""
    assert stage.plans is not None
    return stage.plans(settings, PlannedNetwork(source.card, bool(source.class_names))).card


def network_summary(
    stage: Stage,
    settings: WholeImageTraining,
    card: NetworkCard,
    source: NetworkSource,
    classes: int,
    class_names: Sequence[str],
    reader: Reader,
) -> dict[str, Any]:
    """What `NetworkSource.from_reader` needs of a network with `classes` outputs, called `class_names` if they are
    known; the number of objects, the mean losses and accuracies of the last iterations, and the validation of the
    weights that were kept."""
    return {
        "network": source.name,
        "preprocessing": source.preprocessing.as_json(),
        "classes": classes,
        **({"class_names": list(class_names)} if class_names else {}),
        "objects": int(reader.read(NETWORK, ["objects"])["objects"]),
        "heads": card.heads.as_json(),
        **last_means(reader, stage),
        **validation_summary(reader, settings),
    }
