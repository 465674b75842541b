"""The layers of a window head that are trained: which are new, and how they start."""

from __future__ import annotations

import torch
from torch import nn

from stages.networks import NETWORKS, NetworkCard
from stages.networks.architectures import classifier_name, empty_module
from stages.networks.cards import CLASS_SCORES
from stages.networks.head_layers import WINDOWS
from stages.training.region_layers import reset


def class_layer(card: NetworkCard) -> str:
    """The submodule that computes the class scores of a network with a window head."""
    own = NETWORKS[card.name]
    assert card.heads.windows is not None
    return f"{WINDOWS}.{CLASS_SCORES}" if card.heads.windows.hidden else classifier_name(own, empty_module(own, 2))


def new_layers(card: NetworkCard) -> list[str]:
    """The submodules that start from random weights: the class scores and the window head."""
    return [class_layer(card), WINDOWS]


def reset_outputs(module: nn.Module, card: NetworkCard, classes_std: float, boxes_std: float) -> None:
    """Draws the initial weights of the class scores and the edges with PyTorch's global generator; the edges begin as
    those of the window."""
    edges = f"{WINDOWS}.box_pred"
    reset(module, class_layer(card), classes_std)
    reset(module, edges, boxes_std)
    bias = module.get_submodule(edges).bias
    assert isinstance(bias, torch.Tensor)
    with torch.no_grad():
        bias.view(-1, 4)[:, 2:] = 1
