"""Receptive fields of the units of convolutional layers (R-CNN section 3.1).

The network's operations are traced from the input on; the extent of each follows from its kernel, stride, padding and
dilation or, if it pools to a fixed grid, from its bins. No weights are needed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from stages.contract.errors import BadSetting
from stages.networks.architectures import empty_module, steps_of
from stages.networks.caffe_layers import CrossChannelNormalisation, WithinChannelNormalisation
from stages.networks.cards import NETWORKS, NetworkCard
from stages.networks.efficientnet import SameConvolution

Spans = NDArray[np.int64]
"""The input pixels seen by each of n positions along one axis of a map, half-open: int64 [n, 2]."""

WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
BINNED = (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
POINTWISE = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.BatchNorm2d, nn.Identity, CrossChannelNormalisation)
JOINING = (torch.cat, operator.add, operator.iadd)


@dataclass(frozen=True)
class ReceptiveFields:
    """The receptive fields of a layer of `channels` maps with H x W units, for a square input.

    `rows` int64 [H, 2] and `columns` int64 [W, 2] are half-open pixel ranges, clipped to the input: units near an edge
    have a smaller support (section 3.1). All channels have the same fields.
    """

    channels: int
    rows: Spans
    columns: Spans

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W: the order in which features are flattened."""
        return self.channels, len(self.rows), len(self.columns)

    def box(self, y: int, x: int) -> tuple[int, int, int, int]:
        """The field (x1, y1, x2, y2), half-open, in input pixels, of the units in row `y` and column `x` (from 0)."""
        (top, bottom), (left, right) = self.rows[y].tolist(), self.columns[x].tolist()
        return left, top, right, bottom


class NotAMap(BadSetting):
    """A layer whose units have no position in the image: a fully connected layer, or any after it."""


@lru_cache(maxsize=64)
def receptive_fields(network: str, layer: str, size: int | None = None) -> ReceptiveFields:
    """The receptive fields of a layer of `network` (a name in NETWORKS), for inputs of `size` x `size` pixels.

    `size` None is the network's own input size; layers of the trunk accept any. Raises NotAMap if the layer's output is
    not [N, C, H, W], and BadSetting for an unknown layer or an unsupported operation.
    """
    card = NETWORKS[network]
    needed = card.needed([layer])
    size = size or card.input_size
    module = empty_module(card, card.classes).eval()
    steps = steps_of(card, module)
    image = torch.empty((1, 3, size, size), device="meta")
    pixels = np.stack([np.arange(size), np.arange(1, size + 1)], axis=1)
    traced: dict[str, tuple[torch.Tensor, Spans, Spans]] = {}
    for name in needed:
        parent = card.layers[name].parent
        start = (image, pixels, pixels) if parent is None else traced[parent]
        traced[name] = Follow(card, layer, module, steps[name]).through(*start)
    maps, rows, columns = traced[layer]
    return ReceptiveFields(maps.shape[1], rows, columns)


class Leaves(fx.Tracer):
    """A tracer that descends into every module with submodules."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether the module is one operation."""
        return next(module.children(), None) is None


class Step(nn.Module):
    """One step of a network, as a module that can be traced."""

    def __init__(self, module: nn.Module, step: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.module = module
        self.step = step

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The output of the step for `maps` [N, C, H, W]."""
        return self.step(maps)


class Follow(fx.Interpreter):
    """Runs a step on meta tensors, tracking shapes and the spans of all positions."""

    def __init__(self, card: NetworkCard, layer: str, module: nn.Module, step: Any) -> None:
        traced = Step(module, step)
        super().__init__(fx.GraphModule(traced, Leaves().trace(traced)))
        self.extra_traceback = False  # an error's sentence stays one sentence
        self.card = card
        self.layer = layer
        self.spans: dict[fx.Node, tuple[Spans, Spans]] = {}

    def through(self, maps: torch.Tensor, rows: Spans, columns: Spans) -> tuple[torch.Tensor, Spans, Spans]:
        """The output of the step for `maps`, [1, C, H, W] on the meta device, and its spans along rows and columns."""
        self.start = rows, columns
        made = self.run(maps)
        last = next(node for node in reversed(self.graph.nodes) if node.op == "output").all_input_nodes[0]
        return made, *self.spans[last]

    def run_node(self, node: fx.Node) -> Any:
        """Runs one operation, and records the spans of its result."""
        result = super().run_node(node)
        if node.op == "placeholder":
            self.spans[node] = self.start
        elif node.op != "output":
            if result.dim() != 4:
                raise NotAMap(f"layer '{self.layer}' of {self.card.name} is not a convolutional map")
            self.spans[node] = self.seen(node, result)
        return result

    def seen(self, node: fx.Node, result: torch.Tensor) -> tuple[Spans, Spans]:
        """The spans of the rows and columns of `result` [1, C, H, W]: int64 [H, 2] and [W, 2].

        Raises BadSetting for an unsupported operation."""
        before = [self.spans[source] for source in node.all_input_nodes]
        if node.target in JOINING:
            rows, columns = ([spans[axis] for spans in before] for axis in (0, 1))
            return union(rows), union(columns)
        operation = self.submodules[node.target] if node.op == "call_module" else None
        if isinstance(operation, POINTWISE):
            return before[0]
        if operation is None or not isinstance(operation, (*WINDOWED, *BINNED, WithinChannelNormalisation)):
            what = type(operation).__name__ if operation is not None else getattr(node.target, "__name__", node.target)
            raise BadSetting(f"layer '{self.layer}' of {self.card.name}: the receptive field of '{what}' is not known")
        return tuple(  # type: ignore[return-value]
            joined(spans, *reach(operation, axis, len(spans), result.shape[2 + axis]))
            for axis, spans in enumerate(before[0])
        )


def reach(operation: nn.Module, axis: int, inputs: int, outputs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and last of the `inputs` positions along `axis` that each output depends on: int64 [outputs] each."""
    place = np.arange(outputs)
    if isinstance(operation, BINNED):
        return place * inputs // outputs, -(-(place + 1) * inputs // outputs) - 1
    if isinstance(operation, WithinChannelNormalisation):
        half = operation.size // 2
        first, last = place - half, place + half
    else:
        kernel, stride, padding, dilation = (
            along(getattr(operation, name, 1), axis) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        first = place * stride - (operation.before if isinstance(operation, SameConvolution) else padding)
        last = first + dilation * (kernel - 1)
    return np.maximum(first, 0), np.minimum(last, inputs - 1)


def along(value: Any, axis: int) -> int:
    """The entry for `axis` of a pair, or the number given for both axes."""
    return int(value[axis] if isinstance(value, tuple) else value)


def joined(spans: Spans, first: NDArray[np.int64], last: NDArray[np.int64]) -> Spans:
    """The spans [n, 2] of windows from `first` to `last` (int64 [n], inclusive) over positions with these `spans`."""
    return np.stack([spans[first, 0], spans[last, 1]], axis=1)


def union(spans: list[Spans]) -> Spans:
    """The union of the spans [n, 2] of joined branches, position by position: [n, 2]."""
    every = np.stack(spans)
    return np.stack([every[..., 0].min(axis=0), every[..., 1].max(axis=0)], axis=1)
