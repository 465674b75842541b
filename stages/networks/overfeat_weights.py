"""OverFeat's released weights: files without a header, recognised by their size.

Little-endian float32, layer by layer from the input on: the weights [outputs, inputs, height, width] of the layer, then
its biases [outputs]. A fully connected layer is a convolution over the whole pooled map, in the order in which features
are flattened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stages.contract.errors import StageError
from stages.networks.architectures import empty_module
from stages.networks.cards import NETWORKS, NetworkCard
from stages.networks.weights import State

FLOAT = np.dtype("<f4")
WITHOUT_HEADER = "float32 file without a header"


def layout(card: NetworkCard) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors in the release's file of a network, in order."""
    return {name: tuple(tensor.shape) for name, tensor in empty_module(card, card.classes).state_dict().items()}


def file_size(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The size in bytes of a file of tensors of these shapes."""
    return FLOAT.itemsize * sum(map(math.prod, shapes.values()))


def released_network(path: Path) -> NetworkCard | None:
    """The network whose released weights are as large as the file; None for a file of another size, or none."""
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None
    released = [card for card in NETWORKS.values() if card.released_file]
    return next((card for card in released if file_size(layout(card)) == size), None)


def released_state(card: NetworkCard, content: bytes, path: Path) -> State:
    """The state dict of a network from its file in the release; `path` is for messages.

    Raises StageError for content of another size, and for numbers that are not finite.
    """
    arrays = split_floats(content, layout(card), path, f"{card.name}'s {card.released_file}")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise StageError(f"{path}: '{name}' has numbers that are not finite; fetch the file again")
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def split_floats(
    content: bytes, shapes: Mapping[str, tuple[int, ...]], path: Path, what: str
) -> dict[str, NDArray[np.float32]]:
    """The numbers of a file as arrays of these shapes, one after another, by name; `what` names the file expected.

    Raises StageError unless there are exactly as many.
    """
    expected = file_size(shapes)
    if len(content) != expected:
        raise StageError(
            f"{path}: is {len(content):,} bytes long, but {what} has {expected:,}; fetch it again, or name the file's "
            "network with --network"
        )
    numbers = np.frombuffer(content, FLOAT)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    parts = np.split(numbers, ends[:-1])
    return {
        name: part.reshape(shape).astype(np.float32)  # a copy: `content` need not stay in memory
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
