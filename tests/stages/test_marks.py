"""Boxes of several kinds drawn on one image."""

import numpy as np

from stages.pictures.marks import Mark, draw_many, draw_marks, tinted
from stages.pictures.palette import PROPOSAL, kind_colour

TRUE, FALSE, MISSED, PROPOSED = kind_colour("true"), kind_colour("BG"), kind_colour("missed"), PROPOSAL

GREY = np.full((50, 100, 3), 90, np.uint8)


def has(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where an image has exactly a colour: bool [H, W]."""
    return (image == np.array(colour, np.uint8)).all(axis=2)


def test_marks_are_scaled_with_the_image_and_the_first_lies_on_top() -> None:
    box = np.array([10, 10, 40, 40], np.float32)
    drawn = draw_marks(
        GREY, [Mark(box, TRUE), Mark(box, FALSE), Mark(np.array([60, 5, 90, 45], np.float32), PROPOSED)], (200, 200)
    )
    assert drawn.shape == (100, 200, 3)
    assert has(drawn, TRUE)[20, 20:80].all()
    assert not has(drawn, FALSE).any()
    assert has(drawn, PROPOSED)[20:80, 120].all()
    assert (GREY == 90).all()


def test_a_dashed_box_has_gaps_and_a_thin_one_no_rim() -> None:
    box = np.array([10, 10, 90, 40], np.float32)
    dashed = has(draw_marks(GREY, [Mark(box, MISSED, dashed=True)], (100, 50)), MISSED)[10, 10:90]
    assert 0.3 < dashed.mean() < 0.7
    assert np.abs(np.diff(dashed.astype(int))).sum() > 6
    thin = draw_marks(GREY, [Mark(box, PROPOSED, thin=True)], (100, 50))
    assert has(thin, PROPOSED).sum() == 2 * 80 + 2 * 28
    assert (has(thin, PROPOSED) | has(thin, (90, 90, 90))).all()


def test_labels_that_find_no_room_are_left_out() -> None:
    box = np.array([10, 10, 40, 40], np.float32)
    alone = draw_marks(GREY, [Mark(box, TRUE, "cat")], (100, 50))
    crowd = [Mark(box, TRUE, "cat"), *(Mark(box, FALSE, f"number {number}") for number in range(40))]
    left = has(draw_marks(GREY, crowd, (100, 50)), TRUE) & has(alone, TRUE)
    assert left.sum() > 0.8 * has(alone, TRUE).sum()


def test_many_boxes_add_up() -> None:
    boxes = np.array([[10, 10, 40, 40], [10, 10, 60, 45]], np.float32)
    drawn = draw_many(GREY, boxes, (255, 90, 90), (100, 50), 0.5)
    assert drawn[30, 39].tolist() == [172, 90, 90]  # 90 + 82.5, to even
    assert drawn[30, 10].tolist() == [214, 90, 90]
    assert drawn[30, 30].tolist() == [90, 90, 90]
    np.testing.assert_array_equal(draw_many(GREY, boxes[:0], (255, 0, 0), (100, 50), 0.5), GREY)


def test_a_region_is_tinted_within_its_edge() -> None:
    mask = np.zeros((50, 100), bool)
    mask[10:20, 90:] = True
    drawn = tinted(GREY, mask, (255, 90, 90), 0.5)
    assert drawn[11, 91].tolist() == [172, 90, 90]  # 90 + 82.5, to even
    assert has(drawn, (255, 90, 90)).sum() == 2 * 10 + 2 * 8, "the image's edge is the region's too"
    assert has(drawn, (90, 90, 90))[~mask].all()
    assert (GREY == 90).all()
