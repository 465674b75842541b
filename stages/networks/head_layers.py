"""The layers of a detector's heads: the region proposal network, and class scores and deltas of regions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn

from stages.networks.cards import CLASS_SCORES, DELTAS, EDGES
from stages.networks.heads import ProposalHead, RegionHead, WindowHead

Step = Callable[[torch.Tensor], torch.Tensor]

PROPOSALS, REGIONS, WINDOWS = "rpn", "regions", "windows"
"""The submodules of a network that are its heads."""


class RegionProposalNetwork(nn.Module):
    """A 3 x 3 convolution with a ReLU, and two 1 x 1 convolutions beside each other (Faster R-CNN section 3.1).

    Tensors are laid out as in the release (models/pascal_voc): `cls_score` has 2A outputs, the background of all A
    anchors first, `bbox_pred` 4A, anchor by anchor.
    """

    def __init__(self, head: ProposalHead, channels: int) -> None:
        super().__init__()
        self.scale = head.cells_scale
        self.conv = nn.Conv2d(channels, head.hidden, 3, padding=1)
        self.cls_score = nn.Conv2d(head.hidden, 2 * head.anchors, 1)
        self.bbox_pred = nn.Conv2d(head.hidden, 4 * head.anchors, 1)

    def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From the trunk's map [1, C, H, W]: (class scores [n, 2], background first; deltas [n, 4]) of its n = HWA
        anchors, row by row, the anchors of a cell together (`stages.anchors.map_anchors`)."""
        hidden = torch.relu(self.conv(maps * self.scale if self.scale != 1 else maps))
        scores = self.cls_score(hidden)[0].unflatten(0, (2, -1)).permute(2, 3, 1, 0).reshape(-1, 2)
        deltas = self.bbox_pred(hidden)[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        return scores, deltas

    def reset(self, std: float) -> None:
        """Draws all weights from N(0, `std`) with PyTorch's global generator; biases become 0 (section 3.1.3)."""
        for layer in (self.conv, self.cls_score, self.bbox_pred):
            nn.init.normal_(layer.weight, 0.0, std)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class FullyConnected(nn.Module):
    """New fully connected layers fc6, fc7, ... of the sizes `hidden` on `size` values times `scale`, each after its
    ReLU, with dropout between them, and the class scores after the last; none if there are no `hidden` layers."""

    def __init__(self, size: int, hidden: tuple[int, ...], scale: float, classes: int) -> None:
        super().__init__()
        self.scale = scale
        self.hidden = nn.ModuleDict()
        for number, length in enumerate(hidden, start=6):
            self.hidden[f"fc{number}"] = nn.Linear(size, length)
            size = length
        self.dropout = nn.Dropout(0.0)
        if hidden:
            self.cls_score = nn.Linear(size, classes)

    def steps(self) -> Mapping[str, Step]:
        """The layers from the pooled region or window on, by name, up to the class scores."""
        names = list(self.hidden)
        steps: OrderedDict[str, Step] = OrderedDict()
        for name in names:
            steps[name] = self.first if name == names[0] else self.later(name)
        return {**steps, CLASS_SCORES: self.scores}

    def first(self, cells: torch.Tensor) -> torch.Tensor:
        """fc6 after its ReLU from pooled cells [N, C, side, side]."""
        return torch.relu(self.hidden["fc6"](cells.flatten(1) * self.scale))

    def later(self, name: str) -> Step:
        """A further fully connected layer, after its ReLU."""
        layer = self.hidden[name]
        return lambda values: torch.relu(layer(self.dropout(values)))

    def scores(self, values: torch.Tensor) -> torch.Tensor:
        """Class scores [N, classes] from the last hidden layer [N, D]."""
        return self.cls_score(self.dropout(values))


class RegionLayers(FullyConnected):
    """The layers that a region head adds to a network (see `RegionHead`).

    `inputs` is the length of the layer that the deltas are computed from.
    """

    def __init__(self, head: RegionHead, channels: int, inputs: int, classes: int) -> None:
        super().__init__(channels * head.side**2, head.hidden, head.scale, classes)
        self.bbox_pred = nn.Linear(inputs, 4 * (classes - 1))

    def steps(self) -> Mapping[str, Step]:
        """The layers from the pooled region on, by name."""
        return {**super().steps(), DELTAS: self.deltas}

    def deltas(self, values: torch.Tensor) -> torch.Tensor:
        """Four deltas for each class but the last, the background, from the last hidden layer [N, D, ...]: float32
        [N, 4 (classes - 1)]."""
        return self.bbox_pred(self.dropout(values.flatten(1))).to(torch.float32)


class WindowLayers(FullyConnected):
    """The layers that a window head adds to a network (see `WindowHead`): OverFeat's regressor (section 4.2, Figure 8),
    and a classifier if it has `hidden` layers.

    A pooled window has `channels` x `side` x `side` cells, at each of the head's scales.
    """

    def __init__(self, head: WindowHead, channels: int, side: int, classes: int) -> None:
        size = head.scales * channels * side**2
        super().__init__(size, head.hidden, head.scale, classes)
        self.boxes = nn.ModuleList()
        for length in head.box_hidden:
            self.boxes.append(nn.Linear(size, length))
            size = length
        self.box_pred = nn.Linear(size, 4 * (classes - 1) if head.per_class else 4)

    def steps(self) -> Mapping[str, Step]:
        """The layers from the pooled window on, by name."""
        return {**super().steps(), EDGES: self.edges}

    def edges(self, cells: torch.Tensor) -> torch.Tensor:
        """The edges from pooled windows [N, C, side, side], C counting all scales: float32 [N, 4] or
        [N, 4 (classes - 1)]."""
        values = cells.flatten(1) * self.scale
        for layer in self.boxes:
            values = torch.relu(layer(values))
        return self.box_pred(values).to(torch.float32)
