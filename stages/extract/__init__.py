"""Stage `extract`: every region warped to the network's input, and the outputs of named layers kept.

R-CNN section 2.1 ("Feature extraction") and Appendix A. Ground-truth boxes get features too and come first, as in the
authors' release (roidb_from_voc.m).
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
"""Kinds of arithmetic."""


@dataclass(frozen=True)
class Settings:
    """What decides the features.

    `padding` is in pixels of the network's input. `precision` is the arithmetic of the network: "float32",
    "bfloat16" (twice as fast on CPUs that have it), and on CUDA also "float16" and "tf32". `dtype` is the type stored.
    `cache = false`: a split that only `detect` reads gets no cache; its features are computed as they are read.
    """

    layers: tuple[str, ...] = setting(
        ("fc7", "pool5"),
        "The layers of the network whose outputs are kept.",
        source="R-CNN section 2.1: fc7; Appendix C: pool5 for boxes",
        of_network=lambda card: card.kept_layers,
    )
    mode: str = setting(
        "warp",
        "How a region is fitted to the network's square input. warp: stretched, whatever its shape; square: the "
        "tightest square around it; square-masked: that square, with the mean colour outside the region.",
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
        "The network's arithmetic. bfloat16 is about twice as fast on CPUs that have it; float16 and tf32 need CUDA.",
        choices=("float32", "bfloat16", "float16", "tf32"),
        on_cuda=ONLY_ON_CUDA,
        source="ours; Caffe computed in float32",
    )
    dtype: str = setting(
        "float16",
        "The number format of stored features; float16 takes half the disk, and overflow is an error.",
        choices=("float16", "float32"),
        source="ours",
    )
    cache: bool = setting(
        True,
        "Whether features are kept; false computes those that only detect reads as it reads them.",
        identity=False,
        source="ours",
    )


def check_layers(settings: Settings, card: NetworkCard) -> None:
    """Raises BadSetting for no layer, a repeated one or one that the network does not have, and for a padding that
    leaves nothing of a region."""
    if not settings.layers or len(set(settings.layers)) < len(settings.layers):
        raise BadSetting(
            f"layers = {list(settings.layers)} must name one or more different layers of {card.name} "
            f"({', '.join(card.layers)})"
        )
    card.check_layers(settings.layers)
    card.check_padding(settings.padding)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for settings that do not fit the network."""
    check_layers(settings, network.card)


STAGE = Stage(
    name="extract",
    summary="Warp every region, run the network, keep its layers.",
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
