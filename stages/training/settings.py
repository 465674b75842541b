"""Settings that all stages share which train a detector on whole images (Faster R-CNN section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input
from stages.contract.errors import BadSetting
from stages.contract.settings import Condition, setting
from stages.image_sides import check_sides
from stages.networks import NetworkCard
from stages.training.validation_settings import (
    VALIDATION_SET,
    check_stopping,
    patience_setting,
    stop_on_setting,
    validate_every_setting,
)

TRUNK, NOTHING = "trunk", "none"
"""Words for the setting `frozen`: all convolutions that heads share, and no layer at all."""
SGD, ADAMW = "sgd", "adamw"
STEPS, ONE_CYCLE = "steps", "one-cycle"
LEAST_VISIBLE = 0.25
JITTERS = ("scale_jitter", "crop_jitter", "colour_jitter")
"""The settings that change an image's pixels at random."""


def training_precision_setting() -> Any:
    """The setting `precision` of a stage that trains a network."""
    return setting(
        "float32",
        "Precision of the forward and backward passes; bfloat16 keeps the weights in float32, tf32 needs CUDA.",
        choices=("float32", "tf32", "bfloat16"),
        on_cuda=("tf32",),
        source="ours; Caffe computed in float32",
    )


def threads_setting() -> Any:
    """The setting `threads` of a stage that trains a network."""
    return setting(1, "CPU threads; their number changes the last bits of the result.", at_least=1, source="ours")


def checkpoint_setting() -> Any:
    """The setting `checkpoint_seconds` of a stage that trains a network on images."""
    return setting(300.0, "Seconds between checkpoints.", at_least=0, identity=False, source="ours")


def image_memory_setting(only_with: Condition | None = None) -> Any:
    """The setting `image_memory` of a stage that trains a network on images."""
    what = "MB of decoded images to keep in memory."
    return setting(2000, what, at_least=0, identity=False, only_with=only_with, source="ours")


def optimiser_setting(source: str, later: bool = False) -> Any:
    """The setting `optimiser` of a stage that trains a network."""
    return setting(
        SGD,
        "How weights are updated. sgd: stochastic gradient descent with momentum; adamw: Adam with decoupled weight "
        "decay, for small data sets.",
        choices=(SGD, ADAMW),
        later=later,
        source=source,
    )


def schedule_setting(steps: str, source: str, later: bool = False) -> Any:
    """The setting `schedule` of a stage that trains a network; `steps` says how the rate falls with STEPS."""
    return setting(
        STEPS,
        f"How the learning rate changes. steps: {steps}; one-cycle: up to the rate during the warm-up, then down to 0 "
        "along half a cosine.",
        choices=(STEPS, ONE_CYCLE),
        later=later,
        source=source,
    )


def warm_up_setting(unit: str = "Iterations", later: bool = False) -> Any:
    """The setting `warm_up` of a stage that trains a network in steps of a `unit`."""
    return setting(
        0,
        f"{unit} in which the learning rate rises from 0 to its value.",
        at_least=0,
        later=later,
        source="ours; the paper has none",
    )


def check_descent(schedule: str, warm_up: int, steps: int, name: str = "iterations") -> None:
    """Raises BadSetting if a warm-up leaves none of the `steps`, whose setting is called `name`, for the descent."""
    if schedule == ONE_CYCLE and warm_up >= steps:
        raise BadSetting(f"warm_up = {warm_up} leaves nothing of {name} = {steps} for the descent; lower it")


ON_WHOLE_IMAGES = (
    Input("images", kinds=("dataset",), crowds=True),
    Input("network", kinds=("network",), default=("pretrain", "network")),
    Input("maps", kinds=("maps",), optional=True, of_trunk=True),
    VALIDATION_SET,
)
"""The inputs of a stage that trains a detector on whole images alone."""


