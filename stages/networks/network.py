"""A loaded network, which computes named layers and goes no deeper than they require."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stages.networks.architectures import steps_of
from stages.networks.cards import NetworkCard, Preprocessing
from stages.networks.head_layers import PROPOSALS


class Network:
    """A network with its weights, initially in evaluation mode (dropout off).

    `input_size` is S, in pixels; `layers` maps layer names to their dimensions.
    """

    def __init__(self, card: NetworkCard, module: nn.Module, classes: int, preprocessing: Preprocessing) -> None:
        self.card = card
        self.module = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes = classes
        self.preprocessing = preprocessing
        self.steps = steps_of(card, self.module)

    @property
    def input_size(self) -> int:
        """S, the side of the input in pixels."""
        return self.card.input_size

    @property
    def layers(self) -> dict[str, int]:
        """The dimension of each layer."""
        return self.card.dimensions(self.classes)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, which batches must have, too."""
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which batches must be, too."""
        return next(self.module.parameters()).device

    def forward(self, batch: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """The outputs of `layers` for a preprocessed `batch` [N, 3, S, S], flattened in C, H, W order: [N, dimension].

        Several layers take a single pass, up to the deepest. Raises BadSetting for an unknown layer.
        """
        return {name: values.flatten(1) for name, values in self.outputs(batch, None, layers).items()}

    def maps(self, batch: torch.Tensor) -> torch.Tensor:
        """The trunk's map [N, channels, H', W'] for preprocessed images of any size, [N, 3, H, W].

        `card.trunk` says where its cells lie in the image.
        """
        layer = self.card.trunk.layer
        return self.outputs(batch, None, [layer])[layer]

    def head(self, regions: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """The outputs of `layers`, flattened as by `forward`, for N `regions` of the trunk's map.

        `regions` [N, channels, side, side] are pooled to the head's size (`card.trunk`, `card.head`). Raises BadSetting
        for a layer that the head does not compute.
        """
        return {name: values.flatten(1) for name, values in self.outputs(regions, self.card.head.start, layers).items()}

    def anchor_logits(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The region proposal network's class scores [n, 2], background first, and deltas [n, 4] for the n anchors of
        the trunk's map [1, channels, H', W'], in the order of `stages.anchors.map_anchors`: float32.

        Raises BadSetting for a network without one.
        """
        self.card.check_proposals()
        scores, deltas = self.module.get_submodule(PROPOSALS)(maps)
        return scores.to(torch.float32), deltas.to(torch.float32)

    def anchors(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `anchor_logits`, with the probability of an object, [n], in place of the two scores."""
        logits, deltas = self.anchor_logits(maps)
        return torch.softmax(logits, dim=1)[:, 1], deltas

    def outputs(self, batch: torch.Tensor, start: str | None, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """The outputs of `layers`, [N, ...] each, given the output `batch` of the layer `start` (None: the input)."""
        values: dict[str | None, torch.Tensor] = {start: batch}
        needed = self.card.needed(layers, start)
        for position, name in enumerate(needed, start=1):
            values[name] = self.steps[name](values[self.card.layers[name].parent])
            kept = {*layers, *(self.card.layers[later].parent for later in needed[position:])}
            values = {layer: value for layer, value in values.items() if layer in kept}  # maps are large
        return {name: values[name] for name in layers}
