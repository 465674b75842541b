"""Runs `propose`: images in, boxes out, one process per job. The boxes lie in order of priority, or in that of their
scores if the method ranks them (selection.py)."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import Column, Part, Reader, Record, Schema, Writer
from stages import masks
from stages.boxes import Boxes
from stages.contract.errors import BadImage, BadSetting
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs, OnDemand
from stages.contract.processes import fill_output, processes
from stages.datasets import Dataset
from stages.images.batches import fill_items
from stages.images.reading import ImageFile
from stages.plurals import number_of
from stages.propose import Settings
from stages.propose.box_file import BoxFile, fit_to_image
from stages.propose.mask_folder import MaskFile, MaskFolder
from stages.propose.methods import METHODS
from stages.propose.selection import (
    Proposals,
    Rows,
    content_of,
    first_distinct_rows,
    rows_by_position,
    rows_by_score,
    rows_by_size,
)

logger = logging.getLogger("stages.propose")

SCHEMA = Schema(
    item="image",
    rows={"boxes": Column("float32", (4,))},
    per_item={"image_size": Column("int32", (2,))},
)


@dataclass(frozen=True)
class Task:
    """One image to propose for. `key`: what the cache's key was made from (see `Method`). `listed`: its boxes from a
    file, else None; `source` names that file and the image. `masks`: its file of masks, if there is one. `searched`:
    whether the image gets proposals at all."""

    image_id: str
    file: ImageFile
    key: Mapping[str, Any]
    listed: Boxes | None = None
    source: str = ""
    masks: MaskFile | None = None
    searched: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its record (None if the image `path` is bad, for which `reason`) and how many boxes were
    cut."""

    record: Record | None
    reason: str = ""
    cut: int = 0
    path: str = ""


def identity(settings: Settings, inputs: Inputs, work: Path | None = None) -> dict[str, Any]:
    """What decides the boxes beside settings and inputs: how their order is seeded, unless it is that of a file or of
    scores, and what the method adds: the content of the file or of the model (checksums are remembered in the folder
    `work`), the number of our implementation, OpenCV's major version."""
    method = METHODS[settings.method]
    order = {} if method.listed or method.ranks else {"order": "seeded with the image's content"}
    return {**order, **method.key(settings, work)}


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The image ids of the dataset."""
    dataset = inputs.dataset("images")
    return dataset.image_ids


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """`boxes` float32 [n, 4] in order of priority, or of their `scores` float32 [n], highest first, if the method ranks
    them; `image_size` int32 (width, height) in pixels, (0, 0) if skipped. Where masks are kept also what
    stages/masks.py says.
    """
    return schema_of(settings)


def schema_of(settings: Settings) -> Schema:
    """The columns of the method's cache."""
    scores = {"scores": Column("float32")} if METHODS[settings.method].ranks else {}
    ranked = replace(SCHEMA, rows={**SCHEMA.rows, **scores})
    return masks.added_to(ranked) if settings.keeps_masks else ranked


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Writes every part that this process can claim.

    Raises BadImage for an image that cannot be read (unless it may be skipped) and StageError for a missing library or
    proposals that do not fit.
    """
    method = METHODS[settings.method]
    if method.reads_maps:
        fill_from_maps(settings, inputs, output, execution)
        return
    listed = method.load().open_boxes(settings, output.identity.settings) if method.listed else None
    begin(settings)
    feed = Feed(settings, inputs.dataset("images"), listed, output.claim(), output.identity.settings)
    function = attempt_alone if execution.jobs > 1 else attempt
    tasks = ((settings, task, execution.skip_bad_images) for task in feed.tasks())
    with (
        processes("propose", execution.jobs, waiting=execution.jobs) as workers,
        execution.progress("propose", output.remaining_items, "images") as bar,
    ):
        write_parts(feed, workers.map(function, tasks), output, bar)


def on_demand(settings: Settings, inputs: Inputs, execution: Execution) -> OnDemand:
    """The proposals of every image as the cache would hold them, found when they are read.

    Raises BadSetting for a method that lists the boxes of known images, StageError for a missing library.
    """
    method = METHODS[settings.method]
    if method.listed:
        raise BadSetting(
            f"method = '{settings.method}' has boxes only for the images that the file lists; to detect in "
            "others, set another method for the detector's split, as in [propose.test]"
        )
    begin(settings)
    if method.reads_maps:
        computed: OnDemand = method.load().of_maps(settings, inputs, execution.in_worker, schema_of(settings))
        return computed
    return ProposalsOnDemand(settings, inputs.dataset("images"), execution.skip_bad_images)


def network_parts(settings: Settings, inputs: Inputs, image_id: str) -> list[Any]:
    """The region proposal network, with the map of this image; nothing for a method without a network."""
    method = METHODS[settings.method]
    return method.load().network_parts(settings, inputs, image_id) if method.reads_maps else []


def fill_from_maps(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """`run` for a method that reads the maps of a network: parts in processes of their own on the CPU."""
    computed = on_demand(settings, inputs, execution)
    with execution.progress("propose", output.remaining_items, "images") as bar:
        fill_output("propose", functools.partial(fill_parts, computed, output), output, execution, bar)


def fill_parts(computed: OnDemand, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in this process. Raises BadImage (unless bad images are skipped), StageError, CacheError."""
    fill_items(computed.record, computed.manifest["skipped"], output, parts, bar)


