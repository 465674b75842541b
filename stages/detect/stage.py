"""The detect stage: features of proposals in, detections of every image out."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache import Column, Part, Reader, Schema, Writer
from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.contract.execution import Execution, Progress, in_processes
from stages.detect import SCORES, STAGE, Settings
from stages.detect.scoring import Scorer, best_candidates, class_probabilities, suppress
from stages.detect.trace import Trace, trace_image
from stages.detections.cap import class_thresholds
from stages.features.linear_models import BoxRegressors, read_regressors, read_svms
from stages.features.reading import Features

log = logging.getLogger("stages.detect")

MOST_CLASSES = 1000


def items(settings: Settings, inputs: Mapping[str, Any]) -> Sequence[str]:
    """The images that have features."""
    return list(inputs["features"].item_ids)


def part_size(settings: Settings, inputs: Mapping[str, Any]) -> int:
    """Sixteen images; with more than a thousand classes fewer, so that a part is not much larger."""
    classes = len(inputs["svm"] if settings.score == "svm" else chosen_scorer(settings, inputs).classes)
    return max(1, min(STAGE.part_size, STAGE.part_size * MOST_CLASSES // classes))


def schema(settings: Settings, inputs: Mapping[str, Any]) -> Schema:
    """Detections of each image, and the scores of the candidates they were chosen from (for the cap)."""
    return Schema(
        item="image",
        rows={"boxes": Column("float32", (4,)), "score": Column("float32"), "label": Column("int32")},
        per_item={"image_size": Column("int32", (2,))},
        tables={"candidates": {"score": Column("float32"), "label": Column("int32")}},
    )


def run(settings: Settings, inputs: Mapping[str, Any], output: Writer, execution: Execution) -> None:
    """Detects in every image. Features that the CPU computes on demand take `execution.jobs` processes, a part each;
    otherwise as many threads work on the images of a part."""
    detector = Detector(settings, inputs)
    threads = isinstance(inputs["features"], Reader) or execution.device.startswith("cuda")
    with execution.progress("detect", output.remaining_items, "images") as bar:
        if threads:
            with ThreadPoolExecutor(execution.jobs) as pool:
                fill_parts(detector, output, output.claim(), bar, pool.map)
        elif execution.jobs == 1:
            fill_parts(detector, output, output.claim(), bar)
        else:
            fill = functools.partial(fill_in_worker, settings, inputs, output)
            in_processes("detect", fill, output, execution.jobs, bar)


def fill_in_worker(
    settings: Settings, inputs: Mapping[str, Any], output: Writer, parts: Iterable[Part], bar: Progress
) -> None:
    """Makes `parts` in a worker process."""
    fill_parts(Detector(settings, inputs), output, parts, bar)


def fill_parts(
    detector: Detector, output: Writer, parts: Iterable[Part], bar: Progress, apply: Callable[..., Any] = map
) -> None:
    """Makes `parts`; `apply` is `map` or that of a pool of threads."""
    with threadpool_limits(1, user_api="blas"):  # the threads are ours, and sums must not depend on their number
        for part in parts:
            records = []
            for record in apply(detector.record, part.item_ids):
                records.append(record)
                bar.advance(1, len(record["boxes"]))
            skipped = detector.features.manifest.get("skipped", {})
            output.write(part, records, {image: skipped[image] for image in part.item_ids if image in skipped})


def summarise(settings: Settings, inputs: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """Class names, the least score that each class keeps under the cap (None: all), and how many are kept."""
    classes = chosen_scorer(settings, inputs).classes
    candidates = (
        (record["candidates/score"], record["candidates/label"])
        for _, record in reader.records(("candidates/score", "candidates/label"))
    )
    thresholds = class_thresholds(candidates, len(classes), settings.average_per_image * len(reader))
    kept = sum(
        int(np.sum(record["score"] >= thresholds[record["label"]])) for _, record in reader.records(("score", "label"))
    )
    return {
        "classes": list(classes),
        "thresholds": [float(score) if np.isfinite(score) else None for score in thresholds],
        "detections": kept,
        "detections_per_image": kept / max(len(reader), 1),
        "bbox_regression": settings.bbox_regression and "regressor" in inputs,
    }


def attributes(settings: Settings, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The names of the classes that `label` counts, and what `score` is."""
    return {"classes": list(chosen_scorer(settings, inputs).classes), "score": SCORES[settings.score].name}


class Detector:
    """The models and the features they are applied to; images may be asked for from several threads."""

    def __init__(self, settings: Settings, inputs: Mapping[str, Any]) -> None:
        self.settings = settings
        self.features: Features = inputs["features"]
        self.scorer = chosen_scorer(settings, inputs)
        self.regressors = chosen_regressors(settings, inputs)
        self.layers = {self.scorer.layer} | ({self.regressors.layer} if self.regressors else set())
        check_layers(self.layers, self.features.schema.rows)
        if self.regressors and self.regressors.classes != self.scorer.classes:
            raise StageError(
                f"detect: train-bbox and what scores ({settings.score}) have other classes; "
                "train both on the same dataset"
            )
        self.reading = threading.Lock() if isinstance(self.features, Reader) else contextlib.nullcontext()

    def regions(self, image_id: str) -> tuple[Boxes, dict[str, np.ndarray], tuple[int, int]]:
        """One image's proposals, float32 [n, 4], their features by layer, [n, D] each, and its (width, height)."""
        with self.reading:
            stored = self.features.read(image_id, ("boxes", "is_object", "image_size", *sorted(self.layers)))
        proposals = ~stored["is_object"]
        features = {layer: stored[layer][proposals] for layer in self.layers}
        return stored["boxes"][proposals], features, (int(stored["image_size"][0]), int(stored["image_size"][1]))

    def record(self, image_id: str) -> dict[str, np.ndarray]:
        """One image's record of the detections' cache."""
        boxes, features, size = self.regions(image_id)
        candidates = best_candidates(features, self.scorer, self.settings.max_per_image)
        found = suppress(candidates, boxes, features, size, self.regressors, self.settings)
        return {
            "boxes": found.boxes,
            "score": found.scores,
            "label": found.labels,
            "image_size": np.array(size, np.int32),
            "candidates/score": candidates.scores,
            "candidates/label": candidates.labels,
        }

    def trace(self, image_id: str) -> Trace:
        """How one image's detections come about; in the arithmetic of the stage, so with the same bits."""
        with threadpool_limits(1, user_api="blas"):
            return trace_image(*self.regions(image_id), self.scorer, self.regressors, self.settings)


def chosen_scorer(settings: Settings, inputs: Mapping[str, Any]) -> Scorer:
    """The SVMs, or the softmax of the network that made the features."""
    if settings.score == "softmax":
        return class_probabilities(inputs["features"].manifest["summary"].get("class_names", ()))
    return read_svms(inputs["svm"])


def chosen_regressors(settings: Settings, inputs: Mapping[str, Any]) -> BoxRegressors | None:
    """The regressors, if they are wanted and there."""
    if not settings.bbox_regression:
        return None
    if "regressor" not in inputs:
        log.info("no regressor is wired to this detector: its boxes stay those of the proposals")
        return None
    return read_regressors(inputs["regressor"])


def check_layers(layers: set[str], extracted: Iterable[str]) -> None:
    """Raises StageError if a layer that scores or moves proposals is none of those `extracted`."""
    missing = sorted(layers - set(extracted))
    if missing:
        raise StageError(
            f"detect: the features hold no layer '{missing[0]}', which is needed to score or to move proposals; "
            f"add it to [extract] layers in the recipe"
        )
