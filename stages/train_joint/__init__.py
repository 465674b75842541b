"""Stage `train-joint`: training a region proposal network and a region head together, on whole images (Faster R-CNN
section 3.2, ii and iii).

The regions that the head is trained on come from the proposals of the same step. The trunk is trained with both, or
stays as it is (`frozen = ["trunk"]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting, with_default
from stages.networks import PlannedNetwork
from stages.networks.heads import POOLINGS, Heads, ProposalHead
from stages.training.anchor_settings import AnchorTraining
from stages.training.region_settings import RegionTraining
from stages.training.settings import ON_WHOLE_IMAGES, WholeImageTraining
from stages.training.validation_settings import MAP, stop_on_setting

APPROXIMATE, WARPED = "approximate", "warped"
"""Whether the losses of regions stop at their boxes, or reach the region proposal network through them."""


@dataclass(frozen=True)
class Settings(AnchorTraining, RegionTraining, WholeImageTraining):
    """How the network is trained."""

    iterations: int = with_default(
        WholeImageTraining, "iterations", 70_000, "py-faster-rcnn, experiments/scripts/faster_rcnn_end2end.sh"
    )
    step: int = with_default(WholeImageTraining, "step", 50_000, "py-faster-rcnn, faster_rcnn_end2end/solver.prototxt")
    regions_per_image: int = with_default(
        RegionTraining, "regions_per_image", 128, "py-faster-rcnn, end to end: 128 of one image"
    )
    background_least: float = with_default(
        RegionTraining, "background_least", 0.0, "py-faster-rcnn, experiments/cfgs/faster_rcnn_end2end.yml"
    )
    gradient: str = setting(
        APPROXIMATE,
        "How far the losses of regions reach. approximate: proposals are taken as given; warped: the region proposal "
        "network gets the gradients with respect to their boxes, for which regions are pooled by RoI warping.",
        choices=(APPROXIMATE, WARPED),
        source="Faster R-CNN section 3.2: (ii), and (iii) without the approximation",
    )
    pooling: str = setting(
        "max",
        "How regions are pooled from the map. max: RoI max pooling; align: RoIAlign; warp: RoI warping.",
        choices=POOLINGS,
        source="Fast R-CNN section 2.1; align: Mask R-CNN; warp: Dai et al., arXiv 1512.04412",
    )
    proposal_hidden: int = setting(
        512,
        "Channels of the 3 x 3 convolution of the region proposal network.",
        at_least=1,
        source="Faster R-CNN section 3.1: 256 for ZF, 512 for VGG-16",
    )
    proposal_cells_scale: float = setting(
        1.0,
        "The region proposal network takes the map's cells times this; choose it so that its class loss starts near "
        "log(2).",
        above=0,
        source="ours; 1/30 for SqueezeNet's large activations",
    )
    before_suppression: int = setting(
        12_000,
        "How many of an image's best-scored boxes go into suppression; 0: all.",
        at_least=0,
        source="py-faster-rcnn, lib/fast_rcnn/config.py: RPN_PRE_NMS_TOP_N",
    )
    suppression_iou: float = setting(
        0.7,
        "IoU with a better-scored box above which a box is suppressed; 1 keeps all.",
        above=0,
        at_most=1,
        source="Faster R-CNN section 3.3",
    )
    max_boxes: int = setting(
        2000,
        "Proposals per image at most, from which regions are drawn; 0: all.",
        at_least=0,
        source="py-faster-rcnn, lib/fast_rcnn/config.py: RPN_POST_NMS_TOP_N",
    )
    least_side: float = setting(
        16.0,
        "The shortest side of a proposal, in pixels of the original image; smaller ones are dropped.",
        at_least=0,
        source="py-faster-rcnn, lib/fast_rcnn/config.py: RPN_MIN_SIZE",
    )
    stop_on: str = stop_on_setting(MAP)

    def __post_init__(self) -> None:
        AnchorTraining.__post_init__(self)
        RegionTraining.__post_init__(self)
        WholeImageTraining.__post_init__(self)
        if self.gradient == WARPED and self.pooling != "warp":
            raise BadSetting(
                f"gradient = 'warped' needs pooling = 'warp', as no gradients reach the boxes from '{self.pooling}'"
            )

    @property
    def proposals(self) -> ProposalHead:
        """The region proposal network that is trained."""
        return self.proposal_head(self.proposal_hidden, self.proposal_cells_scale)

    def heads(self, network: PlannedNetwork) -> Heads:
        """The heads of the trained network."""
        return Heads(self.proposals, self.region_head(network.card, self.pooling))


def plans(settings: Settings, network: PlannedNetwork) -> PlannedNetwork:
    """The network with both heads, trained to classify regions."""
    return PlannedNetwork(network.card.with_heads(settings.heads(network)), True)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a region head that does not fit the network, layers to be frozen that it does not have or
    that are new, and maps that do not fit."""
    from stages.networks.head_layers import PROPOSALS  # imported here: only PyTorch knows the layers' names
    from stages.training.frozen import check_training
    from stages.training.region_layers import new_layers

    card = plans(settings, network).card
    check_training(settings, card, [PROPOSALS, *new_layers(card, network.card)], sources)


LOG = LogColumns(
    "iteration",
    losses=("loss", "anchor_class_loss", "anchor_box_loss", "class_loss", "box_loss"),
    accuracies=("positive_accuracy", "negative_accuracy", "foreground_accuracy", "background_accuracy"),
    validated=(MAP,),
)

STAGE = Stage(
    name="train-joint",
    summary="Train Faster R-CNN, proposals and regions together.",
    schema_version=1,
    settings=Settings,
    makes="network",
    inputs=ON_WHOLE_IMAGES,
    module="stages.train_joint.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-joint.toml",
    log=LOG,
    check=check,
    plans=plans,
)
