"""Stage `train-rpn`: training a region proposal network on whole images (Faster R-CNN sections 3.1 and 3.2).

The trunk is trained with it, or stays as it is (`frozen = ["trunk"]`, the third of the four steps). Other heads of the
network are carried along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks import PlannedNetwork
from stages.networks.heads import RATIOS, SCALES, Heads, ProposalHead
from stages.training.anchor_settings import AnchorTraining
from stages.training.settings import WholeImageTraining


@dataclass(frozen=True)
class Settings(AnchorTraining, WholeImageTraining):
    """How the network is trained."""

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
    hidden: int = setting(
        512,
        "Channels of the 3 x 3 convolution.",
        at_least=1,
        source="Faster R-CNN section 3.1: 256 for ZF, 512 for VGG-16",
    )
    new_layer_std: float = setting(
        0.01,
        "Standard deviation of the initial weights of the region proposal network.",
        above=0,
        source="Faster R-CNN section 3.1.3",
    )

    cells_scale: float = setting(
        1.0,
        "The map's cells are multiplied by this; choose it so that the class loss starts near log(2).",
        above=0,
        later=True,
        source="ours; 1/30 for SqueezeNet's large activations",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or not self.ratios:
            raise BadSetting("scales and ratios must each name one or more numbers; there would be no anchors")

    @property
    def head(self) -> ProposalHead:
        """The head that is trained."""
        return ProposalHead(self.scales, self.ratios, self.hidden, self.cells_scale)

    def heads(self, carried: Heads) -> Heads:
        """The heads of the trained network, given those that the network already has."""
        return Heads(self.head, carried.regions)


def plans(settings: Settings, network: PlannedNetwork) -> PlannedNetwork:
    """The network with a region proposal network."""
    return PlannedNetwork(network.card.with_heads(settings.heads(network.card.heads)), network.trained)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for layers to be frozen that the network does not have, and for maps that do not fit."""
    from stages.training.frozen import check_frozen  # imported here: only PyTorch knows the layers' names

    check_frozen(settings, network.card)
    if "maps" in sources:
        from stages.training.whole_images import check_maps_settings

        check_maps_settings(settings, sources["maps"])


LOG = LogColumns(
    "iteration",
    losses=("loss", "class_loss", "box_loss"),
    accuracies=("positive_accuracy", "negative_accuracy"),
)

STAGE = Stage(
    name="train-rpn",
    summary="Train a region proposal network on whole images.",
    schema_version=1,
    settings=Settings,
    makes="network",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("network", kinds=("network",), default=("pretrain", "network")),
        Input("maps", kinds=("maps",), optional=True, of_trunk=True),
    ),
    module="stages.train_rpn.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-rpn.toml",
    log=LOG,
    check=check,
    plans=plans,
)
