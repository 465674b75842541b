"""A loaded network: from a batch of warped regions to the outputs of named layers, no deeper than asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stages.networks.architectures import steps_of
from stages.networks.cards import NetworkCard, Preprocessing


class Network:
    """A network with weights, in evaluation mode (dropout off) until its `module` is told otherwise.

    `input_size` S in pixels; `layers` maps the names of the feature layers to their dimensions.
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
        """Dimension of each feature layer."""
        return self.card.dimensions(self.classes)

    @property
    def dtype(self) -> torch.dtype:
        """The type that the network computes in: what a batch must have."""
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the network is: where a batch must be."""
        return next(self.module.parameters()).device

    def forward(self, batch: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Outputs of `layers` for `batch` ([N, 3, S, S], preprocessed), flattened to [N, dimension] in C, H, W order.

        Several layers cost one pass, up to the deepest. Raises BadSetting for a layer that the network does not have.
        """
        return {name: values.flatten(1) for name, values in self.outputs(batch, None, layers).items()}

    def maps(self, batch: torch.Tensor) -> torch.Tensor:
        """The trunk's map [N, channels, H', W'] of images of any size ([N, 3, H, W], preprocessed).

        Where its cells lie in the image is what `card.trunk` says.
        """
        layer = self.card.trunk.layer
        return self.outputs(batch, None, [layer])[layer]

    def head(self, regions: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Outputs of `layers`, flattened as by `forward`, for N regions of the trunk's map, pooled to the head's size.

        `regions` is [N, channels, side, side] (`card.trunk`, `card.head`). Raises BadSetting for a layer that the head
        does not compute.
        """
        return {name: values.flatten(1) for name, values in self.outputs(regions, self.card.head.start, layers).items()}

    def outputs(self, batch: torch.Tensor, start: str | None, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """What each of `layers` computes, [N, ...], where `batch` is the layer `start`'s output (None: the input)."""
        values: dict[str | None, torch.Tensor] = {start: batch}
        needed = self.card.needed(layers, start)
        for position, name in enumerate(needed, start=1):
            values[name] = self.steps[name](values[self.card.layers[name].parent])
            kept = {*layers, *(self.card.layers[later].parent for later in needed[position:])}
            values = {layer: value for layer, value in values.items() if layer in kept}  # maps are large
        return {name: values[name] for name in layers}
