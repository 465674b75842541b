"""The train-svm stage: one pass over the images for all classes, retraining each after enough new hard negatives."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cache import Column, Part, Reader, Record, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution, restoring
from stages.contract.inputs import Inputs
from stages.contract.processes import Processes, processes
from stages.features.linear_models import NEVER_DETECTED
from stages.features.reading import feature_scale, layer_dimension, scaled
from stages.matching.examples import unused_rows
from stages.matching.ground_truth import check_images
from stages.matching.windows import negative_rows, present_overlaps
from stages.plurals import number_of
from stages.train_svm import STAGE, Settings
from stages.train_svm.checkpoint import as_arrays, restore
from stages.train_svm.mining import (
    BLOCK_CLASSES,
    LOG_COLUMNS,
    BlockScorer,
    ClassMiner,
    finish_round,
    hard_negatives,
    is_due,
    log_table,
    mined_images,
)
from stages.train_svm.pool import FeaturePool, Keys, by_image, keys_of
from stages.train_svm.positives import COLUMNS, Positives, read_positives
from stages.train_svm.solver import Solution, fit_svms

logger = logging.getLogger("stages.train_svm")

MOST_PARTS = 512
SHARED_CLASSES = 32
SHARED_BYTES = 8_000_000
"""Limits on the classes, and their features, that share one task of a worker: many small classes are sent together."""
CHECKPOINT_COST = 2.0
"""Seconds that a checkpoint may take; slower ones are saved less often."""


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The classes, by name."""
    return tuple(inputs.dataset("images").classes)


