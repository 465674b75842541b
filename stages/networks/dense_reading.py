"""A network read densely: every window of the trunk's map at once (OverFeat, arXiv 1312.6229v4, sections 3.3 and 3.5).

A window is a square of as many cells as the network's own input has on the map, at every cell of the map. Instead of
cutting windows out, each operation after the trunk runs once on the whole map: its stride becomes a dilation of all
that follows, and fully connected layers become convolutions. Pooling at stride 1 gives all offsets of the paper's fine
stride at once: the outputs equal those of the loop over offsets.

Where operations pad their input, a window sees its neighbours where a crop would see zeros.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stages.boxes import Boxes
from stages.contract.errors import BadSetting
from stages.networks.architectures import empty_module
from stages.networks.cards import NETWORKS, NetworkCard
from stages.networks.feature_maps import FeatureMaps
from stages.networks.heads import Heads
from stages.networks.network import Network


@dataclass(frozen=True)
class Dense:
    """The outputs of a layer for all windows of a map.

    `values` [1, C, H, W]: the window in row y and column x has the units (y + i x `dilation`, x + j x `dilation`), i
    and j from 0 to `side` - 1, so that H is the number of windows along y plus (`side` - 1) x `dilation`. `flat`: the
    layer is the vector of all these, in C, H, W order. `padded`: operations after the trunk padded their input, so that
    a window sees what lies beyond its edges. With a `context`, the channels of each window's context follow its own.

    The network's own modules compute it: where they call PyTorch's operations, those below take their place.
    """

    values: torch.Tensor
    side: int
    dilation: int = 1
    flat: bool = False
    padded: bool = False
    context: Context | None = None

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Dense:
        """One of PyTorch's operations on all windows. Raises NotDense for those that have no dense form."""
        operation = OPERATIONS.get(function)
        if operation is None or (args[0].context is not None and operation is not linear):
            raise NotDense(getattr(function, "__name__", str(function)))
        return operation(*args, **(kwargs or {}))

    def __add__(self, other: Dense) -> Dense:
        return replace(self, values=self.values + other.values, padded=self.padded or other.padded)

    def __mul__(self, factor: float) -> Dense:
        context = None if self.context is None else replace(self.context, windows=self.context.windows * factor)
        return replace(self, values=self.values * factor, context=context)

    def dim(self) -> int:
        """The number of dimensions of the layer for N windows: [N, C, H, W] or [N, D]."""
        return 2 if self.flat else 4

    def flatten(self, start: int = 0, end: int = -1) -> Dense:
        """The windows as vectors; `start` must be 1, and `end` -1."""
        return replace(self, flat=True)

    def to(self, dtype: torch.dtype) -> Dense:
        """The outputs in another type."""
        return replace(self, values=self.values.to(dtype))

    @property
    def windows(self) -> tuple[int, int]:
        """The numbers of rows and columns of windows."""
        return (
            self.values.shape[2] - (self.side - 1) * self.dilation,
            self.values.shape[3] - (self.side - 1) * self.dilation,
        )

    def of(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The units [n, C, side, side] of the windows in `rows` int64 [n] and `columns` int64 [n]; C counts the
        channels of the context, too. Gradients reach the values."""
        units = torch.arange(self.side, device=self.values.device) * self.dilation
        y = rows[:, None] + units
        x = columns[:, None] + units
        own = self.values[0][:, y[:, :, None], x[:, None, :]].transpose(0, 1)
        if self.context is None:
            return own
        below = self.context.windows.of(self.context.rows[rows], self.context.columns[columns])
        return torch.cat([own, below], dim=1)

    def every(self, step: int = 1) -> torch.Tensor:
        """The flattened outputs of every `step`-th window in both directions, row by row: [n, D]."""
        height, width = self.windows
        if self.side == 1 and self.context is None:
            return self.values[0, :, 0:height:step, 0:width:step].flatten(1).T
        y, x = torch.meshgrid(torch.arange(0, height, step), torch.arange(0, width, step), indexing="ij")
        return self.of(y.flatten().to(self.values.device), x.flatten().to(self.values.device)).flatten(1)


@dataclass(frozen=True)
class Context:
    """The context of all windows of a map (OverFeat section 5): the `windows` of the same image at a lower scale, of
    which that in row `rows` [y] and column `columns` [x] is centred nearest to the window in row y and column x; int64
    [H] and [W]."""

    windows: Dense
    rows: torch.Tensor
    columns: torch.Tensor


@dataclass(frozen=True)
class LowerScale:
    """Where the context of a map's windows comes from: the trunk's map [1, C, H', W'] of the same image at a lower
    scale, and `rows`, `columns` as in `Context`."""

    maps: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor


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

    def nearest(
        self, scales: tuple[float, float], cells: tuple[int, int], below: tuple[int, int], margin: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The windows of a lower scale that are centred nearest to those of a map: their rows and columns, int64 [H]
        and [W] for H x W windows.

        `scales` are the map's and the lower one, `cells` and `below` the heights and widths of the two maps; `margin`
        as in `boxes`. Halfway between two windows, it is the later one.
        """
        scale, lower = scales
        first = self.begin - margin + self.pixels / 2
        places = []
        for own, others in zip(self.on_map(*cells), self.on_map(*below), strict=True):
            centres = (np.arange(own) * self.stride + first) / scale
            nearest = np.floor((centres * lower - first) / self.stride + 0.5).astype(np.int64)
            places.append(torch.from_numpy(nearest.clip(0, others - 1)))
        return places[0], places[1]

    def lower_scale(
        self, maps: Sequence[torch.Tensor], scales: Sequence[float], level: int, margin: float
    ) -> LowerScale:
        """Where the context of the windows of map `level` comes from, of an image's `maps` [1, C, H, W] at `scales`:
        the next lower scale at which a window fits; for the lowest it is the map itself."""
        with_windows = [number for number, cells in enumerate(maps) if min(self.on_map(*cells.shape[2:]))]
        below = next_lower(scales, level, with_windows)
        (height, width), (height_below, width_below) = maps[level].shape[2:], maps[below].shape[2:]
        rows, columns = self.nearest(
            (scales[level], scales[below]), (height, width), (height_below, width_below), margin
        )
        device = maps[below].device
        return LowerScale(maps[below], rows.to(device), columns.to(device))


def next_lower(scales: Sequence[float], level: int, among: Sequence[int]) -> int:
    """The number of the next lower of `scales` than that of `level`, `among` some of them; `level` if there is none."""
    lower = [number for number in among if scales[number] < scales[level]]
    return max(lower, key=lambda number: scales[number]) if lower else level


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
    return Windows(cells, card.input_size, 0.0, trunk.stride, single_window(card, [last], cells)[last].dilation)


def single_window(card: NetworkCard, layers: Sequence[str], cells: int) -> dict[str, Dense]:
    """`dense_outputs` of a map with a single window, without numbers."""
    maps = torch.empty((1, card.trunk.channels, cells, cells), device="meta")
    first = torch.zeros(1, dtype=torch.int64, device="meta")
    with torch.inference_mode():
        return dense_outputs(without_weights(card), maps, layers, cells, LowerScale(maps, first, first))


def without_weights(card: NetworkCard) -> Network:
    """A network that computes sizes only."""
    return Network(card, empty_module(card, 2), 2, card.preprocessing)


def check_dense(card: NetworkCard, layers: Sequence[str]) -> None:
    """Raises BadSetting unless `layers` can be computed for the windows of a network."""
    single_window(card, layers, windows_of(card).cells)


def pads(card: NetworkCard, layer: str) -> bool:
    """Whether an operation between the trunk and a layer pads its input, so that a window read densely sees what lies
    beyond its edges, where one that is cut out of the map sees zeros. Raises as `check_dense`."""
    return single_window(card, [layer], windows_of(card).cells)[layer].padded


def check_windows(card: NetworkCard, sides: Sequence[int], border: int, remedy: str = "leave it out") -> None:
    """Raises BadSetting if an image whose shorter side has the least of `sides` pixels, and this `border`, has no
    window; `remedy` says what to do."""
    windows, side = windows_of(card), min(sides)
    length = max(side + 2 * border + sum(card.trunk.margin), card.trunk.least_side)
    with torch.inference_mode():
        maps = without_weights(card).maps(torch.empty((1, 3, length, length), device="meta"))
    if maps.shape[2] < windows.cells:
        raise BadSetting(
            f"sides = {list(sides)}: an image with a shorter side of {side} pixels has no window, which is "
            f"{windows.pixels} pixels wide; {remedy}, or raise border = {border}"
        )


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


def dense_outputs(
    network: Network, maps: torch.Tensor, layers: Sequence[str], cells: int, lower: LowerScale | None = None
) -> dict[str, Dense]:
    """The outputs of `layers` for all windows of `cells` x `cells` cells of the trunk's map [1, C, H, W] of one image,
    which has at least that many. A network that takes context needs a `lower` scale; others do not look at it.

    Raises BadSetting for a layer that is not computed from the map, or not by operations that can be read densely.
    """
    card = network.card
    assert lower is not None or not card.takes_context
    done: dict[str | None, Any] = {card.trunk.layer: Dense(maps, cells)}
    for name in card.needed([layer for layer in layers if layer != card.trunk.layer], card.trunk.layer):
        try:
            done[name] = network.steps[name](done[card.layers[name].parent])
        except NotDense as operation:
            raise BadSetting(
                f"layer '{name}' of {card.name} cannot be read densely ({operation}); choose another network or layer"
            ) from None
        if name == card.head.start and lower is not None and card.takes_context:
            step: Callable[..., Any] = network.steps[name]
            below = step(Dense(lower.maps, cells))
            done[name] = replace(done[name], context=Context(below, lower.rows, lower.columns))
    return {name: done[name] for name in layers}


class NotDense(Exception):
    """An operation that has no dense form, in words."""


def pointwise(function: Callable[..., torch.Tensor]) -> Callable[..., Dense]:
    """An operation that changes every value by itself."""

    def changed(before: Dense, *args: Any, **kwargs: Any) -> Dense:
        return replace(before, values=function(before.values, *args, **kwargs))

    return changed


def linear(before: Dense, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Dense:
    """A fully connected layer as a convolution over the units of each window, and over those of its context."""
    kernel = weight.view(len(weight), -1, before.side, before.side)
    context = before.context
    channels = kernel.shape[1] if context is None else before.values.shape[1]
    values = nn.functional.conv2d(before.values, kernel[:, :channels], bias, dilation=before.dilation)
    if context is not None:
        of_context = kernel[:, channels:].flatten(1)
        below = linear(context.windows, of_context).values
        values = values + below[:, :, context.rows[:, None], context.columns[None, :]]
    return replace(before, values=values, side=1, flat=True, context=None)


def padding(before: Dense, edges: Sequence[int], mode: str = "constant", value: float | None = None) -> Dense:
    """Zeros around every window, the same at the beginning and end of rows and columns, but only those outside the map:
    elsewhere a window sees what lies there."""
    if mode != "constant" or value or tuple(edges[:2]) != tuple(edges[2:]):
        raise NotDense(f"padding '{mode}' of {tuple(edges)}")
    left, right, above, below = (before.dilation * edge for edge in edges)
    values = nn.functional.pad(before.values, (left, right, above, below))
    return replace(before, values=values, side=before.side + edges[0] + edges[1], padded=True)


def convolution(
    before: Dense,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding_size: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Dense:
    """A convolution, at every position."""
    edge, step, own = (one_number(value) for value in (padding_size, stride, dilation))
    padded = padding(before, [edge] * 4) if edge else before
    values = nn.functional.conv2d(padded.values, weight, bias, dilation=before.dilation * own, groups=groups)
    side = (padded.side - own * (weight.shape[2] - 1) - 1) // step + 1
    return cut(values, padded, side, step)


def max_pooling(
    before: Dense,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Dense:
    """Max pooling, at every position."""
    size = one_number(kernel)
    step = one_number(stride) if stride is not None else size
    side, left = divmod(before.side - size, step)
    if one_number(padding) or one_number(dilation) != 1 or (left and ceil_mode):
        raise NotDense("its pooling reaches over the edges of a window")
    values = nn.functional.max_pool2d(before.values, size, stride=1, dilation=before.dilation)
    return cut(values, before, side + 1, step)


def average_pooling(before: Dense, output_size: Any) -> Dense:
    """Averages over a fixed number of bins, where these are equally long and equally far apart."""
    bins = one_number(output_size)
    if bins == before.side:
        return before
    size, step = equal_bins(before.side, bins)
    values = means(means(before.values, 2, size, before.dilation), 3, size, before.dilation)
    return cut(values, before, bins, step)


def adaptive_max_pooling(before: Dense, output_size: Any, return_indices: bool = False) -> Dense:
    """As `average_pooling`, with the largest value of each bin."""
    bins = one_number(output_size)
    if bins == before.side:
        return before
    size, step = equal_bins(before.side, bins)
    values = nn.functional.max_pool2d(before.values, size, stride=1, dilation=before.dilation)
    return cut(values, before, bins, step)


def one_number(value: Any) -> int:
    """The number that is given for both axes, or twice. Raises NotDense if the axes differ."""
    numbers = set(value) if isinstance(value, (tuple, list)) else {value}
    if len(numbers) > 1:
        raise NotDense(f"{tuple(value)} differs between the axes")
    return int(numbers.pop())


def equal_bins(side: int, bins: int) -> tuple[int, int]:
    """The length and distance of the bins of adaptive pooling. Raises NotDense if these are not all the same."""
    first = [place * side // bins for place in range(bins)]
    lengths = {-(-(place + 1) * side // bins) - start for place, start in enumerate(first)}
    steps = {later - start for start, later in itertools.pairwise(first)} or {1}
    if len(lengths) > 1 or len(steps) > 1:
        raise NotDense(f"it pools {side} cells to {bins}, which are not equally long or far apart")
    return lengths.pop(), steps.pop()


def means(values: torch.Tensor, axis: int, size: int, dilation: int) -> torch.Tensor:
    """The means of `size` values along `axis`, `dilation` apart, at every position."""
    length = values.shape[axis] - (size - 1) * dilation
    total = values.narrow(axis, 0, length)
    for place in range(1, size):
        total = total + values.narrow(axis, place * dilation, length)
    return total / size


def cut(values: torch.Tensor, before: Dense, side: int, stride: int) -> Dense:
    """The outputs of an operation, in as many places as the windows need, for `side` units a window, `stride` of those
    before apart."""
    dilation = before.dilation * stride
    rows, columns = before.windows
    further = (side - 1) * dilation
    return replace(before, values=values[:, :, : rows + further, : columns + further], side=side, dilation=dilation)


OPERATIONS: Mapping[Callable[..., Any], Callable[..., Dense]] = {
    **{
        function: pointwise(function)
        for function in (
            torch.relu,
            torch.softmax,
            nn.functional.relu,
            nn.functional.relu6,
            nn.functional.hardtanh,
            nn.functional.dropout,
            nn.functional.batch_norm,
        )
    },
    nn.functional.pad: padding,
    nn.functional.linear: linear,
    nn.functional.conv2d: convolution,
    nn.functional.max_pool2d: max_pooling,
    nn.functional.adaptive_avg_pool2d: average_pooling,
    nn.functional.adaptive_max_pool2d: adaptive_max_pooling,
}
"""The dense form of PyTorch's operations."""
