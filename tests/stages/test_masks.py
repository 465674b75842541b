"""Masks as run lengths: by hand, against pycocotools, and the regions of selective search against their label maps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stages.contract.errors import StageError
from stages.masks import decode, encode, mask_columns, nearest, read_mask, run_lengths
from stages.propose.grouping import Strategy, Tree, describe, features_of, group
from stages.propose.masks import (
    Forest,
    all_boxes,
    areas_of,
    column_runs,
    encode_regions,
    ends_of,
    largest_regions,
    leaf_spans,
)
from stages.propose.segmentation import pixel_graph, segment
from tests.stages.drawn_photos import photo

LABELS = np.array([[0, 0, 1], [2, 0, 1]], np.int32)
TREE = Tree(
    boxes=np.array([[0, 0, 2, 2], [2, 0, 3, 2], [0, 1, 1, 2], [0, 0, 2, 2], [0, 0, 3, 2]], np.int32),
    parts=np.array([[2, 0], [3, 1]], np.int32),
)
"""Three regions, of which 2 and 0 are joined to 3, and 3 and 1 to the whole image, 4."""

masks = st.tuples(st.integers(1, 30), st.integers(1, 30)).flatmap(lambda shape: arrays.arrays(bool, shape))


def characters(text: bytes) -> np.ndarray:
    """Text as S1 [c]."""
    return np.frombuffer(text, "S1")


def their_counts(mask: np.ndarray) -> np.ndarray:
    """What pycocotools makes of a mask."""
    return characters(pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))["counts"])


def cut(text: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """The characters of each mask."""
    return [text[first:end] for first, end in pairwise([0, *ends.tolist()])]


def forest_of(image: np.ndarray, k: float, min_size: int) -> Forest:
    """A segmentation of an image, grouped by two strategies."""
    labels = segment(pixel_graph(image, 0.8), k, min_size)
    regions = describe(labels, features_of(image))
    return Forest(labels, tuple(group(regions, labels.size, strategy) for strategy in (Strategy(1), Strategy(0, 0, 1))))


# Run lengths


@given(masks)
@example(np.ones((1, 1), bool))
@example(np.arange(70_000)[None] % 69_999 == 7)
def test_an_encoded_mask_is_that_of_pycocotools(mask: np.ndarray) -> None:
    assert encode(mask).tobytes() == their_counts(mask).tobytes()
    assert (decode(encode(mask), mask.shape[::-1]) == mask).all()


def test_the_columns_of_masks() -> None:
    record = mask_columns([characters(b"123"), characters(b"6")], (3, 2))
    assert {name: values.tolist() for name, values in record.items()} == {
        "mask_end": [3, 4],
        "masks/counts": [b"1", b"2", b"3", b"6"],
        "searched_size": [3, 2],
    }
    assert mask_columns([], (3, 2))["masks/counts"].shape == (0,)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        (b"", []),
        (b"0", [0]),
        (b"6", [6]),
        (b"123", [1, 2, 3]),
        (b"1231", [1, 2, 3, 3]),  # from the fourth on, less the length two before: 3 - 2
        (b"123N", [1, 2, 3, 0]),  # 0 - 2 is -2: 30 in five bits, 48 + 30
        (b"P1", [32]),  # 0 and more, then 1: 48 + 32 is P
        (b"o0", [31]),  # 15 is the greatest number of one character, as the fifth bit is the sign
        (b"h1", [56]),
    ],
)
def test_run_lengths_by_hand(text, lengths):
    assert run_lengths(characters(text)).tolist() == lengths


def test_a_mask_by_hand():
    mask = decode(characters(b"123"), (3, 2))
    assert mask.tolist() == [[False, True, False], [True, False, False]]
    assert mask.dtype == bool


@given(masks)
def test_pycocotools_masks_are_read(mask):
    text = their_counts(mask)
    np.testing.assert_array_equal(decode(text, mask.shape[::-1]), mask)
    assert run_lengths(text)[1::2].sum() == mask.sum()


@pytest.mark.parametrize("text", [b"/", b"12\x00", b"1p", b"12P"])
def test_other_characters_are_refused(text):
    with pytest.raises(ValueError, match="not those of a mask in COCO's encoding"):
        run_lengths(characters(text))


@pytest.mark.parametrize("text", [b"", b"122", b"124", b"1O6"])
def test_a_mask_of_another_size_is_refused(text):
    with pytest.raises(ValueError, match="not those of a mask of 3 x 2 pixels"):
        decode(characters(text), (3, 2))


def test_the_nearest_pixel():
    mask = np.array([[True, False], [False, False]])
    assert nearest(mask, (4, 2)).tolist() == [[True, True, False, False], [False] * 4]
    assert nearest(mask, (3, 1)).tolist() == [[False, False, False]]  # centres lie at 1/3, 1, 5/3 and in the 2nd row
    assert nearest(nearest(mask, (6, 10)), (2, 2)).tolist() == mask.tolist()


@given(masks, st.integers(1, 4), st.integers(1, 4))
def test_a_mask_enlarged_and_reduced_is_itself(mask, wider, taller):
    height, width = mask.shape
    np.testing.assert_array_equal(nearest(nearest(mask, (width * wider, height * taller)), (width, height)), mask)


# Regions


def test_runs_of_columns_by_hand():
    starts, values, columns = column_runs(LABELS)
    assert starts.tolist() == [0, 1, 2, 4, 6]
    assert values.tolist() == [0, 2, 0, 1]
    assert columns.tolist() == [0, 2, 3, 4]


def test_leaves_by_hand():
    assert leaf_spans(TREE.parts, 5).tolist() == [[1, 2], [2, 3], [0, 1], [0, 2], [0, 3]]
    assert leaf_spans(np.empty((0, 2), np.int32), 2).tolist() == [[1, 2], [0, 1]], "regions that stay alone"


def test_regions_by_hand():
    text, ends = encode_regions([Forest(LABELS, (TREE,))], np.array([2, 4, 1, 3]))
    assert (text.dtype, ends.dtype) == (np.dtype("S1"), np.uint32)
    assert [run_lengths(counts).tolist() for counts in cut(text, ends)] == [[1, 1, 4], [0, 6], [4, 2], [0, 4, 2]]


def test_areas_by_hand():
    assert areas_of(Forest(LABELS, (TREE, TREE))).tolist() == [3, 2, 1, 4, 6] * 2


def test_of_equal_boxes_the_largest_region_counts_and_of_equal_regions_the_first():
    other = Tree(TREE.boxes[[0, 1, 2, 4, 4]], np.array([[0, 1], [3, 2]], np.int32))  # 3 is all but the pixel of 2
    forests = [Forest(LABELS, (other,)), Forest(LABELS, (TREE,))]
    regions = largest_regions(forests)
    np.testing.assert_array_equal(all_boxes(forests)[regions], all_boxes(forests))
    assert regions.tolist() == [8, 1, 2, 4, 4, 8, 1, 2, 8, 4]
    assert largest_regions(forests[1:]).tolist() == [3, 1, 2, 3, 4]


def test_more_characters_than_the_columns_can_count_are_refused():
    assert ends_of([3, 2**32 - 4]).tolist() == [3, 2**32 - 1]
    with pytest.raises(StageError, match=r"take 4,294,967,296 characters, more than 4,294,967,295; lower propose"):
        ends_of([3, 2**32 - 3])


def test_no_regions():
    text, ends = encode_regions([Forest(LABELS, (TREE,))], np.zeros(0, np.int64))
    assert (text.shape, ends.shape) == ((0,), (0,))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.randoms(use_true_random=False))
@example(1, 40, 0, None)
@example(40, 1, 0, None)
def test_every_region_is_that_of_the_label_map(height, width, seed, random):
    """The union of its parts, with its box, in pycocotools' very characters; in any order."""
    image = photo((height, width), seed=seed)
    forests = [forest_of(image, 20, 4), forest_of(image, 60, 10)]
    boxes, areas = all_boxes(forests), np.concatenate([areas_of(forest) for forest in forests])
    order = list(range(len(boxes)))
    if random is not None:
        random.shuffle(order)
    text, ends = encode_regions(forests, np.array(order))
    counts = dict(zip(order, cut(text, ends), strict=True))
    first = 0
    for forest in forests:
        leaves = int(forest.labels.max()) + 1
        for tree in forest.trees:
            of_tree = [forest.labels == label for label in range(leaves)]
            for one, other in tree.parts:
                of_tree.append(of_tree[one] | of_tree[other])
            for number, mask in enumerate(of_tree, first):
                assert counts[number].tobytes() == their_counts(mask).tobytes()
                assert areas[number] == mask.sum()
                rows, columns = np.nonzero(decode(counts[number], (width, height)))
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box == boxes[number].tolist()
            if min(height, width) > 1:
                assert run_lengths(counts[first + len(of_tree) - 1]).tolist() == [0, height * width]
            first += len(of_tree)


