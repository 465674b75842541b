"""The palette: to be seen on white and on dark, told apart without full colour vision, and in one place."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from stages.pictures.palette import KINDS, SERIES, as_css, kind_colour, line_of, rgb, series_colour

PROJECT = Path(__file__).parents[2]
DARK = "#161513"  # page.css
SIGHT = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Machado, Oliveira and Fernandes, A physiologically-based model for simulation of color vision deficiency (2009)."""


def linear(colour: str) -> np.ndarray:
    """Linear light of an sRGB colour, float64 [3]."""
    encoded = np.array(rgb(colour)) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio."""
    low, high = sorted(float(linear(one) @ (0.2126, 0.7152, 0.0722)) for one in (first, second))
    return (high + 0.05) / (low + 0.05)


def oklab(light: np.ndarray) -> np.ndarray:
    """Ottosson's Oklab of linear light."""
    to_cones = [[0.41222, 0.53633, 0.05145], [0.2119, 0.68070, 0.1074], [0.0883, 0.28172, 0.62998]]
    to_lab = [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(light, 0, 1))


@pytest.mark.parametrize("colour", [*KINDS.values(), *SERIES])
def test_a_colour_shows_on_white_and_on_dark(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 3
    assert contrast(colour, DARK) >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_kinds_and_the_first_series_stay_apart(sight: str) -> None:
    """0.1 in Oklab is about five just noticeable differences."""
    kinds = [colour for kind, colour in KINDS.items() if kind != "ignored"]
    for colours in (kinds, SERIES[:4]):
        seen = [oklab(np.array(SIGHT[sight]) @ linear(colour)) for colour in colours]
        assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) >= 0.1


def test_series_repeat_after_the_last_and_neighbours_have_other_dashes() -> None:
    assert len({*SERIES, *KINDS.values()}) == len(SERIES) + len(KINDS)
    assert series_colour(len(SERIES)) == series_colour(0) == SERIES[0]
    assert line_of(0)["linestyle"] == "-"
    assert all(line_of(number)["linestyle"] != line_of(number + 1)["linestyle"] for number in range(8))


def test_the_same_colours_in_every_notation() -> None:
    assert kind_colour("BG") == tuple(bytes.fromhex(KINDS["BG"][1:]))
    assert f"--kind-bg: {KINDS['BG']};" in as_css()
    assert f"--series-0: {SERIES[0]};" in as_css()


def test_no_other_module_has_colours_of_its_own() -> None:
    """All but the palette name colours; the report's page has its ground, ink and rules, and charts.py placeholders."""
    sources = [path for room in ("stages", "rcnn_cli") for path in (PROJECT / room).rglob("*.py")]
    literal = re.compile(r"""["']#[0-9a-fA-F]{3,8}["']|["']tab:|: Colour = \(|["']C\d["']""")
    others = {
        "stages/pictures/palette.py": None,
        "rcnn_cli/report/charts.py": {'"#000001"', '"#000002"', '"#000003"', '"#000004"'},
    }
    for path in sources:
        name = path.relative_to(PROJECT).as_posix()
        found = set(literal.findall(path.read_text(encoding="utf-8")))
        allowed = others.get(name, {'"#000"', '"#fff"'})
        assert allowed is None or found <= allowed, name
    style = (PROJECT / "rcnn_cli/report/page.css").read_text(encoding="utf-8")
    assert not re.search(r"--(kind|series)-[a-z0-9]+:", style)
    assert set(re.findall(r"var\((--(?:kind|series)-[a-z0-9]+)\)", style)) <= set(
        re.findall(r"--[a-z0-9-]+(?=:)", as_css())
    )
