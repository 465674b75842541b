"""Stage `pretrain`: supervised training of a network on images of single objects.

R-CNN section 2.3 ("Supervised pre-training"): the network learns to classify images of classes other than those to be
detected, and its features are then used for regions. Proposals frame objects less accurately than whole images do, so
training views vary as proposals do, and an additional class covers views that miss the object. Or views are random
crops of the image, without that class, as in OverFeat section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.contract.card import Input, LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import check_unchanged, setting
from stages.networks import NETWORKS, PlannedNetwork
from stages.training.settings import (
    SGD,
    STEPS,
    check_descent,
    image_memory_setting,
    optimiser_setting,
    schedule_setting,
    threads_setting,
    warm_up_setting,
)

WINDOWS, CROPS = "windows", "crops"
OF_WINDOWS, OF_CROPS = ("views", WINDOWS), ("views", CROPS)


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    The learning rate is multiplied by `step_factor` after each fraction in `steps` of the epochs, or after each of
    `step_epochs`. With `views` = "windows", a view is a window of an image that was squeezed to the network's input: if
    its IoU with the whole image is below `background_iou` it is background, from `object_iou` on it shows the object,
    and in between it is not used; `background` is the share of views drawn to miss the object. With "crops" it is a
    crop of the input's size from the image scaled to a shorter side of `side`; every image gives one per epoch. The
    number of CPU `threads` changes the last bits of sums, so it is part of the key (and two threads crawl when another
    process occupies a core).
    """

    network: str = setting(
        "shapenet",
        "The network to train; shapenet is small enough for two CPU cores.",
        choices=tuple(NETWORKS),
        source="ours",
    )
    epochs: int = setting(7, "Passes over the training images.", at_least=1, source="ours: about a minute")
    batch_size: int = setting(128, "Views per mini-batch.", at_least=2, source="R-CNN section 2.3")
    optimiser: str = optimiser_setting("R-CNN section 2.3", later=True)
    learning_rate: float = setting(
        0.02, "The initial learning rate; the highest with schedule = 'one-cycle'.", above=0, source="ours"
    )
    schedule: str = schedule_setting("as `steps` or `step_epochs` say", "ours", later=True)
    warm_up: int = warm_up_setting("Epochs", later=True)
    steps: tuple[float, ...] = setting(
        (0.7, 0.9),
        "The learning rate is divided by 10 after each of these fractions of the epochs.",
        above=0,
        at_most=1,
        source="ours",
    )
    step_epochs: tuple[int, ...] = setting(
        (),
        "The epochs after which the learning rate falls, in place of the fractions `steps`.",
        at_least=1,
        distinct=True,
        later=True,
        source="OverFeat section 3.1: 30, 50, 60, 70, 80",
    )
    step_factor: float = setting(
        0.1,
        "What the learning rate is multiplied by at each step.",
        above=0,
        at_most=1,
        later=True,
        source="Krizhevsky et al. 2012, section 5; OverFeat section 3.1: 0.5",
    )
    initial_std: float | None = setting(
        None,
        "The standard deviation of the initial weights, around 0, with biases of 0; none: PyTorch's own values.",
        above=0,
        later=True,
        source="ours; OverFeat section 3.1: 0.01",
    )
    momentum: float = setting(0.9, "The momentum of SGD.", at_least=0, source="Krizhevsky et al. 2012, section 5")
    weight_decay: float = setting(5e-4, "The weight decay.", at_least=0, source="Krizhevsky et al. 2012, section 5")
    views: str = setting(
        WINDOWS,
        "What a view is. windows: framed as loosely as proposals are, with a class for those that miss the object; "
        "crops: a random crop of the network's input size, mirrored with probability 0.5.",
        choices=(WINDOWS, CROPS),
        later=True,
        source="ours; OverFeat section 3.1: crops",
    )
    side: int = setting(
        256,
        "The shorter side of the images that crops are cut from, in pixels.",
        at_least=1,
        later=True,
        only_with=OF_CROPS,
        source="OverFeat section 3.1",
    )
    crop_area: float | None = setting(
        None,
        "For crops: the least share of the image's area in a crop, which is then of any shape from 3:4 to 4:3 and is "
        "scaled to the network's input; none: crops are cut in the input's size.",
        above=0,
        at_most=1,
        later=True,
        source="ours; GoogLeNet (arXiv 1409.4842) section 6: 0.08",
    )
    crop_colour_jitter: float = setting(
        0.0,
        "For crops: how strongly brightness, contrast, saturation and hue are jittered, each with probability 0.5; 0: "
        "not at all.",
        at_least=0,
        at_most=1,
        later=True,
        source="ours; SSD section 2.2, release: 0.5",
    )
    object_iou: float = setting(
        0.5,
        "A view with at least this IoU with the whole image is an example of the object.",
        above=0,
        at_most=1,
        only_with=OF_WINDOWS,
        source="R-CNN section 2.3: positives of fine-tuning",
    )
    background_iou: float = setting(
        0.3,
        "A view with less than this IoU with the whole image is background; views in between are not used.",
        at_least=0,
        at_most=1,
        only_with=OF_WINDOWS,
        source="R-CNN section 2.3: negatives of the SVMs",
    )
    background: float = setting(
        0.2,
        "The share of views drawn so as to miss the object.",
        at_least=0,
        at_most=1,
        only_with=OF_WINDOWS,
        source="ours",
    )
    colour_jitter: float = setting(
        0.25,
        "How strongly the colours of views are jittered; 0: not at all.",
        at_least=0,
        at_most=1,
        only_with=OF_WINDOWS,
        source="ours",
    )
    occlusion: float = setting(
        0.3,
        "The share of views that are partly covered.",
        at_least=0,
        at_most=1,
        only_with=OF_WINDOWS,
        source="ours",
    )
    held_out: int = setting(
        10, "Every N-th image of a class is held out to measure accuracy.", at_least=2, source="ours"
    )
    seed: int = setting(0, "Seed for the initial weights, the views and their order.", at_least=0, source="ours")
    threads: int = threads_setting()
    image_memory: int = image_memory_setting(only_with=OF_CROPS)

    @property
    def has_background(self) -> bool:
        """Whether the network gets a class for views that miss the object."""
        return self.views == WINDOWS

    def __post_init__(self) -> None:
        input_size = NETWORKS[self.network].input_size
        if self.views == CROPS and self.side < input_size:
            raise BadSetting(
                f"side = {self.side} is less than the {input_size} pixels of {self.network}'s input, which crops must "
                "have; raise it"
            )
        if self.background_iou > self.object_iou:
            raise BadSetting(
                f"background_iou = {self.background_iou} is greater than object_iou = {self.object_iou}; "
                "a view cannot be both background and object, lower background_iou"
            )
        check_descent(self.schedule, self.warm_up, self.epochs, "epochs")
        check_unchanged(self, ("schedule", STEPS), "steps", "step_epochs", "step_factor")
        check_unchanged(self, ("optimiser", SGD), "momentum")
        check_unchanged(self, OF_CROPS, "crop_area", "crop_colour_jitter")


def planned(settings: Settings, network: PlannedNetwork) -> PlannedNetwork:
    """The network that the training makes: one with a background among its classes where views are windows."""
    return PlannedNetwork(network.card, trained=settings.has_background)


LOG = LogColumns("epoch", losses=("loss",), accuracies=("accuracy", "held_out"))

STAGE = Stage(
    name="pretrain",
    summary="Train a network on images of single objects.",
    schema_version=2,
    settings=Settings,
    makes="network",
    inputs=(Input("images", kinds=("classification",)),),
    module="stages.pretrain.stage",
    split="pretraining",
    part_size=1,
    called={"accuracy": "accuracy on the held-out images"},
    log=LOG,
    plans=planned,
)
