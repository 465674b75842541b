"""The lengths that whole images are scaled to, as settings (Fast R-CNN section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence

from stages.contract.errors import BadSetting


def check_sides(sides: Sequence[int], longest: int) -> None:
    """Raises BadSetting unless there are `sides`, shorter sides in pixels, and none of them exceeds `longest`."""
    if not sides:
        raise BadSetting("sides = [] must name one or more lengths in pixels")
    if max(sides) > longest:
        raise BadSetting(
            f"sides = {list(sides)} has a shorter side of {max(sides)} pixels, more than longest = {longest}; raise "
            "longest"
        )
