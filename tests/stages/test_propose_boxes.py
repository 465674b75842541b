"""Proposals of one image: selective search, sliding windows, and the order that decides which are kept."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.boxes import area, iou_matrix
from stages.contract.errors import BadSetting, StageError
from stages.propose import Settings, selective_search, selective_search_opencv
from stages.propose.grouping import Tree
from stages.propose.masks import Forest, all_boxes
from stages.propose.searched_image import are_large, map_back, resize, searched_size
from stages.propose.selection import (
    Proposals,
    canonical_boxes,
    canonical_rows,
    first_distinct_rows,
    rows_by_position,
    rows_by_score,
    rows_by_size,
)
from stages.propose.selective_search import COLOUR_SPACES, positions, search_forests
from stages.propose.selective_search_opencv import check_available, raw_search
from stages.propose.sliding_window import sliding_windows, starts
from tests.stages.drawn_photos import photo

FAST = ("fast", 50, 50, 0.8)


def scene(width=120, height=90, seed=0):
    """Noise of three textures with a bright rectangle at (30, 20, 80, 60), uint8 RGB."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 60, (height, width, 3), dtype=np.uint8)
    image[:, width // 2 :, 1] += 90
    image[20:60, 30:80] = random.integers(200, 230, (40, 50, 3))
    return image


def some_boxes(most=60):
    """Arrays of boxes with an area, repeats included, in pixels of an image of 40 x 40."""
    corners = arrays(np.int64, st.tuples(st.integers(0, most), st.just(4)), elements=st.integers(0, 20))
    return corners.map(lambda a: np.hstack([a[:, :2], a[:, :2] + a[:, 2:] + 1]).astype(np.float32))


# Order and choice


@given(some_boxes(), st.randoms())
def test_canonical_boxes_forget_order_and_repeats(boxes, random):
    shuffled = list(range(len(boxes))) * 2
    random.shuffle(shuffled)
    canonical = canonical_boxes(boxes)
    np.testing.assert_array_equal(canonical_boxes(boxes[shuffled]), canonical)
    assert [tuple(box) for box in canonical] == sorted({tuple(box) for box in boxes})
    np.testing.assert_array_equal(boxes[canonical_rows(boxes)], canonical)


@given(some_boxes(), st.randoms(), st.integers(0, 5))
def test_the_order_by_size_depends_on_the_set_the_content_and_the_seed_alone(boxes, random, seed):
    shuffled = list(range(len(boxes)))
    random.shuffle(shuffled)
    ordered = boxes[rows_by_size(boxes, "000005", seed)]
    np.testing.assert_array_equal(boxes[shuffled][rows_by_size(boxes[shuffled], "000005", seed)], ordered)
    np.testing.assert_array_equal(canonical_boxes(ordered), canonical_boxes(boxes))
    assert len(ordered) == len(canonical_boxes(boxes))


def test_the_order_by_size_differs_between_images_and_seeds():
    boxes = np.array([[x, y, x + 9, y + 9] for x in range(10) for y in range(10)], np.float32)
    orders = [rows_by_size(boxes, content, seed).tobytes() for content in ("a", "b") for seed in (0, 1)]
    assert len(set(orders)) == 4


def test_the_order_by_size_draws_by_the_root_of_the_area():
    """Of a box of 1 and one of 9 pixels the larger comes first with odds 3 to 1, so in about 750 of 1000 images."""
    boxes = np.array([[0, 0, 1, 1], [5, 5, 8, 8]], np.float32)
    larger_first = sum(rows_by_size(boxes, str(number), 0)[0] == 1 for number in range(1000))
    assert 700 < larger_first < 800


def test_the_order_is_the_same_on_every_machine():
    """Worked out with Python's own generator, whose numbers never change: -log(1 - u) / root of the area, ascending."""
    boxes = np.array([[0, 0, 10, 10], [1, 1, 3, 3], [2, 2, 30, 30], [4, 0, 9, 4]], np.float32)
    assert rows_by_size(boxes, "000005", 0).tolist() == [2, 0, 1, 3]


def test_the_order_by_position_is_a_random_part_of_it():
    """1 x .56, 2 x .21, 3 x .30, 4 x .48 and 9 x .57, ascending; of the two equal boxes the first one's is smaller."""
    boxes = np.array([[0, 0, 30, 30], [0, 0, 10, 10], [1, 1, 3, 3], [0, 0, 10, 10], [4, 0, 9, 4]], np.float32)
    proposals = Proposals(boxes, positions=np.array([1, 2, 3, 4, 9]))
    assert rows_by_position(proposals, "000005", 0).tolist() == [1, 0, 2, 4]


def test_the_top_of_a_hierarchy_tends_to_come_first():
    """Of positions 1 and 2, the first has the smaller product in 3 of 4 images."""
    boxes = np.array([[0, 0, 9, 9], [0, 0, 1, 1]], np.float32)
    proposals = Proposals(boxes, positions=np.array([1, 2]))
    first = [rows_by_position(proposals, str(number), 0)[0] for number in range(1000)]
    assert 700 < first.count(0) < 800


def test_positions_count_merged_regions_from_the_top_and_segments_once():
    """Two segmentations: one of 3 segments, merged in two ways, and one of 2 regions without neighbours."""
    tree = Tree(np.zeros((5, 4), np.int32), np.zeros((2, 2), np.int32))
    alone = Tree(np.zeros((2, 4), np.int32), np.zeros((0, 2), np.int32))
    labels = np.zeros((1, 1), np.int32)
    forests = [Forest(labels, (tree, tree)), Forest(labels, (alone,))]
    assert positions(forests).tolist() == [3, 3, 3, 2, 1, 0, 0, 0, 2, 1, 1, 1]


def test_only_a_hierarchy_has_positions():
    with pytest.raises(ValueError, match="only proposals with positions"):
        rows_by_position(Proposals(np.zeros((2, 4), np.float32)), "000005", 0)


def test_first_distinct_rows_keep_the_order():
    boxes = np.array([[5, 5, 9, 9], [0, 0, 1, 1], [5, 5, 9, 9], [3, 3, 4, 4]], np.float32)
    assert first_distinct_rows(boxes).tolist() == [0, 1, 3]


def test_ranked_boxes_by_hand():
    """Descending; of equal boxes the best-scored stays; equal scores are in the boxes' canonical order."""
    boxes = np.array([[5, 5, 9, 9], [7, 7, 8, 8], [0, 0, 1, 1], [5, 5, 9, 9], [3, 3, 4, 4]], np.float32)
    proposals = Proposals(boxes, np.array([0.1, 0.5, 0.2, 0.7, 0.5], np.float32))
    rows = rows_by_score(proposals)
    assert rows.tolist() == [3, 4, 1, 2]
    kept = proposals.take(rows)
    np.testing.assert_array_equal(kept.boxes, boxes[[3, 4, 1, 2]])
    np.testing.assert_allclose(kept.columns()["scores"], [0.7, 0.5, 0.5, 0.2])
    assert rows_by_score(Proposals(boxes[:0], np.zeros(0, np.float32))).tolist() == []


@given(some_boxes(), st.randoms(), st.data())
def test_a_ranking_depends_on_boxes_and_scores_alone(boxes, random, data):
    scores = data.draw(arrays(np.float32, len(boxes), elements=st.sampled_from([-1, 0, 0.25, 3])))
    shuffled = list(range(len(boxes)))
    random.shuffle(shuffled)
    columns = []
    for order in (np.arange(len(boxes)), np.array(shuffled, int)):
        proposals = Proposals(boxes[order], scores[order])
        columns.append(proposals.take(rows_by_score(proposals)).columns())
    np.testing.assert_array_equal(columns[0]["boxes"], columns[1]["boxes"])
    np.testing.assert_array_equal(columns[0]["scores"], columns[1]["scores"])
    ranked = columns[0]["scores"]
    assert (ranked[1:] <= ranked[:-1]).all()
    highest: dict[tuple[float, ...], float] = {}
    for box, score in zip(map(tuple, boxes), scores, strict=True):
        highest[box] = max(score, highest.get(box, score))
    assert dict(zip(map(tuple, columns[0]["boxes"]), ranked, strict=True)) == highest


@pytest.mark.parametrize("scores", [np.zeros(1, np.float32), np.array([0, np.nan], np.float32)])
def test_scores_are_finite_and_one_per_box(scores):
    with pytest.raises(
        ValueError, match=r"boxes \[2, 4\] need a finite score each, not scores \[[12]\], 1 of them finite"
    ):
        Proposals(np.zeros((2, 4), np.float32), scores)


def test_proposals_without_scores_cannot_be_ranked():
    proposals = Proposals(np.array([[0, 0, 1, 1]], np.float32))
    assert list(proposals.columns()) == ["boxes"]
    with pytest.raises(ValueError, match="with scores"):
        rows_by_score(proposals)


# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (500, 667)),  # enlarged
        ((500, 333), (500, 333)),  # as it is
        ((1, 1), (500, 500)),
        ((6000, 10), (500, 1)),
        ((100, 6000), (33, 2000)),
        ((20, 40_000), (1, 2000)),
        ((4000, 3000), (500, 375)),
    ],
)
def test_searched_size_by_hand(size, expected):
    width, height = size
    assert searched_size(width, height, resize_width=500, max_side=2000) == expected


