"""The heads that a detector's network has besides its own layers: region proposals and regions of the map.

Faster R-CNN (arXiv 1506.01497v3): one trunk of convolutions carries both. A stage trains some heads and carries the
others along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCALES = (8.0, 16.0, 32.0)
"""Sides of the square anchors in strides: 128, 256 and 512 pixels at stride 16 (Faster R-CNN section 3.3)."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""
POOLINGS = ("max", "align", "warp")
"""How a region of the map is pooled: RoI max pooling, RoIAlign, RoI warping (`stages.networks.roi_pooling`)."""


@dataclass(frozen=True)
class ProposalHead:
    """A region proposal network on the trunk's map (Faster R-CNN section 3.1): a 3 x 3 convolution to `hidden`
    channels, then, for each of the anchors of a cell, two class scores and four deltas.

    `scales` are the sides of the square anchors in strides, `ratios` their heights over widths. The map's cells are
    multiplied by `cells_scale` first.
    """

    scales: tuple[float, ...] = SCALES
    ratios: tuple[float, ...] = RATIOS
    hidden: int = 512
    cells_scale: float = 1.0

    @property
    def anchors(self) -> int:
        """A, the anchors of a cell."""
        return len(self.scales) * len(self.ratios)


@dataclass(frozen=True)
class RegionHead:
    """Class scores and box deltas of a region pooled from the trunk's map (Fast R-CNN section 2.1).

    `pooling` is one of POOLINGS, to `side` x `side` cells. Without `hidden`, the layers after pooling are the network's
    own, and the deltas are computed from the last of them; with it, they are new fully connected layers of these sizes,
    on cells multiplied by `scale`.
    """

    pooling: str
    side: int
    hidden: tuple[int, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class WindowHead:
    """Class scores and box edges of every window of the trunk's map (OverFeat, arXiv 1312.6229v4, sections 4 and 5).

    Without `hidden`, classes are scored by the network's own layers; with it, windows of `pool` x `side` cells, max
    pooled to `side` x `side` cells and multiplied by `scale`, go through new fully connected layers of these sizes. The
    edges come from the pooled window through fully connected layers of the sizes `box_hidden`: four, or four for each
    class (`per_class`). With `context`, which needs `hidden`, both also take the window of the next lower scale that is
    centred nearest: its channels follow the window's own (section 5).
    """

    box_hidden: tuple[int, ...] = (4096, 1024)
    per_class: bool = False
    hidden: tuple[int, ...] = ()
    pool: int = 1
    side: int = 0
    scale: float = 1.0
    context: bool = False

    @property
    def scales(self) -> int:
        """The number of scales at which a window is seen."""
        return 2 if self.context else 1

    @property
    def cells(self) -> int:
        """The side of a window in cells of the map, for `hidden` layers."""
        return self.pool * self.side


@dataclass(frozen=True)
class Heads:
    """The heads of a network besides its own layers; `windows` and `regions` exclude each other."""

    proposals: ProposalHead | None = None
    regions: RegionHead | None = None
    windows: WindowHead | None = None

    def as_json(self) -> dict[str, Any]:
        """The heads as recorded in a manifest."""
        recorded: dict[str, Any] = {}
        if self.proposals is not None:
            head = self.proposals
            recorded["proposals"] = {
                "scales": list(head.scales),
                "ratios": list(head.ratios),
                "hidden": head.hidden,
                "cells_scale": head.cells_scale,
            }
        if self.regions is not None:
            pooled = self.regions
            recorded["regions"] = {
                "pooling": pooled.pooling,
                "side": pooled.side,
                "hidden": list(pooled.hidden),
                "scale": pooled.scale,
            }
        if self.windows is not None:
            recorded["windows"] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in vars(self.windows).items()
                if name != "context" or value  # earlier versions had none
            }
        return recorded

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Heads:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError for anything else."""
        if not isinstance(value, Mapping):
            raise TypeError("the heads are not a table")
        proposals, regions, windows = (value.get(name) for name in ("proposals", "regions", "windows"))
        heads = Heads(
            ProposalHead(
                tuple(map(float, proposals["scales"])),
                tuple(map(float, proposals["ratios"])),
                int(proposals["hidden"]),
                float(proposals.get("cells_scale", 1.0)),
            )
            if proposals is not None
            else None,
            RegionHead(
                str(regions["pooling"]),
                int(regions["side"]),
                tuple(map(int, regions["hidden"])),
                float(regions["scale"]),
            )
            if regions is not None
            else None,
            WindowHead(
                tuple(map(int, windows["box_hidden"])),
                bool(windows["per_class"]),
                tuple(map(int, windows["hidden"])),
                int(windows["pool"]),
                int(windows["side"]),
                float(windows["scale"]),
                bool(windows.get("context", False)),
            )
            if windows is not None
            else None,
        )
        heads.check()
        return heads

    def check(self) -> None:
        """Raises ValueError for numbers that no head has, or another pooling than POOLINGS."""
        numbers: tuple[float, ...] = ()
        if (proposals := self.proposals) is not None:
            numbers += (
                proposals.anchors,
                *proposals.scales,
                *proposals.ratios,
                proposals.hidden,
                proposals.cells_scale,
            )
        if (regions := self.regions) is not None:
            numbers += (regions.side, *regions.hidden, regions.scale)
            if regions.pooling not in POOLINGS:
                raise ValueError(f"pooling {regions.pooling}")
        if (windows := self.windows) is not None:
            numbers += (*windows.box_hidden, *windows.hidden, windows.pool, windows.scale)
            if windows.hidden:
                numbers += (windows.side,)
            elif windows.context:
                raise ValueError("context without hidden layers")
            if regions is not None:
                raise ValueError("a head of regions and one of windows")
        if not all(0 < number < math.inf for number in numbers):
            raise ValueError(f"heads with {numbers}")


NO_HEADS = Heads()
"""A network with its own layers alone."""
