"""Small features caches, written by the real cache package, and stages run on them as the command line runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import Column, Identity, Reader, Record, Schema, Shard, Writer
from stages.contract.card import Stage
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import identity_of
from tests.stages.given_datasets import GivenDataset

FeatureCache = Callable[..., Reader]
RunStage = Callable[..., Reader]


def region_record(
    boxes: Any, labels: Sequence[int], features: Any, layer: str = "fc7", difficult: Sequence[bool] | None = None
) -> Record:
    """One image of a features cache: the first `len(labels)` boxes are objects of these classes."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    label = np.full(len(boxes), -1, np.int32)
    label[: len(labels)] = labels
    flags = np.zeros(len(boxes), bool)
    flags[: len(difficult or ())] = difficult or ()
    return {
        "boxes": boxes,
        "is_object": label >= 0,
        "label": label,
        "difficult": flags,
        layer: np.asarray(features, np.float16),
        "image_size": np.array([100, 100], np.int32),
    }


@pytest.fixture
def region_image() -> Callable[..., Record]:
    """region_image(boxes, labels, features, layer="fc7", difficult=None): a record of a features cache."""
    return region_record


@pytest.fixture
def feature_cache(tmp_path: Path) -> FeatureCache:
    """feature_cache(records, layer="fc7", part_size=3): a finished features cache of images im000, im001, ..."""

    def build(records: Sequence[Record], layer: str = "fc7", part_size: int = 3) -> Reader:
        rows = {
            "boxes": Column("float32", (4,)),
            "is_object": Column("bool"),
            "label": Column("int32"),
            "difficult": Column("bool"),
            layer: Column("float16", records[0][layer].shape[1:]),
        }
        schema = Schema("image", rows, {"image_size": Column("int32", (2,))})
        folder = tmp_path / f"features-{len(list(tmp_path.iterdir()))}"
        ids = [f"im{number:03}" for number in range(len(records))]
        writer = Writer(folder, Identity("extract", 1), ids, schema, part_size=part_size)
        for part in writer.claim():
            writer.write(part, [records[ids.index(item_id)] for item_id in part.item_ids])
        writer.finish({})
        writer.release()
        return Reader(folder)

    return build


@pytest.fixture
def run_stage(tmp_path: Path) -> RunStage:
    """run_stage(STAGE, settings, inputs, folder, shards, ...): fills a cache as `rcnn` would and opens it."""

    def run(
        stage: Stage,
        settings: Any,
        inputs: Mapping[str, Any],
        name: str = "output",
        *,
        shards: Sequence[Shard] = (Shard(),),
        part_size: int | None = None,
        execution: Execution | None = None,
    ) -> Reader:
        module, given = stage.load(), Inputs(inputs)
        identity = Identity(stage.name, stage.schema_version, identity_of(settings))
        summarise = stage.function("summarise")
        for shard in shards:
            writer = Writer(
                tmp_path / name,
                identity,
                module.items(settings, given),
                module.schema(settings, given),
                part_size=part_size or stage.part_size,
                shard=shard,
            )
            try:
                module.run(settings, given, writer, execution or Execution())
            finally:
                writer.release()
        writer.finish({}, lambda reader: summarise(settings, given, reader) if summarise else {})
        return Reader(tmp_path / name)

    return run


@pytest.fixture
def with_classes() -> Callable[[Reader, Sequence[str]], dict[str, Any]]:
    """The inputs of a stage that reads features and the names of classes."""
    return lambda features, classes: {
        "images": GivenDataset(
            name="images", classes=tuple(classes), image_ids=features.item_ids, images_with_crowds=frozenset()
        ),
        "features": features,
    }


@pytest.fixture
def scene() -> Callable[..., list[Record]]:
    """scene(images, classes, ...): generated images whose features show, noisily, what is in the box."""

    def generate(
        images: int, classes: int, *, dimension: int = 12, proposals: int = 30, seed: int = 0, layer: str = "fc7"
    ) -> list[Record]:
        generator = np.random.default_rng(seed)
        prototypes = generator.normal(size=(classes + 1, dimension))
        return [
            generated_image(generator, prototypes, proposals, layer, number % 7 == 5 and number > 5)
            for number in range(images)
        ]

    return generate


def generated_image(
    generator: np.random.Generator, prototypes: np.ndarray, proposals: int, layer: str, empty: bool
) -> Record:
    """Up to three objects; half of the proposals are shifted objects, the others lie anywhere; or nothing at all."""
    if empty:
        return region_record(np.zeros((0, 4)), [], np.zeros((0, prototypes.shape[1])), layer)
    count = int(generator.integers(1, 4))
    labels = generator.integers(0, len(prototypes) - 1, count)
    corners = generator.uniform(0, 60, (count, 2))
    objects = np.hstack([corners, corners + generator.uniform(15, 40, (count, 2))])
    near = objects[generator.integers(0, count, proposals // 2)] + generator.uniform(-6, 6, (proposals // 2, 4))
    corners = generator.uniform(0, 70, (proposals - len(near), 2))
    far = np.hstack([corners, corners + generator.uniform(10, 30, corners.shape)])
    boxes = np.vstack([objects, near, far])
    shown = np.concatenate([labels, generator.integers(0, len(prototypes), proposals)])
    features = np.maximum(0, prototypes[shown] + 0.7 * generator.normal(size=(len(boxes), prototypes.shape[1])))
    return region_record(boxes, labels.tolist(), features, layer)
