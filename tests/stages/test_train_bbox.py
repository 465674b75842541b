"""train-bbox: examples by hand, ridge and whitening against other implementations, the stage as a whole."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from cache import Reader, Shard
from stages.boxes import encode_deltas, iou_matrix
from stages.contract.execution import Execution
from stages.features.linear_models import read_regressors
from stages.train_bbox import STAGE, Settings
from stages.train_bbox.examples import BLOCK_ROWS, collect_examples, feature_blocks, image_examples
from stages.train_bbox.ridge import fit_ridge, whiten

CLASSES = ("cat", "dog", "owl")
POOL5 = Settings(regularisation=5.0)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# Whitening and ridge


def test_whitening_by_hand() -> None:
    # x and y move together: variances 4 and 1 along the axes (1, 1) and (1, -1) over root 2; w and h never move
    along, across = np.array([1, 1, 0, 0]) / np.sqrt(2), np.array([1, -1, 0, 0]) / np.sqrt(2)
    mean = np.array([5.0, 0, 1, 2])
    targets = mean + np.array([2 * along + across, 2 * along - across, -2 * along + across, -2 * along - across])
    found = whiten(targets)
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(along @ found.matrix, along / np.sqrt(4.001), atol=1e-12)
    np.testing.assert_allclose(across @ found.matrix, across / np.sqrt(1.001), atol=1e-12)
    np.testing.assert_allclose(found.matrix[2:, 2:], np.eye(2) / np.sqrt(0.001), rtol=1e-9)
    np.testing.assert_allclose(found.matrix @ found.inverse, np.eye(4), atol=1e-9)


@given(st.integers(1, 50), st.integers(0, 1000))
@hypothesis_settings(max_examples=40, deadline=None)
def test_whitening_is_symmetric_and_undone(count: int, seed: int) -> None:
    targets = numbers(count, 4, seed=seed) @ numbers(4, 4, seed=seed + 1)
    found = whiten(targets)
    white = (targets - found.mean) @ found.matrix
    np.testing.assert_allclose(found.matrix, found.matrix.T, atol=1e-9)
    np.testing.assert_allclose(white @ found.inverse + found.mean, targets, atol=1e-8)
    expected = scipy.linalg.inv(scipy.linalg.sqrtm(np.cov(targets.T, bias=True).reshape(4, 4) + 0.001 * np.eye(4)))
    np.testing.assert_allclose(found.matrix, expected.real, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [3, 200])
def test_ridge_is_scikit_learns_with_the_bias_regularised(rows: int) -> None:
    features, targets = numbers(rows, 20), 3 + numbers(rows, 4, seed=1)
    blocks = [(features[low : low + 64], targets[low : low + 64]) for low in range(0, rows, 64)]
    found = fit_ridge(blocks, 20, 7.0)
    with_ones = np.hstack([features, np.ones((rows, 1))])
    model = Ridge(alpha=7.0, fit_intercept=False, solver="svd").fit(with_ones, targets)
    np.testing.assert_allclose(found.coefficients, model.coef_.T, rtol=1e-9, atol=1e-12)
    error = with_ones @ found.coefficients - targets
    np.testing.assert_allclose(found.residual, error.T @ error, rtol=1e-8, atol=1e-8)


def test_ridge_is_the_cholesky_solution_and_minimal() -> None:
    features, targets = numbers(50, 6), numbers(50, 4, seed=1)
    found = fit_ridge([(features, targets)], 6, 2.0).coefficients
    rows = np.hstack([features, np.ones((50, 1))])
    factor = scipy.linalg.cho_factor(rows.T @ rows + 2 * np.eye(7))
    np.testing.assert_allclose(found, scipy.linalg.cho_solve(factor, rows.T @ targets), rtol=1e-10)

    def cost(coefficients: np.ndarray) -> float:
        return float(np.square(rows @ coefficients - targets).sum() + 2 * np.square(coefficients).sum())

    assert all(cost(found + 1e-3 * numbers(7, 4, seed=seed)) > cost(found) for seed in range(9))


# Examples


def test_examples_by_hand(region_image: Any) -> None:
    boxes = [
        [0, 0, 10, 10],  # a cat
        [20, 0, 30, 10],  # a dog
        [0, 0, 6, 10],  # IoU with the cat exactly 0.6: no
        [0, 0, 7, 10],  # 0.7: yes
        [22, 0, 32, 10],  # IoU with the dog 8 / 12: yes
        [60, 60, 70, 70],  # nowhere
    ]
    found = image_examples(region_image(boxes, [2, 0], np.zeros((6, 1))), 5, 0.6)
    np.testing.assert_array_equal(found.rows, [0, 1, 3, 4])
    np.testing.assert_array_equal(found.labels, [2, 0, 2, 0])
    np.testing.assert_array_equal(found.images, [5, 5, 5, 5])
    np.testing.assert_allclose(found.targets[:2], 0, atol=1e-12)
    # the release's sides are one pixel short: 6 wide, the cat 9, centres 3.5 and 5
    np.testing.assert_allclose(found.targets[2], [1.5 / 6, 0, np.log(9 / 6), 0], atol=1e-12)
    np.testing.assert_allclose(found.targets[3], [-2 / 9, 0, 0, 0], atol=1e-12)


def test_the_nearest_object_of_any_class_is_the_target(region_image: Any) -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 11.8]]
    found = image_examples(region_image(boxes, [0, 1], np.zeros((3, 1))), 0, 0.6)
    np.testing.assert_array_equal(found.labels, [0, 1, 1])
    again = found.of_class(1)
    np.testing.assert_array_equal(again.rows, [1, 2])
    assert len(again) == 2


def test_boxes_too_thin_to_have_a_scale_are_left_out(region_image: Any) -> None:
    thin = [[0, 0, 1, 10], [0, 0, 1, 9], [5, 5, 5, 5]]
    assert not len(image_examples(region_image(thin, [0, 0, 0], np.zeros((3, 1))), 0, 0.6))
    assert not len(image_examples(region_image(np.zeros((0, 4)), [], np.zeros((0, 1))), 0, 0.6))
    assert not len(image_examples(region_image([[0, 0, 9, 9]], [], np.zeros((1, 1))), 0, 0.6))


def test_unused_regions_and_what_is_nearest_to_an_unused_object_are_left_out(region_image: Any) -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 12], [0, 0, 10, 11.8], [0, 0, 9.5, 10], [0, 0, 9, 10]]
    record = region_image(boxes, [0, 1], np.zeros((5, 1)))
    found = image_examples(record, 0, 0.6, np.array([False, True, False, False, True]))
    np.testing.assert_array_equal(found.rows, [0, 3])
    np.testing.assert_array_equal(found.labels, [0, 0])


def test_only_exhaustive_images_are_trained_on_where_asked(feature_cache: Any, scene: Any, with_classes: Any) -> None:
    images = with_classes(feature_cache(scene(6, 2)), ("cat", "dog"))["images"]
    features = feature_cache(scene(6, 2))
    images.images_not_exhaustive = frozenset({"im001", "im004"})
    every = collect_examples(features, images, 0.5, "train")
    some = collect_examples(features, images, 0.5, "train", only_exhaustive=True)
    assert {1, 4} <= set(every.images.tolist())
    kept = ~np.isin(every.images, [1, 4])
    np.testing.assert_array_equal(some.images, every.images[kept])
    np.testing.assert_array_equal(some.targets, every.targets[kept])


def test_blocks_bring_the_features_of_the_examples(feature_cache: Any, scene: Any, with_classes: Any) -> None:
    records = scene(40, 3, proposals=60, layer="pool5")
    features = feature_cache(records, "pool5")
    images = with_classes(features, ("a", "b", "c"))["images"]
    examples = collect_examples(features, images, 0.5, "train")
    assert len(examples) > BLOCK_ROWS
    expected = [records[i]["pool5"][r] for i, r in zip(examples.images, examples.rows, strict=True)]
    blocks = list(feature_blocks(features, "pool5", 2.0, examples))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in blocks]), 2 * np.array(expected, np.float64))
    assert [where.start for _, where in blocks] == list(range(0, len(examples), BLOCK_ROWS))


# The stage


@pytest.fixture
def records(scene: Any) -> list[dict[str, np.ndarray]]:
    """Generated images whose first four features tell, noisily, how the object lies in the box."""
    generator = np.random.default_rng(1)
    records: list[dict[str, np.ndarray]] = scene(20, len(CLASSES), layer="pool5", dimension=10)
    for record in records:
        objects = record["boxes"][record["is_object"]]
        if len(objects):
            nearest = iou_matrix(record["boxes"], objects).argmax(axis=1)
            told = encode_deltas(record["boxes"], objects[nearest]) + 0.01 * generator.normal(size=(len(nearest), 4))
            record["pool5"][:, :4] = 2 + 5 * np.clip(told, -1, 1)
    return records


@pytest.fixture
def trained(run_stage: Any, feature_cache: Any, with_classes: Any, records: Any) -> Any:
    features = feature_cache(records, "pool5")
    return lambda name="output", **how: run_stage(STAGE, POOL5, with_classes(features, CLASSES), name, **how)


def contents(reader: Reader) -> list[dict[str, bytes]]:
    return [{name: column.tobytes() for name, column in record.items()} for _, record in reader.records()]


def test_the_stage_is_the_plain_computation(trained: Any, records: Any) -> None:
    reader = trained()
    for label, name in enumerate(CLASSES):
        rows, targets = [], []
        for record in records:
            objects = record["boxes"][record["is_object"]]
            for box, row in zip(record["boxes"], record["pool5"], strict=True):
                overlaps = iou_matrix(box[None], objects)[0]
                if overlaps.max() > 0.6 and record["label"][overlaps.argmax()] == label:
                    rows.append(np.append(row.astype(np.float64) * reader.read(name)["scale"], 1))
                    targets.append(encode_deltas(box[None], objects[overlaps.argmax()][None])[0])
        A, Y = np.array(rows), np.array(targets)
        centred = Y - Y.mean(axis=0)
        T = scipy.linalg.inv(scipy.linalg.sqrtm(centred.T @ centred / len(Y) + 0.001 * np.eye(4))).real
        B = np.linalg.solve(A.T @ A + 5 * np.eye(11), A.T @ (centred @ T))
        predicted = A @ B @ np.linalg.inv(T) + Y.mean(axis=0)
        found = reader.read(name)
        assert found["examples"] == len(Y)
        np.testing.assert_allclose(found["coefficients"], B, rtol=1e-4, atol=1e-6)
        assert found["error_before"] == pytest.approx(np.square(Y).sum(axis=1).mean())
        assert found["error_after"] == pytest.approx(np.square(predicted - Y).sum(axis=1).mean(), rel=1e-4)
        assert found["error_after"] < 0.3 * found["error_before"]


def test_predicted_boxes_lie_nearer_to_their_objects(trained: Any, records: Any) -> None:
    regressors = read_regressors(trained())
    assert (regressors.classes, regressors.layer) == (CLASSES, "pool5")
    before: list[float] = []
    after: list[float] = []
    for record in records:
        objects = np.flatnonzero(record["is_object"])
        for row, label in zip(objects, record["label"][objects], strict=True):
            overlaps = iou_matrix(record["boxes"], record["boxes"][row : row + 1])[:, 0]
            near = (overlaps > 0.6) & (overlaps < 0.95)
            moved = regressors.predict(record["boxes"][near], record["pool5"][near], int(label))
            assert moved.dtype == np.float32
            before.extend(overlaps[near])
            after.extend(iou_matrix(moved, record["boxes"][row : row + 1])[:, 0])
    assert np.mean(after) > np.mean(before) + 0.1


def test_the_map_folds_scale_whitening_and_mean(trained: Any) -> None:
    reader, rows = trained(), np.random.default_rng(0).random((5, 10)).astype(np.float16)
    regressors = read_regressors(reader)
    for label, name in enumerate(CLASSES):
        one = reader.read(name)
        white = np.hstack([rows.astype(np.float64) * one["scale"], np.ones((5, 1))]) @ one["coefficients"]
        np.testing.assert_allclose(
            regressors.deltas(rows, label), white @ one["unwhiten"] + one["mean"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("count", [2, 5])
def test_shards_train_the_same_bits(trained: Any, count: int) -> None:
    shards = [Shard(index, count) for index in range(count, 0, -1)]
    assert contents(trained("shards", shards=shards, part_size=1)) == contents(trained("whole", part_size=2))


def test_jobs_train_the_same_bits(trained: Any) -> None:
    assert contents(trained("jobs", execution=Execution(jobs=2))) == contents(trained("whole"))


def test_finished_classes_survive_a_failure(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import stages.train_bbox.stage as module

    whole, fit_class, fitted = contents(trained("whole")), module.fit_class, []

    def fails_on_the_third(*arguments: Any, **named: Any) -> Any:
        fitted.append(1)
        if len(fitted) == 3:
            raise KeyboardInterrupt
        return fit_class(*arguments, **named)

    monkeypatch.setattr(module, "fit_class", fails_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        trained("killed")
    assert contents(trained("killed")) == whole
    assert len(fitted) == 4  # two, the one that failed, and that one again


def test_a_class_without_examples_leaves_boxes_alone(
    run_stage: Any, feature_cache: Any, with_classes: Any, records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    features = feature_cache(records, "pool5")
    with caplog.at_level(logging.WARNING, "stages.train_bbox"):
        reader = run_stage(STAGE, POOL5, with_classes(features, [*CLASSES, "unicorn"]))
    assert "class 'unicorn': no region overlaps an object enough" in caplog.text
    boxes = records[0]["boxes"]
    moved = read_regressors(reader).predict(boxes, records[0]["pool5"], 3)
    np.testing.assert_allclose(moved, boxes, atol=1e-4)
    assert reader.manifest["summary"]["classes"]["unicorn"]["examples"] == 0
