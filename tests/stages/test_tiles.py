"""Detections in tiles: where the tiles lie, what they cut, and what is left of an object that several of them see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.boxes import iou_matrix
from stages.detect import Settings
from stages.detect.trace import suppression_across_tiles
from stages.detections import Detections
from stages.detections.suppression import GreedyMerge, GreedyNms
from stages.detections.tiles import ends_at_inner_edge, merge_tiles, parts_of_whole_boxes, tile_starts, tiles_of

NMS = GreedyNms(0.3)
CUTS = np.array([0.5, 0.5], np.float32)


def detections(*rows: tuple[Sequence[float], float, int]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )


def test_tiles_by_hand() -> None:
    assert tile_starts(10, 10, 3) == [0]
    assert tile_starts(4, 10, 3) == [0]
    assert tile_starts(11, 10, 3) == [0, 1]
    assert tile_starts(17, 10, 3) == [0, 7]
    assert tile_starts(18, 10, 3) == [0, 4, 8]
    assert tiles_of(17, 8, 10, 3).tolist() == [[0, 0, 10, 8], [7, 0, 17, 8]]
    assert tiles_of(11, 11, 10, 0)[:, :2].tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    for overlap in (-1, 10):
        with pytest.raises(ValueError, match="cannot overlap"):
            tile_starts(20, 10, overlap)


@given(st.integers(1, 3000), st.integers(1, 900), st.data())
def test_an_interval_no_longer_than_the_overlap_lies_in_a_tile(length: int, side: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    starts = tile_starts(length, side, overlap)
    assert starts[0] == 0
    assert starts[-1] + side == max(length, side)
    assert starts == sorted(set(starts))
    steps = np.diff(starts)
    assert (steps <= side - overlap).all()
    assert len(starts) == 1 or (len(starts) - 1) * (side - overlap) < length - overlap <= len(starts) * (side - overlap)
    size = data.draw(st.floats(0, min(overlap, length)))
    low = data.draw(st.floats(0, length - size))
    assert any(start <= low and low + size <= start + side + 1e-9 for start in starts)


def test_which_boxes_end_at_an_inner_edge() -> None:
    """The tile of 100 pixels lies at the image's left edge and in the middle of its height; 2 pixels count as near."""
    boxes = np.array(
        [
            [0, 120, 50, 150],  # at the image's own edge
            [50, 120, 98, 150],
            [50, 120, 97, 150],
            [20, 102, 50, 150],
            [20, 103, 50, 150],
            [20, 103, 50, 199],
        ],
        np.float32,
    )
    assert ends_at_inner_edge(boxes, (0, 100, 100, 200), 300, 300).tolist() == [False, True, False, True, False, True]
    assert not ends_at_inner_edge(boxes, (0, 0, 300, 300), 300, 300).any()
    assert ends_at_inner_edge(boxes, (0, 100, 100, 200), 100, 200).tolist() == [False, False, False, True, False, False]


def test_a_part_goes_for_the_whole_box_even_if_it_scores_more() -> None:
    """A half of the object, 50 of 100 pixels wide: an IoU of 0.5, or of 0.25 for a quarter, which suppression keeps."""
    whole, half, quarter = (0, 0, 100, 10), (50, 0, 100, 10), (75, 0, 100, 10)
    found = detections(
        (whole, 0.6, 0), (half, 0.9, 0), (quarter, 0.7, 0), (quarter, 0.9, 1), ((90, 0, 130, 10), 0.9, 0)
    )
    cut = np.array([False, True, True, True, True])
    assert parts_of_whole_boxes(found, cut, CUTS).tolist() == [False, True, True, False, False]
    assert not parts_of_whole_boxes(found, np.zeros(5, bool), CUTS).any()
    # A whole box that does not count removes only what scores no more than it does.
    low = detections((whole, 0.4, 0), (half, 0.9, 0), (quarter, 0.4, 0), (quarter, 0.3, 0))
    assert parts_of_whole_boxes(low, np.array([False, True, True, True]), CUTS).tolist() == [False, False, True, True]
    never = np.array([np.inf, np.inf], np.float32)
    assert parts_of_whole_boxes(found, cut, never).tolist() == [False, False, False, False, False]


