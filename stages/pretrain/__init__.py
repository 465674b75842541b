"""Stage `pretrain`: supervised training of a small network on whole images of single objects.

R-CNN section 2.3 ("Supervised pre-training"): the network learns to classify images of other classes than those to be
detected, and its features are used for regions. Regions are cut out less well than whole images, so the views that it
is trained on vary as proposals do, and one more class stands for views that miss the object.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    The learning rate is multiplied by 0.1 after each fraction of `steps` of all epochs. A view covers a window of its
    image; below `background_iou` with the whole image it shows background, from `object_iou` on the object, in between
    it is not used. `background` is the share of views drawn to miss. `threads` are those of the CPU: their number
    changes the last bits of sums, so it is part of the result (and two of them crawl where another process has a core).
    """

    network: str = setting(
        "shapenet",
        "The network that is trained, small enough for two cores.",
        choices=("shapenet",),
        source="ours",
    )
    epochs: int = setting(7, "Passes through the training images.", at_least=1, source="ours: about a minute")
    batch_size: int = setting(128, "Views in a mini-batch.", at_least=2, source="R-CNN section 2.3")
    learning_rate: float = setting(0.02, "SGD's learning rate at the beginning.", above=0, source="ours")
    steps: tuple[float, ...] = setting(
        (0.7, 0.9),
        "After each of these fractions of all epochs the learning rate is divided by 10.",
        above=0,
        at_most=1,
        source="ours",
    )
    momentum: float = setting(0.9, "The momentum of SGD.", at_least=0, source="Krizhevsky et al. 2012, section 5")
    weight_decay: float = setting(
        5e-4, "The weight decay of SGD.", at_least=0, source="Krizhevsky et al. 2012, section 5"
    )
    object_iou: float = setting(
        0.5,
        "A view whose IoU with the whole image is at least this shows the object.",
        above=0,
        at_most=1,
        source="R-CNN section 2.3: positives of fine-tuning",
    )
    background_iou: float = setting(
        0.3,
        "A view whose IoU with the whole image is below this shows background; between the two it is not used.",
        at_least=0,
        at_most=1,
        source="R-CNN section 2.3: negatives of the SVMs",
    )
    background: float = setting(
        0.2, "The share of views that are drawn so as to miss the object.", at_least=0, at_most=1, source="ours"
    )
    colour_jitter: float = setting(
        0.25, "How far the views' colours are varied at random; 0: not at all.", at_least=0, at_most=1, source="ours"
    )
    occlusion: float = setting(0.3, "The share of views with a part covered up.", at_least=0, at_most=1, source="ours")
    held_out: int = setting(
        10, "Every N-th image of a class is held out, to measure accuracy.", at_least=2, source="ours"
    )
    seed: int = setting(0, "Seed of the initial weights, the views and their order.", at_least=0, source="ours")
    threads: int = setting(
        1, "Threads of the CPU; their number changes the last bits of the result.", at_least=1, source="ours"
    )

    def __post_init__(self) -> None:
        if self.background_iou > self.object_iou:
            raise BadSetting(
                f"background_iou = {self.background_iou} is more than object_iou = {self.object_iou}; "
                "a view cannot be both"
            )


LOG = LogColumns("epoch", losses=("loss",), accuracies=("accuracy", "held_out"))

STAGE = Stage(
    name="pretrain",
    summary="Train a small network on images of single objects.",
    schema_version=2,
    settings=Settings,
    makes="network",
    inputs=(Input("images", kinds=("classification",)),),
    module="stages.pretrain.stage",
    split="pretraining",
    part_size=1,
    called={"accuracy": "accuracy on the images held out"},
    log=LOG,
)
