"""The colours of every picture, plot and page: kinds of detections, runs and objects have the same one everywhere.

Classes, where a picture tells them apart instead, have those of `drawing.class_colours`. All colours here but TRUTH,
those of proposals and the greys have a relative luminance between 0.12 and 0.29, a contrast of at least 3:1 with white
and with a dark page (WCAG 2.1, 1.4.11), so that light and dark need no second set. Kinds, and the first four series,
stay apart under protanopia, deuteranopia and tritanopia (the matrices of Machado et al., 2009).
"""

from __future__ import annotations

from typing import Any

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
"""What a detection can be, by the names of figure 5; an object that was missed; what counts neither way."""

SERIES = ("#3a5bef", "#d26900", "#12a378", "#964ba5", "#8a6a1f", "#57808f", "#c4587c", "#747474")
"""The systems that are compared, A, B, C, ... in this order everywhere; repeated after the last."""
DASHES = ((), (5, 2.5), (6, 2.5, 1.5, 2.5), (1.5, 2.5))
"""Of their lines, on and off in line widths: one that lies on another lets it be seen."""

TRUTH: Colour = (255, 255, 255)
"""Annotated objects: dashes of white on black, which show on any ground and are no other colour here."""
PROPOSAL: Colour = (255, 214, 64)
REGRESSED: Colour = (120, 224, 255)
"""A proposal before and after box regression, on photographs."""

GREY: Colour = (200, 200, 198)
"""The ground of labels of detections below their threshold, whose boxes are thin."""

PAPER: Colour = (246, 246, 244)
INK: Colour = (40, 40, 40)
FAINT: Colour = (110, 110, 110)
RULE: Colour = (196, 196, 191)
"""Ground, text, lesser text and rules of sheets."""
MUTED = "#6b6b6b"
GRID = "#e3e3e3"
"""Lesser text and rules of plots, which are on white."""


def rgb(colour: str) -> Colour:
    """ "#0b7a68" as (11, 122, 104)."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def kind_colour(kind: str) -> Colour:
    """The colour of a kind of detection on a picture."""
    return rgb(KINDS[kind])


def series_colour(number: int) -> str:
    """The colour of the series with this number, counted from 0."""
    return SERIES[number % len(SERIES)]


def series_dashes(number: int) -> tuple[float, ...]:
    """Its dashes, () for a whole line."""
    return DASHES[number % len(DASHES)]


def line_of(number: int) -> dict[str, Any]:
    """Both, as matplotlib takes them."""
    dashes = series_dashes(number)
    return {"color": series_colour(number), "linestyle": (0, dashes) if dashes else "-"}


def as_css() -> str:
    """The palette as CSS variables: --kind-loc, --series-0."""
    kinds = [f"--kind-{name.lower()}: {colour};" for name, colour in KINDS.items()]
    series = [f"--series-{number}: {colour};" for number, colour in enumerate(SERIES)]
    return " ".join([*kinds, *series])
