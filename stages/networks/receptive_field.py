"""Which part of its input a unit of a convolutional layer sees: R-CNN section 3.1.

The operations of the network are followed from the input on; how far each one reaches is known from its kernel, stride,
padding and dilation, or, where it pools to a fixed grid, from its bins. No weights are needed.
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
"""Which input pixels each of n positions along one axis of a map sees, int64 [n, 2]: the first, one past the last."""

WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
BINNED = (nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
POINTWISE = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.BatchNorm2d, nn.Identity, CrossChannelNormalisation)
JOINING = (torch.cat, operator.add, operator.iadd)


@dataclass(frozen=True)
class ReceptiveFields:
    """A layer of `channels` maps of H x W units, and what they see of a square input.

    `rows` int64 [H, 2] and `columns` int64 [W, 2] are half-open and cut at the input's edges: a unit near an edge has a
    smaller support (section 3.1). All channels see the same.
    """

    channels: int
    rows: Spans
    columns: Spans

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W: the order in which features are flattened."""
        return self.channels, len(self.rows), len(self.columns)

    def box(self, y: int, x: int) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2), half-open, in pixels of the input, of the units at row `y` and column `x`, from 0."""
        (top, bottom), (left, right) = self.rows[y].tolist(), self.columns[x].tolist()
        return left, top, right, bottom


class NotAMap(BadSetting):
    """A layer whose units have no place in the image: fully connected ones, and what follows them."""


@lru_cache(maxsize=64)
def receptive_fields(network: str, layer: str, size: int | None = None) -> ReceptiveFields:
    """The fields of a layer of the network with this name in NETWORKS, for inputs of `size` x `size` pixels.

    None is the network's own size; layers of the trunk may have any.

    Raises NotAMap for a layer that is not of the shape [N, C, H, W], BadSetting for one that the network does not have
    or an operation whose reach is not known.
    """
    card = NETWORKS[network]
    needed = card.needed([layer])
    size = size or card.input_size
    module = empty_module(card, card.classes).eval()
    steps = steps_of(card, module)
    image = torch.empty((1, 3, size, size), device="meta")
    pixels = np.stack([np.arange(size), np.arange(1, size + 1)], axis=1)
    found: dict[str, tuple[torch.Tensor, Spans, Spans]] = {}
    for name in needed:
        parent = card.layers[name].parent
        start = (image, pixels, pixels) if parent is None else found[parent]
        found[name] = Follow(card, layer, module, steps[name]).through(*start)
    maps, rows, columns = found[layer]
    return ReceptiveFields(maps.shape[1], rows, columns)


class Leaves(fx.Tracer):
    """Looks into every module that is made of others, and into no other."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether the module is one operation."""
        return next(module.children(), None) is None


class Step(nn.Module):
    """One computation of a network as a module that can be traced."""

    def __init__(self, module: nn.Module, step: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.module = module
        self.step = step

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """What the computation gives for `maps` [N, C, H, W]."""
        return self.step(maps)


class Follow(fx.Interpreter):
    """Runs a computation on tensors without memory, for their shapes, and the spans of their positions with it."""

    def __init__(self, card: NetworkCard, layer: str, module: nn.Module, step: Any) -> None:
        traced = Step(module, step)
        super().__init__(fx.GraphModule(traced, Leaves().trace(traced)))
        self.extra_traceback = False  # an error's sentence stays one sentence
        self.card = card
        self.layer = layer
        self.spans: dict[fx.Node, tuple[Spans, Spans]] = {}

    def through(self, maps: torch.Tensor, rows: Spans, columns: Spans) -> tuple[torch.Tensor, Spans, Spans]:
        """The maps that the computation makes of `maps`, [1, C, H, W] on the meta device, and their spans."""
        self.start = rows, columns
        made = self.run(maps)
        last = next(node for node in reversed(self.graph.nodes) if node.op == "output").all_input_nodes[0]
        return made, *self.spans[last]

    def run_node(self, node: fx.Node) -> Any:
        """Runs one operation, and notes what its result sees."""
        result = super().run_node(node)
        if node.op == "placeholder":
            self.spans[node] = self.start
        elif node.op != "output":
            if result.dim() != 4:
                raise NotAMap(f"layer '{self.layer}' of {self.card.name} is not a convolutional map")
            self.spans[node] = self.seen(node, result)
        return result

    def seen(self, node: fx.Node, result: torch.Tensor) -> tuple[Spans, Spans]:
        """The spans of the positions of `result`. Raises BadSetting for an operation that is not known."""
        before = [self.spans[source] for source in node.all_input_nodes]
        if node.target in JOINING:
            rows, columns = ([one[axis] for one in before] for axis in (0, 1))
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
    """The first and last of the `inputs` positions along `axis` that each output is computed from: [outputs]."""
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
    """The entry of a pair, or the number that stands for both."""
    return int(value[axis] if isinstance(value, tuple) else value)


def joined(spans: Spans, first: NDArray[np.int64], last: NDArray[np.int64]) -> Spans:
    """What windows from `first` to `last`, inclusive, of positions with these spans see together."""
    return np.stack([spans[first, 0], spans[last, 1]], axis=1)


def union(spans: list[Spans]) -> Spans:
    """What each position sees by any of several ways."""
    return np.stack(
        [np.min([one[:, 0] for one in spans], axis=0), np.max([one[:, 1] for one in spans], axis=0)], axis=1
    )
