"""The detect stage: features of proposals in, detections of every image out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache import Column, Reader, Schema, Writer
from stages.detect import STAGE, Settings
from stages.detect.scoring import best_candidates, suppress
from stages.detections import class_thresholds
from stages.errors import StageError
from stages.execution import Execution
from stages.linear_models import BoxRegressors, LinearSvms, read_regressors, read_svms

log = logging.getLogger("stages.detect")

MOST_CLASSES = 1000


def items(settings: Settings, inputs: Mapping[str, Any]) -> Sequence[str]:
    """The images that have features."""
    return list(inputs["features"].item_ids)


def part_size(settings: Settings, inputs: Mapping[str, Any]) -> int:
    """Sixteen images; with more than a thousand classes fewer, so that a part is not much larger."""
    return max(1, min(STAGE.part_size, STAGE.part_size * MOST_CLASSES // len(inputs["svm"])))


def schema(settings: Settings, inputs: Mapping[str, Any]) -> Schema:
    """Detections of each image, and the scores of the candidates they were chosen from (for the cap)."""
    return Schema(
        item="image",
        rows={"boxes": Column("float32", (4,)), "score": Column("float32"), "label": Column("int32")},
        per_item={"image_size": Column("int32", (2,))},
        tables={"candidates": {"score": Column("float32"), "label": Column("int32")}},
    )


def run(settings: Settings, inputs: Mapping[str, Any], output: Writer, execution: Execution) -> None:
    """Detects in every image; `execution.jobs` threads work on the images of a part."""
    detector = Detector(settings, inputs)
    skipped = inputs["features"].manifest.get("skipped", {})
    with (
        threadpool_limits(1, user_api="blas"),  # the threads are ours, and sums must not depend on their number
        execution.progress("detect", output.remaining_items, "images") as bar,
        ThreadPoolExecutor(execution.jobs) as threads,
    ):
        for part in output.claim():
            records = []
            for record in threads.map(detector.record, part.item_ids):
                records.append(record)
                bar.advance(1, len(record["boxes"]))
            output.write(part, records, {image: skipped[image] for image in part.item_ids if image in skipped})


def summarise(settings: Settings, inputs: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """Class names, the least score that each class keeps under the cap (None: all), and how many are kept."""
    svms = read_svms(inputs["svm"])
    candidates = (
        (record["candidates/score"], record["candidates/label"])
        for _, record in reader.records(("candidates/score", "candidates/label"))
    )
    thresholds = class_thresholds(candidates, len(svms.classes), settings.average_per_image * len(reader))
    kept = sum(
        int(np.sum(record["score"] >= thresholds[record["label"]])) for _, record in reader.records(("score", "label"))
    )
    return {
        "classes": list(svms.classes),
        "thresholds": [float(score) if np.isfinite(score) else None for score in thresholds],
        "detections": kept,
        "detections_per_image": kept / max(len(reader), 1),
        "bbox_regression": settings.bbox_regression and "regressor" in inputs,
    }


class Detector:
    """The models and the features they are applied to; images may be asked for from several threads."""

    def __init__(self, settings: Settings, inputs: Mapping[str, Any]) -> None:
        self.settings = settings
        self.features: Reader = inputs["features"]
        self.svms: LinearSvms = read_svms(inputs["svm"])
        self.regressors = chosen_regressors(settings, inputs)
        self.layers = {self.svms.layer} | ({self.regressors.layer} if self.regressors else set())
        check_layers(self.layers, self.features)
        if self.regressors and self.regressors.classes != self.svms.classes:
            raise StageError("detect: train-svm and train-bbox have other classes; train both on the same dataset")
        self.reading = threading.Lock()

    def record(self, image_id: str) -> dict[str, np.ndarray]:
        """One image's record of the detections' cache."""
        with self.reading:
            stored = self.features.read(image_id, ("boxes", "is_object", "image_size", *sorted(self.layers)))
        proposals = ~stored["is_object"]
        boxes = stored["boxes"][proposals]
        features = {layer: stored[layer][proposals] for layer in self.layers}
        size = (int(stored["image_size"][0]), int(stored["image_size"][1]))
        candidates = best_candidates(features, self.svms, self.settings.max_per_image)
        found = suppress(candidates, boxes, features, size, self.regressors, self.settings)
        return {
            "boxes": found.boxes,
            "score": found.scores,
            "label": found.labels,
            "image_size": np.array(size, np.int32),
            "candidates/score": candidates.scores,
            "candidates/label": candidates.labels,
        }


def chosen_regressors(settings: Settings, inputs: Mapping[str, Any]) -> BoxRegressors | None:
    """The regressors, if they are wanted and there."""
    if not settings.bbox_regression:
        return None
    if "regressor" not in inputs:
        log.info("no regressor is wired to this detector: its boxes stay those of the proposals")
        return None
    return read_regressors(inputs["regressor"])


def check_layers(layers: set[str], features: Reader) -> None:
    """Raises StageError if the features lack a layer that a model was trained on."""
    missing = sorted(layers - set(features.schema.rows))
    if missing:
        raise StageError(
            f"detect: the features hold no layer '{missing[0]}', which a model was trained on; "
            f"add it to [extract] layers in the recipe"
        )
