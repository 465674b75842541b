"""Stage `finetune`: the pre-trained network trained on for detection, on warped windows of the images themselves.

R-CNN section 2.3 ("Domain-specific fine-tuning") and Appendix B; the numbers are those of the authors' release
(finetuning/voc_2007_prototxt/, rcnn_make_window_file.m and Caffe's window data layer), read in its order: ground-truth
boxes, difficult ones too, and proposals are one set of windows; each batch is drawn anew from the whole of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contract.card import Input, LogColumns, Stage
from stages.contract.errors import BadSetting
from stages.contract.settings import setting
from stages.networks import PlannedNetwork


@dataclass(frozen=True)
class Settings:
    """How the network is trained on.

    A window is positive, of the class that it overlaps most, from IoU `positive_overlap` on, and background below
    `background_overlap`; between the two it is not used. For a network as large as O-Net (VGG-16), `batch_size = 24`
    gives 6 positive and 18 background windows, as the paper's authors trained it. `precision` is the arithmetic of the
    passes (bfloat16: mixed, weights stay float32); `dropout` the share that each of the network's dropout layers drops.
    The rates of biases and of the new layer are multiples of `learning_rate`, which is multiplied by 0.1 after each
    `step` iterations. The new layer begins with weights from N(0, `new_layer_std`) and every bias at
    `new_layer_bias`: a number far above 0 keeps open the rectifier that SqueezeNet has after its class scores, and
    being the same for all classes it leaves their probabilities as they are. `threads` are those of the CPU: their
    number changes the last bits of sums, so it is part of the result.
    """

    iterations: int = setting(
        70_000,
        "Iterations of SGD, each on one batch of windows.",
        at_least=1,
        source="the released networks; their solver ends at 100,000",
    )
    batch_size: int = setting(
        128, "Windows in a batch; for O-Net take 24.", at_least=2, source="R-CNN section 2.3: 32 + 96; O-Net 6 + 18"
    )
    positive_fraction: float = setting(
        0.25, "The share of positive windows in a batch.", above=0, at_most=1, source="R-CNN section 2.3: 32 of 128"
    )
    positive_overlap: float = setting(
        0.5,
        "A window whose largest IoU with an object is at least this is a positive of that object's class.",
        above=0,
        at_most=1,
        source="R-CNN section 2.3 and Appendix B",
    )
    background_overlap: float = setting(
        0.5,
        "A window whose largest IoU with an object is below this is background; between the two it is not used.",
        above=0,
        at_most=1,
        source="R-CNN section 2.3",
    )
    difficult: str = setting(
        "train",
        "Whether difficult objects are examples like all others, or neither positives nor negatives; crowds never are.",
        choices=("train", "ignore"),
        later=True,
        source="rcnn_make_window_file.m: windows like all others",
    )
    learning_rate: float = setting(
        0.001,
        "SGD's learning rate at the beginning.",
        above=0,
        source="R-CNN section 2.3: a tenth of the pre-training's",
    )
    step: int = setting(
        20_000,
        "After every so many iterations the learning rate is divided by 10.",
        at_least=1,
        source="release, solver.prototxt: stepsize",
    )
    momentum: float = setting(0.9, "The momentum of SGD.", at_least=0, source="release, solver.prototxt")
    weight_decay: float = setting(
        5e-4, "The weight decay of SGD; biases have none.", at_least=0, source="release, solver.prototxt"
    )
    bias_rate: float = setting(
        2.0,
        "The learning rate of biases, as a multiple of the weights'.",
        at_least=0,
        source="release, train.prototxt: blobs_lr 1 and 2",
    )
    new_layer_rate: float = setting(
        10.0,
        "The learning rate of the new layer of class scores, as a multiple of the other layers'.",
        above=0,
        source="release, train.prototxt: blobs_lr 10 and 20 of fc8",
    )
    new_layer_std: float = setting(
        0.01,
        "Standard deviation of the new layer's initial weights.",
        above=0,
        source="release, train.prototxt: gaussian",
    )
    new_layer_bias: float = setting(
        0.0,
        "The new layer's initial biases; well above 0 for SqueezeNet, which has a rectifier after its class scores.",
        source="release, train.prototxt: constant 0",
    )
    dropout: float = setting(
        0.5,
        "The share of activations that the network's dropout layers drop.",
        at_least=0,
        at_most=0.99,
        source="release, train.prototxt: on fc6 and fc7",
    )
    frozen: tuple[str, ...] = setting(
        (),
        "Parts of the network that keep their weights, named as in the cache's columns weights/.",
        later=True,
        source="R-CNN tunes all layers; Fast R-CNN section 4.5 fixes the first convolutions",
    )
    mirror: bool = setting(
        True, "Whether half of the windows, at random, are mirrored.", source="release, train.prototxt"
    )
    mode: str = setting(
        "warp",
        "How a window is fitted to the network's square input, as extract.mode.",
        choices=("warp", "square", "square-masked"),
        source="R-CNN Appendix A",
    )
    padding: int = setting(
        16,
        "Context around a window, in pixels of the network's input, as extract.padding.",
        at_least=0,
        source="release, train.prototxt: context_pad",
    )
    precision: str = setting(
        "float32",
        "The arithmetic of the passes; with bfloat16 the weights stay float32, and tf32 needs CUDA.",
        choices=("float32", "tf32", "bfloat16"),
        on_cuda=("tf32",),
        source="ours; Caffe computed in float32",
    )
    seed: int = setting(0, "Seed of the new layer, the batches and dropout.", at_least=0, source="ours")
    threads: int = setting(
        1, "Threads of the CPU; their number changes the last bits of the result.", at_least=1, source="ours"
    )
    checkpoint_seconds: float = setting(
        300.0, "Seconds between two checkpoints of the training.", at_least=0, identity=False, source="ours"
    )
    image_memory: int = setting(
        2000, "MB of decoded images to keep in memory.", at_least=0, identity=False, source="ours"
    )

    def __post_init__(self) -> None:
        if self.background_overlap > self.positive_overlap:
            raise BadSetting(
                f"background_overlap = {self.background_overlap} is more than positive_overlap = "
                f"{self.positive_overlap}; a window cannot be both"
            )
        if self.positives_of_batch < 1:
            raise BadSetting(
                f"positive_fraction = {self.positive_fraction} of batch_size = {self.batch_size} leaves no positive "
                "window; raise one of them"
            )

    @property
    def positives_of_batch(self) -> int:
        """How many windows of a batch show an object: 32 of 128, 6 of 24."""
        return round(self.batch_size * self.positive_fraction)


def check(settings: Settings, network: PlannedNetwork, sources: Mapping[str, Any]) -> None:
    """Raises BadSetting for a network without class scores or without the parts to be frozen, and for a padding that
    leaves nothing of a window."""
    network.card.check_classifier()
    network.card.check_padding(settings.padding)
    if settings.frozen:
        from stages.finetune.network import check_frozen  # only now: the names are known to PyTorch alone

        check_frozen(network.card, settings.frozen)


LOG = LogColumns("iteration", losses=("loss",), accuracies=("positive_accuracy", "background_accuracy"))

STAGE = Stage(
    name="finetune",
    summary="Train the network on for detection, on warped windows.",
    schema_version=2,
    settings=Settings,
    makes="network",
    inputs=(
        Input("images", kinds=("dataset",), crowds=True),
        Input("proposals", kinds=("proposals",), default=("propose",)),
        Input("network", kinds=("network",), default=("pretrain", "network")),
    ),
    module="stages.finetune.stage",
    split="train",
    part_size=1,
    example="recipes/shapes-finetuned.toml",
    log=LOG,
    check=check,
)
