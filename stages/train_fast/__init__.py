"""Stage `train-fast`: training a network's region head on whole images (Fast R-CNN, arXiv 1504.08083).

The trunk is trained with it, or stays as it is (`frozen = ["trunk"]`, the fourth of Faster R-CNN's four steps). A
region proposal network is carried along. The layers of class scores and deltas are always new; the others keep the
weights that they have in the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks import PlannedNetwork
from stages.networks.heads import POOLINGS, Heads, RegionHead
from stages.training.region_settings import RegionTraining
from stages.training.settings import WholeImageTraining
from stages.training.validation_settings import ITS_PROPOSALS, MAP, VALIDATION_SET, stop_on_setting

OF_SET, FIXED = "set", "fixed"
"""Where the means and standard deviations come from that normalise the deltas."""
BOTH, BOXES_ALONE = "both", "boxes"


@dataclass(frozen=True)
class Settings(RegionTraining, WholeImageTraining):
    """How the network is trained."""

    pooling: str = setting(
        "max",
        "How regions are pooled from the map. max: RoI max pooling; align: RoIAlign; warp: bilinear samples and max "
        "pooling.",
        choices=POOLINGS,
        source="Fast R-CNN section 2.1; align: Mask R-CNN; warp: Dai et al., arXiv 1512.04412",
    )
    delta_normalisation: str = setting(
        OF_SET,
        "The means and standard deviations that deltas are normalised with, which end in the weights. set: of each "
        "class, over the training set; fixed: 0 and (0.1, 0.1, 0.2, 0.2).",
        choices=(OF_SET, FIXED),
        source="Fast R-CNN section 2.3; fixed: py-faster-rcnn, end to end",
    )
    outputs: str = setting(
        BOTH,
        "Which outputs are trained. both: class scores and deltas; boxes: the deltas alone, on a network that "
        "train-fast has trained and that stays as it is (stage-wise training).",
        choices=(BOTH, BOXES_ALONE),
        source="Fast R-CNN section 5.1, Table 6",
    )

    stop_on: str = stop_on_setting(MAP)

    def __post_init__(self) -> None:
        RegionTraining.__post_init__(self)
        WholeImageTraining.__post_init__(self)
        if self.outputs == BOXES_ALONE and not self.box_weight:
            raise BadSetting("outputs = 'boxes' trains the box loss alone, which box_weight = 0 leaves out")

    @property
    def trunk_is_frozen(self) -> bool:
        """Whether all of the trunk stays as it is."""
        return self.outputs == BOXES_ALONE or super().trunk_is_frozen

    def head(self, network: PlannedNetwork) -> RegionHead:
        """The region head that is trained."""
        return self.region_head(network.card, self.pooling)

    def heads(self, network: PlannedNetwork) -> Heads:
        """The heads of the trained network."""
        return Heads(network.card.heads.proposals, self.head(network))


def plans(settings: Settings, network: PlannedNetwork) -> PlannedNetwork:
    """The network with a region head, trained to classify regions."""
    return PlannedNetwork(network.card.with_heads(settings.heads(network)), True)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a head that does not fit the network, layers to be frozen that it does not have or that are
    new, and maps that do not fit."""
    from stages.training.frozen import check_training  # imported here: only PyTorch knows the layers' names
    from stages.training.region_layers import new_layers

    card = plans(settings, network).card
    if settings.outputs == BOXES_ALONE and network.card.heads.regions != card.heads.regions:
        raise BadSetting(
            "outputs = 'boxes' needs a network that train-fast has trained with the same pooling, side, hidden and "
            "cells_scale; name its table in inputs.network"
        )
    new = new_layers(card, network.card, deltas_alone=settings.outputs == BOXES_ALONE)
    check_training(settings, card, new, sources)


LOG = LogColumns(
    "iteration",
    losses=("loss", "class_loss", "box_loss"),
    accuracies=("foreground_accuracy", "background_accuracy"),
    validated=(MAP,),
)

STAGE = Stage(
    name="train-fast",
    summary="Train Fast R-CNN, a region head and the trunk, on whole images.",
    schema_version=1,
    settings=Settings,
    makes="network",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("proposals", kinds=("proposals",), default=("propose",)),
        Input("network", kinds=("network",), default=("pretrain", "network")),
        Input("maps", kinds=("maps",), optional=True, of_trunk=True),
        VALIDATION_SET,
        ITS_PROPOSALS,
    ),
    module="stages.train_fast.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-fast.toml",
    log=LOG,
    check=check,
    plans=plans,
)
