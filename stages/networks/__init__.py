"""Networks: a registry in which each entry owns its input size, preprocessing, feature layers and source of weights.

`NETWORKS` lists the architectures, `NetworkSource` says which weights are meant (cheap, no torch), and
`NetworkSource.load` gives a `stages.networks.network.Network` that computes named layers.
"""

from __future__ import annotations

from stages.networks.cards import (
    BACKGROUND,
    CAFFE,
    NETWORKS,
    PREPROCESSINGS,
    SOFTMAX,
    TORCHVISION,
    Layer,
    NetworkCard,
    PlannedNetwork,
    Preprocessing,
)
from stages.networks.source import NetworkSettings, NetworkSource

__all__ = [
    "BACKGROUND",
    "CAFFE",
    "NETWORKS",
    "PREPROCESSINGS",
    "SOFTMAX",
    "TORCHVISION",
    "Layer",
    "NetworkCard",
    "NetworkSettings",
    "NetworkSource",
    "PlannedNetwork",
    "Preprocessing",
]
