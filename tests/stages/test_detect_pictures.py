"""The steps of a densely read network as pictures: confidence maps, candidates, what is left."""

from __future__ import annotations

import numpy as np
import pytest

from stages.detect import Settings
from stages.detect.pictures import DIMMED, Steps, confidence_map, map_title, patches, window_sheet
from stages.detect.trace import detect_image
from stages.detections.candidates import Scored
from stages.pictures.drawing import class_colours
from stages.pictures.marks import Mark
from stages.pictures.palette import TRUTH

CLASSES = ("cat", "dog")
IMAGE = np.full((60, 80, 3), 100, np.uint8)


def windows(step: int, side: int, rows: int, columns: int, first: int = 0) -> np.ndarray:
    """A grid of square windows, row by row."""
    y, x = np.mgrid[0:rows, 0:columns].reshape(2, -1) * step + first
    return np.stack([x, y, x + side, y + side], axis=1).astype(np.float32)


def scored(boxes: np.ndarray, scores: np.ndarray, levels: np.ndarray) -> Scored:
    trained = np.ones(2, bool)
    return Scored(boxes, CLASSES, trained, lambda block: scores[:, block], None, (80, 60), levels.astype(np.int32))


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (1, 4), (3, 1)])
def test_patches_are_as_large_as_windows_are_apart_and_touch(rows: int, columns: int) -> None:
    """In both directions, even if there is but one row or column."""
    grid = patches(windows(8, 20, rows, columns))
    assert (grid[:, 2:] - grid[:, :2] == 8).all()
    assert grid[0].tolist() == [6, 6, 14, 14]  # around the centre of the first window
    covered = np.zeros((64, 64), int)
    for left, top, right, bottom in grid:
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1
    assert covered.sum() == rows * columns * 64


def test_a_single_window_is_covered_by_its_patch() -> None:
    assert patches(windows(8, 20, 1, 1)).tolist() == [[0, 0, 20, 20]]


def test_a_patch_has_the_colour_of_the_best_class_and_the_opacity_of_its_score() -> None:
    boxes = windows(20, 20, 3, 4)
    scores = np.zeros((12, 2), np.float32)
    scores[5], scores[6] = (0.1, 0.4), (0.2, 0.0)
    picture = confidence_map(IMAGE, scored(boxes, scores, np.zeros(12)), np.arange(12), (80, 60)).astype(float)
    dark = 100 * DIMMED
    for place, label, score in (((30, 30), 1, 0.4), ((30, 50), 0, 0.2)):
        expected = dark + score * (np.array(class_colours(2)[label]) - dark)
        np.testing.assert_allclose(picture[place], expected, atol=0.51)
    np.testing.assert_allclose(picture[10, 10], dark, atol=0.51)


def test_windows_with_a_high_score_are_outlined() -> None:
    """Also where they reach over the image's edge. Below 0.5 none is."""
    boxes = windows(20, 40, 2, 2, first=-20)
    for score, outlined in ((0.9, True), (0.4, False)):
        scores = np.zeros((4, 2), np.float32)
        scores[3, 1] = score
        picture = confidence_map(IMAGE, scored(boxes, scores, np.zeros(4)), np.arange(4), (80, 60))
        assert (picture[39, 5:35] == class_colours(2)[1]).all() == outlined


def test_a_row_for_each_image_and_a_picture_for_each_scale() -> None:
    """Also where no window fits at a scale; the objects are on the last picture."""
    boxes = np.concatenate([windows(20, 20, 3, 4), windows(20, 40, 2, 3)])
    levels = np.repeat([0, 1], [12, 6])
    scores = np.zeros((18, 2), np.float32)
    scores[14] = (0.9, 0.0)
    chosen = Settings(score="softmax", cap="image")
    objects = [Mark(np.array([2, 3, 40, 41], np.float32), TRUTH, dashed=True)]
    both = Steps(IMAGE, detect_image(scored(boxes, scores, levels), chosen), objects)
    single = Steps(IMAGE, detect_image(scored(boxes[:12], scores[:12], levels[:12]), chosen), [])
    assert len(both.trace.moved) == 1
    sheets = [window_sheet(images, "all", (80, 60)) for images in ({"a": both}, {"a": both, "b": single})]
    assert sheets[0].shape[1] == sheets[1].shape[1] == 12 + 4 * 92
    assert sheets[1].shape[0] > sheets[0].shape[0] + 60
    white = (sheets[0] == np.array(TRUTH)).all(axis=2)
    assert white[:, 3 * 92 :].sum() > 20
    assert not white[-80:, :92].any()  # no window of the first scale has a label
    assert map_title(boxes[12:]) == "6 windows of 40 px"
    assert map_title(boxes[:0]) == "no window fits"
