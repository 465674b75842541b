"""train-svm: one linear SVM a class, with hard negative mining (R-CNN section 2.3 and Appendix B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.features.layers import check_layer
from stages.networks import PlannedNetwork


@dataclass(frozen=True)
class Settings:
    """The defaults are those of the authors' release (rcnn_train.m), which made the published numbers."""

    layer: str = setting(
        "fc7",
        "The layer of the features that the SVMs are trained on.",
        source="R-CNN section 2.2",
        of_network=lambda card: card.default_layer,
    )
    C: float = setting(
        1e-3,
        "The SVM's C, the weight of the losses against the regulariser; features are scaled first (target_norm).",
        above=0,
        source="rcnn_train.m: svm_C",
    )
    loss: str = setting(
        "hinge",
        "The loss of an example: hinge, max(0, 1 - margin), or its square.",
        choices=("hinge", "squared_hinge"),
        source="rcnn_train.m: liblinear -s 3",
    )
    positive_weight: float = setting(
        2.0, "How many times a negative's loss a positive's counts.", above=0, source="rcnn_train.m: pos_loss_weight"
    )
    bias_multiplier: float = setting(
        10.0,
        "The constant feature that stands for the bias; the larger it is, the less the bias is regularised.",
        above=0,
        source="rcnn_train.m: bias_mult",
    )
    tolerance: float = setting(
        1e-4,
        "liblinear stops when the projected gradient varies by less than this.",
        above=0,
        source="ours: liblinear's 0.1 leaves scores 0.03 apart between seeds",
    )
    max_iterations: int = setting(
        1000, "The most iterations of liblinear in one training.", at_least=1, source="liblinear"
    )
    positive_overlap: float = setting(
        1.0,
        "Proposals that overlap an object of the class by at least this IoU are positives too; 1: the objects alone.",
        above=0,
        at_most=1,
        later=True,
        source="R-CNN section 2.3; Appendix B tried less",
    )
    difficult: str = setting(
        "train",
        "Whether difficult objects are examples like all others, or neither positives nor negatives; crowds never are.",
        choices=("train", "ignore"),
        later=True,
        source="rcnn_train.m: positives like all others",
    )
    negative_overlap: float = setting(
        0.3,
        "Regions whose IoU with every object of the class is below this are negatives; 0: those that touch none.",
        at_least=0,
        at_most=1,
        source="R-CNN section 2.3",
    )
    hard_threshold: float = setting(
        -1.0001, "Negatives that score above this are hard: they are added.", source="rcnn_train.m: hard_thresh"
    )
    evict_threshold: float = setting(
        -1.2, "Negatives that score below this after a training are dropped.", source="rcnn_train.m: evict_thresh"
    )
    retrain_after: int = setting(
        2000,
        "A class is trained again when more than this many hard negatives have been added.",
        at_least=0,
        source="rcnn_train.m: retrain_limit",
    )
    max_negatives: int = setting(
        0,
        "Keep at most this many negatives after each training, the highest-scored; 0: no limit.",
        at_least=0,
        source="ours; R-CNN keeps all",
    )
    target_norm: float = setting(
        20.0, "Features are scaled so that their mean L2 norm is this.", above=0, source="rcnn_scale_features.m"
    )
    norm_seed: int = setting(
        3, "Seed of the random sample that the mean norm is measured on.", at_least=0, source="rcnn_feature_stats.m"
    )
    seed: int = setting(0, "Seed of the order in which liblinear visits the examples.", at_least=0, source="ours")
    checkpoint_seconds: float = setting(
        60.0, "Seconds between two checkpoints of the training.", at_least=0, identity=False, source="ours"
    )
    memory: float = setting(
        1024.0,
        "MB for the classes trained in one pass through the images; the others wait for the next pass.",
        above=0,
        identity=False,
        source="ours",
    )

    def __post_init__(self) -> None:
        if self.positive_overlap < self.negative_overlap:
            raise BadSetting(
                f"positive_overlap = {self.positive_overlap} is less than negative_overlap = {self.negative_overlap}; "
                "a region cannot be both"
            )
        if self.evict_threshold > self.hard_threshold:
            raise BadSetting(
                f"evict_threshold = {self.evict_threshold} is more than hard_threshold = {self.hard_threshold}; hard "
                "negatives would be dropped as soon as they are added: lower it"
            )


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a layer that the features will not have."""
    check_layer("layer =", settings.layer, network, sources["features"])


STAGE = Stage(
    name="train-svm",
    summary="Train one SVM a class with hard negative mining.",
    schema_version=1,
    settings=Settings,
    makes="svm",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("features", kinds=("features",), default=("extract",)),
    ),
    split="train",
    module="stages.train_svm.stage",
    part_size=4,
    check=check,
)