def test_without_resize_the_longer_side_alone_counts():
    assert searched_size(1999, 2000, resize_width=0, max_side=2000) == (1999, 2000)
    assert searched_size(4000, 3000, resize_width=0, max_side=2000) == (2000, 1500)
    assert searched_size(4000, 3000, resize_width=0, max_side=32_000) == (4000, 3000)


@given(st.integers(1, 50_000), st.integers(1, 50_000), st.integers(0, 3000), st.integers(1, 3000))
def test_searched_size_is_never_larger_than_asked_and_keeps_the_shape(width, height, resize_width, max_side):
    searched = searched_size(width, height, resize_width, max_side)
    assert min(searched) >= 1
    assert max(searched) <= max_side
    assert searched[0] <= (resize_width or width)
    if min(searched) > 1:  # each side is off by half a pixel at most
        assert abs(searched[0] * height - searched[1] * width) <= 0.5 * (width + height) + 1


def test_map_back_by_hand():
    boxes = np.array([[0, 0, 500, 250], [250, 125, 251, 126]])
    mapped = map_back(boxes, (500, 250), (1000, 500))
    np.testing.assert_array_equal(mapped, np.array([[0, 0, 1000, 500], [500, 250, 502, 252]], np.float32))


@given(some_boxes(), st.integers(1, 9000), st.integers(1, 9000))
def test_map_back_stays_inside_and_keeps_shapes(boxes, width, height):
    mapped = map_back(boxes.astype(np.int64), (41, 41), (width, height))
    assert mapped.dtype == np.float32
    assert (mapped >= 0).all()
    assert (mapped <= [width, height, width, height]).all()
    assert (mapped[:, 2:] > mapped[:, :2]).all()
    np.testing.assert_allclose(mapped / np.tile([width / 41, height / 41], 2), boxes, rtol=1e-5, atol=1e-4)


