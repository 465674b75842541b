"""Checking a dataset completely: every image is decoded, every annotation read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.contract.errors import BadImage
from stages.contract.execution import Progress, silent
from stages.datasets.class_masks import VOID
from stages.datasets.records import BadAnnotation, Faults, some_of
from stages.datasets.voc import Dataset
from stages.images.reading import ImageFile


@dataclass
class ClassCount:
    """How often a class occurs: in `images` images, as `objects` objects, and how many are difficult or truncated."""

    images: int = 0
    objects: int = 0
    difficult: int = 0
    truncated: int = 0


@dataclass
class CheckReport:
    """The result of a check: each class's counts, `problems`, and `notes` on harmless findings, one sentence each.

    `problem_count` counts all problems; of each file only the first are listed, with the number of the rest. `unusual`
    maps a deviation from the format to the names of the annotation files that have it. `faulty` are the ids of the
    images with a problem, of their own or their annotation's.
    """

    name: str
    images: int
    classes: dict[str, ClassCount]
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    notes: list[str] = field(default_factory=list)
    unusual: dict[str, list[str]] = field(default_factory=dict)
    faulty: list[str] = field(default_factory=list)


def check_dataset(
    dataset: Dataset, progress: Callable[[str, int, str], AbstractContextManager[Progress]] = silent
) -> CheckReport:
    """Decodes every image and reads every annotation and mask of the dataset; bad files are reported, never raised.

    Remembered digests are not trusted but replaced.
    """
    dataset.forget()
    report = CheckReport(dataset.name, len(dataset), {name: ClassCount() for name in dataset.classes})
    with progress("check", len(dataset), "images") as bar:
        for image_id in dataset.image_ids:
            before = report.problem_count
            check_image(dataset, image_id, report)
            if report.problem_count > before:
                report.faulty.append(image_id)
            bar.advance(1)
    for what, names in sorted(report.unusual.items()):
        many = f"{len(names)} annotation files have" if len(names) > 1 else "1 annotation file has"
        report.notes.append(f"{dataset.name}: {many} {what}: {some_of(names)}")
    report.notes.extend([*dataset.notes(), *dataset.choice_notes(), *dataset.orientation_notes()])
    dataset.remember()
    return report


def check_image(dataset: Dataset, image_id: str, report: CheckReport) -> None:
    """Adds one image's problems, objects and deviations from the format to the `report`."""
    image: ImageFile | None = None
    size: tuple[int, int] | None = None
    try:
        image = dataset.image_file(image_id)
        height, width, _ = image.read().shape
        size = (width, height)
    except BadImage as error:
        report.problems.append(str(error))
        report.problem_count += 1
    try:
        annotation = dataset.readable_annotation(image_id)
    except BadAnnotation as error:
        report.problems.append(str(error))
        report.problem_count += 1
        return
    faults = annotation.faults or Faults(dataset.annotation_path(image_id))
    for what in getattr(annotation, "unusual", ()):
        report.unusual.setdefault(what, []).append(annotation.path.name)
    size = annotation.size or size
    if size is not None:
        for problem in dataset.problems(image_id, annotation, size, image):
            faults.add(problem)
        kept, _ = dataset.split_objects(image_id, annotation, size)
        count((annotation.objects[place] for place in kept), report.classes)
    if image is not None and dataset.has_masks:
        names = {annotated.name for annotated in annotation.objects}
        for problem in mask_problems(dataset, image_id, names, unannotated=getattr(annotation, "missing", False)):
            faults.add(problem)
    report.problems += faults.sentences()
    report.problem_count += len(faults)


def mask_problems(dataset: Dataset, image_id: str, names: set[str], *, unannotated: bool) -> Iterator[str]:
    """The problems of an image's masks, one sentence each; `names` are the classes of its annotated objects, which are
    unknown where it is `unannotated`."""
    try:
        mask = dataset.class_mask(image_id)
        dataset.object_masks(image_id)
    except (BadAnnotation, BadImage) as error:
        yield str(error)
        return
    visible = [dataset.classes[index - 1] for index in np.unique(mask) if index not in (0, VOID)]
    others = [name for name in visible if name not in names]
    if others and not unannotated:
        yield (
            f"{dataset.mask_path(image_id)}: shows {', '.join(others)}, but {dataset.annotation_path(image_id).name} "
            "has no object of that class; correct one of the two"
        )


def count(objects: Iterable[Any], counts: dict[str, ClassCount]) -> None:
    """Adds annotated objects to the `counts`."""
    of_image = list(objects)
    for annotated in of_image:
        counts[annotated.name].objects += 1
        counts[annotated.name].difficult += annotated.difficult
        counts[annotated.name].truncated += annotated.truncated
    for name in {annotated.name for annotated in of_image}:
        counts[name].images += 1