def begin(settings: Settings) -> None:
    """Checks that the method can be used, and says what it has to say. Raises StageError for a missing library."""
    method = METHODS[settings.method]
    method.check_available()
    announcement = getattr(method.load(), "announcement", None)
    if announcement is not None:
        logger.info(announcement(settings))


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """For the manifest: how many boxes per image."""
    lengths = np.asarray(reader.lengths())
    return {
        "images": len(lengths),
        "boxes": int(lengths.sum()),
        "boxes_per_image": round(float(lengths.mean()), 1),
        "images_without_boxes": int((lengths == 0).sum()),
        "order": METHODS[settings.method].order,
    }


def left_out(settings: Settings, dataset: Dataset) -> frozenset[str]:
    """The images of the dataset that get no proposals; an image's digest says whether it is annotated exhaustively."""
    return dataset.images_not_exhaustive if settings.only_exhaustive else frozenset()


def without_boxes(schema: Schema, size: tuple[int, int]) -> Record:
    """The record of an image of `size` (width, height) without proposals."""
    return {**schema.empty(), "image_size": np.array(size, np.int32)}


class Feed:
    """The tasks of the parts as these are claimed, one by one; `claimed` are the parts not yet written."""

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        listed: BoxFile | MaskFolder | None,
        parts: Iterable[Part],
        key: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.key = key
        self.dataset = dataset
        self.left_out = left_out(settings, dataset)
        self.listed = listed
        self.parts = parts
        self.claimed: deque[Part] = deque()
        self.warned = False

    def tasks(self) -> Iterator[Task]:
        """One task an image, in the parts' order."""
        for part in self.parts:
            self.claimed.append(part)
            for image_id in part.item_ids:
                yield self.task(image_id)

    def task(self, image_id: str) -> Task:
        """The image's task, with its boxes if they come from a file."""
        file = self.dataset.image_file(image_id)
        if not self.warned:
            self.warn(file)
        if image_id in self.left_out:
            return Task(image_id, file, self.key, searched=False)
        if self.listed is None:
            return Task(image_id, file, self.key)
        if isinstance(self.listed, MaskFolder):
            return Task(image_id, file, self.key, masks=self.listed.file(image_id))
        return Task(image_id, file, self.key, self.listed.boxes(image_id), f"{self.listed.path}: image '{image_id}'")

    def warn(self, file: ImageFile) -> None:
        """Says the method's advice about images of this size, on the first image for which it has any."""
        advice = getattr(METHODS[self.settings.method].load(), "advice", None)
        if advice is None or file.header is None:  # whoever reads a bad file whole will tell
            return
        words = advice(self.settings, file.size)
        if words:
            self.warned = True
            logger.warning("%s %s", file.path, words)


def attempt_alone(settings: Settings, task: Task, skip_bad_images: bool) -> Outcome:
    """`attempt` in a process of its own, one of several: OpenCV gets one thread."""
    if METHODS[settings.method].reads_pixels:
        import cv2

        cv2.setNumThreads(1)
    return attempt(settings, task, skip_bad_images)


def attempt(settings: Settings, task: Task, skip_bad_images: bool) -> Outcome:
    """The task's outcome; a bad image is one too if it may be skipped, else BadImage is raised."""
    try:
        return propose(settings, task)
    except BadImage as error:
        if not skip_bad_images:
            raise
        return Outcome(None, error.reason, path=error.path)


