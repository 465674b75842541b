"""Settings that all stages share which train a region proposal network (Faster R-CNN section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks.heads import RATIOS, SCALES, ProposalHead

PAPER, RELEASE = "paper", "release"
"""What the losses are divided by, in the paper and in the authors' release."""


@dataclass(frozen=True)
class AnchorTraining:
    """The anchors, which of them are positive and negative, how many are drawn, and how the two losses are weighed."""

    positive_overlap: float = setting(
        0.7,
        "An anchor whose highest IoU with any object is at least this is positive.",
        above=0,
        at_most=1,
        source="Faster R-CNN section 3.1.2",
    )
    negative_overlap: float = setting(
        0.3,
        "An anchor whose highest IoU with any object is below this is negative; those in between are not used.",
        above=0,
        at_most=1,
        source="Faster R-CNN section 3.1.2",
    )
    best_of_object: bool = setting(
        True,
        "Whether the anchors that overlap an object most are positive, too, whatever their IoU.",
        source="Faster R-CNN section 3.1.2",
    )
    border: float = setting(
        0.0,
        "How many pixels of the network's input anchors may reach over the image's edge in training.",
        at_least=0,
        source="Faster R-CNN section 3.3: none",
    )
    anchors_per_image: int = setting(
        256, "Anchors drawn per image.", at_least=2, source="Faster R-CNN section 3.1.3: 256"
    )
    positive_anchors: float = setting(
        0.5, "The largest share of positive anchors.", above=0, at_most=1, source="Faster R-CNN section 3.1.3: 1:1"
    )
    normalisation: str = setting(
        PAPER,
        "What the losses are divided by. paper: classes by anchors_per_image, boxes by the number of cells of the map; "
        "release: both by the number of anchors drawn.",
        choices=(PAPER, RELEASE),
        source="Faster R-CNN equation 1; release: anchor_target_layer.py",
    )
    balance: float = setting(
        10.0,
        "The weight of the box loss, lambda; 1 in the release, with its normalisation.",
        at_least=0,
        source="Faster R-CNN equation 1",
    )
    scales: tuple[float, ...] = setting(
        SCALES,
        "The sides of the square anchors, in strides.",
        above=0,
        distinct=True,
        source="Faster R-CNN section 3.3: 128, 256 and 512 pixels",
    )
    ratios: tuple[float, ...] = setting(
        RATIOS,
        "The shapes of the anchors, height over width.",
        at_least=0.01,
        at_most=100,
        distinct=True,
        source="Faster R-CNN section 3.3",
    )
    new_layer_std: float = setting(
        0.01,
        "Standard deviation of the initial weights of the region proposal network.",
        above=0,
        source="Faster R-CNN section 3.1.3",
    )

    def __post_init__(self) -> None:
        if not self.scales or not self.ratios:
            raise BadSetting("scales and ratios must each name one or more numbers; there would be no anchors")

    def proposal_head(self, hidden: int, cells_scale: float) -> ProposalHead:
        """The region proposal network that is trained: a convolution of cells times `cells_scale` to `hidden` channels,
        and the outputs of the anchors."""
        return ProposalHead(self.scales, self.ratios, hidden, cells_scale)
