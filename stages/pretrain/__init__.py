"""Stage `pretrain`: supervised training of a small network on whole images of single objects.

R-CNN section 2.3 ("Supervised pre-training"): the network learns to classify images of other classes than those to be
detected, and its features are used for regions. Regions are cut out less well than whole images, so the views that it
is trained on vary as proposals do, and one more class stands for views that miss the object.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.settings import setting
from stages.stage import Input, Stage


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    The learning rate is multiplied by 0.1 after each fraction of `steps` of all epochs. A view covers a window of its
    image; below `background_iou` with the whole image it shows background, from `object_iou` on the object, in between
    it is not used. `background` is the share of views drawn to miss. `threads` are those of the CPU: their number
    changes the last bits of sums, so it is part of the result (and two of them crawl where another process has a core).
    """

    network: str = setting("shapenet", choices=("shapenet",), source="ours: small enough for two cores")
    epochs: int = setting(7, at_least=1, source="ours: about a minute")
    batch_size: int = setting(128, at_least=2, source="R-CNN section 2.3: mini-batches of 128")
    learning_rate: float = setting(0.02, above=0, source="ours")
    steps: tuple[float, ...] = setting((0.7, 0.9), above=0, at_most=1, source="ours")
    momentum: float = setting(0.9, at_least=0, source="Krizhevsky et al. 2012, section 5")
    weight_decay: float = setting(5e-4, at_least=0, source="Krizhevsky et al. 2012, section 5")
    object_iou: float = setting(0.5, above=0, at_most=1, source="R-CNN section 2.3: positives from 0.5 on")
    background_iou: float = setting(0.3, at_least=0, at_most=1, source="R-CNN section 2.3: negatives below 0.3")
    background: float = setting(0.2, at_least=0, at_most=1, source="ours")
    colour_jitter: float = setting(0.25, at_least=0, at_most=1, source="ours")
    occlusion: float = setting(0.3, at_least=0, at_most=1, source="ours")
    held_out: int = setting(10, at_least=2, source="ours: every so many-th image measures accuracy")
    seed: int = setting(0, at_least=0, source="ours")
    threads: int = setting(1, at_least=1, source="ours: their number changes the last bits")


STAGE = Stage(
    name="pretrain",
    summary="Train a small network on images of single objects.",
    schema_version=1,
    settings=Settings,
    makes="network",
    inputs=(Input("images", kind="classification"),),
    module="stages.pretrain.stage",
    split="pretraining",
    part_size=1,
)
