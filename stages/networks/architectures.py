"""Building the networks: torchvision's modules, our shapenet, and which of their parts compute which layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from stages.networks.cards import SOFTMAX, NetworkCard


class ShapeNet(nn.Module):
    """A small network for the `shapes` data: four convolutions and two linear layers on 64 x 64 pixels.

    Input float32 [N, 3, 64, 64], output float32 [N, classes]. The first convolution has stride 2, so that a region
    costs about 13 million multiplications.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 24, kernel=5, stride=2)
        self.conv2 = convolution(24, 48, kernel=3)
        self.conv3 = convolution(48, 96, kernel=3)
        self.conv4 = convolution(96, 96, kernel=3)
        self.pool = nn.MaxPool2d(2)
        self.fc5 = nn.Linear(1536, 256)
        self.dropout = nn.Dropout(0.3)
        self.fc6 = nn.Linear(256, classes)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Class scores."""
        return self.scores(self.hidden(self.maps(batch)))

    def maps(self, batch: torch.Tensor) -> torch.Tensor:
        """pool4: 96 maps of 4 x 4."""
        batch = self.pool(self.conv1(batch))
        batch = self.pool(self.conv2(batch))
        batch = self.conv3(batch)
        return self.pool(self.conv4(batch))

    def hidden(self, maps: torch.Tensor) -> torch.Tensor:
        """fc5 after its rectifier."""
        return torch.relu(self.fc5(maps.flatten(1)))

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """fc6, the class scores."""
        return self.fc6(self.dropout(hidden))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, rectifier; the maps keep their size (divided by the stride)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


Step = Callable[[torch.Tensor], torch.Tensor]


def build(card: NetworkCard, classes: int) -> nn.Module:
    """The network's module with PyTorch's random initialisation, for `classes` classes."""
    if card.name == "shapenet":
        return ShapeNet(classes)
    from torchvision import models

    if card.name == "squeezenet1_0":
        return models.squeezenet1_0(weights=None, num_classes=classes)
    return models.get_model(card.name, weights=None, num_classes=classes, dropout=0.5)


def empty_module(card: NetworkCard, classes: int) -> nn.Module:
    """The network's module without memory for its weights (meta device): for shapes, and to be given weights."""
    with torch.device("meta"):
        return build(card, classes)


def steps_of(card: NetworkCard, module: nn.Module) -> Mapping[str, Step]:
    """For each layer of the card, the computation from its parent's output (maps are [N, C, H, W]) to its own."""
    return {**STEPS[card.name](module), SOFTMAX: class_probabilities}


def class_probabilities(scores: torch.Tensor) -> torch.Tensor:
    """The softmax over dimension 1, in float32 whatever the network computes in."""
    return torch.softmax(scores.to(torch.float32), dim=1)


def chain_steps(module: nn.Module) -> Mapping[str, Step]:
    """AlexNet and VGG16: convolutions up to pool5, then fc6, fc7 (both after the rectifier) and the scores."""
    classifier = list(module.classifier.children())  # type: ignore[union-attr]
    linear = [position for position, part in enumerate(classifier) if isinstance(part, nn.Linear)]
    fc6, fc7, fc8 = linear
    return {
        "pool5": nn.Sequential(module.features, module.avgpool),  # type: ignore[arg-type]
        "fc6": nn.Sequential(nn.Flatten(), *classifier[: fc6 + 2]),
        "fc7": nn.Sequential(*classifier[fc6 + 2 : fc7 + 2]),
        "fc8": nn.Sequential(*classifier[fc7 + 2 : fc8 + 1]),
    }


def squeezenet_steps(module: nn.Module) -> Mapping[str, Step]:
    """SqueezeNet: the maps of fire9, their averages on a coarse grid, and the class scores (global average)."""
    return {
        "fire9": module.features,  # type: ignore[dict-item]
        "fire9_2x2": nn.AdaptiveAvgPool2d(2),
        "fire9_3x3": nn.AdaptiveAvgPool2d(3),
        "pool10": module.classifier,  # type: ignore[dict-item]
    }


def shapenet_steps(module: nn.Module) -> Mapping[str, Step]:
    """ShapeNet's three parts."""
    assert isinstance(module, ShapeNet)
    return {"pool4": module.maps, "fc5": module.hidden, "fc6": module.scores}


STEPS: dict[str, Callable[[nn.Module], Mapping[str, Step]]] = {
    "alexnet": chain_steps,
    "vgg16": chain_steps,
    "squeezenet1_0": squeezenet_steps,
    "shapenet": shapenet_steps,
}
