"""Which images are for training, for choosing settings and for measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rcnn_cli.starting.findings import Checked, same_photographs
from rcnn_cli.starting.layouts import WHOLE, Part
from rcnn_cli.starting.search import TEST, TRAIN, VAL
from stages.contract.errors import StageError
from stages.datasets import Dataset
from stages.datasets.balance import class_counts
from stages.datasets.records import some_of
from stages.datasets.splitting import connected_groups, divided
from stages.gist.duplicates import Pair
from stages.plurals import number_of

NAMES = (TRAIN, VAL, TEST)
LARGEST_GROUP = 0.3
"""A group with more of the images than this is not one photograph, but a set of photographs that all look alike."""


def divide(checked: Checked, fractions: Sequence[float], seed: int) -> tuple[dict[str, Part], list[str]]:
    """The usable images divided at random, each class as evenly as possible and near-duplicates together; and how, one
    sentence each. Raises StageError if there are too few, and BadImage."""
    dataset = subset(checked)
    groups, notes = groups_of(dataset)
    parts = divided(class_counts(dataset), groups, fractions, seed)
    found = {name: np.flatnonzero(parts == number) for number, name in enumerate(NAMES) if fractions[number] > 0}
    empty = [name for name, places in found.items() if not len(places)]
    if empty:
        raise StageError(
            f"{checked.dataset.folder}: has {number_of(len(dataset), 'image')} of {int(groups.max()) + 1} scenes, so "
            f"that none is left for {' and '.join(empty)}; add images"
        )
    chosen = {name: Part(WHOLE, ids_at(dataset, places), False) for name, places in found.items()}
    return chosen, notes


def subset(checked: Checked) -> Dataset:
    """The dataset of the usable images."""
    places = {image_id: place for place, image_id in enumerate(checked.dataset.image_ids)}
    if not checked.usable:
        raise StageError(f"{checked.dataset.folder}: none of its images can be used; correct the problems above first")
    return checked.dataset.subset([places[image_id] for image_id in checked.usable])


def ids_at(dataset: Dataset, places: NDArray[np.int64]) -> tuple[str, ...]:
    """The ids of the images at these positions."""
    return tuple(dataset.image_ids[place] for place in places)


def groups_of(dataset: Dataset) -> tuple[NDArray[np.int64], list[str]]:
    """The group of each image, int64 [n], and what they are, in a sentence if any has two images or more.

    If near-duplicates would form groups that are too large to divide, only copies of a file form groups, and a sentence
    says so."""
    pairs = same_photographs([dataset])
    groups = connected_groups(len(dataset), ends(pairs))
    largest = int(np.bincount(groups).max())
    if largest <= max(2, LARGEST_GROUP * len(dataset)):
        return groups, group_notes(dataset, groups)
    copies = connected_groups(len(dataset), ends([pair for pair in pairs if pair.exact]))
    alike = (
        f"{largest} of the images look so much alike that they cannot be kept together, and only copies of a file are; "
        "if they are frames of a few videos, divide them yourself, video by video, or the results will be too good"
    )
    return copies, [alike, *group_notes(dataset, copies)]


def ends(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """The numbers of the images of pairs."""
    return [(pair.a, pair.b) for pair in pairs]


def group_notes(dataset: Dataset, groups: NDArray[np.int64]) -> list[str]:
    """Which images are kept together, in a sentence, if any are."""
    sizes = np.bincount(groups)
    several = np.flatnonzero(sizes > 1)
    if not len(several):
        return []
    members = [ids_at(dataset, np.flatnonzero(groups == group)) for group in several]
    shown = some_of([" = ".join(ids[:4]) + (" = ..." if len(ids) > 4 else "") for ids in members])
    many = number_of(int(sizes[several].sum()), "image")
    return [f"{many} are copies or near-duplicates of others and stay together: {shown}"]


def as_divided(sets: Mapping[str, Checked]) -> tuple[dict[str, Part], list[str]]:
    """The folder's own division, without the images that cannot be used; notes on what is missing or in two sets.

    Without a test set, results are measured on val. Raises StageError if nothing can be trained or measured."""
    parts = {name: Part(name, one.usable, one.usable == one.dataset.image_ids) for name, one in sets.items()}
    empty = [name for name, part in parts.items() if not part.image_ids]
    if empty:
        raise StageError(f"{empty[0]}: none of its images can be used; correct the problems above first")
    notes = leaks(sets)
    if TEST not in parts:
        parts[TEST] = parts.pop(VAL)
        notes.append("there is no test set, so results will be measured on val; choose no settings by them")
    return {name: parts[name] for name in NAMES if name in parts}, notes


def leaks(sets: Mapping[str, Checked]) -> list[str]:
    """Which images of other sets are also, or nearly, in the training set, a sentence each."""
    datasets = {name: subset(checked) for name, checked in sets.items()}
    of = np.repeat(list(datasets), [len(dataset) for dataset in datasets.values()]).tolist()
    ids = [image_id for dataset in datasets.values() for image_id in dataset.image_ids]
    found: dict[str, dict[str, str]] = {}
    for pair in same_photographs(list(datasets.values())):
        first, second = sorted((pair.a, pair.b), key=lambda image: of[image] != TRAIN)
        if of[first] == TRAIN and of[second] != TRAIN:
            found.setdefault(of[second], {})[ids[second]] = ids[first]
    return [
        f"{number_of(len(pairs), 'image')} of {name} {'is' if len(pairs) == 1 else 'are'} also in train, or nearly, "
        f"which makes results too good: {some_of([f'{one} ({other})' for one, other in pairs.items()])}"
        for name, pairs in found.items()
    ]
