"""A network to look at: the filters of its first layer."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.contract.errors import StageError
from stages.networks.cards import Preprocessing
from stages.pictures.drawing import contact_sheet

SMALLEST_FILTER = 60


def first_filters(module: nn.Module, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The first convolution's weights for R, G and B in pixels of the image: float32 [filters, k, k, 3].

    Raises StageError for a network whose first convolution does not see colours.
    """
    first = next((one for one in module.modules() if isinstance(one, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        raise StageError("the network's first layer is not a convolution over the image's three colour channels")
    weights = first.weight.detach().to("cpu", torch.float32) / torch.tensor(preprocessing.std)[:, None, None]
    if preprocessing.order == "bgr":
        weights = weights.flip(1)
    return weights.permute(0, 2, 3, 1).contiguous().numpy()


def filter_sheet(filters: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Filters [n, k, k, 3] in rows: grey is 0, and each filter's largest weight, up or down, is a colour's end."""
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shown = np.rint(127.5 + 127.5 * filters / np.where(largest > 0, largest, 1)).astype(np.uint8)
    factor = math.ceil(SMALLEST_FILTER / filters.shape[1])
    cells = [one.repeat(factor, axis=0).repeat(factor, axis=1) for one in shown]
    return contact_sheet(cells, columns=max(1, math.ceil(math.sqrt(1.5 * len(cells)))), gap=6)
