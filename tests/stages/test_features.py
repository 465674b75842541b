"""Features as the trainers read them: layers, the norm's scale, ground-truth rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.contract.errors import StageError
from stages.features.reading import feature_scale, layer_dimension, scaled


@pytest.fixture
def image(region_image: Any) -> Any:
    """image(objects, features): a record in which the first `objects` rows are objects of classes 0, 1, 0, ..."""
    box = np.array([0, 0, 10, 10], np.float32)
    return lambda objects, rows: region_image(np.tile(box, (len(rows), 1)), [n % 2 for n in range(objects)], rows)


def test_the_scale_brings_the_mean_norm_to_twenty(image: Any, feature_cache: Any) -> None:
    features = feature_cache([image(1, [[3, 4], [0, 10]]), image(0, np.zeros((0, 2))), image(0, [[0, 0]])])
    assert feature_scale(features, "fc7") == pytest.approx(20 / 5)  # norms 5, 10, 0
    assert feature_scale(features, "fc7", target_norm=5) == pytest.approx(1)


def test_the_scale_samples_images_and_rows_from_its_seed(image: Any, feature_cache: Any) -> None:
    generator = np.random.default_rng(0)
    records = [image(0, 5 * generator.random((40, 3))) for _ in range(20)]
    features = feature_cache(records)
    first = feature_scale(features, "fc7", images=4, boxes=6)
    assert first == feature_scale(features, "fc7", images=4, boxes=6)
    assert first != feature_scale(features, "fc7", images=4, boxes=6, seed=4)
    norms = np.concatenate([np.linalg.norm(one["fc7"].astype(np.float64), axis=1) for one in records])
    assert feature_scale(features, "fc7") == pytest.approx(20 / norms.mean())


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.zeros((3, 2))])
def test_nothing_to_measure_means_no_scaling(image: Any, feature_cache: Any, rows: np.ndarray) -> None:
    assert feature_scale(feature_cache([image(0, rows)]), "fc7") == 1.0


def test_scaled_is_float32() -> None:
    rows = scaled(np.array([[1.5, 2]], np.float16), 3.0)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[4.5, 6]])


def test_an_unknown_layer_is_named_with_its_nearest(image: Any, feature_cache: Any) -> None:
    features = feature_cache([image(0, [[1, 2, 3]])])
    assert layer_dimension(features, "fc7") == 3
    with pytest.raises(StageError, match=r"layer = 'fc6'.*did you mean 'fc7'"):
        layer_dimension(features, "fc6")
    with pytest.raises(StageError, match=r"may be one of fc7"):
        layer_dimension(features, "boxes")
