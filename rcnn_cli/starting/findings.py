"""What is in a folder's images and annotations, and what is wrong with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rcnn_cli.progress import Bar, Lines, progress
from rcnn_cli.starting.layouts import Layout
from stages.datasets import Dataset
from stages.datasets.check import CheckReport, ClassCount, check_dataset
from stages.datasets.records import some_of
from stages.gist import Settings as GistSettings
from stages.gist.duplicates import Described, Pair, find_duplicates
from stages.gist.neighbours import THRESHOLD
from stages.plurals import number_of
from stages.tables import aligned

FEW = 10
"""Classes with fewer objects than this are pointed out."""
ALIKE = 0.8
"""Names at least this similar (0 to 1) may be one misspelt."""
RARER = 10
"""A name that occurs this many times less often than one like it may be misspelt."""


@dataclass(frozen=True)
class Checked:
    """One of the folder's sets: the `report` on its images but those `left_out`, which have no annotation file; and the
    ids of the images that can be used, and of those with a problem."""

    dataset: Dataset
    report: CheckReport
    usable: tuple[str, ...]
    faulty: tuple[str, ...]
    left_out: tuple[str, ...]


def check_sets(layout: Layout, *, background: bool) -> dict[str, Checked]:
    """Reads every image and annotation of the layout. `background`: images without an annotation file are usable, as
    images without objects."""
    return {name: check_set(layout, dataset, background) for name, dataset in layout.sets.items()}


def reading(label: str, total: int, unit: str) -> AbstractContextManager[Bar | Lines]:
    """The progress of a check, called what it does first of all."""
    return progress("reading images and annotations", total, unit)


def check_set(layout: Layout, dataset: Dataset, background: bool) -> Checked:
    """One set of `check_sets`."""
    ids = dataset.image_ids
    strict = layout.annotation_files() and not background
    left_out = {one for one in ids if not dataset.annotation_path(one).exists()} if strict else set[str]()
    report = check_dataset(dataset.subset([place for place, one in enumerate(ids) if one not in left_out]), reading)
    faulty = set(report.faulty)
    usable = tuple(one for one in ids if one not in faulty and one not in left_out)
    return Checked(dataset, report, usable, *(tuple(one for one in ids if one in lost) for lost in (faulty, left_out)))


def counts_of(sets: Mapping[str, Checked]) -> dict[str, ClassCount]:
    """How often each class occurs in all sets together."""
    total: dict[str, ClassCount] = {}
    for checked in sets.values():
        for name, count in checked.report.classes.items():
            one = total.setdefault(name, ClassCount())
            one.images += count.images
            one.objects += count.objects
    return total


# Classes


def class_lines(counts: Mapping[str, ClassCount]) -> list[str]:
    """A table of the classes."""
    rows = [["class", "images", "objects"]]
    rows += [[name, f"{count.images:,}", f"{count.objects:,}"] for name, count in counts.items()]
    return aligned(rows, rules_before=())


def class_notes(counts: Mapping[str, ClassCount]) -> list[str]:
    """What is odd about the classes, one sentence each: misspelt, without objects, rare."""
    objects = {name: count.objects for name, count in counts.items()}
    notes = [
        f"'{rare}' ({number_of(objects[rare], 'object')}) may be '{common}' ({objects[common]}) misspelt; correct the "
        "annotations if so"
        for rare, common in likely_misspelt(objects)
    ]
    none = [name for name, count in objects.items() if not count]
    few = [f"{name} ({count})" for name, count in objects.items() if 0 < count < FEW]
    if none:
        notes.append(f"no objects of {some_of(none)}: nothing will be learnt of {'it' if len(none) == 1 else 'them'}")
    if few:
        advice = "--classes names those to keep"
        notes.append(f"few objects of {some_of(few)}: hardly enough to learn from, too few to measure; {advice}")
    return notes


def likely_misspelt(objects: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of names, the rarer first, that differ in case and punctuation alone, or are alike while one is RARER times
    as rare; given the number of objects of each name."""
    names = sorted((name for name, count in objects.items() if count), key=lambda name: (objects[name], name))
    pairs = ((rare, common) for place, rare in enumerate(names) for common in reversed(names[place + 1 :]))
    found: dict[str, str] = {}
    for rare, common in pairs:
        same = letters(rare) == letters(common)
        if same or (objects[rare] * RARER <= objects[common] and alike(letters(rare), letters(common))):
            found.setdefault(rare, common)
    return list(found.items())


def letters(name: str) -> str:
    """A name without case, spaces and punctuation, and a plural's s."""
    return re.sub(r"[\W_]+", "", name.casefold()).removesuffix("s")


def alike(one: str, other: str) -> bool:
    """Whether two names are probably one; digits at their ends tell names apart, as in class1 and class2."""
    return difflib.SequenceMatcher(None, one, other).ratio() >= ALIKE and re.findall(r"\d+", one) == re.findall(
        r"\d+", other
    )


# Images that show the same


def same_photographs(datasets: Sequence[Dataset]) -> list[Pair]:
    """The pairs of images, numbered through all of the `datasets`, that are copies of a file or near-duplicates by GIST
    (R-CNN Appendix F). Raises BadImage."""
    from stages.gist.descriptor import gist

    settings = GistSettings()
    descriptors, digests, flickr_ids, ids = [], list[str](), list[str | None](), list[str]()
    with progress("near-duplicates", sum(map(len, datasets)), "images") as bar:
        for dataset in datasets:
            digests += dataset.pixel_digests
            for image_id in dataset.image_ids:
                descriptors.append(gist(dataset.read_image(image_id), settings))
                flickr_ids.append(dataset.flickr_id(image_id))
                ids.append(image_id)
                bar.advance(1)
    part = np.stack(descriptors) if descriptors else np.zeros((0, settings.length), np.float32)
    return list(find_duplicates(Described(ids, digests, flickr_ids, [part]), None, THRESHOLD).pairs)


# What was found, in words


def names_of(checked: Checked, ids: Sequence[str]) -> str:
    """The file names of some images."""
    return some_of([path_of(checked.dataset, image_id).name for image_id in ids])


def path_of(dataset: Dataset, image_id: str) -> Path:
    """An image's file; its id where several files could be meant."""
    from stages.contract.errors import BadImage

    try:
        return dataset.image_path(image_id)
    except BadImage:
        return Path(image_id)
