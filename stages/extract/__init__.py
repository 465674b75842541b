"""Stage `extract`: warping every region to the network's input and keeping the outputs of chosen layers.

R-CNN section 2.1 ("Feature extraction") and Appendix A. Features are extracted for the ground-truth boxes as well,
which come first, as in the authors' release (roidb_from_voc.m).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks import NetworkCard, PlannedNetwork

ONLY_ON_CUDA = ("float16", "tf32")
"""Values of `precision` that need CUDA."""


@dataclass(frozen=True)
class Settings:
    """How features are extracted.

    `padding` is in pixels of the network's input. `precision` is that of the network's forward pass: "float32",
    "bfloat16" (faster or slower, depending on the CPU: `rcnn plan` measures it), and on CUDA also "float16" and "tf32".
    `dtype` is the type in which features are stored. With `cache = false`, the features of a split that only `detect`
    reads are not cached but computed as they are read.
    """

    layers: tuple[str, ...] = setting(
        ("fc7", "pool5"),
        "The layers whose outputs are kept as features.",
        source="R-CNN section 2.1: fc7; Appendix C: pool5 for boxes",
        of_network=lambda card: card.kept_layers,
    )
    mode: str = setting(
        "warp",
        "How a region is fitted into the network's square input. warp: stretched, ignoring its aspect ratio; square: "
        "cropped as its tightest enclosing square; square-masked: the same, with the mean colour outside the region.",
        choices=("warp", "square", "square-masked"),
        source="R-CNN Appendix A",
    )
    padding: int = setting(
        16,
        "Context around a region, in pixels of the network's input.",
        at_least=0,
        source="R-CNN Appendix A",
    )
    precision: str = setting(
        "float32",
        "Precision of the forward pass; bfloat16 is faster on some CPUs and slower on others (`rcnn plan` measures "
        "it), float16 and tf32 need CUDA.",
        choices=("float32", "bfloat16", "float16", "tf32"),
        on_cuda=ONLY_ON_CUDA,
        source="ours; Caffe computed in float32",
    )
    dtype: str = setting(
        "float16",
        "Data type of the stored features; float16 takes half the disk space, and overflow is an error.",
        choices=("float16", "float32"),
        source="ours",
    )
    cache: bool = setting(
        True,
        "Whether to keep the features; if false, those that only detect reads are computed as it reads them.",
        identity=False,
        source="ours",
    )


def check_layers(settings: Settings, card: NetworkCard) -> None:
    """Raises BadSetting if `layers` is empty, repeats a layer or names one that the network does not have, and for a
    padding that leaves no room for the region."""
    if not settings.layers or len(set(settings.layers)) < len(settings.layers):
        raise BadSetting(
            f"layers = {list(settings.layers)} must name one or more layers of {card.name}, each once "
            f"({', '.join(card.layers)})"
        )
    card.check_layers(settings.layers)
    card.check_padding(settings.padding)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for settings that do not fit the network."""
    check_layers(settings, network.card)


STAGE = Stage(
    name="extract",
    summary="Warp every region, run the network and keep the outputs of its layers.",
    schema_version=1,
    settings=Settings,
    makes="features",
    inputs=(
        Input("images", kinds=("dataset",)),
        Input("proposals", kinds=("proposals",), default=("propose",), once=True),
        Input("network", kinds=("network",), default=("finetune", "pretrain", "network")),
    ),
    module="stages.extract.stage",
    follows_split=True,
    part_size=4,
    by_item=True,
    check=check,
)
