"""train-svm: one linear SVM a class, with hard negative mining (R-CNN section 2.3 and Appendix B)."""

from __future__ import annotations

from dataclasses import dataclass

from stages.settings import setting
from stages.stage import Input, Stage


@dataclass(frozen=True)
class Settings:
    """The defaults are those of the authors' release (rcnn_train.m), which made the published numbers."""

    layer: str = setting("fc7", source="R-CNN section 2.2: fc7")
    C: float = setting(1e-3, above=0, source="rcnn_train.m: svm_C")
    loss: str = setting("hinge", choices=("hinge", "squared_hinge"), source="rcnn_train.m: liblinear -s 3")
    positive_weight: float = setting(2.0, above=0, source="rcnn_train.m: pos_loss_weight")
    bias_multiplier: float = setting(10.0, above=0, source="rcnn_train.m: bias_mult")
    tolerance: float = setting(1e-4, above=0, source="ours: liblinear's 0.1 leaves scores 0.03 apart between seeds")
    max_iterations: int = setting(1000, at_least=1, source="liblinear")
    positive_overlap: float = setting(
        1.0,
        above=0,
        at_most=1,
        later=True,
        source="R-CNN section 2.3: 1, the objects alone; below: what overlaps one so much, too (Appendix B)",
    )
    negative_overlap: float = setting(
        0.3, at_least=0, at_most=1, source="R-CNN section 2.3: strictly below; 0: what touches no object of the class"
    )
    hard_threshold: float = setting(-1.0001, source="rcnn_train.m: hard_thresh")
    evict_threshold: float = setting(-1.2, source="rcnn_train.m: evict_thresh")
    retrain_after: int = setting(2000, at_least=0, source="rcnn_train.m: retrain_limit, strictly more")
    max_negatives: int = setting(
        0,
        at_least=0,
        source="ours: keep so many, the highest-scored, after each training; 0 keeps all, as R-CNN",
    )
    target_norm: float = setting(20.0, above=0, source="rcnn_scale_features.m")
    norm_seed: int = setting(3, at_least=0, source="rcnn_feature_stats.m")
    seed: int = setting(0, at_least=0, source="ours: liblinear's order of examples")
    checkpoint_seconds: float = setting(60.0, at_least=0, identity=False, source="ours: how often progress is saved")
    memory: float = setting(
        1024.0,
        above=0,
        identity=False,
        source="ours: MB for the classes of a pass through the images; others wait",
    )


STAGE = Stage(
    name="train-svm",
    summary="Train one SVM a class with hard negative mining.",
    schema_version=1,
    settings=Settings,
    makes="svm",
    inputs=(
        Input("images", kind="dataset"),
        Input("features", kind="features", default=("extract",)),
    ),
    split="train",
    module="stages.train_svm.stage",
    part_size=4,
)
