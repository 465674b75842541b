"""Stage `train-svm`: one linear SVM per class, with hard negative mining (R-CNN section 2.3 and Appendix B)."""

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
    """How the SVMs are trained; the defaults are those of the authors' release (rcnn_train.m)."""

    layer: str = setting(
        "fc7",
        "The layer whose features the SVMs are trained on.",
        source="R-CNN section 2.2",
        of_network=lambda card: card.default_layer,
    )
    C: float = setting(
        1e-3,
        "The SVM's C, the weight of the loss relative to the regulariser; features are scaled first (target_norm).",
        above=0,
        source="rcnn_train.m: svm_C",
    )
    loss: str = setting(
        "hinge",
        "The hinge loss, max(0, 1 - margin), or its square.",
        choices=("hinge", "squared_hinge"),
        source="rcnn_train.m: liblinear -s 3",
    )
    positive_weight: float = setting(
        2.0,
        "The weight of the positives' loss relative to the negatives'.",
        above=0,
        source="rcnn_train.m: pos_loss_weight",
    )
    bias_multiplier: float = setting(
        10.0,
        "The constant feature that represents the bias; the larger it is, the less the bias is regularised.",
        above=0,
        source="rcnn_train.m: bias_mult",
    )
    tolerance: float = setting(
        1e-4,
        "liblinear's stopping tolerance, on the spread of the projected gradient.",
        above=0,
        source="ours: liblinear's 0.1 leaves scores 0.03 apart between seeds",
    )
    max_iterations: int = setting(
        1000, "Maximum number of liblinear iterations per training.", at_least=1, source="liblinear"
    )
    positive_overlap: float = setting(
        1.0,
        "Proposals with at least this IoU with an object of the class are positives too; 1: only the objects are.",
        above=0,
        at_most=1,
        later=True,
        source="R-CNN section 2.3; Appendix B tried less",
    )
    difficult: str = setting(
        "train",
        "Whether difficult objects are examples like any other, or neither positives nor negatives; crowds never are.",
        choices=("train", "ignore"),
        later=True,
        source="rcnn_train.m: positives like all others",
    )
    negative_overlap: float = setting(
        0.3,
        "Regions whose IoU with every object of the class is below this are negatives; 0: only those that touch none.",
        at_least=0,
        at_most=1,
        source="R-CNN section 2.3",
    )
    hard_threshold: float = setting(
        -1.0001,
        "Negatives that score above this are hard and are added to the training set.",
        source="rcnn_train.m: hard_thresh",
    )
    evict_threshold: float = setting(
        -1.2,
        "Negatives that score below this after a training are removed from the training set.",
        source="rcnn_train.m: evict_thresh",
    )
    retrain_after: int = setting(
        2000,
        "A class is retrained when more than this many hard negatives have been added.",
        at_least=0,
        source="rcnn_train.m: retrain_limit",
    )
    max_negatives: int = setting(
        0,
        "Keep at most this many negatives after each training, the highest-scoring ones; 0: no limit.",
        at_least=0,
        source="ours; R-CNN keeps all",
    )
    mining_images: int = setting(
        0,
        "Mine negatives in this many images, drawn at random; 0: in all. Images that are not annotated exhaustively "
        "give none in any case.",
        at_least=0,
        later=True,
        source="R-CNN section 4.3: ILSVRC's 5,000 of val1 cost half a point and take half the time; all for PASCAL",
    )
    mining_seed: int = setting(
        3,
        "Seed for the choice of mining_images.",
        at_least=0,
        later=True,
        source="rcnn_train.m of the release's branch for ILSVRC",
    )
    target_norm: float = setting(
        20.0, "Features are scaled to this mean L2 norm.", above=0, source="rcnn_scale_features.m"
    )
    norm_seed: int = setting(
        3, "Seed for the random sample on which the mean norm is measured.", at_least=0, source="rcnn_feature_stats.m"
    )
    seed: int = setting(0, "Seed for the order in which liblinear visits the examples.", at_least=0, source="ours")
    checkpoint_seconds: float = setting(60.0, "Seconds between checkpoints.", at_least=0, identity=False, source="ours")
    memory: float = setting(
        1024.0,
        "MB for the classes trained in one pass over the images; the rest wait for the next pass.",
        above=0,
        identity=False,
        source="ours",
    )

    def __post_init__(self) -> None:
        if self.mining_seed != 3 and not self.mining_images:
            raise BadSetting(
                f"mining_seed = {self.mining_seed} chooses mining_images, and negatives are mined in all; set both, or "
                "leave it out"
            )
        if self.positive_overlap < self.negative_overlap:
            raise BadSetting(
                f"positive_overlap = {self.positive_overlap} is less than negative_overlap = {self.negative_overlap}; "
                "a region cannot be both positive and negative, raise positive_overlap"
            )
        if self.evict_threshold > self.hard_threshold:
            raise BadSetting(
                f"evict_threshold = {self.evict_threshold} is greater than hard_threshold = {self.hard_threshold}; "
                "hard negatives would be evicted as soon as they were added, lower evict_threshold"
            )


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting if the features will not have the layer, or no objects."""
    check_objects(sources["features"])
    check_layer("layer =", settings.layer, network, sources["features"])


STAGE = Stage(
    name="train-svm",
    summary="Train one linear SVM per class with hard negative mining.",
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
