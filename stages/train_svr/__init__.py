"""Stage `train-svr`: per class, a linear support vector regression of how well a region covers an object of it.

R-CNN section 5, in the framework of O2P (Carreira et al. 2012): the target of a region is the overlap of its mask with
the class's object that it covers best, in pixels; the objects' own masks are regions too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import ROLES, check_kept_masks, check_layer, check_object_masks
from stages.networks import PlannedNetwork

ABSOLUTE, SQUARED = "epsilon_insensitive", "squared_epsilon_insensitive"


@dataclass(frozen=True)
class Settings:
    """How the regressions are trained; neither R-CNN nor O2P gives these numbers."""

    layer: str = setting(
        "fc6",
        "The layer whose features the regressions are trained on.",
        source="R-CNN Table 5: fc6 is better than fc7",
        of_network=lambda card: card.default_layer,
    )
    C: float = setting(
        0.01,
        "The weight of the loss relative to the regulariser; features are scaled first (target_norm).",
        above=0,
        source="ours: better than 0.001 on shapes and on VOC",
    )
    epsilon: float = setting(
        0.05, "Errors up to this cost nothing.", at_least=0, at_most=1, source="ours; liblinear's default is 0.1"
    )
    loss: str = setting(
        SQUARED,
        "What an error beyond epsilon costs: its size, or its square.",
        choices=(ABSOLUTE, SQUARED),
        source="liblinear -s 11: the square",
    )
    bias_multiplier: float = setting(
        10.0,
        "The constant feature that represents the bias; the larger it is, the less the bias is regularised.",
        above=0,
        source="rcnn_train.m: bias_mult",
    )
    tolerance: float = setting(
        1e-3, "liblinear's stopping tolerance.", above=0, source="ours: the objective is within 1e-5 of its minimum"
    )
    max_iterations: int = setting(
        1000, "Maximum number of liblinear iterations per training.", at_least=1, source="liblinear"
    )
    negatives: int = setting(
        20,
        "How many of an image's regions that overlap no object of the class are examples, drawn at random; 0: all.",
        at_least=0,
        source="ours",
    )
    folds: int = setting(
        0,
        "Into how many folds the images are divided, for each of which the regressions are trained without it too: "
        "with segment.held_out these score the fold's images; 0: none.",
        at_least=0,
        at_most=100,
        source="ours",
    )
    target_norm: float = setting(
        20.0, "Features are scaled to this mean L2 norm.", above=0, source="rcnn_scale_features.m"
    )
    norm_seed: int = setting(
        3, "Seed for the random sample on which the mean norm is measured.", at_least=0, source="rcnn_feature_stats.m"
    )
    seed: int = setting(
        0,
        "Seed of the negatives, the folds and the order in which liblinear visits the examples.",
        at_least=0,
        source="ours",
    )

    def __post_init__(self) -> None:
        if self.folds == 1:
            raise BadSetting("folds = 1 leaves nothing to train on; use 2 or more, or 0 for none")


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting if the features will not have the layer, or have objects without masks, or if the
    proposals have none."""
    check_kept_masks(sources["proposals"], "the overlap of regions")
    for role in ROLES:
        if role in sources:
            check_object_masks(sources[role])
            check_layer("layer =", settings.layer, network, sources[role])


STAGE = Stage(
    name="train-svr",
    summary="Train one support vector regression of a region's overlap per class.",
    schema_version=1,
    settings=Settings,
    makes="svr",
    inputs=(
        Input("masks", kinds=("dataset",), annotations=False, masks=True),
        Input("proposals", kinds=("proposals",), default=("propose",)),
        Input("features", kinds=("features",), default=("extract",)),
        Input("more", kinds=("features",), optional=True),
    ),
    split="train",
    module="stages.train_svr.stage",
    part_size=1,
    check=check,
    example="recipes/shapes-segmentation.toml",
)
