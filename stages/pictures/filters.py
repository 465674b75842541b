"""Showing the filters of a network's first two layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.contract.errors import StageError
from stages.networks.cards import Preprocessing
from stages.pictures.drawing import contact_sheet

SMALLEST_FILTER = 60


def first_filters(module: nn.Module, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The first convolution's weights for R, G and B, for unprocessed pixels: float32 [filters, k, k, 3].

    Raises StageError if the first convolution does not have three input channels.
    """
    first = next(convolutions(module), None)
    if first is None or first.in_channels != 3:
        raise StageError("the network's first layer is not a convolution over the image's three colour channels")
    weights = first.weight.detach().to("cpu", torch.float32) / torch.tensor(preprocessing.std)[:, None, None]
    if preprocessing.order == "bgr":
        weights = weights.flip(1)
    return weights.permute(0, 2, 3, 1).contiguous().numpy()


def second_filters(module: nn.Module) -> NDArray[np.float32] | None:
    """Of each filter of the second convolution the kernel on one channel, the one on which it is largest: float32
    [filters, k, k, 3], three times the same. None without a second convolution, and for one of 1 x 1."""
    second = next(itertools.islice(convolutions(module), 1, None), None)
    if second is None or max(second.kernel_size) == 1:
        return None
    weights = second.weight.detach().to("cpu", torch.float32)
    largest = weights.square().sum(dim=(2, 3)).argmax(dim=1)
    kernels = weights[torch.arange(len(weights)), largest]
    return kernels[..., None].expand(-1, -1, -1, 3).contiguous().numpy()


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    """A network's convolutions, from the input on."""
    return (part for part in module.modules() if isinstance(part, nn.Conv2d))


def filter_sheet(filters: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A sheet of filters [n, k, k, 3], uint8 [H, W, 3] RGB: 0 is grey, and each filter is scaled to the full range."""
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shown = np.rint(127.5 + 127.5 * filters / np.where(largest > 0, largest, 1)).astype(np.uint8)
    factor = math.ceil(SMALLEST_FILTER / filters.shape[1])
    cells = [image.repeat(factor, axis=0).repeat(factor, axis=1) for image in shown]
    return contact_sheet(cells, columns=max(1, math.ceil(math.sqrt(1.5 * len(cells)))), gap=6)
