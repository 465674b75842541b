"""The classify stage: images with one class each and a network in, a class vector per image out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import Column, Part, Reader, Record, Schema, Writer
from cache.files import cannot
from cache.identity import short_digest
from stages.classify import CROPS, Settings
from stages.classify.errors import ranks, share_interval
from stages.contract.errors import BadImage, StageError
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs
from stages.contract.processes import fill_output
from stages.contract.settings import check_device
from stages.datasets import ClassificationDataset
from stages.images.batches import fill_items, images_ahead
from stages.input_files import named_file, read_whole
from stages.networks import BACKGROUND, NetworkSource
from stages.networks.precision import arithmetic, load_first, loaded, not_finite

log = logging.getLogger("stages.classify")

TOP = (1, 5)
LARGEST = 10_000_000
"""Bytes of a file of class names."""


def identity(settings: Settings, inputs: Inputs, work: Path | None = None) -> dict[str, Any]:
    """The names in the class file, if there is one."""
    return {"classes": short_digest(*read_names(settings.class_file))} if settings.class_file else {}


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images of the dataset."""
    return list(inputs.classification("images").image_ids)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per image: the mean class vector `scores`, the network's output that its `label` is, and the number of `views` of
    this network that were pooled (0 if the image was skipped)."""
    return Schema(
        item="image",
        per_item={
            "scores": Column("float32", (inputs.network("network").classes,)),
            "label": Column("int32"),
            "views": Column("int32"),
        },
    )


def attributes(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """The names of the network's classes."""
    return {"classes": list(output_names(settings, inputs))}


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Classifies the images of the parts that can be claimed.

    On the CPU, `execution.jobs` single-threaded processes take one part at a time; on CUDA, one process. Raises
    StageError if the classes of the network and the dataset do not fit, or another network's scores are of other images
    or classes.
    """
    source, dataset = inputs.network("network"), inputs.classification("images")
    names = output_names(settings, inputs)
    others = inputs.optional_reader("with")
    if others is not None:
        check_others(others, dataset, names)
    check_device(settings, execution.device, "classify.")
    if not execution.device.startswith("cuda"):
        load_first(source, settings.precision, execution)
    task = Task(settings, dataset, source, names, others, execution.in_worker, {})
    with execution.progress("classify", output.remaining_items, "images") as bar:
        fill_output("classify", functools.partial(fill_parts, task, output), output, execution, bar)


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The errors of all images but skipped ones, and of each class; None where there are none.

    `networks` is how many networks the class vectors are averaged over.
    """
    names = output_names(settings, inputs)
    others = inputs.optional_reader("with")
    scores, labels, views = read_vectors(reader)
    rank = ranks(scores, labels, competing(names))
    classes = {name: errors_of(rank[labels == names.index(name)]) for name in inputs.classification("images").classes}
    warn_of_chance(rank, len(names))
    return {
        **errors_of(rank),
        **{f"top_{count}_interval": interval_of(rank, count) for count in TOP},
        "networks": 1 if others is None else others.manifest["summary"]["networks"] + 1,
        "views": round(float(views.mean()), 1) if len(views) else 0.0,
        "class_names": list(names),
        "classes": classes,
    }


def read_vectors(reader: Reader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the n images that were not skipped: `scores` float32 [n, K], `labels` int32 [n] and `views` int32 [n]."""
    records = [record for _, record in reader.records() if record["views"]]
    classes = reader.schema.per_item["scores"].shape[0]
    scores = np.array([record["scores"] for record in records], np.float32).reshape(-1, classes)
    labels, views = (np.array([record[name] for record in records], np.int32) for name in ("label", "views"))
    return scores, labels, views


def competing(names: Sequence[str]) -> np.ndarray:
    """Which of the network's classes an image may have: all but a background, bool [K]."""
    return np.array([name != BACKGROUND for name in names], bool)


def errors_of(rank: np.ndarray) -> dict[str, Any]:
    """The number of images whose classes have these ranks, int64 [n], and the top-1 and top-5 errors."""
    shares = {f"top_{count}_error": float((rank >= count).mean()) if len(rank) else None for count in TOP}
    return {"images": len(rank), **shares}


def interval_of(rank: np.ndarray, count: int) -> list[float] | None:
    """The 95 % interval of a top-`count` error over images drawn at random; None without images."""
    return list(share_interval(int((rank >= count).sum()), len(rank))) if len(rank) else None


def warn_of_chance(rank: np.ndarray, classes: int) -> None:
    """Warns if the top-5 error of at least 100 images is no better than chance, as with classes in a wrong order."""
    chance = 1 - TOP[1] / classes
    if len(rank) >= 100 and chance > 0 and (rank >= TOP[1]).mean() >= chance:
        log.warning(
            "the top-5 error is no better than chance: is the network trained, and are its outputs in the order that "
            "was assumed? classify.class_file names their classes"
        )


# Classes


def read_names(text: str) -> tuple[str, ...]:
    """The lines of the file of class names, without surrounding spaces. Raises StageError."""
    path = named_file(text, "file of class names", "classify.class_file")
    try:
        names = [line.strip() for line in read_whole(path, LARGEST).decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise StageError(f"{path}: is not UTF-8 text ({error}); correct classify.class_file") from error
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "correct classify.class_file")) from error
    for number, name in enumerate(names, start=1):
        if not name or name in names[: number - 1]:
            what = f"repeats '{name}'" if name else "is empty"
            raise StageError(f"{path}: line {number} {what}; write the name of one class on each line, each once")
    return tuple(names)


