"""The parts of a network that an image passes through, each as a module that another runtime can compute.

Notation: N regions, crops or windows; C channels and H x W cells of the trunk's map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stages.networks.network import Network
from stages.networks.roi_pooling import pool_regions


@dataclass(frozen=True)
class NetworkPart:
    """One part of a network: `module` takes the tensors `inputs`, made from a real image, as arguments of these names,
    and returns the tensors `outputs` in order.

    `free` names the dimensions of each input that may have any size, by their numbers. `about` says in words, as JSON,
    what the inputs and outputs are and how they are made.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]]
    about: Mapping[str, Any]


class PartOf(nn.Module):
    """A part of `network`, which computes `layers` of it."""

    def __init__(self, network: Network, layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.weights = network.module
        self.network = network
        self.layers = tuple(layers)


class Maps(PartOf):
    """The trunk."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map [1, C, H, W] of a preprocessed image [1, 3, height, width]."""
        return self.network.maps(image)


class Anchors(PartOf):
    """The region proposal network."""

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The probability of an object [n] and the deltas [n, 4] of all anchors of a map [1, C, H, W]."""
        return self.network.anchors(maps)


class Regions(PartOf):
    """Regions of a map, pooled as `stages.networks.roi_pooling` says, and the layers after that."""

    def __init__(self, network: Network, layers: Sequence[str], pooling: str) -> None:
        super().__init__(network, layers)
        self.pooling = pooling

    def forward(self, maps: torch.Tensor, regions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The `layers`, [N, D] each, of `regions` [N, 4] of a map [1, C, H, W]."""
        pooled = pool_regions(maps, regions, self.network.card.head.side, self.pooling)
        outputs = self.network.head(pooled, self.layers)
        return tuple(outputs[name] for name in self.layers)


class Windows(PartOf):
    """The layers after the trunk, of windows cut out of its map."""

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The `layers`, [N, D] each, of windows [N, C, side, side]."""
        outputs = self.network.outputs(windows, self.network.card.trunk.layer, self.layers)
        return tuple(outputs[name].flatten(1) for name in self.layers)


class Crops(PartOf):
    """The whole network, of crops of an image."""

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The `layers`, [N, D] each, of preprocessed crops [N, 3, S, S]."""
        outputs = self.network.forward(crops, self.layers)
        return tuple(outputs[name] for name in self.layers)


def about_network(network: Network) -> dict[str, Any]:
    """What the inputs and outputs of every part depend on."""
    return {
        "network": network.card.name,
        "preprocessing": {
            **network.preprocessing.as_json(),
            "formula": "(RGB pixels 0..255, in this order of channels, x scale - mean) / std",
        },
    }
