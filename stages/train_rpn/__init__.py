"""Stage `train-rpn`: training a region proposal network on whole images (Faster R-CNN sections 3.1 and 3.2).

The trunk is trained with it, or stays as it is (`frozen = ["trunk"]`, the third of the four steps). Other heads of the
network are carried along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import LogColumns, Stage
from stages.contract.settings import setting
from stages.networks import PlannedNetwork
from stages.networks.heads import Heads, ProposalHead
from stages.training.anchor_settings import AnchorTraining
from stages.training.settings import ON_WHOLE_IMAGES, WholeImageTraining
from stages.training.validation_settings import RECALL, stop_on_setting


@dataclass(frozen=True)
class Settings(AnchorTraining, WholeImageTraining):
    """How the network is trained."""

    hidden: int = setting(
        512,
        "Channels of the 3 x 3 convolution.",
        at_least=1,
        source="Faster R-CNN section 3.1: 256 for ZF, 512 for VGG-16",
    )
    cells_scale: float = setting(
        1.0,
        "The map's cells are multiplied by this; choose it so that the class loss starts near log(2).",
        above=0,
        later=True,
        source="ours; 1/30 for SqueezeNet's large activations",
    )
    stop_on: str = stop_on_setting(RECALL)

    def __post_init__(self) -> None:
        AnchorTraining.__post_init__(self)
        WholeImageTraining.__post_init__(self)

    @property
    def head(self) -> ProposalHead:
        """The head that is trained."""
        return self.proposal_head(self.hidden, self.cells_scale)

    def heads(self, carried: Heads) -> Heads:
        """The heads of the trained network, given those that the network already has."""
        return Heads(self.head, carried.regions)


def plans(settings: Settings, network: PlannedNetwork) -> PlannedNetwork:
    """The network with a region proposal network."""
    return PlannedNetwork(network.card.with_heads(settings.heads(network.card.heads)), network.trained)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for layers to be frozen that the network does not have or that are new, and for maps that do
    not fit."""
    from stages.networks.head_layers import PROPOSALS  # imported here: only PyTorch knows the layers' names
    from stages.training.frozen import check_training

    check_training(settings, plans(settings, network).card, [PROPOSALS], sources)


LOG = LogColumns(
    "iteration",
    losses=("loss", "class_loss", "box_loss"),
    accuracies=("positive_accuracy", "negative_accuracy"),
    validated=(RECALL,),
)

STAGE = Stage(
    name="train-rpn",
    summary="Train a region proposal network on whole images.",
    schema_version=1,
    settings=Settings,
    makes="network",
    inputs=ON_WHOLE_IMAGES,
    module="stages.train_rpn.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-rpn.toml",
    log=LOG,
    check=check,
    plans=plans,
)