def test_long_masks_make_room():
    """More characters than there is room for at first, and numbers of several characters."""
    labels = np.indices((300, 700)).sum(axis=0).astype(np.int32) % 2
    boxes = np.array([[0, 0, 700, 300]] * 3, np.int32)
    forest = Forest(labels, (Tree(boxes, np.array([[0, 1]], np.int32)),))
    text, ends = encode_regions([forest], np.array([0, 1, 2, 0]))
    assert len(text) > 1 << 16
    for counts, mask in zip(cut(text, ends), (labels == 0, labels == 1, labels >= 0, labels == 0), strict=True):
        assert counts.tobytes() == their_counts(mask).tobytes()


# Records


def record() -> dict[str, np.ndarray]:
    """The first record of a cache with the masks of two proposals."""
    text, ends = encode_regions([Forest(LABELS, (TREE,))], np.array([2, 3]))
    sizes = {"searched_size": np.array([3, 2], np.int32), "image_size": np.array([6, 2], np.int32)}
    return {"mask_end": ends, "masks/counts": text, **sizes}


def test_a_proposals_mask_is_read_at_either_size():
    as_searched = [[False, False, False], [True, False, False]]
    assert read_mask(record(), 0, as_searched=True).tolist() == as_searched
    assert read_mask(record(), 0).tolist() == np.repeat(as_searched, 2, axis=1).tolist()
    assert read_mask(record(), 1, as_searched=True).tolist() == [[True, True, False]] * 2


def test_a_record_without_masks_is_refused():
    with pytest.raises(ValueError, match=r"the record has no mask_end, .*; masks are in .* with propose\.masks = true"):
        read_mask({"image_size": np.array([6, 2], np.int32)}, 0)


def test_what_is_a_pixel_thick_where_the_image_was_enlarged_is_lost_at_its_own_size():
    mask = np.zeros((4, 8), bool)
    mask[:, :2] = True
    mask[2, 2:] = True
    assert nearest(mask, (4, 2)).tolist() == [[True, False, False, False]] * 2
    mask[3, 2:] = True
    assert nearest(mask, (4, 2)).tolist() == [[True, False, False, False], [True] * 4]


@pytest.mark.parametrize("number", [-1, 2])
def test_a_proposal_that_is_not_there(number):
    with pytest.raises(IndexError, match=f"there is no proposal {number}; the image has 2"):
        read_mask(record(), number)