def propose(settings: Settings, task: Task) -> Outcome:
    """The boxes of one image by the method of `settings`, the first `max_boxes` of them by priority."""
    if not task.searched:
        return Outcome(without_boxes(schema_of(settings), task.file.size))
    if task.masks is not None:
        size = task.file.size
        proposals, cut = task.masks.proposals(size), 0
        rows = np.arange(len(proposals.boxes))
    elif task.listed is not None:
        size = task.file.size
        fitting, cut = fit_to_image(task.listed, *size, task.source)
        proposals, rows = Proposals(fitting), first_distinct_rows(fitting)
    else:
        proposals, size, content = search(settings, task.file, task.key)
        rows, cut = rows_in_order(settings, proposals, content), 0
    kept = proposals.take(rows[: settings.max_boxes or len(rows)])
    return Outcome({**kept.columns(), "image_size": np.array(size, np.int32)}, cut=cut)


def rows_in_order(settings: Settings, proposals: Proposals, content: str) -> Rows:
    """The rows of the distinct boxes of an image with this `content_of`, in order of priority; all rows of a method
    that puts its regions in order itself."""
    if METHODS[settings.method].in_order:
        return np.arange(len(proposals.boxes))
    if METHODS[settings.method].ranks:
        return rows_by_score(proposals)
    if proposals.positions is not None:
        return rows_by_position(proposals, content, settings.seed)
    return rows_by_size(proposals.boxes, content, settings.seed)


def search(settings: Settings, file: ImageFile, key: Mapping[str, Any]) -> tuple[Proposals, tuple[int, int], str]:
    """(what the method finds in the image; its width and height; its `content_of`). A model must be that of `key`."""
    method = METHODS[settings.method]
    image = file.read() if method.reads_pixels else None
    size = file.size if image is None else (image.shape[1], image.shape[0])
    return method.load().find(settings, size, image, key), size, content_of(image, size)


class ProposalsOnDemand(OnDemand):
    """The proposals of each image of `images`; bad ones have none with `skip_bad_images`."""

    def __init__(self, settings: Settings, images: Dataset, skip_bad_images: bool) -> None:
        self.settings = settings
        self.images = images
        self.skip_bad_images = skip_bad_images
        self.key = METHODS[settings.method].key(settings, None)
        self.schema = schema_of(settings)
        self.manifest = {"skipped": {}, "summary": {}}

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images of the dataset."""
        return self.images.image_ids

    def record(self, item_id: str) -> Record:
        """One image's record. Raises BadImage unless bad images are to be skipped."""
        searched = item_id not in left_out(self.settings, self.images)
        task = Task(item_id, self.images.image_file(item_id), self.key, searched=searched)
        outcome = attempt_alone(self.settings, task, self.skip_bad_images)
        if outcome.record is None:
            self.manifest["skipped"][item_id] = outcome.reason
        return outcome.record or self.schema.empty()


def write_parts(feed: Feed, outcomes: Iterator[Outcome], output: Writer, bar: Progress) -> None:
    """Writes each claimed part as soon as its images' outcomes are there."""
    waiting: list[Outcome] = []
    cut = images = boxes = 0
    for outcome in outcomes:
        waiting.append(outcome)
        cut += outcome.cut
        rows = len(outcome.record["boxes"]) if outcome.record else 0
        images, boxes = images + 1, boxes + rows
        bar.advance(1, rows=rows)
        if len(waiting) == len(feed.claimed[0].item_ids):
            write_part(output, feed.claimed.popleft(), waiting)
            waiting = []
    if images and not boxes:
        of_images = "the image" if images == 1 else f"any of {images} images"
        logger.warning("no proposals for %s; check the settings of method = '%s'", of_images, feed.settings.method)
    if cut and feed.listed:
        reached = f"{number_of(cut, 'box')} reached over {'its' if cut == 1 else 'their'}"
        logger.warning("%s: %s image's edge and %s clipped", feed.listed.path, reached, "was" if cut == 1 else "were")


def write_part(output: Writer, part: Part, outcomes: Sequence[Outcome]) -> None:
    """Writes one part, with an empty record for every image that was skipped."""
    records = [outcome.record or output.schema.empty() for outcome in outcomes]
    bad = {
        image_id: outcome for image_id, outcome in zip(part.item_ids, outcomes, strict=True) if outcome.record is None
    }
    for outcome in bad.values():
        logger.warning("%s: skipped, it %s", outcome.path, outcome.reason)
    output.write(part, records, {image_id: outcome.reason for image_id, outcome in bad.items()})
