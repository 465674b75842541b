"""Helpers for plots: figures without a display, grids, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.pictures.drawing import font_of, shortened
from stages.pictures.palette import GRID, MUTED

GROUNDED = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
"""The background of a label that may overlap a line."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure, `width` x `height` inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    """Writes the figure as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def plain(ax: Any, axis: str = "both") -> None:
    """Gives the axes a light grid and no frame."""
    ax.grid(axis=axis, color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def whole_steps(ax: Any, steps: Sequence[float]) -> None:
    """Puts the ticks of the x axis at whole numbers; `steps` are the values plotted (one alone gets the only tick)."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))
    if len(steps) == 1:
        ax.set_xlim(steps[0] - 1, steps[0] + 1)
        ax.set_xticks([steps[0]])


def say(ax: Any, words: str, ink: str = MUTED, ground: str = "white") -> None:
    """Writes in the middle of an empty plot why it is empty."""
    box = {"boxstyle": "square,pad=0.3", "facecolor": ground, "edgecolor": "none"}
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=9, color=ink, bbox=box)


def cut(text: str, points: int, inches: float) -> str:
    """`text`, truncated to that many `inches` in type of `points`, with an ellipsis if necessary."""
    return shortened(text, font_of(points), int(72 * inches))


def apart(values: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> list[float]:
    """Ascending `values`, moved as little as possible (by least squares) so that neighbours are at least `gap` apart
    and all lie within `low` to `high`. If there is no room for that, they start at `low` and exceed `high`.

    With the gaps subtracted, this is an isotonic regression (pool adjacent violators).
    """
    pools: list[tuple[float, int]] = []
    for place, value in enumerate(values):
        mean, count = value - place * gap, 1
        while pools and pools[-1][0] > mean:
            before, others = pools.pop()
            mean, count = (before * others + mean * count) / (others + count), others + count
        pools.append((mean, count))
    levels = [mean for mean, count in pools for _ in range(count)]
    last = high - gap * (len(values) - 1)
    return [max(low, min(level, last)) + place * gap for place, level in enumerate(levels)]
