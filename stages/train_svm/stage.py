"""The stage: all classes in one pass through the images, each trained again whenever enough hard negatives came up."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cache import Column, Part, Reader, Record, Schema, Writer
from stages.boxes import class_overlaps
from stages.execution import Execution, workers_deaf_to_interrupts
from stages.features import ObjectRows, feature_scale, layer_dimension, read_objects, scaled
from stages.linear_models import NEVER_DETECTED
from stages.train_svm import Settings
from stages.train_svm.checkpoint import as_arrays, restore
from stages.train_svm.mining import (
    LOG_COLUMNS,
    BlockScorer,
    ClassMiner,
    finish_round,
    hard_rows,
    is_due,
    log_table,
    negative_rows,
)
from stages.train_svm.pool import FeaturePool, Keys, images_and_rows, keys_of
from stages.train_svm.solver import Solution, fit_svm

logger = logging.getLogger("stages.train_svm")


def items(settings: Settings, inputs: Mapping[str, Any]) -> Sequence[str]:
    """The classes, by name."""
    return tuple(inputs["images"].classes)


def schema(settings: Settings, inputs: Mapping[str, Any]) -> Schema:
    """For each class: `weights` [D] on scaled features, `bias`, their `scale`, counts, and the `log` of rounds."""
    return Schema(
        item="class",
        per_item={
            "weights": Column("float64", (layer_dimension(inputs["features"], settings.layer),)),
            "bias": Column("float64"),
            "scale": Column("float64"),
            "positives": Column("int32"),
            "negatives": Column("int32"),
        },
        tables={"log": {name: Column(dtype) for name, dtype in LOG_COLUMNS.items()}},
    )


def run(settings: Settings, inputs: Mapping[str, Any], output: Writer, execution: Execution) -> None:
    """Trains the classes of all parts it can claim, `classes_at_once` of them in each pass through the images."""
    features: Reader = inputs["features"]
    layer_dimension(features, settings.layer)
    parts_at_once = max(1, settings.classes_at_once // output.part_size)
    claimed = output.claim()
    solvers = Parallel(n_jobs=execution.jobs, pre_dispatch="n_jobs", return_as="generator")
    with threadpool_limits(1, user_api="blas"), solvers as workers:
        prepared: tuple[float, ObjectRows] | None = None
        while parts := list(islice(claimed, parts_at_once)):
            if prepared is None:
                scale = feature_scale(
                    features, settings.layer, target_norm=settings.target_norm, seed=settings.norm_seed
                )
                prepared = scale, read_objects(features)
            train_parts(parts, settings, features, *prepared, output, execution, workers)


def train_parts(
    parts: Sequence[Part],
    settings: Settings,
    features: Reader,
    scale: float,
    objects: ObjectRows,
    output: Writer,
    execution: Execution,
    workers: Parallel,
) -> None:
    """One pass through the images for the classes of `parts`, from their checkpoints if they have some; writes them."""
    miners = {part.index: start_part(part, settings, features, objects, output) for part in parts}
    with FeaturePool(output.folder, *layer_type(features, settings.layer)) as pool:
        mining = Mining(settings, features, scale, [one for group in miners.values() for one in group], pool, workers)
        saved = time.monotonic()
        remaining = len(features) - mining.first_image
        with execution.progress("train-svm", remaining, "images") as bar:
            for rows in mining.images():
                if time.monotonic() - saved >= settings.checkpoint_seconds:
                    for part in parts:
                        output.checkpoint(part).save(as_arrays(miners[part.index]))
                    saved = time.monotonic()
                bar.advance(1, rows)
    for part in parts:
        output.write(part, [record_of(miner, scale) for miner in miners[part.index]])


def layer_type(features: Reader, layer: str) -> tuple[int, str]:
    """D and the stored dtype of `layer`."""
    column = features.schema.rows[layer]
    return column.shape[0], column.dtype


def start_part(
    part: Part, settings: Settings, features: Reader, objects: ObjectRows, output: Writer
) -> list[ClassMiner]:
    """The part's classes where their checkpoint left them, or at the first image; those without an object are done."""
    dimension = layer_dimension(features, settings.layer)
    miners = []
    for name in part.item_ids:
        label = output.item_ids.index(name)
        own = objects.labels == label
        positives = keys_of(objects.images[own], objects.rows[own])
        miners.append(ClassMiner(name, label, positives, np.zeros(dimension)))
    saved = output.checkpoint(part).load()
    if saved is not None:
        restore(miners, saved)
    for miner in miners:
        if not len(miner.positives):
            miner.next_image = len(features)
            logger.warning(
                "class '%s' has no object in the training images and will never be detected; "
                "add images of it or leave it out of the dataset's classes",
                miner.name,
            )
    return miners