def test_small_boxes_go_but_strips_keep_their_full_side():
    boxes = np.array([[0, 0, 20, 20], [0, 0, 19, 50], [0, 0, 50, 19], [0, 0, 100, 15]])
    assert are_large(boxes, (100, 100), 20).tolist() == [True, False, False, False]
    assert are_large(boxes, (100, 15), 20).tolist() == [True, False, True, True]


def test_resize_averages_when_it_shrinks():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 1] = image[:, 3] = 200
    np.testing.assert_array_equal(resize(image, (2, 1)), np.full((1, 2, 3), 100))
    assert resize(image, (4, 2)) is image


# Selective search

FINDERS = {"ours": selective_search.find, "OpenCV's": selective_search_opencv.find}
both = pytest.mark.parametrize("find", FINDERS.values(), ids=FINDERS)
SMALL = Settings(resize_width=120, min_side=10)


def found_in(find, image, settings=SMALL):
    """The distinct boxes of an image."""
    return canonical_boxes(find(settings, image.shape[1::-1], image, {}).boxes)


def search_regions(image, settings):
    """The distinct boxes of all regions that our search finds in an image."""
    return canonical_boxes(all_boxes(search_forests(image, settings)))


@both
def test_it_finds_the_object(find):
    boxes = found_in(find, scene())
    assert iou_matrix(boxes, np.array([[30, 20, 80, 60]], np.float32)).max() > 0.9
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(canonical_boxes(boxes), boxes)
    np.testing.assert_array_equal(boxes[area(boxes).argmax()], [0, 0, 120, 90])


@both
def test_boxes_are_in_pixels_of_the_image_and_not_of_the_search(find):
    doubled = scene().repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(found_in(find, doubled), 2 * found_in(find, scene()))


