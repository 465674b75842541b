"""What a detector does on each image, by hand."""

import numpy as np

from stages.eval.by_image import by_image


def test_counts_and_worth_by_hand() -> None:
    images = np.array([0, 0, 0, 2, 2])
    true = np.array([True, False, False, False, True])
    false = np.array([False, True, False, True, False])
    precision = np.array([1.0, 0.75, np.nan, 0.5, 0.6])  # the third is ignored, of a class that was not evaluated
    found = by_image(images, true, false, precision, 4)
    assert found.found.tolist() == [1, 0, 1, 0]
    assert found.false.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(found.worth, [0.25, 0, 0.1, 0])


def test_no_detections() -> None:
    nothing = np.zeros(0, bool)
    found = by_image(np.zeros(0, np.int64), nothing, nothing, np.zeros(0), 2)
    assert found.worth.tolist() == [0, 0]
    assert found.worth.dtype == np.float64
