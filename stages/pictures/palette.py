"""The colours of all pictures, plots and pages: kinds of detections, runs and objects have the same colour everywhere.

Pictures that distinguish classes instead use `drawing.class_colours`. All colours here, except TRUTH, the greys and
those of proposals, have a relative luminance between 0.12 and 0.29, hence a contrast of at least 3:1 with both white
and a dark page (WCAG 2.1, 1.4.11), so that light and dark pages share one set. Kinds, and the first four series, remain
distinguishable under protanopia, deuteranopia and tritanopia (matrices of Machado et al., 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""R, G, B, 0 to 255."""

KINDS = {
    "true": "#0b7a68",
    "Loc": "#0e94dd",
    "Sim": "#b4852d",
    "Oth": "#8a2af2",
    "BG": "#c0281a",
    "missed": "#f01fae",
    "ignored": "#858585",
}
"""The types of detections, named as in figure 5; missed objects; detections and objects that are ignored."""

SERIES = ("#3a5bef", "#d26900", "#12a378", "#964ba5", "#8a6a1f", "#57808f", "#c4587c", "#747474")
"""The systems being compared, A, B, C, ..., in this order everywhere; repeated after the last."""
DASHES = ((), (5, 2.5), (6, 2.5, 1.5, 2.5), (1.5, 2.5))
"""The dashes of their lines, on and off in line widths, so that a line does not hide another below it."""

TRUTH: Colour = (255, 255, 255)
"""Annotated objects: white dashes on black, visible on any background and unlike any other colour here."""
PROPOSAL: Colour = (255, 214, 64)
REGRESSED: Colour = (120, 224, 255)
"""A proposal before and after box regression, on photographs."""

SCORES = ("#3f2a9b", "#b83289", "#f58c46", "#fdf26b")
"""Proposals by score, from the lowest to the highest; in between, colours are mixed."""

GREY: Colour = (200, 200, 198)
"""The label background of detections below their threshold, whose boxes are thin."""

PAPER: Colour = (246, 246, 244)
INK: Colour = (40, 40, 40)
FAINT: Colour = (110, 110, 110)
RULE: Colour = (196, 196, 191)
"""Background, text, secondary text and rules of sheets."""
MUTED = "#6b6b6b"
GRID = "#e3e3e3"
"""Secondary text and grid lines of plots, which are on white."""


def rgb(colour: str) -> Colour:
    """ "#0b7a68" as (11, 122, 104)."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def kind_colour(kind: str) -> Colour:
    """The colour of a kind of detection on a picture."""
    return rgb(KINDS[kind])


def series_colour(number: int) -> str:
    """The colour of a series, numbered from 0."""
    return SERIES[number % len(SERIES)]


def series_dashes(number: int) -> tuple[float, ...]:
    """The dashes of a series; () is a solid line."""
    return DASHES[number % len(DASHES)]


def line_of(number: int) -> dict[str, Any]:
    """The colour and dashes of a series, as Matplotlib's line arguments."""
    dashes = series_dashes(number)
    return {"color": series_colour(number), "linestyle": (0, dashes) if dashes else "-"}


def score_colours(shares: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float32]:
    """The colours of scores that lie at `shares` [n] of the way from the lowest to the highest: float32 [n, 3]."""
    import numpy as np

    stops = np.linspace(0, 1, len(SCORES))
    channels = np.array([rgb(colour) for colour in SCORES], np.float64).T
    return np.stack([np.interp(shares, stops, channel) for channel in channels], axis=-1).astype(np.float32)


def as_css() -> str:
    """The palette as CSS variables: --kind-loc, --series-0."""
    kinds = [f"--kind-{name.lower()}: {colour};" for name, colour in KINDS.items()]
    series = [f"--series-{number}: {colour};" for number, colour in enumerate(SERIES)]
    return " ".join([*kinds, *series])
