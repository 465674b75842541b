"""Mining's rules on hand-worked cases, the solver against its formula, the pool of examples."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from cache import DiskFull
from stages.features.sparse import sparse_rows
from stages.matching.overlaps import class_overlaps
from stages.matching.windows import negative_rows
from stages.train_svm import Settings
from stages.train_svm.checkpoint import as_arrays, restore
from stages.train_svm.duality import relative_gap
from stages.train_svm.mining import BlockScorer, ClassMiner, easy_negatives, hard_negatives, is_due, mined_images
from stages.train_svm.pool import ROW_BITS, FeaturePool, images_and_rows, keys_of
from stages.train_svm.solver import fit_svm, minimise, svm_objective


def miner(**changes: Any) -> ClassMiner:
    return replace(ClassMiner("cat", 0, np.zeros(1, np.int64), np.zeros(3)), **changes)


def test_negatives_overlap_strictly_less_and_may_be_objects_of_other_classes() -> None:
    cat, dog = [0, 0, 10, 10], [50, 50, 60, 60]
    # IoU with the cat: 1, 0, exactly 0.3 (3 x 10 of 100), just below it, 0.5
    boxes = np.array([cat, dog, [0, 0, 3, 10], [0, 0, 2.9, 10], [0, 0, 5, 10]], np.float32)
    overlaps = class_overlaps(boxes, boxes[:2], np.array([0, 1], np.int32), 2)
    own = np.array([True, False, False, False, False])
    np.testing.assert_array_equal(negative_rows(overlaps[:, 0], own, 0.3), [False, True, False, True, False])


def test_at_a_threshold_of_zero_what_touches_no_object_of_the_class_is_a_negative() -> None:
    cat = np.array([[0, 0, 10, 10]], np.float32)
    # beside the cat with a common edge, one pixel of it, far away
    boxes = np.array([[10, 0, 20, 10], [9, 9, 19, 19], [50, 50, 60, 60]], np.float32)
    overlaps = class_overlaps(boxes, cat, np.zeros(1, np.int32), 1)[:, 0]
    np.testing.assert_array_equal(negative_rows(overlaps, np.zeros(3, bool), 0.0), [True, False, True])


@given(st.lists(st.floats(0, 1, width=32)), st.floats(1e-6, 1))
def test_at_any_other_threshold_a_negative_is_strictly_below_it(overlaps: list[float], threshold: float) -> None:
    values = np.array(overlaps, np.float32)
    below = values < np.float32(threshold)
    np.testing.assert_array_equal(negative_rows(values, np.zeros(len(values), bool), threshold), below)


def test_an_object_is_never_a_negative_of_its_own_class() -> None:
    nothing = np.zeros(2, np.float32)  # a box without an area overlaps not even itself
    np.testing.assert_array_equal(negative_rows(nothing, np.array([True, False]), 0.3), [False, True])


def test_hard_means_strictly_above_the_threshold_and_everything_in_the_first_image() -> None:
    scores = np.array([-1.0001, -1, 5, -7], np.float32)
    negatives = np.array([True, True, False, True])
    np.testing.assert_array_equal(np.flatnonzero(hard_negatives(scores, negatives, False, -1.0001)), [1])
    np.testing.assert_array_equal(np.flatnonzero(hard_negatives(scores, negatives, True, -1.0001)), [0, 1, 3])


def test_training_is_due_first_last_and_after_strictly_more_than_the_limit() -> None:
    full = miner(negatives=np.arange(3), added=2000)
    assert [is_due(full, is_end, 2000) for is_end in (True, False)] == [True, False]
    assert is_due(replace(full, added=2001), False, 2000)
    assert not is_due(miner(), True, 2000)


def test_mined_are_exhaustive_images_or_so_many_of_them() -> None:
    exhaustive = np.arange(40) % 4 != 0
    np.testing.assert_array_equal(mined_images(exhaustive, 0, 3), np.flatnonzero(exhaustive))
    np.testing.assert_array_equal(mined_images(exhaustive, 30, 3), np.flatnonzero(exhaustive))
    some = mined_images(exhaustive, 9, 3)
    assert len(set(some.tolist())) == 9
    assert exhaustive[some].all()
    np.testing.assert_array_equal(some, np.sort(some))
    np.testing.assert_array_equal(some, mined_images(exhaustive, 9, 3))
    assert some.tolist() != mined_images(exhaustive, 9, 4).tolist()


def test_eviction_is_strict_and_the_bound_keeps_the_hardest() -> None:
    scores = np.array([-1.2, -1.3, 0.5, -1.0, 0.5])
    np.testing.assert_array_equal(easy_negatives(scores, -1.2, 0), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(easy_negatives(scores, -1.2, 1), [1, 1, 0, 1, 1])


def test_scores_do_not_depend_on_the_other_classes() -> None:
    generator = np.random.default_rng(0)
    features = generator.random((37, 50)).astype(np.float32)
    miners = [ClassMiner(str(k), k, np.zeros(1, np.int64), generator.normal(size=50), bias=k / 7) for k in range(40)]
    every, alone = BlockScorer(50), BlockScorer(50)
    for one in miners:
        every.update(one)
    alone.update(miners[35])
    scores = np.hstack([every.scores(features, block) for block in range(2)]).T
    for k, one in enumerate(miners):
        np.testing.assert_allclose(scores[k], features @ one.weights + one.bias, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(alone.scores(features, 1)[:, 35 - 32], scores[35])


def test_a_checkpoint_brings_a_class_back() -> None:
    entry: dict[str, float] = {
        "image": 0,
        "positives": 4,
        "negatives": 5,
        "added": 5,
        "evicted": 2,
        "objective": 0.1,
        "loss_positives": 0.05,
        "loss_negatives": 0.02,
        "regulariser": 0.03,
        "iterations": 7,
        "converged": True,
    }
    before = miner(
        weights=np.array([1.0, 2, 3]),
        bias=0.1,
        negatives=np.array([3, 5 << ROW_BITS]),
        added=2,
        next_image=6,
        log=[entry],
    )
    after = miner()
    restore([after], as_arrays([before]), 6)
    assert after.log == before.log
    assert (after.bias, after.added, after.next_image) == (0.1, 2, 6)
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.negatives, before.negatives)


# The solver


def separable(count: int = 60, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = np.maximum(0, generator.normal(size=(count, 5)))
    rows[:20, 0] += 1.0
    return rows.astype(np.float16)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_the_stated_objective_is_the_one_minimised(loss: str) -> None:
    settings = Settings(C=0.05, loss=loss, tolerance=1e-8, max_iterations=100_000)
    rows, scale = separable(), 3.0
    examples = rows.astype(np.float64) * scale
    solution = fit_svm(rows, 20, scale, settings)

    def objective(parameters: np.ndarray) -> float:
        scores = examples @ parameters[:5] + parameters[5]
        return svm_objective(scores[:20], scores[20:], parameters[:5], parameters[5], settings).total

    here = objective(np.append(solution.weights, solution.bias))
    assert solution.objective.total == pytest.approx(here, rel=1e-6)
    found = minimize(objective, np.append(solution.weights, solution.bias), method="Powell", options={"xtol": 1e-8})
    assert found.fun > here * (1 - 1e-5)
    other = minimize(objective, np.zeros(6), method="Powell", options={"maxiter": 20_000, "xtol": 1e-6})
    assert other.fun > here * (1 - 1e-5)


def test_the_objective_by_hand() -> None:
    settings = Settings(C=0.1, positive_weight=2, bias_multiplier=10)
    found = svm_objective(np.array([0.5, 2]), np.array([-3, -0.75]), np.array([3.0, 4]), 5.0, settings)
    assert found.positives == pytest.approx(0.1 * 2 * 0.5)
    assert found.negatives == pytest.approx(0.1 * 0.25)
    assert found.regulariser == pytest.approx(12.5 + 0.125)
    squared = svm_objective(
        np.array([0.5]), np.array([-0.75]), np.zeros(2), 0.0, replace(settings, loss="squared_hinge")
    )
    assert squared.total == pytest.approx(0.1 * 2 * 0.25 + 0.1 * 0.0625)


def test_the_solver_is_scikit_learns_on_dense_features() -> None:
    from sklearn.svm import LinearSVC

    rows, scale, settings = separable(), 2.5, Settings()
    model = LinearSVC(
        C=1e-3, loss="hinge", intercept_scaling=10, class_weight={1: 2, -1: 1}, tol=1e-4, random_state=0, max_iter=1000
    )
    dense = (rows.astype(np.float32) * np.float32(scale)).astype(np.float64)
    model.fit(dense, np.where(np.arange(60) < 20, 1, -1))
    solution = fit_svm(rows, 20, scale, settings)
    np.testing.assert_allclose(solution.weights, model.coef_[0], rtol=1e-12)
    assert solution.bias == pytest.approx(model.intercept_[0], rel=1e-12)
    np.testing.assert_allclose(solution.negative_scores, model.decision_function(dense[20:]), rtol=1e-9)


def test_too_few_iterations_are_told_and_do_not_fail() -> None:
    solution = fit_svm(separable(), 20, 30.0, Settings(C=100, max_iterations=2))
    assert not solution.converged
    assert 0 < solution.gap <= 1
    done = fit_svm(separable(), 20, 1.0, Settings())
    assert (done.converged, done.gap) == (True, 0.0)


def test_the_duality_gap_by_hand() -> None:
    """One positive x = 1 and one negative x = -1, C = 0.1 each, no bias: the minimum is at w = 0.2, where both violate
    the margin: 0.02 + 2 * 0.1 * 0.8 = 0.18. At w = 0 it is 0.2, and dual variables of 0.1 give 0.2 - 0.02 = 0.18."""
    settings = Settings(C=0.1, positive_weight=1, bias_multiplier=1e-6)
    examples = csr_matrix(np.array([[1.0], [-1.0]]))
    assert relative_gap(examples, 1, np.array([0.2]), 0.0, settings) == pytest.approx(0, abs=1e-9)
    assert relative_gap(examples, 1, np.array([0.0]), 0.0, settings) == pytest.approx(0.02 / 0.2)


@given(
    seed=st.integers(0, 99),
    cost=st.sampled_from([1e-3, 0.02, 0.1]),
    loss=st.sampled_from(["hinge", "squared_hinge"]),
    iterations=st.integers(1, 100),
)
@hypothesis_settings(max_examples=30, deadline=None)
def test_no_minimum_lies_below_the_duality_gap(seed: int, cost: float, loss: str, iterations: int) -> None:
    settings = Settings(C=cost, loss=loss, tolerance=1e-8, max_iterations=100_000)
    examples = sparse_rows(separable(seed=seed), 3.0)
    least = minimise(examples, 20, settings)
    early = minimise(examples, 20, replace(settings, max_iterations=iterations))
    gap = relative_gap(examples, 20, early.weights, early.bias, settings)
    excess = (early.objective.total - least.objective.total) / early.objective.total
    assert excess - 1e-9 <= gap <= 1
    if least.converged:
        assert relative_gap(examples, 20, least.weights, least.bias, settings) < 1e-3


@given(st.integers(0, 600), st.integers(1, 9), st.integers(0, 99))
@hypothesis_settings(max_examples=30, deadline=None)
def test_sparse_rows_are_the_dense_ones(count: int, dimension: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = np.maximum(0, generator.normal(size=(count, dimension))).astype(np.float16)
    dense = (rows.astype(np.float32) * np.float32(1.7)).astype(np.float64)
    np.testing.assert_array_equal(sparse_rows(rows, 1.7).toarray(), dense)


# The pool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FeaturePool]:
    with FeaturePool(tmp_path, 3, "float16") as pool:
        yield pool


def test_keys_go_there_and_back() -> None:
    keys = keys_of(np.array([0, 7, 2**30]), np.array([0, 2**31, 5]))
    images, rows = images_and_rows(keys)
    np.testing.assert_array_equal(images, [0, 7, 2**30])
    np.testing.assert_array_equal(rows, [0, 2**31, 5])
    assert len(set(keys.tolist())) == 3


def test_a_row_stays_while_somebody_holds_it(pool: FeaturePool) -> None:
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    pool.hold(np.array([10, 11]), rows[:2])
    pool.hold(np.array([11, 12]), rows[1:3])
    np.testing.assert_array_equal(pool.read(np.array([12, 10, 11, 12])), rows[[2, 0, 1, 2]])
    pool.release(np.array([10, 11]))
    assert len(pool) == 2
    pool.hold(np.array([13]), rows[3:])  # takes the place of 10
    np.testing.assert_array_equal(pool.read(np.array([11, 12, 13])), rows[1:])
    assert pool.file.seek(0, 2) == 3 * 6
    with pytest.raises(KeyError):
        pool.read(np.array([10]))


def test_the_pool_leaves_nothing_in_the_folder(pool: FeaturePool, tmp_path: Path) -> None:
    pool.hold(np.array([1]), np.ones((1, 3), np.float16))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(pool: FeaturePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="disk is full"):
        pool.hold(np.array([1]), np.ones((1, 3), np.float16))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=60))
@hypothesis_settings(max_examples=50, deadline=None)
def test_the_pool_is_a_counted_dictionary(steps: list[tuple[bool, int]]) -> None:
    import tempfile

    held: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder, FeaturePool(Path(folder), 2, "float32") as pool:
        for adds, key in steps:
            if adds:
                pool.hold(np.array([key]), np.full((1, 2), key))
                held[key] = held.get(key, 0) + 1
            elif held.get(key, 0):
                pool.release(np.array([key]))
                held[key] -= 1
        alive = np.array([key for key, count in held.items() if count], np.int64)
        assert len(pool) == len(alive)
        np.testing.assert_array_equal(pool.read(alive), np.repeat(alive[:, None], 2, axis=1))