def output_names(settings: Settings, inputs: Inputs) -> tuple[str, ...]:
    """The name of each of the network's outputs: those of the class file, else those that the network records, else the
    dataset's classes in order. Raises StageError unless they fit the network and include the dataset's classes."""
    source, dataset = inputs.network("network"), inputs.classification("images")
    if settings.class_file:
        names, origin = read_names(settings.class_file), settings.class_file
    elif source.class_names:
        names, origin = source.class_names, f"the {source.name} that was trained"
    else:
        names, origin = tuple(dataset.classes), dataset.name
    if len(names) != source.classes:
        raise StageError(
            f"classify: {source.name} has {source.classes} outputs, but {origin} has {len(names)} classes; name the "
            "classes of the outputs in classify.class_file, one per line"
        )
    unknown = sorted(set(dataset.classes) - set(names))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise StageError(
            f"classify: {origin} does not have the class '{unknown[0]}'{more} of {dataset.name}; rename the folders of "
            "the dataset, or name the network's classes in classify.class_file"
        )
    return names


def check_others(others: Reader, dataset: ClassificationDataset, names: Sequence[str]) -> None:
    """Raises StageError unless the class scores of other networks are of the same images and classes."""
    if others.item_ids != tuple(dataset.image_ids):
        raise StageError(
            f"classify: the scores to average with are of {len(others.item_ids)} other images; give both tables the "
            "same split"
        )
    if others.manifest["summary"]["class_names"] != list(names):
        raise StageError(
            "classify: the scores to average with are of other classes, or in another order; use networks that were "
            "trained on the same classes"
        )


# Images


@dataclass(frozen=True)
class Task:
    """What a process needs to classify images; `skipped` notes the images that it skipped, and why."""

    settings: Settings
    dataset: ClassificationDataset
    source: NetworkSource
    names: tuple[str, ...]
    others: Reader | None
    execution: Execution
    skipped: dict[str, str]

    @functools.cached_property
    def label_of_image(self) -> Mapping[str, int]:
        """The network's output that each image's class is."""
        outputs = [self.names.index(name) for name in self.dataset.classes]
        labels = (outputs[label] for label in self.dataset.labels.tolist())
        return dict(zip(self.dataset.image_ids, labels, strict=True))

    def record(self, image_id: str) -> Record:
        """One image's record. Raises BadImage unless bad images are skipped, StageError for scores not finite."""
        from stages.classify.views import crop_vector, dense_vector  # imported here: it imports PyTorch

        label = np.array(self.label_of_image[image_id], np.int32)
        try:
            pixels = self.dataset.read_image(image_id)
        except BadImage as error:
            self.skipped[image_id] = self.execution.skip(error)
            return {"scores": np.zeros(len(self.names), np.float32), "label": label, "views": np.array(0, np.int32)}
        with arithmetic(self.settings.precision, self.execution.device):
            network = loaded(self.source, self.settings.precision, self.execution.device)
            if self.settings.method == CROPS:
                vector, views = crop_vector(pixels, network, self.settings)
            else:
                vector, views = dense_vector(pixels, network, self.settings, image_id)
        if not np.isfinite(vector).all():
            raise not_finite("classify", f"the scores of image '{image_id}'", "float32")
        return {"scores": self.averaged(vector, image_id), "label": label, "views": np.array(views, np.int32)}

    def averaged(self, vector: np.ndarray, image_id: str) -> np.ndarray:
        """The mean of a class vector [K] and those of the other networks, if any: float32 [K]. Raises StageError if the
        others skipped the image."""
        if self.others is None:
            return vector
        if image_id in self.others.manifest.get("skipped", {}):
            raise StageError(
                f"classify: image '{image_id}' was skipped in the scores to average with; repair it and run that table "
                "again with --force"
            )
        networks = int(self.others.manifest["summary"]["networks"])
        total = networks * self.others.read(image_id, ["scores"])["scores"].astype(np.float64) + vector
        return (total / (networks + 1)).astype(np.float32)


def fill_parts(task: Task, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in this process; images are decoded while the network runs. Raises as `Task.record`."""
    depth = images_ahead(task.execution.device)
    fill_items(task.record, task.skipped, output, parts, bar, ahead=depth, threads=depth)
