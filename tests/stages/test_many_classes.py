"""Hundreds and thousands of classes: the same results as class by class, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cache import Reader, Record
from stages.boxes import clip_boxes, iou_matrix
from stages.contract.inputs import Inputs
from stages.detect import Settings as DetectSettings
from stages.detect.scoring import Head
from stages.detect.trace import detect_image
from stages.detections.candidates import BLOCK_CLASSES, best_rows
from stages.eval.pictures import most_objects
from stages.features.linear_models import NEVER_DETECTED, LinearSvms
from stages.matching.average_precision import Curve
from stages.matching.ground_truth import listed
from stages.train_svm import STAGE, Settings
from stages.train_svm import stage as train_svm
from stages.train_svm.stage import Mining, batches
from tests.stages.given_datasets import GivenDataset

CLASSES = tuple(f"class{number:03}" for number in range(150))
SETTINGS = Settings(retrain_after=60, C=0.01, tolerance=0.1)


def scenes(region_image: Any, images: int = 12, dimension: int = 16) -> list[Record]:
    """Two objects of every class, 25 per image, each with a proposal beside it; features show, noisily, the class."""
    generator = np.random.default_rng(0)
    prototypes = np.maximum(0, generator.normal(size=(len(CLASSES), dimension)))
    every = generator.permutation(np.repeat(np.arange(len(CLASSES)), 2)).reshape(images, -1)
    records = []
    for labels in every:
        corners = generator.uniform(0, 70, (len(labels), 2))
        objects = np.hstack([corners, corners + generator.uniform(10, 30, corners.shape)])
        beside = objects + generator.uniform(-9, 9, objects.shape)
        features = prototypes[np.tile(labels, 2)] + 0.3 * generator.normal(size=(2 * len(labels), dimension))
        records.append(region_image(np.vstack([objects, beside]), labels.tolist(), np.maximum(0, features)))
    return records


@pytest.fixture
def trained(run_stage: Any, feature_cache: Any, with_classes: Any, region_image: Any) -> Any:
    """trained(name, settings): the SVMs of 150 classes."""
    features = feature_cache(scenes(region_image))
    return lambda name, settings=SETTINGS: run_stage(
        STAGE, settings, with_classes(features, CLASSES), name, part_size=30
    )


def contents(reader: Reader) -> list[dict[str, bytes]]:
    return [{name: column.tobytes() for name, column in record.items()} for _, record in reader.records()]


def test_memory_bounds_what_is_mined_at_once_and_changes_nothing(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_held: list[list[int]] = []
    put_off: list[int] = []
    hold, drop, visit = Mining.hold_examples, Mining.drop, Mining.visit

    def watched_hold(self: Mining) -> None:
        hold(self)
        bytes_held.append([])

    def watched_drop(self: Mining, miners: Any) -> None:
        put_off.append(len(miners))
        drop(self, miners)

    def watched_visit(self: Mining, image: int, record: Record) -> None:
        visit(self, image, record)
        keys = sum(one.weights.nbytes + one.positives.nbytes + one.negatives.nbytes for one in self.miners)
        tables = sum(table.nbytes for table in self.pool.slots.values()) + self.pool.holders.nbytes
        scorer = sum(block.nbytes for block in self.scorer.weights.values())
        bytes_held[-1].append(keys + tables + scorer)

    monkeypatch.setattr(Mining, "hold_examples", watched_hold)
    monkeypatch.setattr(Mining, "drop", watched_drop)
    monkeypatch.setattr(Mining, "visit", watched_visit)

    whole = trained("whole")
    assert len(bytes_held) == 1
    assert not put_off
    every_class = max(bytes_held[0])
    bytes_held.clear()
    assert contents(trained("bounded", replace(SETTINGS, memory=0.6 * every_class / 1e6))) == contents(whole)
    assert len(bytes_held) > 2
    assert put_off
    assert 0.2 * every_class < max(map(max, bytes_held)) <= 0.6 * every_class
    bytes_held.clear()
    assert contents(trained("least", replace(SETTINGS, memory=1e-6))) == contents(whole)  # a part at a time, no less
    assert len(bytes_held) == 5


def test_tasks_share_rows_up_to_a_limit() -> None:
    def miner(label: int, *keys: int) -> Any:
        first = train_svm.ClassMiner(str(label), label, np.array(keys[:1]), np.zeros(1))
        return replace(first, negatives=np.array(keys[1:], np.int64))

    due = [miner(0, 9, 1, 2, 3), miner(1, 8, 1, 2, 3), miner(2, 7, 4, 5, 6), miner(3, 10, 1), miner(4, 11, 1)]
    made = list(batches(due, at_most=2, rows=5))
    assert [len(members) for _, members in made] == [2, 1, 2]
    position = 0
    for keys, members in made:
        assert len(set(keys.tolist())) == len(keys)
        for rows, positives in members:
            np.testing.assert_array_equal(keys[rows], due[position].examples)
            assert positives == 1
            position += 1
    np.testing.assert_array_equal(made[1][0], due[2].examples)  # alone, a class has its rows in their order


def test_detecting_thousands_of_classes_is_detecting_each() -> None:
    generator = np.random.default_rng(0)
    classes, proposals, limits = 2 * BLOCK_CLASSES + 77, 40, DetectSettings(max_per_image=6)
    weights = generator.integers(-3, 4, (classes, 8)).astype(np.float32)  # whole numbers: no product rounds
    biases = generator.integers(-3, 4, classes).astype(np.float32)
    biases[::100] = NEVER_DETECTED
    svms = LinearSvms(tuple(map(str, range(classes))), "fc7", weights, biases, 1.0)
    features = generator.integers(0, 3, (proposals, 8)).astype(np.float16)
    corners = generator.uniform(0, 60, (proposals, 2))
    boxes = np.hstack([corners, corners + generator.uniform(20, 60, (proposals, 2))]).astype(np.float32)
    found = detect_image(Head(svms).scored(boxes, {"fc7": features}, (90, 100)), limits).detections

    clipped = clip_boxes(boxes, 90, 100)
    iou = iou_matrix(clipped, clipped)
    expected = []
    for label in range(classes):
        scores = features.astype(np.float32) @ weights[label] + biases[label]
        kept: list[int] = []
        for row in np.argsort(-scores, kind="stable")[:6] if label % 100 else ():
            if all(iou[row, other] <= 0.3 for other in kept):
                kept.append(row)
                expected.append((label, scores[row], *clipped[row]))
    np.testing.assert_array_equal(np.column_stack([found.labels, found.scores, found.boxes]), np.array(expected))


def test_the_best_rows_are_those_of_a_stable_sort() -> None:
    scores = np.random.default_rng(0).integers(-4, 5, (50, 30)).astype(np.float32)
    scores *= np.array([1, -0.0, 2] * 10, np.float32)
    for at_most in (1, 7, 49, 50, 60):
        best = best_rows(scores, at_most, first=5)
        rows = np.argsort(-scores, axis=0, kind="stable")[:at_most].T
        np.testing.assert_array_equal(best.rows, rows.ravel())
        np.testing.assert_array_equal(best.labels, np.repeat(np.arange(5, 35), rows.shape[1]))
        np.testing.assert_array_equal(best.scores, scores.T[np.arange(30)[:, None], rows].ravel())


def test_of_many_classes_some_are_plotted_and_named() -> None:
    scores, none = np.zeros(0, np.float32), np.zeros(0)
    of_class = zip("abcd", (1, 3, 2, 3), strict=True)
    curves = {name: Curve(scores, none, none, positives, 0) for name, positives in of_class}
    assert most_objects(list("abcd"), {"one": curves, "other": {"a": replace(curves["a"], positives=9)}}, 2) == [
        "a",
        "b",
    ]
    assert most_objects(list("abcd"), {"one": curves}, 4) == list("abcd")
    assert listed(["cat", "dog", "owl"], at_most=2) == "cat, dog and 1 more"
    assert listed(["cat", "dog"], at_most=2) == "cat, dog"


def test_many_classes_have_more_in_a_part_of_svms_and_fewer_images_in_one_of_detections() -> None:
    from stages.detect import stage as detecting

    class Svms(Reader):
        """A cache of so many classes."""

        def __init__(self, classes: int) -> None:
            self.classes = classes

        def __len__(self) -> int:
            return self.classes

    def parts(classes: int) -> tuple[int, int]:
        inputs = Inputs({"images": GivenDataset(classes=range(classes)), "svm": Svms(classes)})
        return train_svm.part_size(SETTINGS, inputs), detecting.part_size(DetectSettings(), inputs)

    assert [parts(classes) for classes in (1, 20, 1000, 4000, 100_000)] == [(4, 16), (4, 16), (4, 16), (8, 4), (196, 1)]
