import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.boxes import (
    area,
    as_boxes,
    clip_boxes,
    decode_deltas,
    encode_deltas,
    exceeds,
    iou_matrix,
    look_normalised,
    reaches,
)

SIDE = st.integers(2, 400)
CORNER = st.integers(-50, 500)


@st.composite
def boxes(draw, least=1, most=6):
    """Boxes with whole corners and sides of at least 2 pixels."""
    rows = draw(st.lists(st.tuples(CORNER, CORNER, SIDE, SIDE), min_size=least, max_size=most))
    return as_boxes([(x, y, x + width, y + height) for x, y, width, height in rows])


def devkit_iou(first, second):
    """The devkit's formula on one-based inclusive corners, with its `+ 1`."""
    a, b = first + [1, 1, 0, 0], second + [1, 1, 0, 0]
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - width * height
    return width * height / union


@given(boxes(), boxes())
def test_iou_is_the_devkits(first, second):
    expected = [[devkit_iou(a, b) for b in second.astype(float)] for a in first.astype(float)]
    np.testing.assert_allclose(iou_matrix(first, second), expected, rtol=1e-12)


@given(boxes(), boxes())
def test_iou_is_torchvisions(first, second):
    torch = pytest.importorskip("torch")
    from torchvision.ops import box_iou

    expected = box_iou(torch.from_numpy(first).double(), torch.from_numpy(second).double()).numpy()
    np.testing.assert_allclose(iou_matrix(first, second), expected, atol=1e-12)


def test_iou_by_hand():
    found = iou_matrix(as_boxes([[0, 0, 10, 10]]), as_boxes([[5, 5, 15, 15], [0, 0, 10, 10], [10, 0, 20, 10]]))
    np.testing.assert_allclose(found, [[25 / 175, 1, 0]])


@given(boxes(), boxes())
def test_iou_is_symmetric_between_zero_and_one_and_one_with_itself(first, second):
    iou = iou_matrix(first, second)
    np.testing.assert_array_equal(iou, iou_matrix(second, first).T)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_array_equal(np.diag(iou_matrix(first, first)), 1)


def test_no_boxes_and_empty_boxes_are_harmless():
    none, point = as_boxes([]), as_boxes([[5, 5, 5, 5]])
    assert iou_matrix(none, point).shape == (0, 1)
    assert iou_matrix(point, point).tolist() == [[0]]
    assert area(as_boxes([[5, 5, 3, 9]])).tolist() == [0]
    assert clip_boxes(none, 10, 10).shape == (0, 4)
    with pytest.raises(ValueError, match=r"\[N, 4\], not \[4\]"):
        as_boxes([1, 2, 3, 4])


@given(boxes(), boxes(), st.sampled_from([0.0, 1.0]))
def test_decoding_the_encoded_gives_the_target_back(first, second, short):
    targets = second[np.arange(len(first)) % len(second)]
    decoded = decode_deltas(first, encode_deltas(first, targets, short), short)
    np.testing.assert_allclose(decoded, targets, atol=1e-2)


def test_deltas_by_hand():
    """P is 21 x 11 pixels, G 41 x 11 and 10 to the right: inclusive corners are 20, 10 and 40 apart."""
    deltas = encode_deltas(as_boxes([[0, 0, 21, 11]]), as_boxes([[0, 0, 41, 11]]))
    np.testing.assert_allclose(deltas, [[10 / 20, 0, np.log(2), 0]], atol=1e-9)
    without = encode_deltas(as_boxes([[0, 0, 20, 10]]), as_boxes([[0, 0, 40, 10]]), short=0)
    np.testing.assert_allclose(without, [[10 / 20, 0, np.log(2), 0]], atol=1e-9)


@given(boxes())
def test_no_shift_moves_nothing(some):
    np.testing.assert_allclose(decode_deltas(some, np.zeros((len(some), 4))), some, atol=1e-4)


@given(boxes(), st.integers(1, 300), st.integers(1, 300))
def test_clipped_boxes_are_inside(some, width, height):
    clipped = clip_boxes(some, width, height)
    assert (clipped >= 0).all()
    assert (clipped <= [width, height, width, height]).all()
    np.testing.assert_array_equal(clip_boxes(clipped, width, height), clipped)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("limit", [0.1, 0.3, 0.5, 0.6, 0.7])
def test_an_overlap_of_exactly_the_limit_reaches_it_and_does_not_exceed_it(dtype: type, limit: float) -> None:
    overlaps = np.array([np.nextafter(dtype(limit), dtype(0)), dtype(limit), np.nextafter(dtype(limit), dtype(1))])
    assert overlaps.dtype == dtype
    assert reaches(overlaps, limit).tolist() == [False, True, True]
    assert exceeds(overlaps, limit).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("numbers", "normalised"),
    [
        ([], False),
        ([[0, 0, 1, 1]], False),
        ([[0.1, 0.2, 0.5, 1]], True),
        ([[0.1, 0.2, 0.5, 1], [0, 0, 1, 1.01]], False),
        ([[0.1, 0.2, 0.5, np.nan]], False),
    ],
)
def test_boxes_between_0_and_1_are_fractions_of_the_image(numbers, normalised):
    assert look_normalised(np.reshape(numbers, (-1, 4)).astype(np.float64)) is normalised
