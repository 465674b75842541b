"""The whole images that a training is validated on, always the same ones, seen in the same way, with the same examples.

They are neither mirrored nor augmented, and enter the network at the first of the training's sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Generic

import numpy as np
import torch

from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.datasets import Dataset
from stages.images.batches import read_ahead
from stages.matching.ground_truth import check_exhaustive
from stages.networks import NetworkSource
from stages.plurals import number_of
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks
from stages.training.settings import JITTERS, LEAST_VISIBLE, WholeImageTraining
from stages.training.whole_images import (
    BATCHES_AHEAD,
    DrawnImage,
    Examples,
    Find,
    TrainingImage,
    WholeImages,
    count_objects,
)

OF_VALIDATION = 2
"""What sets the random numbers of validation images apart from those of training images, which are of kinds 0 and 1."""


class ValidationImages(Generic[Examples]):
    """This rank's share of the images of `dataset`, with the examples that `find` draws in each."""

    def __init__(
        self,
        settings: WholeImageTraining,
        dataset: Dataset,
        source: NetworkSource,
        find: Find[Examples],
        execution: Execution,
        ranks: Ranks,
    ) -> None:
        self.settings = as_they_are(settings)
        self.dataset = dataset
        self.ranks = ranks
        memory = ImageMemory(dataset, 0)
        self.reading = WholeImages(
            self.settings, dataset, memory, source, find, execution, ranks, regions_per_step=0, counts={}
        )

    def __len__(self) -> int:
        return len(self.dataset.image_ids)

    def __iter__(self) -> Iterator[tuple[str, TrainingImage[Examples]]]:
        """The id of each image, and the image, read ahead. Raises BadImage."""
        ready = read_ahead(
            self.image,
            range(self.ranks.rank, len(self), self.ranks.count),
            ahead=BATCHES_AHEAD,
            threads=1,
            initializer=torch.set_num_threads,
            initargs=(self.settings.threads,),
        )
        with contextlib.closing(ready) as images:
            for position, image in images:
                yield self.dataset.image_ids[position], image

    def image(self, position: int) -> TrainingImage[Examples]:
        """The image at a position of the dataset."""
        random, augmentation = (
            np.random.default_rng([self.settings.seed, position, number, 0, OF_VALIDATION]) for number in range(2)
        )
        return self.reading.image(DrawnImage(position, 0, False, random, augmentation))


def as_they_are(settings: WholeImageTraining) -> WholeImageTraining:
    """The settings without all that changes images at random."""
    without: dict[str, Any] = dict.fromkeys(JITTERS, 0.0)
    return replace(settings, mirror=False, least_visible=LEAST_VISIBLE, **without)


def check_validation_set(
    stage: str, settings: WholeImageTraining, validation: Dataset, training: Dataset, execution: Execution
) -> None:
    """Raises StageError for a validation set of other classes than the training set, without an object, with objects
    that may lack an annotation, or with fewer images than processes."""
    check_validation_classes(stage, validation, training)
    check_exhaustive(stage, validation, "would count as background")
    count_objects(f"{stage}: validation", validation, settings.difficult, execution)
    if len(validation.image_ids) < execution.ranks:
        raise StageError(
            f"{stage}: {number_of(len(validation.image_ids), 'image')} of {validation.name} cannot be shared among "
            f"{execution.ranks} processes; use a larger validation set, or start fewer with torchrun"
        )


def check_validation_classes(stage: str, validation: Dataset, training: Dataset) -> None:
    """Raises StageError for a validation set of other classes than the training set."""
    if tuple(validation.classes) != tuple(training.classes):
        raise StageError(
            f"{stage}: the classes of {validation.name}, its validation set, are not those of {training.name}; name a "
            "dataset with the same classes, in the same order, in inputs.validation"
        )