@pytest.mark.parametrize("shape", [(90, 120), (150, 60), (40, 200)])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("base_k", "inc_k", "sigma"), [(50, 50, 0.8), (150, 150, 0.6)])
def test_ours_are_opencvs_boxes(shape, seed, base_k, inc_k, sigma):
    image = photo(shape, seed=seed)
    settings = Settings(base_k=base_k, inc_k=inc_k, sigma=sigma)
    theirs = canonical_boxes(raw_search(image, "fast", base_k, inc_k, sigma))
    np.testing.assert_array_equal(search_regions(image, settings), theirs)


def test_quality_mode_is_opencvs_but_for_its_hue(monkeypatch):
    """OpenCV's is the blue channel: it splits the image into the buffer that holds the hue."""
    image = photo((90, 120))
    ours = search_regions(image, Settings(mode="quality"))
    theirs = canonical_boxes(raw_search(image, "quality", 50, 50, 0.8))
    assert not np.array_equal(ours, theirs)
    monkeypatch.setitem(COLOUR_SPACES, "hue", lambda blue_green_red: blue_green_red[:, :, :1])
    np.testing.assert_array_equal(search_regions(image, Settings(mode="quality")), theirs)


def test_colour_spaces_and_strategies_can_be_chosen():
    image = photo((90, 120))
    every = search_regions(image, Settings())
    parts = [
        search_regions(image, Settings(colour_spaces=(space,), strategies=(strategy,)))
        for space in ("hsv", "lab")
        for strategy in ("colour+texture+size+fill", "texture+size+fill")
    ]
    np.testing.assert_array_equal(canonical_boxes(np.vstack(parts)), every)
    assert all(len(part) < len(every) for part in parts)


def test_the_originals_segmentation_has_its_own_sizes_and_neighbours():
    image = photo((90, 120))
    original = search_regions(image, Settings(segmentation="original"))
    assert not np.array_equal(original, search_regions(image, Settings()))
    assert [0, 0, 120, 90] in original.tolist()


@pytest.mark.parametrize("strategy", ["", "colours", "colour+colour", "colour,size"])
def test_strategies_that_there_are_not(strategy):
    with pytest.raises(BadSetting, match=r"strategies = '.*' must be some of colour, texture, size, fill, each once"):
        Settings(strategies=(strategy,))


def test_a_strategy_has_one_spelling():
    with pytest.raises(BadSetting, match=r"strategies = 'fill\+colour' must be written 'colour\+fill'"):
        Settings(strategies=("size", "fill+colour"))
    assert Settings(strategies=("texture+size", "colour+fill")).strategies == ("texture+size", "colour+fill")


def test_colour_channels_are_red_green_blue(monkeypatch):
    """OpenCV is given blue, green, red: its Lab and HSV depend on it."""
    given = []
    create = selective_search_opencv.cv2.ximgproc.segmentation.createSelectiveSearchSegmentation

    class Spy:
        def __init__(self):
            self.real = create()

        def setBaseImage(self, image):  # noqa: N802
            given.append(image)
            self.real.setBaseImage(image)

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr(selective_search_opencv.cv2.ximgproc.segmentation, "createSelectiveSearchSegmentation", Spy)
    raw_search(scene(), *FAST)
    np.testing.assert_array_equal(given[0], scene()[:, :, ::-1])


def test_the_state_of_rand_does_not_matter():
    libc = ctypes.CDLL(None)
    found = []
    for calls in (0, 1, 1000):
        libc.srand(calls)
        for _ in range(calls):
            libc.rand()
        found.append(found_in(selective_search_opencv.find, scene()))
    for boxes in found[1:]:
        np.testing.assert_array_equal(boxes, found[0])


@both
def test_threads_of_opencv_do_not_matter(find):
    before = selective_search.cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 2):
            selective_search.cv2.setNumThreads(threads)
            found.append(found_in(find, scene()))
    finally:
        selective_search.cv2.setNumThreads(before)
    np.testing.assert_array_equal(found[0], found[1])


@both
def test_quality_finds_more_and_a_smaller_k_finds_more(find):
    def count(mode, k):
        return len(found_in(find, scene(), replace(SMALL, mode=mode, base_k=k, inc_k=k)))

    assert count("quality", 50) > count("fast", 50) > count("fast", 2000)


