"""The registry's cards: what is known of each network without building it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stages.contract.errors import BadSetting
from stages.contract.settings import nearest

if TYPE_CHECKING:
    import torch

BACKGROUND = "background"
"""The class, the last of a trained network, of what shows no object."""

SOFTMAX = "softmax"
"""The layer of class probabilities: the softmax of the class scores, the last layer of every network that has any."""

TORCHVISION_URL = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Preprocessing:
    """From RGB pixels 0..255 to the network's input: (channels in `order`) x `scale` - `mean`, divided by `std`.

    `mean` and `std` are in the network's channel order and in scaled units.
    """

    name: str
    order: str
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 or float32 [..., 3, H, W], RGB, 0..255, to float32 of the same shape; the mean colour becomes 0."""
        import torch

        channels = image.flip(-3) if self.order == "bgr" else image
        mean = torch.tensor(self.mean, device=image.device)[:, None, None]
        std = torch.tensor(self.std, device=image.device)[:, None, None]
        return (channels.to(torch.float32) * self.scale - mean) / std

    def pixels(self, prepared: torch.Tensor) -> torch.Tensor:
        """The inverse of `apply`, rounded: uint8 [..., 3, H, W], RGB; 0 becomes the mean colour."""
        import torch

        mean = torch.tensor(self.mean, device=prepared.device)[:, None, None]
        std = torch.tensor(self.std, device=prepared.device)[:, None, None]
        channels = (prepared * std + mean) / self.scale
        image = channels.flip(-3) if self.order == "bgr" else channels
        return image.round().clamp(0, 255).to(torch.uint8)

    def as_json(self) -> dict[str, Any]:
        """What enters a network's identity."""
        return {"order": self.order, "scale": self.scale, "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_json(name: str, value: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError for any other value."""
        (a, b, c), (d, e, f) = (tuple(map(float, value[key])) for key in ("mean", "std"))
        return Preprocessing(name, str(value["order"]), float(value["scale"]), (a, b, c), (d, e, f))


TORCHVISION = Preprocessing("torchvision", "rgb", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = Preprocessing("caffe", "bgr", 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
PLAIN = Preprocessing("plain", "rgb", 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PREPROCESSINGS = {one.name: one for one in (TORCHVISION, CAFFE, PLAIN)}
CAFFE_VGG = replace(CAFFE, mean=(103.939, 116.779, 123.68))  # the mean colour that VGG-16 was trained with
CAFFE_FAST = replace(CAFFE, mean=(102.9801, 115.9465, 122.7717))  # Fast R-CNN's for all its networks, config.py


@dataclass(frozen=True)
class Layer:
    """A named point of a network.

    `dimension` is the length of its flattened output (None: the number of classes), `parent` the point that it is
    computed from (None: the input). `feature=False` marks a point that is only passed through.
    """

    dimension: int | None
    parent: str | None = None
    feature: bool = True


@dataclass(frozen=True)
class NetworkCard:
    """An architecture: its input (square, in pixels), preprocessing, layers, and the torchvision file of its weights.

    `layers` is ordered from the input on; `default_layer` is the one that R-CNN would classify. Where there are class
    scores, their SOFTMAX is added as the last layer. `caffe_names` says that its parameters are called as in Caffe's
    model definitions, `torchvision_twin` names torchvision's model of the same structure if it has other names.
    """

    name: str
    input_size: int
    preprocessing: Preprocessing
    layers: Mapping[str, Layer]
    default_layer: str
    classes: int = 1000
    torchvision_file: str | None = None
    caffe_names: bool = False
    torchvision_twin: str | None = None

    def __post_init__(self) -> None:
        if self.scores_layer is not None:
            layers = {**self.layers, SOFTMAX: Layer(None, self.scores_layer)}
            object.__setattr__(self, "layers", layers)

    @property
    def scores_layer(self) -> str | None:
        """The layer of raw class scores, None for a network without a classifier."""
        scores = [name for name in self.feature_layers() if self.layers[name].dimension is None and name != SOFTMAX]
        return scores[-1] if scores else None

    def feature_layers(self) -> tuple[str, ...]:
        """The layers that may be asked for."""
        return tuple(name for name, layer in self.layers.items() if layer.feature)

    def dimensions(self, classes: int) -> dict[str, int]:
        """Length of each feature layer's output, for a network of `classes` classes."""
        lengths = {name: self.layers[name].dimension for name in self.feature_layers()}
        return {name: classes if length is None else length for name, length in lengths.items()}

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raises BadSetting, naming the nearest layer, unless the network has all `layers`."""
        for name in layers:
            if name not in self.feature_layers():
                raise BadSetting(f"{self.name} has no layer '{name}'{nearest(name, self.feature_layers())}")

    def needed(self, layers: Sequence[str]) -> list[str]:
        """`layers` and all that they are computed from, in order from the input."""
        wanted: set[str] = set()
        for name in layers:
            step: str | None = name
            while step is not None:
                wanted.add(step)
                step = self.layers[step].parent
        return [name for name in self.layers if name in wanted]

    @property
    def url(self) -> str | None:
        """Where torchvision downloads the weights; the 8 hex digits in the file's name begin its SHA-256."""
        return TORCHVISION_URL + self.torchvision_file if self.torchvision_file else None


def chain(dimensions: Mapping[str, int | None]) -> dict[str, Layer]:
    """Layers of these dimensions, each computed from the one before it."""
    names = list(dimensions)
    return {name: Layer(dimensions[name], parent) for name, parent in zip(names, [None, *names], strict=False)}


ALEXNET = NetworkCard(
    name="alexnet",
    input_size=224,  # torchvision pads conv1 by 2: 224 gives the maps that Caffe's T-Net has at 227 (55, 27, 13, 6)
    preprocessing=TORCHVISION,
    layers={
        "pool5": Layer(9216),
        "fc6": Layer(4096, "pool5"),
        "fc7": Layer(4096, "fc6"),
        "fc8": Layer(None, "fc7"),
    },
    default_layer="fc7",
    torchvision_file="alexnet-owt-7be5be79.pth",
)

VGG16 = NetworkCard(
    name="vgg16",
    input_size=224,
    preprocessing=TORCHVISION,
    layers={
        "pool5": Layer(25088),
        "fc6": Layer(4096, "pool5"),
        "fc7": Layer(4096, "fc6"),
        "fc8": Layer(None, "fc7"),
    },
    default_layer="fc7",
    torchvision_file="vgg16-397923af.pth",
)

SQUEEZENET = NetworkCard(
    name="squeezenet1_0",
    input_size=227,  # the size of the original Caffe release
    preprocessing=TORCHVISION,
    layers={
        "fire9": Layer(None, feature=False),
        "fire9_2x2": Layer(2048, "fire9"),
        "fire9_3x3": Layer(4608, "fire9"),
        "pool10": Layer(None, "fire9"),
    },
    default_layer="fire9_2x2",
    torchvision_file="squeezenet1_0-b66bff10.pth",
)

SHAPENET = NetworkCard(
    name="shapenet",
    input_size=64,
    preprocessing=PLAIN,
    layers={
        "pool4": Layer(1536),
        "fc5": Layer(256, "pool4"),
        "fc6": Layer(None, "fc5"),
    },
    default_layer="fc5",
    classes=10,
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
    caffe_names=True,
)

NETWORKS: dict[str, NetworkCard] = {card.name: card for card in (ALEXNET, VGG16, SQUEEZENET, SHAPENET, TNET, ONET, ZF)}
