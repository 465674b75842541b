"""Stage `extract`: every region warped to the network's input, and the outputs of named layers kept.

R-CNN section 2.1 ("Feature extraction") and Appendix A. Ground-truth boxes get features too and come first, as in the
authors' release (roidb_from_voc.m).
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import setting


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


STAGE = Stage(
    name="extract",
    summary="Warp every region, run the network, keep its layers.",
    schema_version=1,
    settings=Settings,
    makes="features",
    inputs=(
        Input("images", kinds=("dataset",)),
        Input("proposals", kinds=("proposals",), default=("propose",)),
        Input("network", kinds=("network",), default=("finetune", "pretrain", "network")),
    ),
    module="stages.extract.stage",
    follows_split=True,
    part_size=4,
    on_demand=True,
    by_item=True,
)
