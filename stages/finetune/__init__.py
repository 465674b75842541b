"""Stage `finetune`: training a pre-trained network further for detection, on warped windows of the dataset's images.

R-CNN section 2.3 ("Domain-specific fine-tuning") and Appendix B. The defaults are those of the authors' release
(finetuning/voc_2007_prototxt/, rcnn_make_window_file.m and Caffe's window data layer): ground-truth boxes, difficult
ones included, and proposals form one set of windows, from which every batch is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import check_unchanged, setting
from stages.networks import PlannedNetwork
from stages.training.settings import (
    SGD,
    STEPS,
    check_descent,
    checkpoint_setting,
    image_memory_setting,
    optimiser_setting,
    schedule_setting,
    threads_setting,
    training_precision_setting,
    warm_up_setting,
)
from stages.training.validation_settings import (
    ITS_PROPOSALS,
    VALIDATION_SET,
    check_stopping,
    check_validated,
    patience_setting,
    stop_on_setting,
    validate_every_setting,
)


@dataclass(frozen=True)
class Settings:
    """How the network is fine-tuned.

    A window is a positive of the class it overlaps most from IoU `positive_overlap` on, and background below
    `background_overlap`; in between it is not used. For a network as large as O-Net (VGG-16), `batch_size = 24` gives
    6 positive and 18 background windows, as the authors trained it. `precision` is that of the forward and backward
    passes (bfloat16 is mixed: weights stay float32); `dropout` is the rate of every dropout layer. The learning rates
    of biases and of the new layer are multiples of `learning_rate`, which is multiplied by 0.1 every `step` iterations.
    The new layer starts with weights drawn from N(0, `new_layer_std`) and all biases at `new_layer_bias`: a value well
    above 0 keeps SqueezeNet's final ReLU open and, being the same for all classes, does not affect their probabilities.
    The number of CPU `threads` changes the last bits of sums, so it is part of the key.
    """

    iterations: int = setting(
        70_000,
        "SGD iterations, each on one batch of windows.",
        at_least=1,
        source="the released networks; their solver ends at 100,000",
    )
    batch_size: int = setting(
        128, "Windows per batch; use 24 for O-Net.", at_least=2, source="R-CNN section 2.3: 32 + 96; O-Net 6 + 18"
    )
    positive_fraction: float = setting(
        0.25, "The share of positive windows in a batch.", above=0, at_most=1, source="R-CNN section 2.3: 32 of 128"
    )
    positive_overlap: float = setting(
        0.5,
        "A window whose highest IoU with any object is at least this is a positive of that object's class.",
        above=0,
        at_most=1,
        source="R-CNN section 2.3 and Appendix B",
    )
    background_overlap: float = setting(
        0.5,
        "A window whose highest IoU with any object is below this is background; windows in between are not used.",
        above=0,
        at_most=1,
        source="R-CNN section 2.3",
    )
    difficult: str = setting(
        "train",
        "Whether difficult objects are examples like any other, or neither positives nor negatives; crowds never are.",
        choices=("train", "ignore"),
        later=True,
        source="rcnn_make_window_file.m: windows like all others",
    )
    optimiser: str = optimiser_setting("R-CNN section 2.3", later=True)
    learning_rate: float = setting(
        0.001,
        "The initial learning rate; the highest with schedule = 'one-cycle'.",
        above=0,
        source="R-CNN section 2.3: a tenth of the pre-training's",
    )
    schedule: str = schedule_setting("a tenth after every `step` iterations", "release, solver.prototxt", later=True)
    warm_up: int = warm_up_setting(later=True)
    step: int = setting(
        20_000,
        "Number of iterations after which the learning rate is divided by 10, repeatedly.",
        at_least=1,
        source="release, solver.prototxt: stepsize",
    )
    momentum: float = setting(0.9, "The momentum of SGD.", at_least=0, source="release, solver.prototxt")
    weight_decay: float = setting(
        5e-4, "The weight decay; biases are not decayed.", at_least=0, source="release, solver.prototxt"
    )
    bias_rate: float = setting(
        2.0,
        "The learning rate of biases, as a multiple of that of the weights.",
        at_least=0,
        source="release, train.prototxt: blobs_lr 1 and 2",
    )
    new_layer_rate: float = setting(
        10.0,
        "The learning rate of the new classification layer, as a multiple of that of the other layers.",
        above=0,
        source="release, train.prototxt: blobs_lr 10 and 20 of fc8",
    )
    new_layer_std: float = setting(
        0.01,
        "Standard deviation of the initial weights of the new layer.",
        above=0,
        source="release, train.prototxt: gaussian",
    )
    new_layer_bias: float = setting(
        0.0,
        "Initial biases of the new layer; well above 0 for SqueezeNet, which applies a ReLU to its class scores.",
        source="release, train.prototxt: constant 0",
    )
    dropout: float = setting(
        0.5,
        "The dropout rate of the network's dropout layers.",
        at_least=0,
        at_most=0.99,
        source="release, train.prototxt: on fc6 and fc7",
    )
    frozen: tuple[str, ...] = setting(
        (),
        "Layers whose weights stay fixed, named as in the cache's columns weights/.",
        distinct=True,
        later=True,
        source="R-CNN tunes all layers; Fast R-CNN section 4.5 fixes the first convolutions",
    )
    mirror: bool = setting(
        True, "Whether windows are mirrored at random, with probability 0.5.", source="release, train.prototxt"
    )
    window_jitter: float = setting(
        0.0,
        "Windows are moved at random, by up to this share of their sides, and made larger or smaller by up to this "
        "share, unless that would change their label; 0: not at all.",
        at_least=0,
        at_most=0.9,
        later=True,
        source="ours",
    )
    colour_jitter: float = setting(
        0.0,
        "How strongly brightness, contrast, saturation and hue of windows are jittered, each with probability 0.5; 0: "
        "not at all.",
        at_least=0,
        at_most=1,
        later=True,
        source="ours; SSD section 2.2, release: 0.5",
    )
    mode: str = setting(
        "warp",
        "How a window is fitted into the network's square input (see extract.mode).",
        choices=("warp", "square", "square-masked"),
        source="R-CNN Appendix A",
    )
    padding: int = setting(
        16,
        "Context around a window, in pixels of the network's input (see extract.padding).",
        at_least=0,
        source="release, train.prototxt: context_pad",
    )
    validate_every: int = validate_every_setting()
    patience: int = patience_setting()
    stop_on: str = stop_on_setting()
    precision: str = training_precision_setting()
    seed: int = setting(0, "Seed for the new layer, the batches and dropout.", at_least=0, source="ours")
    threads: int = threads_setting()
    checkpoint_seconds: float = checkpoint_setting()
    image_memory: int = image_memory_setting()

    def __post_init__(self) -> None:
        if self.background_overlap > self.positive_overlap:
            raise BadSetting(
                f"background_overlap = {self.background_overlap} is greater than positive_overlap = "
                f"{self.positive_overlap}; a window cannot be both background and positive, lower background_overlap"
            )
        if self.positives_of_batch < 1:
            raise BadSetting(
                f"positive_fraction = {self.positive_fraction} of batch_size = {self.batch_size} leaves no positive "
                "window; raise one of them"
            )
        check_descent(self.schedule, self.warm_up, self.iterations)
        check_unchanged(self, ("schedule", STEPS), "step")
        check_unchanged(self, ("optimiser", SGD), "momentum")
        check_stopping(self)

    @property
    def positives_of_batch(self) -> int:
        """Positive windows per batch: 32 of 128, 6 of 24."""
        return round(self.batch_size * self.positive_fraction)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a network without class scores or without the layers to be frozen, for a padding that
    leaves no room for the window, and for settings of a validation without a validation set."""
    check_validated(settings, sources)
    network.card.check_classifier()
    network.card.check_padding(settings.padding)
    if settings.frozen:
        from stages.finetune.network import check_frozen  # imported here: only PyTorch knows the layer names

        check_frozen(network.card, settings.frozen)


LOG = LogColumns("iteration", losses=("loss",), accuracies=("positive_accuracy", "background_accuracy"))

STAGE = Stage(
    name="finetune",
    summary="Fine-tune the network for detection, on warped windows.",
    schema_version=2,
    settings=Settings,
    makes="network",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("proposals", kinds=("proposals",), default=("propose",)),
        Input("network", kinds=("network",), default=("pretrain", "network")),
        VALIDATION_SET,
        ITS_PROPOSALS,
    ),
    module="stages.finetune.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-finetuned.toml",
    log=LOG,
    check=check,
)
