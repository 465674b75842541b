"""Plots that a test can ask about their texts: which lie on one another, which are cut off."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

SLACK = 0.5  # pixels: what a box of text may be taller than its letters


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every matplotlib figure that the test saves, as it was saved."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig

    def saved(figure: Any, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", saved)
    return figures


def texts_of(figure: Any) -> list[tuple[str, Any]]:
    """Each text of a figure that is to be seen, and its box (x0, y0, x1, y1) in pixels."""
    from matplotlib.text import Text

    figure.canvas.draw()
    renderer = figure._get_renderer()
    unseen = {label for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for label in unseen_labels(ax, axis)}
    return [
        # An annotation's own extent has its arrow, too: only the letters count.
        (text.get_text(), Text.get_window_extent(text, renderer))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unseen
    ]


def unseen_labels(ax: Any, axis: Any) -> list[Any]:
    """The labels of ticks that matplotlib keeps but does not draw: those beyond the ends of the axis."""
    low, high = sorted(axis.get_view_interval())
    place = 0 if axis is ax.xaxis else 1
    labels = [*axis.get_ticklabels(which="major"), *axis.get_ticklabels(which="minor")]
    return [one for one in labels if not (ax.axison and low <= one.get_position()[place] <= high)]


def clashes(figure: Any) -> list[str]:
    """What is wrong with a figure's texts: pairs that lie on one another, texts that leave the figure."""
    texts = [(name, box) for name, box in texts_of(figure) if box.width > 0]
    told = [
        f"{one!r} on {other!r}"
        for (one, first), (other, second) in combinations(texts, 2)
        if min(first.x1, second.x1) - max(first.x0, second.x0) > SLACK
        and min(first.y1, second.y1) - max(first.y0, second.y0) > SLACK
    ]
    width, height = figure.bbox.width, figure.bbox.height
    told += [
        f"{name!r} leaves the figure"
        for name, box in texts
        if min(box.x0, box.y0) < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK
    ]
    return told
