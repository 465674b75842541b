"""Networks: a registry of architectures, each with its input size, preprocessing, layers and source of weights.

`NETWORKS` holds the architectures, `NetworkSource` identifies the weights (cheaply, without torch), and
`NetworkSource.load` returns a `stages.networks.network.Network` that computes named layers.
"""

from __future__ import annotations

from stages.images.preprocessing import CAFFE, PREPROCESSINGS, TORCHVISION, Preprocessing
from stages.networks.cards import (
    BACKGROUND,
    DELTAS,
    DROPOUTS,
    EDGES,
    NETWORK_TABLES,
    NETWORKS,
    SOFTMAX,
    Layer,
    NetworkCard,
    PlannedNetwork,
    PlannedTraining,
)
from stages.networks.source import NetworkSettings, NetworkSource, planned_network

__all__ = [
    "BACKGROUND",
    "CAFFE",
    "DELTAS",
    "DROPOUTS",
    "EDGES",
    "NETWORKS",
    "NETWORK_TABLES",
    "PREPROCESSINGS",
    "SOFTMAX",
    "TORCHVISION",
    "Layer",
    "NetworkCard",
    "NetworkSettings",
    "NetworkSource",
    "PlannedNetwork",
    "PlannedTraining",
    "Preprocessing",
    "planned_network",
]