@dataclass(frozen=True)
class WholeImageTraining:
    """How images enter the network, and how its weights are updated.

    The learning rates of biases and new layers are multiples of `learning_rate`. The number of CPU `threads` changes
    the last bits of sums, so it is part of the key.
    """

    iterations: int = setting(
        80_000,
        "Iterations, each one update of the weights.",
        at_least=1,
        source="Faster R-CNN, alternating training: 80,000 + 40,000",
    )
    images_per_batch: int = setting(
        1, "Images per iteration.", at_least=1, source="Faster R-CNN section 3.1.3: 1; Fast R-CNN section 2.3: 2"
    )
    optimiser: str = optimiser_setting("Faster R-CNN section 3.1.3")
    learning_rate: float = setting(0.001, "The learning rate.", above=0, source="Faster R-CNN section 3.1.3")
    schedule: str = schedule_setting("a tenth after every `step` iterations", "Faster R-CNN section 3.1.3")
    step: int = setting(
        60_000,
        "Iterations after which the learning rate is divided by 10, repeatedly.",
        at_least=1,
        only_with=("schedule", STEPS),
        source="Faster R-CNN section 3.1.3",
    )
    warm_up: int = warm_up_setting()
    momentum: float = setting(
        0.9, "The momentum of SGD.", at_least=0, only_with=("optimiser", SGD), source="Faster R-CNN section 3.1.3"
    )
    weight_decay: float = setting(
        5e-4, "The weight decay; biases are not decayed.", at_least=0, source="Faster R-CNN section 3.1.3"
    )
    bias_rate: float = setting(
        2.0,
        "The learning rate of biases, as a multiple of that of the weights.",
        at_least=0,
        source="Faster R-CNN's release, train.prototxt: lr_mult 1 and 2",
    )
    new_layer_rate: float = setting(
        1.0,
        "The learning rate of new layers, as a multiple of that of the others.",
        above=0,
        source="Faster R-CNN's release, train.prototxt: lr_mult 1 and 2 of all layers",
    )
    most_gradient: float = setting(
        0.0,
        "The largest norm of the gradient of all weights; longer ones are scaled down to it, 0 leaves them.",
        at_least=0,
        source="ours; the release has none",
    )
    frozen: tuple[str, ...] = setting(
        (),
        "Layers whose weights stay fixed, named as in the cache's columns weights/; trunk: all convolutions that the "
        "heads share; none: no layer.",
        distinct=True,
        of_network=lambda card: card.first_layers or (NOTHING,),
        source="Faster R-CNN section 3.1.3: all layers of ZF are tuned, of VGG-16 those from conv3_1 on",
    )
    sides: tuple[int, ...] = setting(
        (600,),
        "The shorter side of the image in pixels; of several, one is drawn for each image.",
        at_least=1,
        distinct=True,
        source="Faster R-CNN section 3.3; Fast R-CNN section 5.2: 480, 576, 688, 864, 1200",
    )
    longest: int = setting(
        1000,
        "The longer side at most, in pixels; longer images are scaled down further.",
        at_least=1,
        at_most=10_000,
        source="py-faster-rcnn, lib/fast_rcnn/config.py",
    )
    mirror: bool = setting(
        True, "Whether images are mirrored at random, with probability 0.5.", source="py-faster-rcnn: USE_FLIPPED"
    )
    scale_jitter: float = setting(
        0.0,
        "Images are scaled by another factor, drawn between 1 minus this and 1 plus this; 0: by none.",
        at_least=0,
        at_most=0.9,
        later=True,
        source="ours; ultralytics: 0.5",
    )
    crop_jitter: float = setting(
        0.0,
        "Images are cropped at random, so that an object stays in sight: each side of the crop is drawn between 1 "
        "minus this and 1 times the image's; 0: no crops.",
        at_least=0,
        at_most=0.9,
        later=True,
        source="ours; detectron2, RandomCrop with relative_range",
    )
    least_visible: float = setting(
        LEAST_VISIBLE,
        "For crops: an object of which less than this share is left is neither positive nor negative.",
        at_least=0,
        at_most=1,
        later=True,
        source="ours; SSD section 2.2 keeps objects whose centre is in the crop, be it in its corner",
    )
    colour_jitter: float = setting(
        0.0,
        "How strongly brightness, contrast, saturation and hue are jittered, each with probability 0.5; 0: not at all.",
        at_least=0,
        at_most=1,
        later=True,
        source="ours; SSD section 2.2, release: 0.5",
    )
    difficult: str = setting(
        "ignore",
        "Whether difficult objects are examples like any other, or neither positives nor negatives; crowds never are.",
        choices=("train", "ignore"),
        source="py-faster-rcnn, lib/datasets/pascal_voc.py, which leaves them out; Fast R-CNN trains on them",
    )
    validate_every: int = validate_every_setting()
    patience: int = patience_setting()
    stop_on: str = stop_on_setting()
    precision: str = training_precision_setting()
    seed: int = setting(
        0, "Seed for new layers, the order of images and the examples drawn.", at_least=0, source="ours"
    )
    threads: int = threads_setting()
    checkpoint_seconds: float = checkpoint_setting()
    image_memory: int = image_memory_setting()

    def __post_init__(self) -> None:
        check_sides(self.sides, self.longest)
        check_descent(self.schedule, self.warm_up, self.iterations)
        check_stopping(self)
        if NOTHING in self.frozen and len(self.frozen) > 1:
            raise BadSetting(f"frozen = {list(self.frozen)} names layers beside 'none'; leave one or the other out")
        if not self.crop_jitter and self.least_visible != LEAST_VISIBLE:
            raise BadSetting(
                f"least_visible = {self.least_visible} is for images that are cropped; set crop_jitter, or leave it out"
            )

    @property
    def jitters(self) -> tuple[str, ...]:
        """The names of the settings that change an image's pixels at random here."""
        return tuple(name for name in JITTERS if getattr(self, name))

    @property
    def trunk_is_frozen(self) -> bool:
        """Whether all of the trunk stays as it is."""
        return TRUNK in self.frozen

    @property
    def reads_lower_scale(self) -> bool:
        """Whether each image is read at the next lower of `sides`, too."""
        return False

    @property
    def map_border(self) -> int:
        """Pixels of the mean colour around the scaled image, besides the trunk's margin."""
        return 0

    def frozen_parts(self, card: NetworkCard) -> tuple[str, ...]:
        """The submodules whose weights stay fixed."""
        return tuple(
            part for name in self.frozen if name != NOTHING for part in (card.trunk.parts if name == TRUNK else (name,))
        )

    def check_ranks(self, stage: str, ranks: int) -> None:
        """Raises BadSetting unless the images of a batch can be shared evenly among `ranks` processes."""
        if self.images_per_batch % ranks:
            raise BadSetting(
                f"{stage}.images_per_batch = {self.images_per_batch} cannot be shared evenly among {ranks} processes; "
                "make it a multiple, or start fewer with torchrun"
            )
