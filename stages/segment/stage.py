"""The segment stage: from regions, their features and the regressions to a label for every pixel."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache import Column, Part, Reader, Record, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs, ItemReader, OnDemand
from stages.contract.processes import fill_output
from stages.features.joined import JoinedFeatures
from stages.images.batches import fill_items
from stages.masks import COLUMNS, check_masks, read_mask
from stages.plurals import number_of
from stages.segment import Settings
from stages.segment.pasting import calibrated_threshold, paste
from stages.segment.scoring import Regressions, read_regressions

log = logging.getLogger("stages.segment")

EVERYTHING = -np.inf
SCHEMA = Schema(
    item="image",
    rows={
        "proposal": Column("int32"),
        "label": Column("int32"),
        "score": Column("float32"),
        "pixels": Column("int64"),
    },
    per_item={"image_size": Column("int32", (2,)), "objects": Column("int32")},
    tables={"map": {"label": Column("uint8")}},
)
SKIPPED = SCHEMA.empty()


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images of the features."""
    return list(inputs.item_reader("features").item_ids)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per image, the segments in the order in which they were pasted: `proposal` (its row in the proposals), `label`,
    `score` and its visible `pixels`; `map/label` uint8 [H * W], row by row: 0 for the background, k + 1 for class k;
    `image_size` (width, height), (0, 0) if skipped, and the number of its `objects`."""
    return SCHEMA


def attributes(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """The names of the classes that `label` indexes."""
    return {"classes": list(inputs.reader("svr").item_ids)}


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Segments the images of the parts that it can claim, `jobs` of them at a time."""
    task = Segmenting.of(settings, inputs)
    with threadpool_limits(1, user_api="blas"), execution.progress("segment", output.remaining_items, "images") as bar:
        fill_output("segment", functools.partial(fill_parts, task, output), output, execution, bar)


def on_demand(settings: Settings, inputs: Inputs, execution: Execution) -> SegmentationOnDemand:
    """The segmentation of each image, when it is read."""
    return SegmentationOnDemand(Segmenting.of(settings, inputs))


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The classes, the threshold (None: everything was pasted), and the numbers of segments and objects."""
    objects = sum(int(record["objects"]) for _, record in reader.records(["objects"]))
    threshold = threshold_of(settings, inputs.optional_reader("calibration"))
    return {
        "classes": list(inputs.reader("svr").item_ids),
        "threshold": None if threshold == EVERYTHING else threshold,
        "segments": int(reader.lengths().sum()),
        "objects": objects,
        "images": len(reader),
    }


def threshold_of(settings: Settings, calibration: Reader | None) -> float:
    """The lowest score of a segment: of the settings or of the calibration, else minus infinity.

    Raises StageError for a calibration without objects.
    """
    if calibration is None:
        return EVERYTHING if settings.threshold is None else settings.threshold
    summary = calibration.manifest["summary"]
    if not summary["objects"]:
        raise StageError(
            "segment: the features of the calibration have no objects, so it is not known how many segments there "
            "should be; set objects = 'masks' in their table of extract"
        )
    threshold = calibrated_threshold(
        [record["score"] for _, record in calibration.records(["score"])], summary["objects"]
    )
    if threshold is None:
        log.warning(
            "the calibration has %s for %s, so no threshold has as many: everything is pasted",
            number_of(summary["segments"], "segment"),
            number_of(summary["objects"], "object"),
        )
    return EVERYTHING if threshold is None else threshold


@dataclass(frozen=True)
class Segmenting:
    """What a process needs to segment images; can be pickled. `skipped` notes the images that were skipped before, and
    why."""

    settings: Settings
    proposals: ItemReader
    features: JoinedFeatures
    regressions: Regressions
    threshold: float
    skipped: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(settings: Settings, inputs: Inputs) -> Segmenting:
        """From the inputs of the stage. Raises BadSetting for proposals without masks, StageError for inputs that do
        not fit each other."""
        proposals = inputs.item_reader("proposals")
        check_masks("segment", "pasting", proposals)
        regressions = read_regressions(inputs.reader("svr"))
        features = JoinedFeatures.of(inputs, regressions.whole.layer)
        if features.dimension != regressions.whole.weights.shape[1]:
            raise StageError(
                f"segment: the regressions were trained on {regressions.whole.weights.shape[1]} features of each "
                f"region, but here are {features.dimension}; give both tables the same inputs features and more"
            )
        threshold = threshold_of(settings, inputs.optional_reader("calibration"))
        return Segmenting(settings, proposals, features, regressions, threshold)

    def record(self, image_id: str) -> Record:
        """One image's record. Raises StageError for features of other regions than the proposals."""
        regions, features = self.features.read(image_id)
        reason = self.features.readers[0].manifest["skipped"].get(image_id)
        if reason is not None:
            self.skipped[image_id] = reason
            return SKIPPED
        proposals = self.proposals.read(image_id, ["boxes", *COLUMNS])
        own = ~regions["is_object"]
        if not np.array_equal(regions["boxes"][own], proposals["boxes"]):
            raise StageError(
                f"segment: image '{image_id}': the features are of other regions than the proposals; give the tables "
                "of extract and segment the same proposals"
            )
        width, height = proposals["image_size"].tolist()
        if self.settings.held_out:
            scores = self.regressions.score_held_out(image_id, features[own])
        else:
            scores = self.regressions.score(features[own])
        labels, segments = paste(
            scores,
            lambda row: read_mask(proposals, row),
            (width, height),
            threshold=self.threshold,
            most=self.settings.max_segments or len(proposals["boxes"]),
            most_taken=self.settings.most_taken,
        )
        return {
            "proposal": segments.rows.astype(np.int32),
            "label": segments.labels,
            "score": segments.scores,
            "pixels": segments.pixels,
            "map/label": labels.ravel(),
            "image_size": np.array([width, height], np.int32),
            "objects": np.array(np.count_nonzero(regions["is_object"]), np.int32),
        }


class SegmentationOnDemand(OnDemand):
    """The segmentations of the images of `task`, computed as they are read."""

    schema = SCHEMA

    def __init__(self, task: Segmenting) -> None:
        self.task = task
        self.manifest = {"skipped": task.skipped, "summary": {}}

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images of the features."""
        return tuple(self.task.features.readers[0].item_ids)

    def record(self, item_id: str) -> Record:
        """One image's segmentation. Raises as `Segmenting.record`."""
        return self.task.record(item_id)


def fill_parts(task: Segmenting, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in this process. Raises as `Segmenting.record`."""
    with threadpool_limits(1, user_api="blas"):
        fill_items(task.record, task.skipped, output, parts, bar)