def part_size(settings: Settings, inputs: Inputs) -> int:
    """Four classes per part, or more where that would make over 512 parts."""
    return max(STAGE.part_size, -(-len(inputs.dataset("images").classes) // MOST_PARTS))


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per class: `weights` [D] on scaled features, `bias`, the features' `scale`, counts, and the `log` of rounds."""
    return Schema(
        item="class",
        per_item={
            "weights": Column("float64", (layer_dimension(inputs.reader("features"), settings.layer),)),
            "bias": Column("float64"),
            "scale": Column("float64"),
            "positives": Column("int32"),
            "negatives": Column("int32"),
        },
        tables={"log": {name: Column(dtype) for name, dtype in LOG_COLUMNS.items()}},
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Trains the classes of all parts it can claim; each pass over the images trains as many as fit into `memory`."""
    features, dataset = inputs.reader("features"), inputs.dataset("images")
    check_images("train-svm", features.item_ids, dataset, "features")
    check_minable(dataset)
    dimension = layer_dimension(features, settings.layer)
    claimed, put_off, trainings = output.claim(), list[Part](), Trainings()
    prepared: tuple[float, Positives] | None = None
    with (
        threadpool_limits(1, user_api="blas"),
        processes("train-svm", execution.jobs) as workers,
    ):
        while parts := put_off[:1] or list(islice(claimed, 1)):
            if prepared is None:
                scale = feature_scale(
                    features, settings.layer, target_norm=settings.target_norm, seed=settings.norm_seed
                )
                prepared = scale, read_positives(features, dataset, settings.positive_overlap, settings.difficult)
                part_bytes = output.part_size * class_bytes(dimension, int(features.lengths().max()))
                at_once = int(settings.memory * 1e6 // part_bytes)
            parts += put_off[1:at_once]
            put_off = put_off[len(parts) :]
            parts += islice(claimed, max(0, at_once - len(parts)))
            put_off += train_parts(parts, settings, features, dataset, *prepared, output, execution, workers, trainings)
    trainings.say_unfinished(settings)


def check_minable(dataset: Any) -> None:
    """Raises StageError if no image is annotated exhaustively."""
    if len(dataset.images_not_exhaustive) == len(dataset.image_ids):
        raise StageError(
            f"train-svm: none of the {len(dataset.image_ids)} images of {dataset.name} is annotated exhaustively "
            "(exhaustive = false), so there is nothing to mine negatives in; add a source that is"
        )


def class_bytes(dimension: int, regions: int) -> int:
    """Bytes that a class holds before its first image: its SVM in float64 and (for scoring) float32, and the keys of
    one image of that many `regions`."""
    return 12 * (dimension + 1) + 8 * regions


def train_parts(
    parts: list[Part],
    settings: Settings,
    features: Reader,
    dataset: Any,
    scale: float,
    positives: Positives,
    output: Writer,
    execution: Execution,
    workers: Processes,
    trainings: Trainings,
) -> list[Part]:
    """Trains the classes of `parts` in one pass over the images, from their checkpoints if any, and writes them.

    Returns the parts that were put off, with a checkpoint, because the classes outgrew the memory.
    """
    miners = {part.index: start_part(part, settings, features, positives, output) for part in parts}
    with FeaturePool(output.folder, *layer_type(features, settings.layer)) as pool:
        every = [miner for of_part in miners.values() for miner in of_part]
        mining = Mining(settings, features, dataset, scale, every, pool, workers, trainings)
        put_off = make_room(mining, parts, miners, settings, output)
        remaining = len(mining.remaining)
        pause, saved = settings.checkpoint_seconds, time.monotonic()
        with execution.progress("train-svm", remaining, "images") as bar:
            for rows in mining.images():
                put_off = make_room(mining, parts, miners, settings, output) + put_off
                if time.monotonic() - saved >= pause:
                    started = time.monotonic()
                    save(parts, miners, output)
                    saved = time.monotonic()
                    pause = settings.checkpoint_seconds * max(1.0, (saved - started) / CHECKPOINT_COST)
                bar.advance(1, rows)
    for part in parts:
        output.write(part, [record_of(miner, scale) for miner in miners[part.index]])
    return put_off


def save(parts: Sequence[Part], miners: Mapping[int, Sequence[ClassMiner]], output: Writer) -> None:
    """Saves a checkpoint of each part."""
    for part in parts:
        output.checkpoint(part).save(as_arrays(miners[part.index]))


def make_room(
    mining: Mining, parts: list[Part], miners: dict[int, list[ClassMiner]], settings: Settings, output: Writer
) -> list[Part]:
    """Takes parts out of the pass, last ones first and with checkpoints, until the rest fit into `memory`; returns
    them. One part always stays, however large."""
    late: list[Part] = []
    while len(parts) > 1 and mining.nbytes > settings.memory * 1e6:
        half = parts[len(parts) // 2 :]
        del parts[len(parts) // 2 :]
        save(half, miners, output)
        mining.drop([miner for part in half for miner in miners.pop(part.index)])
        late = half + late
    return late


def layer_type(features: Reader, layer: str) -> tuple[int, str]:
    """The dimension D and the stored dtype of `layer`."""
    column = features.schema.rows[layer]
    return column.shape[0], column.dtype


def start_part(
    part: Part, settings: Settings, features: Reader, positives: Positives, output: Writer
) -> list[ClassMiner]:
    """The part's classes, from their checkpoint or at the first image; classes without objects are already done."""
    dimension = layer_dimension(features, settings.layer)
    first = part.index * output.part_size
    miners = [
        ClassMiner(name, label, keys_of(*positives.of_class(label)), np.zeros(dimension))
        for label, name in enumerate(part.item_ids, start=first)
    ]
    saved = output.checkpoint(part).load()
    if saved is not None:
        with restoring(output.checkpoint(part)):
            restore(miners, saved, len(features))
    for miner in miners:
        if not len(miner.positives):
            miner.next_image = len(features)
            logger.warning(
                "class '%s' has no objects in the training images and will never be detected; "
                "add images of it, or leave it out of the dataset's classes",
                miner.name,
            )
    return miners


@dataclass
class Trainings:
    """Counts the SVMs trained by this process, and keeps the relative duality gap of those that did not converge."""

    total: int = 0
    unfinished: list[tuple[str, float]] = field(default_factory=list)

    def count(self, name: str, solution: Solution) -> None:
        """Adds a training of the class `name`."""
        self.total += 1
        if not solution.converged:
            self.unfinished.append((name, solution.gap))

    def say_unfinished(self, settings: Settings) -> None:
        """Logs one warning for all trainings that did not converge, if any."""
        if not self.unfinished:
            return
        worst, gap = max(self.unfinished, key=lambda training: training[1])
        logger.warning(
            "%d of %d SVM trainings stopped at max_iterations = %d before reaching tolerance %g; their objective "
            "could fall by at most %s %% more (class '%s'); raise max_iterations to %d to let them converge",
            len(self.unfinished),
            self.total,
            settings.max_iterations,
            settings.tolerance,
            f"{100 * gap:.2g}" if gap < 0.1 else f"{100 * gap:.0f}",
            worst,
            10 * settings.max_iterations,
        )


class Mining:
    """One pass over the images for several classes, which may join it at different images."""

    def __init__(
        self,
        settings: Settings,
        features: Reader,
        dataset: Any,
        scale: float,
        miners: Sequence[ClassMiner],
        pool: FeaturePool,
        workers: Processes,
        trainings: Trainings,
    ) -> None:
        self.settings = settings
        self.trainings = trainings
        self.features = features
        self.dataset = dataset
        self.scale = scale
        waiting = (miner for miner in miners if miner.next_image < len(features))
        self.miners = sorted(waiting, key=lambda miner: miner.label)
        self.pool = pool
        self.workers = workers
        self.scorer = BlockScorer(pool.dimension, self.miners)
        self.first_image = min((miner.next_image for miner in self.miners), default=len(features))
        exhaustive = np.array([image_id not in dataset.images_not_exhaustive for image_id in features.item_ids], bool)
        self.mined = mined_images(exhaustive, settings.mining_images, settings.mining_seed)
        self.regions = int(features.lengths().max())
        self.hold_examples()

    def hold_examples(self) -> None:
        """Reads the features of all positives, and of negatives restored from a checkpoint, image by image."""
        every, holders = np.unique(
            np.concatenate([np.zeros(0, np.int64), *(miner.examples for miner in self.miners)]), return_counts=True
        )
        for image, where, rows in by_image(every):
            stored = self.features.rows(self.features.item_ids[image], self.settings.layer, rows)
            self.pool.hold(every[where], stored, holders[where])

    @property
    def nbytes(self) -> int:
        """Bytes held by the classes: SVMs, keys of examples, the pool's tables, and room for the next image."""
        classes = sum(miner.weights.nbytes + miner.positives.nbytes + miner.negatives.nbytes for miner in self.miners)
        return classes + self.scorer.nbytes + self.pool.nbytes + 8 * self.regions * len(self.miners)

    def drop(self, miners: Sequence[ClassMiner]) -> None:
        """Removes classes from this pass; they continue in a later one."""
        gone = {miner.label for miner in miners}
        self.pool.release(np.concatenate([miner.examples for miner in self.miners if miner.label in gone]))
        self.miners = [miner for miner in self.miners if miner.label not in gone]
        self.scorer = BlockScorer(self.pool.dimension, self.miners)

    @property
    def remaining(self) -> NDArray[np.int64]:
        """The mined images, by position, that a class has yet to visit: int64 [n]."""
        return self.mined[self.mined >= self.first_image]

    def images(self) -> Iterator[int]:
        """Visits the mined images in order; yields each one's number of regions once all classes are done with it."""
        columns = [*COLUMNS, self.settings.layer]
        images = self.remaining
        if not len(images):
            return
        ids = [self.features.item_ids[image] for image in images]
        for image, (_, record) in zip(images.tolist(), self.features.records(columns, ids), strict=True):
            self.visit(image, record)
            yield len(record["boxes"])

    def visit(self, image: int, record: Record) -> None:
        """Adds the image's hard negatives and trains the classes that are due."""
        active = [miner for miner in self.miners if miner.next_image <= image]
        self.add_negatives(image, record, active)
        is_end = image in (self.mined[0], self.mined[-1])
        due = [miner for miner in active if is_due(miner, is_end, self.settings.retrain_after)]
        evicted = [self.take_over(miner, image, solution) for miner, solution in zip(due, self.solve(due), strict=True)]
        self.pool.release(np.concatenate([np.zeros(0, np.int64), *evicted]))
        for miner in active:
            miner.next_image = len(self.features) if image == self.mined[-1] else image + 1

    def add_negatives(self, image: int, record: Record, active: Sequence[ClassMiner]) -> None:
        """Adds the hard negatives of one image to each class."""
        stored = record[self.settings.layer]
        features = scaled(stored, self.scale)
        here = present_overlaps(record["boxes"], record["is_object"], record["label"])
        unused = unused_rows(record, self.features.item_ids[image], self.dataset, self.settings.difficult)
        negatives = negative_rows(here.overlaps, here.own_object, self.settings.negative_overlap) & ~unused[:, None]
        holders = np.zeros(len(stored), np.int32)
        for block, group in groupby(active, lambda miner: miner.label // BLOCK_CLASSES):
            allowed = np.repeat(~unused[:, None], BLOCK_CLASSES, axis=1)
            those = here.present // BLOCK_CLASSES == block
            allowed[:, here.present[those] % BLOCK_CLASSES] = negatives[:, those]
            scores = self.scorer.scores(features, block)
            hard = hard_negatives(scores, allowed, image == self.mined[0], self.settings.hard_threshold)
            some = np.asarray(hard.any(axis=0))
            for miner in group:
                if some[miner.label % BLOCK_CLASSES]:
                    holders[miner.add(image, np.flatnonzero(hard[:, miner.label % BLOCK_CLASSES]))] += 1
        held = np.flatnonzero(holders)
        self.pool.hold(keys_of(image, held), stored[held], holders[held])

    def solve(self, due: Sequence[ClassMiner]) -> Iterator[Solution]:
        """Trains the classes that are due, in worker processes: liblinear's random numbers are global to a process."""
        if not due:
            return
        at_most = min(SHARED_CLASSES, -(-len(due) // (2 * self.workers.jobs)))
        tasks = (
            ([self.pool.read(keys)], members, self.scale, self.settings)
            for keys, members in batches(due, at_most, SHARED_BYTES // self.pool.row_bytes)
        )
        for solutions in self.workers.map(fit_svms, tasks):
            yield from solutions

    def take_over(self, miner: ClassMiner, image: int, solution: Solution) -> Keys:
        """Finishes a class's round with its new SVM; returns the evicted keys, int64 [k]."""
        self.trainings.count(miner.name, solution)
        evicted = finish_round(miner, image, solution, self.settings)
        self.scorer.update(miner)
        say_round(miner, final=image == self.mined[-1])
        return evicted


def batches(
    due: Sequence[ClassMiner], at_most: int, rows: int
) -> Iterator[tuple[Keys, list[tuple[NDArray[np.int64], int]]]]:
    """Groups classes into tasks; each task is the keys of its rows, int64 [n], and, per class, which of the rows are
    its examples, int64 [m], and how many of these (the first ones) are positives.

    Up to `at_most` classes share a task, as long as they have no more than `rows` distinct examples together.
    """
    group: list[ClassMiner] = []
    keys = np.zeros(0, np.int64)
    for miner in due:
        more = miner.examples
        more = more[~np.isin(more, keys)]
        if group and (len(group) == at_most or len(keys) + len(more) > rows):
            yield keys, members_of(group, keys)
            group, keys, more = [], keys[:0], miner.examples
        group.append(miner)
        keys = np.concatenate([keys, more])
    if group:
        yield keys, members_of(group, keys)


def members_of(group: Sequence[ClassMiner], keys: Keys) -> list[tuple[NDArray[np.int64], int]]:
    """Per class, the positions of its examples among `keys` (int64 [n]), and the number of its positives."""
    order = np.argsort(keys)
    return [(order[np.searchsorted(keys, miner.examples, sorter=order)], len(miner.positives)) for miner in group]


def say_round(miner: ClassMiner, final: bool) -> None:
    """Logs a line on a class's round, at level INFO after the last image and DEBUG before that."""
    entry = miner.log[-1]
    logger.log(
        logging.INFO if final else logging.DEBUG,
        "class '%s', round %d at image %d: %s, %s (%d new, %d evicted), objective %.5f "
        "(positives %.5f, negatives %.5f, regulariser %.5f)",
        miner.name,
        len(miner.log),
        entry["image"] + 1,
        number_of(int(entry["positives"]), "positive"),
        number_of(int(entry["negatives"]), "negative"),
        entry["added"],
        entry["evicted"],
        entry["objective"],
        entry["loss_positives"],
        entry["loss_negatives"],
        entry["regulariser"],
    )


def record_of(miner: ClassMiner, scale: float) -> Record:
    """A class's cache record. A class that was never trained scores NEVER_DETECTED everywhere."""
    if len(miner.positives) and not miner.log:
        logger.warning(
            "class '%s' has no negative regions and will never be detected; add images without it", miner.name
        )
    return {
        "weights": miner.weights,
        "bias": np.array(miner.bias if miner.log else NEVER_DETECTED, np.float64),
        "scale": np.array(scale, np.float64),
        "positives": np.array(len(miner.positives), np.int32),
        "negatives": np.array(len(miner.negatives), np.int32),
        **{f"log/{name}": column for name, column in log_table(miner.log).items()},
    }


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """Per class: positives, cached negatives, training rounds, and the final objective (None if never trained)."""
    classes = {}
    for name, record in reader.records(["positives", "negatives", "log/objective"]):
        objectives = record["log/objective"]
        classes[name] = {
            "positives": int(record["positives"]),
            "negatives": int(record["negatives"]),
            "rounds": len(objectives),
            "objective": float(objectives[-1]) if len(objectives) else None,
        }
    return {"layer": settings.layer, "classes": classes}
