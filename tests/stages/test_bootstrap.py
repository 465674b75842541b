"""Bootstrap intervals: against evaluating the drawn images anew, every resample counted, and coverage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.detections import ClassDetections
from stages.eval import bootstrap
from stages.eval.bootstrap import resampled_average_precision
from stages.matching.average_precision import precision_recall_curve
from stages.matching.detections import match_devkit
from stages.matching.objects import ClassObjects
from stages.resampling import image_weights, percentile_interval, resampled_mean

SQUARE, AWAY = (0, 0, 10, 10), (20, 20, 30, 30)


def scene(random: np.random.Generator, images: int, skill: float = 0.5) -> tuple[ClassDetections, ClassObjects]:
    """Images of up to two objects, some difficult, and detections that find them with the odds `skill`.

    Scores are equal between images, never within one.
    """
    rows, things = [], []
    for image in range(images):
        good, bad = iter(random.permutation(range(3, 9))), iter(2 * random.permutation(4) + 0.5)
        for box in (SQUARE, AWAY)[: random.integers(0, 3)]:
            things.append((image, box, random.random() < 0.2))
            if random.random() < skill:
                rows.append((image, box, next(good)))
        rows += [(image, (40, 0, 50, 10), next(bad)) for _ in range(random.integers(0, 3))]
    return (
        ClassDetections(
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[2] for row in rows], np.float32),
        ),
        ClassObjects(
            np.array([thing[0] for thing in things], np.int64),
            np.array([thing[1] for thing in things], np.float32).reshape(-1, 4),
            np.array([thing[2] for thing in things], bool),
        ),
    )


def drawn(
    detections: ClassDetections, objects: ClassObjects, counts: NDArray[np.floating]
) -> tuple[ClassDetections, ClassObjects]:
    """The drawn images as a set of their own: copies of an image side by side."""
    images = np.repeat(np.arange(len(counts)), counts.astype(int))
    rows = [np.flatnonzero(detections.images == image) for image in images]
    own = [np.flatnonzero(objects.images == image) for image in images]
    row, thing = (np.concatenate([np.zeros(0, int), *some]) for some in (rows, own))
    row_images, thing_images = (np.repeat(np.arange(len(images)), [len(one) for one in some]) for some in (rows, own))
    return (
        ClassDetections(row_images, detections.boxes[row], detections.scores[row]),
        ClassObjects(thing_images, objects.boxes[thing], objects.difficult[thing]),
    )


def resampled(
    detections: ClassDetections, objects: ClassObjects, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return resampled_average_precision(detections, objects, match_devkit(detections, objects), weights)


def three_images() -> tuple[ClassDetections, ClassObjects]:
    """Image 0: found, score 3. Image 1: a false detection, score 2. Image 2: found, score 1."""
    detections = ClassDetections(
        np.arange(3), np.array([SQUARE, AWAY, SQUARE], np.float32), np.array([3, 2, 1], np.float32)
    )
    return detections, ClassObjects(np.array([0, 2]), np.array([SQUARE, SQUARE], np.float32), np.zeros(2, bool))


def test_a_resample_worked_by_hand() -> None:
    detections, objects = three_images()
    weights = np.array([[1, 0, 0, 2], [1, 2, 3, 0], [1, 1, 0, 1]], np.float64)
    _, areas = resampled(detections, objects, weights)
    # All once: 1/2 x 1 + 1/2 x 2/3. Two false, then one true: 1/3. Nothing to find. No false one.
    np.testing.assert_allclose(areas, [5 / 6, 1 / 3, np.nan, 1])


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_weights_are_the_same_as_evaluating_the_drawn_images_anew(seed: int, images: int) -> None:
    random = np.random.default_rng(seed)
    detections, objects = scene(random, images)
    weights = image_weights(images, 6, seed)
    eleven, areas = resampled(detections, objects, weights)
    for column, counts in enumerate(weights.T):
        curve = precision_recall_curve(*drawn(detections, objects, counts))
        np.testing.assert_allclose([eleven[column], areas[column]], [curve.ap_11, curve.ap_area], rtol=0, atol=1e-12)


def test_every_image_once_is_the_evaluation_itself() -> None:
    detections, objects = scene(np.random.default_rng(1), 200)
    eleven, areas = resampled(detections, objects, np.ones((200, 1)))
    curve = precision_recall_curve(detections, objects)
    np.testing.assert_allclose([eleven[0], areas[0]], [curve.ap_11, curve.ap_area], rtol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    detections, objects = scene(np.random.default_rng(2), 50)
    weights = image_weights(50, 37, 0)
    whole = resampled(detections, objects, weights)
    monkeypatch.setattr(bootstrap, "BLOCK", 60)
    for one, other in zip(whole, resampled(detections, objects, weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_draws() -> None:
    weights = image_weights(30, 500, 4)
    assert weights.shape == (30, 500)
    assert (weights.sum(axis=0) == 30).all()
    assert abs(weights.std() - 1) < 0.05  # of Poisson's spread, nearly
    np.testing.assert_array_equal(weights, image_weights(30, 500, 4))
    assert (weights != image_weights(30, 500, 5)).any()


def test_the_drawn_distribution_is_that_of_all_resamples() -> None:
    """Three images have 27 resamples, equally likely: the mean and quantiles of many draws are those of all 27."""
    detections, objects = three_images()
    every = np.array([np.bincount(choice, minlength=3) for choice in product(range(3), repeat=3)], np.float64).T
    _, exact = resampled(detections, objects, every)
    _, found = resampled(detections, objects, image_weights(3, 40_000, 0))
    assert np.isnan(exact).sum() == 1  # three times image 1
    assert abs(np.isnan(found).mean() - 1 / 27) < 0.01
    values = np.unique(np.round(exact[~np.isnan(exact)], 9))
    # No false one (8 of 27); once each (6) 5/6; 1, 1, 2 (3) 1/3; 1, 2, 2 (3) 2/3; 0, 0, 1 and 0, 1, 1 (6) 1 too.
    np.testing.assert_allclose(values, [1 / 3, 2 / 3, 5 / 6, 1])
    for value, odds in zip(values, [3 / 27, 3 / 27, 6 / 27, 14 / 27], strict=True):
        assert np.isclose(exact, value).sum() == round(27 * odds)
        assert abs(np.isclose(found, value).mean() - odds) < 0.01


def test_the_mean_leaves_out_what_a_resample_has_no_objects_of() -> None:
    values = np.array([[0.5, np.nan, np.nan], [1.0, 0.25, np.nan]])
    np.testing.assert_array_equal(resampled_mean(values), [0.75, 0.25, np.nan])


def test_intervals() -> None:
    assert percentile_interval(np.arange(1001.0), 0.95) == pytest.approx((25, 975))
    assert percentile_interval(np.array([np.nan, 2.0])) == (2, 2)
    assert percentile_interval(np.array([np.nan])) is None


def test_no_detections_and_no_objects() -> None:
    none = ClassDetections(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    detections, objects = scene(np.random.default_rng(3), 5)
    weights = np.ones((5, 2))
    assert resampled(none, objects, weights)[1].tolist() == [0, 0]
    nothing = ClassObjects(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, bool))
    assert np.isnan(resampled(detections, nothing, weights)[0]).all()


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """The AP of 4,000 images is taken as the truth; 95 % intervals from 60 images hold it in about 95 of 100 trials."""
    random = np.random.default_rng(11)
    truth = precision_recall_curve(*scene(random, 4000, skill=0.6)).ap_area
    held = 0
    for trial in range(100):
        detections, objects = scene(random, 60, skill=0.6)
        interval = percentile_interval(resampled(detections, objects, image_weights(60, 300, trial))[1])
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 88 <= held <= 99


def test_pairing_narrows_the_difference() -> None:
    """Two detectors that differ on few images: their difference is known far better than either."""
    detections, objects = scene(np.random.default_rng(12), 100, skill=0.6)
    keep = np.ones(len(detections), bool)
    keep[::15] = False
    fewer = ClassDetections(detections.images[keep], detections.boxes[keep], detections.scores[keep])
    weights = image_weights(100, 1000, 0)
    one, other = resampled(detections, objects, weights)[1], resampled(fewer, objects, weights)[1]
    alone, paired = percentile_interval(one), percentile_interval(one - other)
    assert alone is not None
    assert paired is not None
    assert paired[1] - paired[0] < 0.6 * (alone[1] - alone[0])
    assert percentile_interval(one - one) == (0, 0)
