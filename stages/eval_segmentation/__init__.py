"""Stage `eval-segmentation`: the accuracy of each class and its mean, as the PASCAL VOC devkit computes them.

R-CNN section 5 and Appendix E: correctly labelled pixels over the union of the class's pixels and those labelled so;
the background is a class, and void pixels do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, Stage
from stages.contract.settings import setting


@dataclass(frozen=True)
class Settings:
    """What is measured besides accuracy."""

    bootstrap: int = setting(
        0,
        "Bootstrap resamples of the images for confidence intervals, such as 1000; 0: no intervals.",
        at_least=0,
        source="ours",
    )
    bootstrap_seed: int = setting(0, "Seed for the resamples.", at_least=0, source="ours")


STAGE = Stage(
    name="eval-segmentation",
    summary="Accuracy of the segmentation of each class, and its mean.",
    schema_version=1,
    settings=Settings,
    makes="accuracy",
    inputs=(
        Input("masks", kinds=("dataset",), annotations=False, masks=True),
        Input("segmentation", kinds=("segmentation",), default=("segment",)),
    ),
    module="stages.eval_segmentation.stage",
    split="test",
    part_size=64,
    example="recipes/shapes-segmentation.toml",
)
