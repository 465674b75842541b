"""A full look at a dataset: every image decoded, every annotation read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from stages.contract.errors import BadImage
from stages.contract.execution import Progress, silent
from stages.datasets.records import BadAnnotation, Faults, some_of
from stages.datasets.voc import Dataset
from stages.images.reading import ImageFile


@dataclass
class ClassCount:
    """How often a class occurs: in `images` images, `objects` times, of which so many are difficult or truncated."""

    images: int = 0
    objects: int = 0
    difficult: int = 0
    truncated: int = 0


@dataclass
class CheckReport:
    """What was found: each class's counts, `problems`, and `notes` of what is no problem, one sentence each.

    `problem_count` is that of all problems: of one file the first are listed, with the number of the others. `unusual`
    has the names of the annotation files in which something is not written as the format has it, by what.
    """

    name: str
    images: int
    classes: dict[str, ClassCount]
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    notes: list[str] = field(default_factory=list)
    unusual: dict[str, list[str]] = field(default_factory=dict)


def check_dataset(
    dataset: Dataset, progress: Callable[[str, int, str], AbstractContextManager[Progress]] = silent
) -> CheckReport:
    """Decodes every image and reads every annotation of the dataset; a bad file is a problem told, never an error.

    What is remembered of the files is not believed, but remembered anew.
    """
    dataset.forget()
    report = CheckReport(dataset.name, len(dataset), {name: ClassCount() for name in dataset.classes})
    with progress("check", len(dataset), "images") as bar:
        for image_id in dataset.image_ids:
            check_image(dataset, image_id, report)
            bar.advance(1)
    for what, names in sorted(report.unusual.items()):
        many = f"{len(names)} annotation files have" if len(names) > 1 else "1 annotation file has"
        report.notes.append(f"{dataset.name}: {many} {what}: {some_of(names)}")
    report.notes.extend([*dataset.notes(), *dataset.choice_notes(), *dataset.orientation_notes()])
    dataset.remember()
    return report


def check_image(dataset: Dataset, image_id: str, report: CheckReport) -> None:
    """Adds the problems of one image and its annotation, its objects, and what is unusual to the `report`."""
    image: ImageFile | None = None
    size: tuple[int, int] | None = None
    try:
        image = dataset.image_file(image_id)
        height, width, _ = image.read().shape
        size = (width, height)
    except BadImage as error:
        report.problems.append(f"{error.path}: {error.reason}; repair or remove it")
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
    report.problems += faults.sentences()
    report.problem_count += len(faults)


def count(objects: Iterable[Any], counts: dict[str, ClassCount]) -> None:
    """Adds annotated objects to the `counts`."""
    known = list(objects)
    for one in known:
        counts[one.name].objects += 1
        counts[one.name].difficult += one.difficult
        counts[one.name].truncated += one.truncated
    for name in {one.name for one in known}:
        counts[name].images += 1
