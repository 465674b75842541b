"""A network read densely: every window of the trunk's map at once (OverFeat, arXiv 1312.6229v4, sections 3.3 and 3.5).

A window is a square of as many cells as the network's own input has on the map, at every cell of the map. Instead of
cutting windows out, each operation after the trunk runs once on the whole map: strides become dilations of all that
follows, and fully connected layers become convolutions. Pooling at stride 1 gives all offsets of the paper's fine
stride at once: the outputs equal those of the loop over offsets.

Where operations pad their input, a window sees its neighbours where a crop would see zeros.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from stages.boxes import Boxes
from stages.contract.errors import BadSetting
from stages.networks.architectures import empty_module
from stages.networks.caffe_layers import CrossChannelNormalisation
from stages.networks.cards import NETWORKS, NetworkCard
from stages.networks.efficientnet import SameConvolution
from stages.networks.feature_maps import FeatureMaps
from stages.networks.heads import Heads
from stages.networks.network import Network
from stages.networks.receptive_field import Leaves, Step

POINTWISE = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.BatchNorm2d, nn.Identity, CrossChannelNormalisation)
POINTWISE_FUNCTIONS: tuple[Callable[..., Any], ...] = (torch.relu, nn.functional.relu)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Dense:
    """The outputs of a layer for all windows of a map.

    `values` [1, C, H, W]: the window in row y and column x has the units (y + i x `dilation`, x + j x `dilation`), i
    and j from 0 to `side` - 1, so that H is the number of windows along y plus (`side` - 1) x `dilation`. `flat`: the
    layer is the vector of all these, in C, H, W order.
    """

    values: torch.Tensor
    side: int
    dilation: int = 1
    flat: bool = False

    @property
    def windows(self) -> tuple[int, int]:
        """The numbers of rows and columns of windows."""
        return (
            self.values.shape[2] - (self.side - 1) * self.dilation,
            self.values.shape[3] - (self.side - 1) * self.dilation,
        )

    def of(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The units [n, C, side, side] of the windows in `rows` int64 [n] and `columns` int64 [n]. Gradients reach the
        values."""
        units = torch.arange(self.side, device=self.values.device) * self.dilation
        y = rows[:, None] + units
        x = columns[:, None] + units
        return self.values[0][:, y[:, :, None], x[:, None, :]].transpose(0, 1)

    def every(self, step: int = 1) -> torch.Tensor:
        """The flattened outputs of every `step`-th window in both directions, row by row: [n, D]."""
        height, width = self.windows
        if self.side == 1:
            return self.values[0, :, 0:height:step, 0:width:step].flatten(1).T
        y, x = torch.meshgrid(torch.arange(0, height, step), torch.arange(0, width, step), indexing="ij")
        return self.of(y.flatten().to(self.values.device), x.flatten().to(self.values.device)).flatten(1)


@dataclass(frozen=True)
class Windows:
    """The windows of a network: `cells` x `cells` cells of the trunk's map, `pixels` x `pixels` of its input.

    The first window begins `begin` pixels from the edge of the input (margins included), the next one `stride` pixels
    later. `step` is the stride of the paper's coarse reading in windows: the pooling after the trunk, 3 in the accurate
    network, whose fine stride is 12 pixels instead of 36.
    """

    cells: int
    pixels: int
    begin: float
    stride: int
    step: int

    def on_map(self, height: int, width: int) -> tuple[int, int]:
        """The rows and columns of windows on a map of `height` x `width` cells; 0 if none fits."""
        return max(0, height - self.cells + 1), max(0, width - self.cells + 1)

    def boxes(self, height: int, width: int, margin: float, step: int = 1) -> Boxes:
        """Every `step`-th window of a map of `height` x `width` cells, row by row: float32 [n, 4], in pixels of the
        scaled image, which lies `margin` pixels inside the input. Windows may reach over its edges."""
        rows, columns = self.on_map(height, width)
        y, x = np.mgrid[0:rows:step, 0:columns:step].reshape(2, -1) * self.stride + self.begin - margin
        return np.stack([x, y, x + self.pixels, y + self.pixels], axis=1).astype(np.float32)

    def places(self, height: int, width: int) -> NDArray[np.int64]:
        """The rows and columns of all windows, in the order of `boxes` with `step` 1: int64 [n, 2]."""
        rows, columns = self.on_map(height, width)
        return np.mgrid[0:rows, 0:columns].reshape(2, -1).T.astype(np.int64)


def windows_of(card: NetworkCard) -> Windows:
    """The windows of a network: those of its own input, or of a window head with layers of its own.

    Raises BadSetting for a network that cannot be read densely.
    """
    return windows_with(card.name, card.heads)


