"""The detect stage: from the features of proposals to the detections in every image."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache import Column, Part, Reader, Record, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs, OnDemand
from stages.contract.processes import fill_in_processes
from stages.detect import NO_SCALES, OF_NETWORK, STAGE, Settings, score_of
from stages.detect.scoring import Head, Regressors, Scorer, class_probabilities, network_regression
from stages.detect.trace import Trace, detect_image
from stages.detections.candidates import Scored
from stages.detections.cap import class_thresholds
from stages.detections.class_names import chosen_classes
from stages.features.linear_models import read_regressors, read_svms
from stages.images.batches import fill_items

log = logging.getLogger("stages.detect")

MOST_CLASSES = 1000

LEVEL = "level"
"""The column of features that says at which scale each window was found."""


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images whose features are available."""
    return list(inputs.item_reader("features").item_ids)


def part_size(settings: Settings, inputs: Inputs) -> int:
    """Sixteen images, or fewer if there are more than a thousand classes, so that a part is not much larger."""
    of_svms = settings.score == "svm" and not settings.classes
    classes = len(inputs.reader("svm")) if of_svms else len(settings.classes or chosen_scorer(settings, inputs).classes)
    return max(1, min(STAGE.part_size, STAGE.part_size * MOST_CLASSES // classes))


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """The detections of each image and, if the cap is on the set, the scores that it counts: those of the candidates
    that they come from, of the boxes that these are merged into, or of the detections themselves."""
    candidates = {"candidates": {"score": Column("float32"), "label": Column("int32")}}
    return Schema(
        item="image",
        rows={"boxes": Column("float32", (4,)), "score": Column("float32"), "label": Column("int32")},
        per_item={"image_size": Column("int32", (2,))},
        tables=candidates if settings.cap == "set" else {},
    )


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Finds the detections in every image: `execution.jobs` processes, one part at a time each, if the CPU computes
    features on demand; otherwise as many threads."""
    detector = Detector(settings, inputs)
    if settings.bbox_regression and not refines(settings, inputs):
        log.info("this detector has no box regressors; boxes stay as they are")
    in_threads = isinstance(inputs.item_reader("features"), Reader) or execution.device.startswith("cuda")
    with execution.progress("detect", output.remaining_items, "images") as bar:
        if in_threads or execution.jobs == 1:
            fill_parts(detector, output, output.claim(), bar, threads=execution.jobs if in_threads else 0)
        else:
            fill = functools.partial(fill_in_worker, settings, inputs, output)
            fill_in_processes("detect", fill, output, execution.jobs, bar)


def on_demand(settings: Settings, inputs: Inputs, execution: Execution) -> Detector:
    """The detections in every image, as the cache would hold them, and how they come about, computed when they are
    read."""
    return Detector(settings, inputs)


def fill_in_worker(settings: Settings, inputs: Inputs, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in a worker process."""
    fill_parts(Detector(settings, inputs), output, parts, bar)


def fill_parts(detector: Detector, output: Writer, parts: Iterable[Part], bar: Progress, threads: int = 0) -> None:
    """Fills `parts`, in this thread or with `threads` threads."""
    skipped = detector.manifest["skipped"]
    with threadpool_limits(1, user_api="blas"):  # sums must not depend on BLAS threads
        fill_items(detector.record, skipped, output, parts, bar, ahead=2 * threads, threads=threads)


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """Class names, the lowest score that the cap keeps in each class (None: all), and the number of detections kept."""
    classes = detected_classes(settings, inputs)
    thresholds = np.full(len(classes), -np.inf, np.float32)
    if settings.cap == "set":
        candidates = (
            (record["candidates/score"], record["candidates/label"])
            for _, record in reader.records(("candidates/score", "candidates/label"))
        )
        at_most = settings.max_per_class or settings.average_per_image * len(reader)
        thresholds = class_thresholds(candidates, len(classes), at_most)
    kept = sum(
        int(np.sum(record["score"] >= thresholds[record["label"]])) for _, record in reader.records(("score", "label"))
    )
    return {
        "classes": classes,
        "thresholds": [float(score) if np.isfinite(score) else None for score in thresholds],
        "detections": kept,
        "detections_per_image": kept / max(len(reader), 1),
        "bbox_regression": refines(settings, inputs),
    }


def attributes(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """The names of the classes that `label` indexes, and what `score` is."""
    return {"classes": detected_classes(settings, inputs), "score": score_of(settings).name}


class Detector(OnDemand):
    """The models and the features they are applied to. For one process; several threads may call `record`, but only one
    `read` or `trace`, which limit the threads of the process's BLAS."""

    def __init__(self, settings: Settings, inputs: Inputs) -> None:
        self.settings = settings
        self.schema = schema(settings, inputs)
        self.features = inputs.item_reader("features")
        head = Head(chosen_scorer(settings, inputs), chosen_regressors(settings, inputs))
        self.head = head.chosen(settings.classes)
        self.head.check_layers(self.features.schema.rows)
        self.levels = tuple(name for name in (LEVEL,) if name in self.features.schema.rows)
        if settings.classes_per_scale and not self.levels:
            raise StageError(f"detect: {NO_SCALES}")
        skipped = self.features.manifest.get("skipped", {})
        self.manifest = {"skipped": skipped, "summary": {"classes": list(self.head.scorer.classes)}}

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images whose features are available."""
        return self.features.item_ids

    def scored(self, image_id: str) -> Scored:
        """One image's scored proposals, without its ground-truth boxes."""
        columns = ("boxes", "is_object", "image_size", *self.levels, *sorted(self.head.layers))
        stored = self.features.read(image_id, columns)
        proposals = ~stored["is_object"]
        features = {layer: stored[layer][proposals] for layer in self.head.layers}
        width, height = stored["image_size"].tolist()
        scored = self.head.scored(stored["boxes"][proposals], features, (width, height))
        return replace(scored, levels=stored[LEVEL][proposals]) if self.levels else scored

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One image's record, or only the named columns; bit for bit what the stage computes."""
        with threadpool_limits(1, user_api="blas"):
            return super().read(item_id, columns)

    def record(self, item_id: str) -> Record:
        """One image's record, as in the cache of detections."""
        trace = detect_image(self.scored(item_id), self.settings)
        those = trace.counted(self.settings)
        counted = {"candidates/score": those.scores, "candidates/label": those.labels}
        return {
            "boxes": trace.detections.boxes,
            "score": trace.detections.scores,
            "label": trace.detections.labels,
            "image_size": np.array(trace.scored.image_size, np.int32),
            **(counted if self.settings.cap == "set" else {}),
        }

    def trace(self, image_id: str) -> Trace:
        """How one image's detections come about; bit for bit what the stage computes."""
        with threadpool_limits(1, user_api="blas"):
            return detect_image(self.scored(image_id), self.settings)


def chosen_scorer(settings: Settings, inputs: Inputs) -> Scorer:
    """The SVMs, or the softmax of the network that computed the features."""
    if settings.score == "softmax":
        return class_probabilities(class_names(inputs))
    return read_svms(inputs.reader("svm"))


def detected_classes(settings: Settings, inputs: Inputs) -> list[str]:
    """The names of the classes in the order of `label`."""
    own = chosen_scorer(settings, inputs).classes
    return [name for _, name in chosen_classes(settings.classes, own)] if settings.classes else list(own)


def refines(settings: Settings, inputs: Inputs) -> bool:
    """Whether boxes are refined: not if that is turned off, or left to regressors that the recipe does not have."""
    return settings.bbox_regression and (settings.regression == OF_NETWORK or "regressor" in inputs)


def chosen_regressors(settings: Settings, inputs: Inputs) -> Regressors | None:
    """What refines the boxes: the box regressors or the network; None if nothing does."""
    if not refines(settings, inputs):
        return None
    if settings.regression == OF_NETWORK:
        return network_regression(class_names(inputs), dimensions(inputs))
    return read_regressors(inputs.reader("regressor"))


def dimensions(inputs: Inputs) -> dict[str, int]:
    """The length of each layer's features."""
    rows = inputs.item_reader("features").schema.rows
    return {name: column.shape[0] for name, column in rows.items() if len(column.shape) == 1}


def class_names(inputs: Inputs) -> Sequence[str]:
    """The classes of the network that computed the features; none if they are not known."""
    names: Sequence[str] = inputs.item_reader("features").manifest["summary"].get("class_names", ())
    return names
