"""The layers of a detector's region head that are trained: which are new, and how they start."""

from __future__ import annotations

from torch import nn

from stages.networks import NETWORKS, NetworkCard
from stages.networks.architectures import classifier_name, empty_module
from stages.networks.cards import CLASS_SCORES
from stages.networks.head_layers import REGIONS
from stages.networks.weights import State
from stages.training.region_examples import DeltaStatistics
from stages.training.region_settings import RegionTraining

BOX_LAYER = f"{REGIONS}.bbox_pred"
"""The submodule that computes the deltas."""


def class_layer(card: NetworkCard) -> str:
    """The submodule that computes the class scores of a network with a region head."""
    own = NETWORKS[card.name]
    assert card.heads.regions is not None
    if card.heads.regions.hidden:
        return f"{REGIONS}.{CLASS_SCORES}"
    return classifier_name(own, empty_module(own, 2))


def new_hidden_layers(card: NetworkCard, before: NetworkCard) -> list[str]:
    """The submodules of a region head's own fully connected layers, unless the network had the same `before`."""
    head, old = card.heads.regions, before.heads.regions
    assert head is not None
    if not head.hidden or (old is not None and (old.side, old.hidden) == (head.side, head.hidden)):
        return []
    return [f"{REGIONS}.hidden"]


def new_layers(card: NetworkCard, before: NetworkCard, deltas_alone: bool = False) -> list[str]:
    """The submodules of a region head that start from random weights: the class scores, unless the `deltas_alone` are
    trained, the deltas, and the layers of `new_hidden_layers`."""
    if deltas_alone:
        return [BOX_LAYER]
    return [class_layer(card), BOX_LAYER, *new_hidden_layers(card, before)]


def reset_outputs(module: nn.Module, card: NetworkCard, settings: RegionTraining, deltas_alone: bool = False) -> None:
    """Draws the initial weights of the class scores, unless the `deltas_alone` are trained, and of the deltas."""
    if not deltas_alone:
        reset(module, class_layer(card), settings.new_classes_std)
    reset(module, BOX_LAYER, settings.new_boxes_std)


def reset(module: nn.Module, layer: str, std: float) -> None:
    """Draws a layer's weights from N(0, `std`) with PyTorch's global generator; biases become 0 (section 2.3)."""
    part = module.get_submodule(layer)
    assert isinstance(part, nn.Linear | nn.Conv2d)
    assert part.bias is not None
    nn.init.normal_(part.weight, 0.0, std)
    nn.init.zeros_(part.bias)


def folded(weights: State, statistics: DeltaStatistics, settings: RegionTraining) -> State:
    """The state dict of a network that predicts deltas themselves, from that of the one that was trained on normalised
    deltas (lib/fast_rcnn/train.py). Deltas that were not trained become 0, and leave regions as they are."""
    names = [f"{BOX_LAYER}.{kind}" for kind in ("weight", "bias")]
    weight, bias = (weights[name] for name in names)
    moved = statistics.folded(weight, bias) if settings.box_weight else (weight * 0, bias * 0)
    return {**weights, **dict(zip(names, moved, strict=True))}