def test_an_object_in_two_tiles_is_found_once_and_whole() -> None:
    """An image of 150 x 100 and two tiles of 100: an object from 40 to 80 is whole in the first and cut in the second,
    where it scores more; one from 60 to 90 is whole in both; a longer one, from 20 to 140, is cut in both."""
    first = detections(((40, 0, 80, 20), 0.6, 0), ((60, 40, 90, 60), 0.8, 0), ((20, 80, 100, 100), 0.9, 1))
    second = detections(((0, 0, 30, 20), 0.9, 0), ((10, 40, 40, 61), 0.7, 0), ((0, 80, 90, 100), 0.8, 1))
    tiles = [((0, 0, 100, 100), first), ((50, 0, 150, 100), second)]
    found = merge_tiles(tiles, 150, 100, NMS, CUTS)
    assert found.boxes.tolist() == [[60, 40, 90, 60], [40, 0, 80, 20], [20, 80, 100, 100]]
    assert found.scores.tolist() == [np.float32(0.8), np.float32(0.6), np.float32(0.9)]
    assert found.labels.tolist() == [0, 0, 1]
    whole = ((0, 0, 150, 100), detections(((20, 80, 140, 100), 0.55, 1)))
    assert merge_tiles([*tiles, whole], 150, 100, NMS, CUTS).boxes.tolist()[2:] == [[20, 80, 140, 100]]
    nothing = merge_tiles([((0, 0, 100, 100), detections())], 150, 100, NMS, CUTS)
    assert (nothing.boxes.shape, nothing.labels.dtype, len(nothing)) == ((0, 4), np.int32, 0)


side = st.integers(4, 40)
thing = st.tuples(st.integers(0, 160), st.integers(0, 120), side, side, st.integers(0, 1))


@given(st.lists(thing, max_size=6), st.integers(0, 1000))
def test_a_perfect_detector_finds_every_object_once(things: list[tuple[int, ...]], seed: int) -> None:
    """Of objects no larger than the overlap, far enough from each other, tiles see each whole at least once, and some
    see parts of it, with whatever score."""
    objects = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in things], np.float32).reshape(-1, 4)
    labels = np.array([label for *_, label in things], np.int32)
    grown = objects + np.array([-3, -3, 3, 3], np.float32)
    assume((iou_matrix(grown, grown) - np.eye(len(grown)) <= 0).all())
    random, width, height = np.random.default_rng(seed), 200, 160
    found = []
    for tile in tiles_of(width, height, 100, 44):
        seen = np.clip(objects, np.tile(tile[:2], 2), np.tile(tile[2:], 2))
        rows = np.flatnonzero((seen[:, 2:] > seen[:, :2]).all(axis=1))
        boxes = (seen[rows] - np.tile(tile[:2], 2)).astype(np.float32)
        found.append((tile, Detections(boxes, random.uniform(0.5, 1, len(rows)).astype(np.float32), labels[rows])))
    merged = merge_tiles(found, width, height, NMS, CUTS)
    assert sorted(zip(merged.boxes.tolist(), merged.labels.tolist(), strict=True)) == sorted(
        zip(objects.tolist(), labels.tolist(), strict=True)
    )


@given(st.integers(0, 1000))
def test_one_tile_of_the_image_s_size_changes_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (40, 2))
    labels, scores = np.sort(random.integers(0, 2, 40)).astype(np.int32), random.uniform(size=40).astype(np.float32)
    order = np.lexsort((-scores, labels))
    boxes = np.hstack([corners, corners + random.uniform(5, 40, (40, 2))]).astype(np.float32)
    own = NMS.outcome(Detections(boxes[order], scores[order], labels[order])).detections
    (tile,) = tiles_of(100, 100, 100, 20)
    again = merge_tiles([(tile, own)], 100, 100, NMS, CUTS)
    np.testing.assert_array_equal(again.boxes, own.boxes)
    np.testing.assert_array_equal(again.scores, own.scores)
    np.testing.assert_array_equal(again.labels, own.labels)


def test_suppression_across_tiles_is_the_detector_s_own() -> None:
    assert suppression_across_tiles(Settings(nms_iou=0.4, class_agnostic=True)) == GreedyNms(0.4, True)
    summed = suppression_across_tiles(Settings(suppression="merge", score="softmax"))
    assert isinstance(summed, GreedyMerge)
    assert not summed.adds  # a window of two tiles would count twice