class Mining:
    """A pass through the images for several classes, which may join it at different images."""

    def __init__(
        self,
        settings: Settings,
        features: Reader,
        scale: float,
        miners: Sequence[ClassMiner],
        pool: FeaturePool,
        workers: Parallel,
    ) -> None:
        self.settings = settings
        self.features = features
        self.scale = scale
        self.miners = [miner for miner in miners if miner.next_image < len(features)]
        self.pool = pool
        self.workers = workers
        self.scorer = BlockScorer(pool.dimension)
        self.first_image = min((miner.next_image for miner in self.miners), default=len(features))
        for miner in self.miners:
            self.scorer.update(miner)
        self.hold_examples()

    def hold_examples(self) -> None:
        """Reads the features of all positives, and of the negatives that a checkpoint names, image by image."""
        groups = [keys for miner in self.miners for keys in (miner.positives, miner.negatives)]
        every = np.sort(np.concatenate([np.zeros(0, np.int64), *groups]))
        images, rows = images_and_rows(every)
        bounds = np.flatnonzero(np.diff(images, prepend=-1, append=-1))
        for low, high in pairwise(bounds):
            found = self.features.rows(self.features.item_ids[images[low]], self.settings.layer, rows[low:high])
            self.pool.hold(every[low:high], found)

    def images(self) -> Iterator[int]:
        """Visits one image after the other; yields its number of regions when all classes are done with it."""
        columns = ["boxes", "is_object", "label", self.settings.layer]
        ids = self.features.item_ids[self.first_image :]
        if not ids:
            return
        for image, (_, record) in enumerate(self.features.records(columns, ids), start=self.first_image):
            self.visit(image, record)
            yield len(record["boxes"])

    def visit(self, image: int, record: Record) -> None:
        """Adds the image's hard negatives and trains the classes that are due."""
        active = [miner for miner in self.miners if miner.next_image == image]
        self.add_negatives(image, record, active)
        last = len(self.features) - 1
        due = [miner for miner in active if is_due(miner, image, last, self.settings.retrain_after)]
        for miner, solution in zip(due, self.solve(due), strict=True):
            self.take_over(miner, image, solution)
        for miner in active:
            miner.next_image = image + 1

    def add_negatives(self, image: int, record: Record, active: Sequence[ClassMiner]) -> None:
        """The hard negatives of one image, into each class's cache."""
        stored = record[self.settings.layer]
        is_object, labels = record["is_object"], record["label"]
        classes = 1 + max(miner.label for miner in active)
        known = is_object & (labels < classes)
        overlaps = class_overlaps(record["boxes"], record["boxes"][known], labels[known], classes)
        scores = self.scorer.scores(scaled(stored, self.scale), [miner.label for miner in active])
        for miner in active:
            own = is_object & (labels == miner.label)
            negatives = negative_rows(overlaps[:, miner.label], own, self.settings.negative_overlap)
            rows = hard_rows(scores[miner.label], negatives, image == 0, self.settings.hard_threshold)
            self.hold_negatives(miner, keys_of(image, rows), stored[rows])

    def hold_negatives(self, miner: ClassMiner, keys: Keys, features: NDArray[np.floating]) -> None:
        """Adds rows that the class does not have yet."""
        new = ~np.isin(keys, miner.negatives)
        self.pool.hold(keys[new], features[new])
        miner.negatives = np.concatenate([miner.negatives, keys[new]])
        miner.added += int(new.sum())

    def solve(self, due: Sequence[ClassMiner]) -> list[Solution]:
        """Trains each class that is due, in processes: liblinear's random numbers are global to one."""
        tasks = (
            delayed(fit_svm)(
                self.pool.read(np.concatenate([miner.positives, miner.negatives])),
                len(miner.positives),
                self.scale,
                self.settings,
            )
            for miner in due
        )
        with workers_deaf_to_interrupts():
            solutions = self.workers(tasks)
        return list(solutions)

    def take_over(self, miner: ClassMiner, image: int, solution: Solution) -> None:
        """The end of a class's round."""
        if not solution.converged:
            logger.warning(
                "class '%s', round %d: %d iterations of liblinear did not reach tolerance %g; raise max_iterations",
                miner.name,
                len(miner.log),
                solution.iterations,
                self.settings.tolerance,
            )
        evicted = finish_round(miner, image, solution, self.settings)
        self.pool.release(evicted)
        self.scorer.update(miner)
        say_round(miner, final=image == len(self.features) - 1)


def say_round(miner: ClassMiner, final: bool) -> None:
    """One line for a class's round: for all users after the last image, before that for those who ask for more."""
    entry = miner.log[-1]
    logger.log(
        logging.INFO if final else logging.DEBUG,
        "class '%s', round %d at image %d: %d positives, %d negatives (%d new, %d evicted), objective %.5f "
        "(positives %.5f, negatives %.5f, regulariser %.5f)",
        miner.name,
        len(miner.log),
        entry["image"] + 1,
        entry["positives"],
        entry["negatives"],
        entry["added"],
        entry["evicted"],
        entry["objective"],
        entry["loss_positives"],
        entry["loss_negatives"],
        entry["regulariser"],
    )


def record_of(miner: ClassMiner, scale: float) -> Record:
    """What is kept of a class. One that was never trained scores NEVER_DETECTED everywhere."""
    if len(miner.positives) and not miner.log:
        logger.warning("class '%s' met no negative region and will never be detected; add images", miner.name)
    return {
        "weights": miner.weights,
        "bias": np.array(miner.bias if miner.log else NEVER_DETECTED, np.float64),
        "scale": np.array(scale, np.float64),
        "positives": np.array(len(miner.positives), np.int32),
        "negatives": np.array(len(miner.negatives), np.int32),
        **{f"log/{name}": column for name, column in log_table(miner.log).items()},
    }


def summarise(settings: Settings, inputs: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """Per class: positives, negatives kept, rounds, final objective (None if never trained)."""
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
