"""The map of features: which objects are on it, where, and in which colours."""

from __future__ import annotations

import numpy as np

from rcnn_cli.report.embedding import HEIGHT, MARGIN, WIDTH, colours_of, crop, on_paper, sampled


def test_classes_take_turns() -> None:
    """Of 100 objects of one class and 3 of another, a sample of 10 has all three."""
    labels = np.array([0] * 100 + [1] * 3)
    chosen = sampled(labels, 10)
    assert len(set(chosen.tolist())) == 10
    assert (np.diff(chosen) > 0).all()
    assert (labels[chosen] == 1).sum() == 3
    assert sampled(labels, 1000).tolist() == list(range(103))
    np.testing.assert_array_equal(chosen, sampled(labels, 10))


def test_the_drawing_is_filled() -> None:
    places = on_paper(np.array([[-1.0, 5.0], [3.0, 7.0], [1.0, 6.0]]))
    assert places == [(MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, MARGIN), (WIDTH / 2, HEIGHT / 2)]
    assert on_paper(np.zeros((2, 2))) == [(MARGIN, HEIGHT - MARGIN)] * 2


def test_a_crop_has_some_context_and_stays_inside() -> None:
    image = np.arange(100 * 80 * 3, dtype=np.uint8).reshape(100, 80, 3)
    np.testing.assert_array_equal(crop(image, np.array([20, 40, 40, 50], np.float32)), image[37:53, 17:43])
    np.testing.assert_array_equal(crop(image, np.array([-5, -5, 85, 105], np.float32)), image)
    assert crop(image, np.array([90, 120, 95, 125], np.float32)).shape == (1, 1, 3)


def test_colours_differ() -> None:
    for classes in (3, 8, 9, 20):
        colours = colours_of(classes)
        assert len(set(colours)) == classes
        assert all(len(colour) == 7 for colour in colours)
