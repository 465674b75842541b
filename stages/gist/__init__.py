"""Stage `gist`: the GIST descriptor of whole images, by which near-duplicates are found (R-CNN Appendix F).

Only descriptors of the same settings can be compared; the threshold of `rcnn duplicates` was measured with the
defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting


@dataclass(frozen=True)
class Settings:
    """The size of the image as described, and the filters."""

    side: int = setting(
        32,
        "The side in pixels of the square that the whole image is warped to.",
        at_least=8,
        at_most=256,
        source="R-CNN Appendix F",
    )
    prefilter: float = setting(
        4.0,
        "Cycles per padded image at which the low-pass that is removed before filtering falls to one half.",
        above=0,
        source="LEAR's GIST, color_prefilt",
    )
    orientations: tuple[int, ...] = setting(
        (8, 8, 4),
        "The number of orientations of the filters at each scale, from fine to coarse.",
        at_least=1,
        at_most=64,
        source="LEAR's GIST, color_gist_scaletab",
    )
    blocks: int = setting(
        4,
        "The responses are averaged over a grid of this many columns and rows.",
        at_least=1,
        source="LEAR's GIST, color_gist_scaletab",
    )

    def __post_init__(self) -> None:
        if not self.orientations:
            raise BadSetting("orientations = [] must list at least one scale")
        if self.blocks > self.side:
            raise BadSetting(f"blocks = {self.blocks} must be at most side = {self.side}")

    @property
    def length(self) -> int:
        """The numbers in a descriptor: three channels, each filter, each block."""
        return 3 * sum(self.orientations) * self.blocks**2


STAGE = Stage(
    name="gist",
    summary="Compute GIST descriptors of whole images, to find near-duplicates.",
    schema_version=1,
    settings=Settings,
    makes="descriptors",
    inputs=(Input("images", kinds=("dataset", "classification"), annotations=False),),
    module="stages.gist.stage",
    follows_split=True,
    part_size=256,
    by_item=True,
)