@lru_cache(maxsize=64)
def windows_with(name: str, heads: Heads) -> Windows:
    """The windows of the network `name` with these heads."""
    card = NETWORKS[name].with_heads(heads)
    trunk, head = card.trunk, card.heads.windows
    last = card.check_classifier()
    if head is not None and head.hidden:
        # centred where the cells are, and as large as all of them together
        return Windows(head.cells, head.cells * trunk.stride, trunk.offset - trunk.stride / 2, trunk.stride, head.pool)
    dimension = card.layers[trunk.layer].dimension
    assert dimension is not None
    cells = math.isqrt(dimension // trunk.channels)
    network = Network(card, empty_module(card, 2), 2, card.preprocessing)
    maps = torch.empty((1, trunk.channels, cells, cells), device="meta")
    with torch.inference_mode():
        outputs = dense_outputs(network, maps, [last], cells)
    return Windows(cells, card.input_size, 0.0, trunk.stride, outputs[last].dilation)


def check_dense(card: NetworkCard, layers: Sequence[str]) -> None:
    """Raises BadSetting unless `layers` can be computed for the windows of a network."""
    cells = windows_of(card).cells
    network = Network(card, empty_module(card, 2), 2, card.preprocessing)
    with torch.inference_mode():
        dense_outputs(network, torch.empty((1, card.trunk.channels, cells, cells), device="meta"), layers, cells)


def map_windows(maps: FeatureMaps, card: NetworkCard, border: int, fine: bool) -> tuple[Boxes, NDArray[np.int32]]:
    """The windows of all maps of an image, one map after another: float32 [n, 4], in pixels of the image, over whose
    edges they may reach; and the number of the map of each, int32 [n].

    `border` is the setting of the maps; without `fine`, only the windows of the coarse stride.
    """
    windows = windows_of(card)
    margin, step = card.trunk.margin[0] + border, 1 if fine else windows.step
    boxes = [
        (windows.boxes(cells.shape[0], cells.shape[1], margin, step) / np.float32(scale)).astype(np.float32)
        for cells, scale in zip(maps.maps, maps.scales, strict=True)
    ]
    levels = np.repeat(np.arange(len(boxes), dtype=np.int32), [len(level) for level in boxes])
    return np.concatenate(boxes), levels


def dense_outputs(network: Network, maps: torch.Tensor, layers: Sequence[str], cells: int) -> dict[str, Dense]:
    """The outputs of `layers` for all windows of `cells` x `cells` cells of the trunk's map [1, C, H, W] of one image,
    which has at least that many.

    Raises BadSetting for a layer that is not computed from the map, or not by operations that can be read densely.
    """
    card = network.card
    done: dict[str | None, Dense] = {card.trunk.layer: Dense(maps, cells)}
    for name in card.needed([layer for layer in layers if layer != card.trunk.layer], card.trunk.layer):
        done[name] = traced(network, name).through(done[card.layers[name].parent])
    return {name: done[name] for name in layers}


def traced(network: Network, layer: str) -> DenseStep:
    """The step that computes a layer, traced once."""
    steps: dict[str, DenseStep] = network.__dict__.setdefault("dense_steps", {})
    if layer not in steps:
        steps[layer] = DenseStep(network, layer)
    return steps[layer]


class DenseStep(fx.Interpreter):
    """Runs one step of a network on all windows at once."""

    def __init__(self, network: Network, layer: str) -> None:
        step = Step(network.module, network.steps[layer])
        super().__init__(fx.GraphModule(step, Leaves().trace(step)))
        self.extra_traceback = False  # an error's sentence stays one sentence
        self.name = f"layer '{layer}' of {network.card.name}"

    def through(self, before: Dense) -> Dense:
        """The outputs of the step for those of the layer before it."""
        made: Dense = self.run(before)
        return made

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation of the network."""
        operation, before = self.fetch_attr(target), args[0]
        if isinstance(operation, POINTWISE):
            return replace(before, values=operation(before.values))
        if isinstance(operation, nn.Flatten):
            return replace(before, flat=True)
        if isinstance(operation, nn.Linear):
            return linear(operation, before)
        if isinstance(operation, nn.Conv2d):
            return convolution(operation, before)
        if isinstance(operation, nn.MaxPool2d):
            return max_pooling(operation, before, self.name)
        if isinstance(operation, ADAPTIVE):
            return adaptive_pooling(operation, before, self.name)
        raise cannot(self.name, type(operation).__name__)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A function of PyTorch or an operator."""
        before = [value for value in args if isinstance(value, Dense)]
        pointwise = target in POINTWISE_FUNCTIONS or target in (operator.add, operator.mul)
        softmax = target is torch.softmax and kwargs == {"dim": 1}
        if not before or not (pointwise or softmax):
            raise cannot(self.name, getattr(target, "__name__", str(target)))
        values = [value.values if isinstance(value, Dense) else value for value in args]
        return replace(before[0], values=target(*values, **kwargs))

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A method of a tensor."""
        before = args[0]
        if target == "flatten" and args[1:] == (1,):
            return replace(before, flat=True)
        if target == "to":
            return replace(before, values=before.values.to(*args[1:], **kwargs))
        raise cannot(self.name, target)


def cannot(layer: str, operation: str) -> BadSetting:
    """The error for an operation that has no dense form."""
    return BadSetting(f"{layer} cannot be read densely ({operation}); choose another network or layer")


def linear(operation: nn.Linear, before: Dense) -> Dense:
    """A fully connected layer as a convolution over the units of each window."""
    channels = before.values.shape[1]
    kernel = operation.weight.view(operation.out_features, channels, before.side, before.side)
    values = nn.functional.conv2d(before.values, kernel, operation.bias, dilation=before.dilation)
    return Dense(values, 1, before.dilation, flat=True)


def convolution(operation: nn.Conv2d, before: Dense) -> Dense:
    """A convolution, at every position; what it pads lies outside the map."""
    (kernel, _), (stride, _), dilation = operation.kernel_size, operation.stride, before.dilation
    if isinstance(operation, SameConvolution):
        ahead, behind = operation.before, operation.after
    else:
        ahead = behind = int(operation.padding[0])
    edges = [ahead * dilation, behind * dilation] * 2
    padded = nn.functional.pad(before.values, edges) if any(edges) else before.values
    values = nn.functional.conv2d(
        padded,
        operation.weight,
        operation.bias,
        dilation=dilation * int(operation.dilation[0]),
        groups=operation.groups,
    )
    side = (before.side + ahead + behind - int(operation.dilation[0]) * (kernel - 1) - 1) // stride + 1
    return cut(values, before, side, stride)


def max_pooling(operation: nn.MaxPool2d, before: Dense, layer: str) -> Dense:
    """Max pooling, at every position."""
    kernel, stride, padding = (
        value[0] if isinstance(value, tuple) else value
        for value in (operation.kernel_size, operation.stride, operation.padding)
    )
    side, left = divmod(before.side - kernel, stride)
    if padding or (left and operation.ceil_mode):
        raise cannot(layer, "its pooling reaches over the edges of a window")
    values = nn.functional.max_pool2d(before.values, kernel, stride=1, dilation=before.dilation)
    return cut(values, before, side + 1, stride)


def adaptive_pooling(operation: nn.Module, before: Dense, layer: str) -> Dense:
    """Pooling to a fixed number of bins, where these are equally long and equally far apart."""
    size: Any = operation.output_size
    bins = int(size[0] if isinstance(size, tuple) else size)
    if bins == before.side:
        return before
    first = [place * before.side // bins for place in range(bins)]
    lengths = {-(-(place + 1) * before.side // bins) - start for place, start in enumerate(first)}
    strides = {later - start for start, later in itertools.pairwise(first)} or {1}
    if len(lengths) > 1 or len(strides) > 1:
        raise cannot(layer, f"it pools {before.side} cells to {bins}, which are not equally long or far apart")
    (kernel,), (stride,) = lengths, strides
    if isinstance(operation, nn.AdaptiveMaxPool2d):
        values = nn.functional.max_pool2d(before.values, kernel, stride=1, dilation=before.dilation)
    else:
        values = means(means(before.values, 2, kernel, before.dilation), 3, kernel, before.dilation)
    return cut(values, before, bins, stride)


def means(values: torch.Tensor, axis: int, kernel: int, dilation: int) -> torch.Tensor:
    """The means of `kernel` values along `axis`, `dilation` apart, at every position."""
    length = values.shape[axis] - (kernel - 1) * dilation
    total = values.narrow(axis, 0, length).clone()
    for place in range(1, kernel):
        total += values.narrow(axis, place * dilation, length)
    return total / kernel


def cut(values: torch.Tensor, before: Dense, side: int, stride: int) -> Dense:
    """The outputs of an operation, in as many places as the windows need, for `side` units a window, `stride` of those
    before apart."""
    dilation = before.dilation * stride
    rows, columns = before.windows
    further = (side - 1) * dilation
    return Dense(values[:, :, : rows + further, : columns + further], side, dilation, before.flat)
