"""Legends: everything is said whatever the width, and what is dashed on a picture is dashed in its legend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.pictures.legends import Entry, draw_legend, with_margins
from stages.pictures.palette import PAPER, TRUTH, kind_colour

KINDS = ("true", "Loc", "Sim", "Oth", "BG", "missed", "ignored")
ENTRIES = [Entry(f"this is {kind}", kind_colour(kind)) for kind in KINDS]


def pixels_of(legend: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a legend has exactly a colour: bool [H, W]."""
    return (legend == np.array(colour, np.uint8)).all(axis=2)


@pytest.mark.parametrize("width", [160, 300, 2000])
def test_every_entry_is_there_at_any_width(width: int) -> None:
    """Each with its patch of 12 x 12 pixels, one below the other where there is no more room."""
    legend = draw_legend([ENTRIES], width)
    assert legend.shape[1] == width
    for kind in KINDS:
        assert pixels_of(legend, kind_colour(kind)).sum() >= 12 * 12
    lines = legend.shape[0] / draw_legend([ENTRIES[:1]], width).shape[0]
    assert lines == {160: 7, 300: 4, 2000: 1}[width]


@settings(deadline=None, max_examples=30)
@given(st.integers(60, 400), st.lists(st.sampled_from(["a", "some words that are many", "x" * 60]), max_size=6))
def test_nothing_leaves_the_legend(width: int, words: list[str]) -> None:
    """Its last column and its last row are paper: no letter is cut in two there."""
    legend = draw_legend([[Entry(one, kind_colour("true")) for one in words]], width)
    assert pixels_of(legend, PAPER)[:, -1].all()
    assert pixels_of(legend, PAPER)[-1].all()


def test_a_long_entry_goes_on_below_and_a_paragraph_begins_a_line() -> None:
    alone = draw_legend([[Entry("several words")]], 400).shape[0]
    assert draw_legend([[Entry("several words"), Entry("and others")]], 400).shape[0] == alone
    assert draw_legend([[Entry("several words")], [Entry("and others")]], 400).shape[0] == 2 * alone
    assert draw_legend([[Entry("several words " * 4)]], 200).shape[0] > 2 * alone


def test_margins_are_paper() -> None:
    """Also beside a patch that begins at the legend's first column."""
    legend = draw_legend([ENTRIES], 300)
    sheet = with_margins(legend, 3, 5, 7)
    assert sheet.shape == (legend.shape[0] + 8, 314, 3)
    np.testing.assert_array_equal(sheet[3:-5, 7:-7], legend)
    outside = np.ones(sheet.shape[:2], bool)
    outside[3:-5, 7:-7] = False
    assert pixels_of(sheet, PAPER)[outside].all()


def test_dashed_means_dashed() -> None:
    """The upper edge of the outline has gaps of black, and its middle is empty."""
    legend = draw_legend([[Entry("annotated", TRUTH, dashed=True)]], 300)
    white = pixels_of(legend, TRUTH)
    rows = np.flatnonzero(white.any(axis=1))
    top = legend[rows[0], : Entry("", TRUTH, dashed=True).indent - 6]
    assert {tuple(pixel) for pixel in top.tolist()} == {TRUTH, (0, 0, 0)}
    assert pixels_of(legend, PAPER)[(rows[0] + rows[-1]) // 2, 8]
    solid = draw_legend([[Entry("annotated", TRUTH)]], 300)
    assert pixels_of(solid, TRUTH)[(rows[0] + rows[-1]) // 2, 8]