@both
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 1), (5, 5), (19, 19)])
def test_tiny_images_give_the_whole_image_at_least(find, width, height):
    boxes = found_in(find, np.full((height, width, 3), 9, np.uint8), Settings(resize_width=60))
    assert [0, 0, width, height] in boxes.tolist()


@both
def test_a_constant_image_gives_one_box(find):
    boxes = found_in(find, np.full((70, 90, 3), 128, np.uint8), Settings(resize_width=0))
    np.testing.assert_array_equal(boxes, [[0, 0, 90, 70]])


@both
@pytest.mark.parametrize(("width", "height"), [(3000, 4), (4, 3000), (40_000, 9)])
def test_strips_work(find, width, height):
    image = scene(max(width, 80), max(height, 60))[:height, :width]
    boxes = found_in(find, image, Settings(resize_width=100, max_side=300))
    assert [0, 0, width, height] in boxes.tolist()
    assert (boxes <= [width, height, width, height]).all()


@both
def test_a_huge_image_is_searched_small_and_mapped_back(find):
    image = scene().repeat(34, axis=0).repeat(34, axis=1)  # 4080 x 3060
    boxes = found_in(find, image)
    objects = 34 * np.array([[30, 20, 80, 60]], np.float32)
    assert iou_matrix(boxes, objects).max() > 0.9


@both
def test_grey_content_works(find):
    assert len(found_in(find, scene()[:, :, :1].repeat(3, axis=2))) > 1


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_what_opencv_would_misread_is_refused(image):
    with pytest.raises(ValueError, match="uint8"):
        raw_search(image, *FAST)
    with pytest.raises(ValueError, match="uint8"):
        search_regions(image, Settings())


def test_missing_contrib_modules_are_named(monkeypatch):
    monkeypatch.delattr(selective_search_opencv.cv2, "ximgproc")
    with pytest.raises(StageError, match="opencv-contrib-python-headless"):
        check_available()


# Sliding windows


def test_starts_by_hand():
    np.testing.assert_allclose(starts(100, 40, 0.5), [0, 20, 40, 60])
    np.testing.assert_allclose(starts(100, 100, 0.5), [0])
    np.testing.assert_allclose(starts(100, 70, 0.5), [0, 30])


def test_windows_by_hand():
    windows = canonical_boxes(sliding_windows(40, 10, scales=(0.5,), aspects=(1.0, 4.0), stride=1.0))
    squares = [[x, 0, x + 10, 10] for x in (0, 10, 20, 30)]
    wide = [[x, y, x + 20, y + 5] for x in (0, 20) for y in (0, 5)]
    np.testing.assert_array_equal(windows, sorted([*squares, *wide, [0, 0, 40, 10]]))


@given(
    st.integers(1, 800),
    st.integers(1, 800),
    st.lists(st.floats(0.2, 1.5), max_size=3),
    st.lists(st.floats(0.3, 3.0), max_size=3),
    st.floats(0.3, 1.0),
)
def test_windows_cover_the_image_and_stay_in_it(width, height, scales, aspects, stride):
    windows = sliding_windows(width, height, scales, aspects, stride)
    assert (windows >= 0).all()
    assert (windows <= [width, height, width, height]).all()
    assert (windows[:, 2:] > windows[:, :2]).all()
    assert [0, 0, width, height] in windows.tolist()


def test_the_default_pyramid_has_about_two_thousand_windows():
    settings = Settings()
    for width, height in ((500, 375), (333, 500), (4000, 3000)):
        windows = sliding_windows(width, height, settings.scales, settings.aspects, settings.stride)
        assert 1500 < len(windows) < 2500


@pytest.mark.parametrize(
    ("size", "scales", "stride"),
    [((500, 375), (0.1,), 0.01), ((4000, 3000), (0.01, 0.5), 0.02), ((9, 9), (0.1,), 0.01)],
)
def test_windows_that_would_fill_the_memory_are_refused_before_they_are_made(size, scales, stride):
    with pytest.raises(StageError, match=rf"propose: stride = {stride} makes [\d,]+ windows .* raise propose.stride"):
        sliding_windows(size[0], size[1], scales, (0.5, 1.0, 2.0), stride)


def test_the_package_imports_the_standard_library_alone():
    code = "import sys, stages.propose; print(sorted({'numpy', 'cv2', 'h5py', 'joblib'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
