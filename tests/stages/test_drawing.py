"""Drawing: labels inside the image, colours apart, sheets in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.pictures.drawing import (
    GREY,
    LEGEND_WIDTH,
    class_colours,
    contact_sheet,
    draw_detections,
    fitting_font,
    font_of,
    label_place,
    label_size,
    pixel_corners,
    readable_on,
    rgb_to_lab,
    save_image,
    shared_area,
    shortened,
    with_legend,
    wrapped,
)

CLASSES = ("cat", "dog")


@given(
    st.tuples(*[st.integers(-20, 220)] * 4),
    st.tuples(st.integers(1, 120), st.integers(1, 60)),
    st.lists(st.tuples(*[st.integers(0, 200)] * 4), max_size=4),
)
def test_labels_never_leave_the_image(
    corners: tuple[int, int, int, int], label: tuple[int, int], taken: list[tuple[int, int, int, int]]
) -> None:
    left, top, right, bottom = label_place(corners, label, (120, 60), taken)
    assert left >= 0
    assert top >= 0
    assert right <= 120
    assert bottom <= 60
    assert (right - left, bottom - top) == label


def test_a_label_goes_above_and_gives_way() -> None:
    box = (20, 30, 60, 50)
    assert label_place(box, (30, 10), (200, 100), []) == (20, 20, 50, 30)
    assert label_place(box, (30, 10), (200, 100), [(20, 20, 50, 30)]) == (20, 30, 50, 40)


def test_shared_area() -> None:
    assert shared_area((0, 0, 4, 4), (2, 3, 9, 9)) == 2
    assert shared_area((0, 0, 4, 4), (4, 0, 9, 9)) == 0


def test_text_shrinks_to_fit_and_gives_up() -> None:
    wide = fitting_font("cat 0.93", (500, 500))
    small = fitting_font("cat 0.93", (52, 500))
    assert wide is not None
    assert small is not None
    assert small.size < wide.size
    assert label_size("cat 0.93", small)[0] <= 52
    assert fitting_font("cat 0.93", (10, 500)) is None
    assert fitting_font("cat 0.93", (500, 5)) is None


def test_text_stays_within_its_label() -> None:
    font = font_of(20)
    left, top, right, bottom = font.getbbox("Ågqy| 0.93", anchor="la")
    width, height = label_size("Ågqy| 0.93", font)
    assert left >= -2
    assert top >= -2
    assert right + 2 <= width
    assert bottom + 2 <= height


def test_colours_stay_apart_and_stay_the_same() -> None:
    colours = class_colours(20)
    assert colours[:8] == class_colours(8)
    lab = rgb_to_lab(np.array(colours))
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(20)
    assert distances.min() > 20
    assert len(set(class_colours(80))) == 80


def test_lab_of_known_colours() -> None:
    lab = rgb_to_lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]]))
    np.testing.assert_allclose(lab, np.array([[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2]]), atol=0.3)


def test_ink_reads_on_its_ground() -> None:
    assert readable_on((250, 240, 80)) == (0, 0, 0)
    assert readable_on((60, 30, 160)) == (255, 255, 255)


def test_half_open_boxes_become_their_pixels() -> None:
    assert pixel_corners(np.array([2, 3, 10, 9]), (20, 20)) == (2, 3, 9, 8)
    assert pixel_corners(np.array([-5, 2.5, 99, 9.2]), (20, 20)) == (0, 2, 19, 9)
    assert pixel_corners(np.array([25, 25, 25, 25]), (20, 20)) == (19, 19, 19, 19)


def test_boxes_are_drawn_on_a_copy_in_their_class_colours() -> None:
    image = np.full((100, 120, 3), 128, np.uint8)
    boxes = np.array([[10, 30, 60, 80], [70, 30, 110, 90]], np.float32)
    drawn = draw_detections(image, boxes, np.array([0, 1]), np.array([0.5, 0.9]), CLASSES)
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    first, second = class_colours(2)
    assert tuple(drawn[50, 10]) == tuple(drawn[79, 40]) == first
    assert tuple(drawn[60, 70]) == tuple(drawn[60, 109]) == second
    assert tuple(drawn[50, 40]) == (128, 128, 128)


def test_the_best_score_is_on_top() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    box = np.array([[10, 20, 50, 55]] * 2, np.float32)
    for scores, winner in (([0.9, 0.1], 0), ([0.1, 0.9], 1)):
        drawn = draw_detections(image, box, np.array([0, 1]), np.array(scores), CLASSES)
        assert tuple(drawn[54, 30]) == class_colours(2)[winner]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (40, 40)])
def test_tiny_images_can_be_drawn_on(size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    boxes = np.array([[0, 0, *size], [0, 0, 0, 0]], np.float32)
    assert draw_detections(image, boxes, np.array([0, 1]), np.array([1, 2]), CLASSES).shape == image.shape


def test_nothing_to_draw_changes_nothing() -> None:
    image = np.full((20, 30, 3), 77, np.uint8)
    drawn = draw_detections(image, np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0), CLASSES)
    np.testing.assert_array_equal(drawn, image)
    drawn[0] = 0
    assert (image == 77).all()


def test_the_sheet_is_in_reading_order() -> None:
    images = [np.full((20, 30, 3), 10 * number, np.uint8) for number in range(1, 4)]
    sheet = contact_sheet(images, columns=2, gap=10)
    assert sheet.shape == (10 + 2 * 30, 10 + 2 * 40, 3)
    assert [int(sheet[15, 15, 0]), int(sheet[15, 55, 0]), int(sheet[45, 15, 0])] == [10, 20, 30]
    titled = contact_sheet(images, columns=2, titles=["a", "b" * 90, "c"], gap=10)
    assert titled.shape[0] > sheet.shape[0]
    assert titled.shape[1] == sheet.shape[1]
    assert contact_sheet([]).size > 0


def test_long_titles_are_cut() -> None:
    font = font_of(13)
    assert shortened("short", font, 100) == "short"
    cut = shortened("a long title that goes on", font, 60)
    assert cut.endswith("…")
    assert font.getlength(cut) <= 60


def test_a_crowd_keeps_the_labels_of_its_best() -> None:
    image = np.zeros((60, 120, 3), np.uint8)
    boxes = np.array([[40, 25, 60, 40]] * 12, np.float32)
    alone = draw_detections(image, boxes[:1], np.zeros(1, int), np.array([0.9]), CLASSES)
    crowd = draw_detections(image, boxes, np.arange(12) % 2, np.append(0.9, np.linspace(0.8, 0.1, 11)), CLASSES)
    label = (slice(9, 24), slice(42, 80))
    np.testing.assert_array_equal(crowd[label], alone[label])


def test_the_longest_number_that_has_room_is_written() -> None:
    image = np.zeros((60, 200, 3), np.uint8)
    box, labels, scores = np.array([[20, 30, 60, 50]], np.float32), np.array([0]), np.array([0.5], np.float32)

    def drawn(*numbers: str, width: int = 200) -> np.ndarray:
        return draw_detections(image[:, :width], box, labels, scores, CLASSES, [numbers])

    np.testing.assert_array_equal(drawn("0.50 (-0.27)", "0.50"), drawn("0.50 (-0.27)"))
    np.testing.assert_array_equal(drawn("0.50 (-0.27)", "0.50", width=60), drawn("0.50", width=60))
    np.testing.assert_array_equal(draw_detections(image, box, labels, scores, CLASSES), drawn("0.50"))


def test_thin_lines_are_one_pixel_of_the_classs_colour_and_their_labels_grey() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    box, labels, scores = np.array([[20, 40, 160, 90]], np.float32), np.array([1]), np.array([0.5], np.float32)
    colour = class_colours(2)[1]
    counts = []
    for thin in (False, True):
        drawn = draw_detections(image, box, labels, scores, CLASSES, thin=thin)
        counts.append(int((drawn[70] == colour).all(axis=-1).sum()))
        assert (drawn == GREY).all(axis=-1).any() == thin
    assert counts == [4, 2]


@given(st.integers(1, 400), st.integers(1, 40), st.text("abc ", max_size=120))
def test_a_legend_stands_below_the_image_and_leaves_it_as_it_is(width: int, height: int, text: str) -> None:
    image = np.arange(height * width * 3, dtype=np.uint64).astype(np.uint8).reshape(height, width, 3)
    framed = with_legend(image, [text])
    np.testing.assert_array_equal(framed[:height, :width], image)
    assert framed.shape[1] == max(width, LEGEND_WIDTH)
    assert (framed.shape[0] > height) == bool(text.split())
    assert all(
        font_of(13).getlength(line) <= LEGEND_WIDTH or " " not in line for line in wrapped(text, 13, LEGEND_WIDTH)
    )
    assert " ".join(wrapped(text, 13, LEGEND_WIDTH)).split() == text.split()


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow, writing to a file by itself, leaves half of a picture and says nothing."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3)).astype(np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="large"):
            save_image(noise, tmp_path / "x.jpg", quality=95)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    save_image(noise, tmp_path / "x.jpg", quality=95)
    assert Image.open(tmp_path / "x.jpg").size == (99, 99)


def test_an_image_of_tiles_is_drawn_on_as_a_tile() -> None:
    """The line around a box is two pixels wide, not 6, and its label has a smaller type."""
    image = np.full((960, 1200, 3), 128, np.uint8)
    box, label = np.array([[400, 400, 600, 600]], np.float32), np.array([0])
    drawn = [draw_detections(image, box, label, np.ones(1), CLASSES, side=side) for side in (None, 2000, 300)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    colour = np.array(class_colours(2)[0])
    widths = [int((one[500, 300:500] == colour).all(axis=1).sum()) for one in drawn]
    assert widths == [6, 6, 2]
    changed = [(one[:400] != image[:400]).any(axis=2).sum() for one in drawn]
    assert changed[2] < changed[0] / 4
