"""Stage `train-bbox`: class-specific bounding-box regression by ridge regression on features (R-CNN Appendix C)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import check_layer, check_objects
from stages.networks import PlannedNetwork


@dataclass(frozen=True)
class Settings:
    """How the regressors are trained; the defaults are those of the authors' release (bbox_regression/)."""

    layer: str = setting(
        "pool5",
        "The layer whose features the regressors are trained on.",
        source="R-CNN Appendix C",
        of_network=lambda card: card.box_layer,
    )
    min_overlap: float = setting(
        0.6,
        "Train on proposals whose IoU with the nearest object is above this.",
        at_least=0,
        at_most=1,
        source="R-CNN Appendix C",
    )
    difficult: str = setting(
        "train",
        "Whether difficult objects are examples like any other, or neither positives nor negatives; crowds never are.",
        choices=("train", "ignore"),
        later=True,
        source="rcnn_train_bbox_regressor.m: examples like all others",
    )
    only_exhaustive: bool = setting(
        False,
        "Whether only images that are annotated exhaustively are trained on.",
        later=True,
        source="R-CNN section 4.3: ILSVRC's val1, without train",
    )
    regularisation: float = setting(
        1000.0, "Lambda, the regularisation strength of the ridge regression.", above=0, source="R-CNN Appendix C"
    )
    target_norm: float = setting(
        20.0, "Features are scaled to this mean L2 norm.", above=0, source="rcnn_scale_features.m"
    )
    norm_seed: int = setting(
        3, "Seed for the random sample on which the mean norm is measured.", at_least=0, source="rcnn_feature_stats.m"
    )

    def __post_init__(self) -> None:
        if self.min_overlap == 1:
            raise BadSetting("min_overlap = 1.0 leaves no examples, since no IoU exceeds 1; lower it")


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting if the features will not have the layer, or no objects."""
    check_objects(sources["features"])
    check_layer("layer =", settings.layer, network, sources["features"])


STAGE = Stage(
    name="train-bbox",
    summary="Train one bounding-box regressor per class.",
    schema_version=1,
    settings=Settings,
    makes="regressor",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("features", kinds=("features",), default=("extract",)),
    ),
    split="train",
    module="stages.train_bbox.stage",
    part_size=1,
    check=check,
)
